"""The memory formulas against what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.arithmetic import count_parameters
from engine.config import Config
from engine.config.sections import ModelConfig, OptimizerConfig, SaveConfig, TrainConfig
from engine.device import autocast
from engine.footprint import (
    activation_bytes,
    cache_bytes,
    checkpoint_bytes,
    disk_bytes,
    moment_bytes,
    multiplied_parameters,
    training_memory,
)
from engine.model import GPT
from engine.model.cache import KVCache
from engine.optim import Optimizer
from tests.engine.model.shapes import draw_config

CPU = torch.device("cpu")
VOCAB = 64


def small(**values: object) -> Config:
    shape = {"n_layer": 3, "n_head": 4, "n_embd": 64, "context_length": 48}
    return Config(model=ModelConfig(**shape | values), train=TrainConfig(batch_size=6, max_steps=1))


def kept_by_autograd(config: Config, precision: str) -> int:
    """Bytes of all tensors saved for the backward pass up to the logits, parameters left out."""
    torch.set_num_threads(1)
    model = GPT(config.model, VOCAB)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in own:
            kept[pointer] = tensor
        return tensor

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCAB, (6, config.model.context_length), generator=generator)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, autocast(CPU, precision):
        model(tokens)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("attention", ["auto", "sdpa", "reference"])
def test_activations_are_what_autograd_keeps(
    attention: str, dropout: float, precision: str
) -> None:
    """Within 3 %: norms' statistics and the token ids are left out of the formula."""
    config = small(attention=attention, dropout=dropout)
    measured = kept_by_autograd(config, precision)
    if precision == "bfloat16":
        measured -= 2 * multiplied_parameters(config.model, VOCAB)  # counted with the weights
    assert activation_bytes(config, precision, "cpu") == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("dropout", "tolerance"), [(0.0, 0.03), (0.1, 0.1)])
def test_every_option_is_counted(dropout: float, tolerance: float, precision: str) -> None:
    """Forty networks of the whole family, at widths and contexts where no part is negligible.

    A single head that is written out is left out: its tensors need no copies, which the formula
    does not follow. The soft-cap belongs to the logits.
    """
    tried = 0
    for seed in range(60):
        attention = ("auto", "sdpa", "reference")[seed % 3]
        fixed = {"n_embd": 192, "logit_softcap": 0.0, "dropout": dropout}
        model = draw_config(seed, **fixed, attention=attention)
        if model.n_head == 1 and attention != "sdpa":
            continue
        tried += 1
        config = Config(model=model, train=TrainConfig(batch_size=6, max_steps=1))
        measured = kept_by_autograd(config, precision)
        if precision == "bfloat16":
            measured -= 2 * multiplied_parameters(model, VOCAB)
        said = activation_bytes(config, precision, "cpu")
        # How many zeros lie below the rows of an expert depends on who is chosen, and that on how
        # the processor rounds.
        spread = 0.06 * bool(model.n_expert)
        assert said == pytest.approx(measured, rel=tolerance + spread), (seed, model)
    assert tried >= 40


def test_the_caches_memory_is_the_caches() -> None:
    """Grouped heads once, windows and their sinks alone, whatever the shape."""
    for seed in range(40):
        model = draw_config(seed)
        cache = KVCache(model, 1, model.context_length, device=CPU)
        assert cache_bytes(model, 4) == cache.bytes, model


def test_all_experts_are_held_and_copied() -> None:
    """Idle ones too: weights, gradients and moments do not know who is busy."""
    dense = small(mlp="swiglu", bias=False)
    mixed = small(mlp="swiglu", bias=False, n_expert=8, n_expert_active=1)
    a, b = (training_memory(config, VOCAB, "bfloat16", "cuda") for config in (dense, mixed))
    more = 7 * 3 * (3 * 64 * dense.model.hidden_width) + 3 * 64 * 8
    assert b.optimizer - a.optimizer == 8 * more
    assert b.weights - a.weights == 6 * more


def test_parts_add_up_and_follow_the_shape() -> None:
    config = small()
    memory = training_memory(config, VOCAB, "float32", "cpu")
    assert memory.total == sum(size for _, size in memory.parts())
    assert memory.gradients == memory.weights == memory.optimizer // 2
    doubled = replace(config, train=replace(config.train, batch_size=12))
    twice = training_memory(doubled, VOCAB, "float32", "cpu").activations
    assert twice == pytest.approx(2 * memory.activations, abs=1)  # shares, rounded to bytes
    assert training_memory(config, VOCAB, "float32", "cuda").host_saving == memory.host_saving
    assert "snapshot" not in dict(training_memory(config, VOCAB, "float32", "cuda").parts())


def test_muon_has_one_moment_of_the_matrices() -> None:
    """What the real optimiser holds, to the byte but for the gaps between parameters."""
    for shape in (small(), small(n_expert=4, mlp="swiglu")):
        for name in ("adamw", "muon"):
            config = replace(shape, optimizer=OptimizerConfig(name=name))
            optimizer = Optimizer(GPT(config.model, VOCAB), config.model, config.optimizer)
            held = sum(tensor.nbytes for tensor in optimizer.moments().values() if tensor.dim())
            assert moment_bytes(config, VOCAB) == held, name


def test_disk_follows_the_save_policy() -> None:
    """Rolling needs two for a moment: the old one goes only when the new one is durable."""
    config = small()
    one = checkpoint_bytes(config, VOCAB)
    assert one == 12 * count_parameters(config.model, VOCAB)

    def disk(policy: str, every: int, steps: int | None) -> int | None:
        saving = replace(config, save=SaveConfig(policy=policy, every=every))
        return disk_bytes(saving, VOCAB, steps)

    assert disk("none", 100, 1000) == 0
    assert disk("rolling", 100, None) == 2 * one
    assert disk("all", 100, 1000) == 12 * one
    assert disk("all", 0, 1000) == 3 * one
    assert disk("all", 100, None) is None
