"""Counts from the shape alone, against the golden values and against the real module."""

from __future__ import annotations

import random

import pytest

from engine.arithmetic import (
    active_parameters,
    count_parameters,
    flops_per_token,
    parameter_table,
)
from engine.config import load_preset
from engine.config.sections import ModelConfig
from engine.lab import Lab, builtin_dir

GPT2_VOCAB = 50257


def preset(name: str) -> ModelConfig:
    return load_preset(Lab(builtin_dir("configs").parent), name).model


@pytest.mark.parametrize(
    ("name", "tied", "millions"),
    [
        ("nano", False, 30.5),
        ("nano", True, 17.7),
        ("small", False, 76.9),
        ("small", True, 51.2),
        ("medium", False, 163.0),
        ("medium", True, 124.4),
    ],
)
def test_presets_have_the_golden_number_of_parameters(
    name: str, tied: bool, millions: float
) -> None:
    from dataclasses import replace

    model = replace(preset(name), tie_embeddings=tied)
    assert round(count_parameters(model, GPT2_VOCAB) / 1e6, 1) == millions


def test_which_presets_are_tied() -> None:
    assert not preset("nano").tie_embeddings
    assert not preset("small").tie_embeddings
    assert preset("medium").tie_embeddings


def test_character_presets() -> None:
    """About 10.8 M and 0.8 M with the 65 characters of tiny Shakespeare."""
    assert count_parameters(preset("char"), 65) / 1e6 == pytest.approx(10.8, abs=0.06)
    assert count_parameters(preset("char-cpu"), 65) / 1e6 == pytest.approx(0.8, abs=0.02)


def test_medium_is_gpt2_small_to_the_last_parameter() -> None:
    assert count_parameters(preset("medium"), GPT2_VOCAB) == 124_439_808


@pytest.mark.parametrize("name", ["micro", "nano", "small", "medium"])
def test_modern_presets_have_their_namesakes_size(name: str) -> None:
    """Else a comparison of the two would be one of sizes; text, batch and context are equal too."""
    lab = Lab(builtin_dir("configs").parent)
    classic, modern = load_preset(lab, name), load_preset(lab, f"modern-{name}")
    vocab_size = 1024 if name == "micro" else GPT2_VOCAB
    assert count_parameters(modern.model, vocab_size) == pytest.approx(
        count_parameters(classic.model, vocab_size), rel=0.02
    )
    assert modern.data == classic.data
    for field in ("n_layer", "n_embd", "context_length", "dropout", "tie_embeddings"):
        assert getattr(modern.model, field) == getattr(classic.model, field)
    for field in ("batch_size", "accumulate"):
        assert getattr(modern.train, field) == getattr(classic.train, field)
    model = modern.model
    parts = (model.norm, model.position, model.mlp, model.qk_norm, model.bias)
    assert parts == ("rmsnorm", "rope", "swiglu", True, False)
    assert 0 < model.n_kv_head < model.n_head


@pytest.mark.parametrize(
    ("name", "millions"), [("modern-253m", 253.1), ("lm-12gb", 123.6), ("llama-1b", 1076.1)]
)
def test_larger_presets_have_their_published_size(name: str, millions: float) -> None:
    assert round(count_parameters(preset(name), GPT2_VOCAB) / 1e6, 1) == millions


def test_llama_1b_is_the_published_network_but_for_its_vocabulary() -> None:
    """1 235 814 400 parameters, as `transformers` counts Llama 3.2 1B."""
    assert count_parameters(preset("llama-1b"), 128_256) == 1_235_814_400


def test_the_mixture_does_the_dense_networks_work() -> None:
    """Equal active parameters but for the router, or the two could not be compared."""
    dense, mixture = preset("modern-nano"), preset("moe-nano")
    active = active_parameters(mixture, GPT2_VOCAB)
    router = mixture.n_layer * mixture.n_embd * mixture.n_expert
    assert active == count_parameters(dense, GPT2_VOCAB) + router
    assert count_parameters(mixture, GPT2_VOCAB) > 1.3 * active


@pytest.mark.parametrize(
    ("name", "flops"), [("nano", 1.10e8), ("small", 3.31e8), ("medium", 8.54e8)]
)
def test_golden_flops_per_token(name: str, flops: float) -> None:
    assert flops_per_token(preset(name), GPT2_VOCAB) == pytest.approx(flops, rel=0.005)


def test_table_equals_the_real_network() -> None:
    """Names, shapes and count, for many random configurations."""
    import torch

    from engine.model import GPT

    torch.set_num_threads(1)
    draw = random.Random(0)
    for _ in range(25):
        n_head = draw.randint(1, 4)
        config = ModelConfig(
            n_layer=draw.randint(1, 4),
            n_head=n_head,
            n_embd=n_head * draw.randint(1, 12),
            context_length=draw.randint(1, 30),
            bias=draw.random() < 0.5,
            tie_embeddings=draw.random() < 0.5,
        )
        vocab_size = draw.randint(2, 90)
        network = GPT(config, vocab_size)
        table = parameter_table(config, vocab_size)
        assert [(name, tuple(p.shape)) for name, p in network.named_parameters()] == [
            (name, shape) for name, shape, _ in table
        ]
        assert count_parameters(config, vocab_size) == sum(p.numel() for p in network.parameters())
