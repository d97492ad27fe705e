"""The model of a step's time: it counts what there is, and what is known comes out of it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engine.arithmetic import count_parameters, flops_per_token
from engine.config import Config
from engine.config.sections import ModelConfig, OptimizerConfig
from engine.footprint import multiplied_parameters
from engine.hardware import find_card
from engine.model import GPT
from engine.optim import Optimizer
from engine.step_time import NAMES, find_pace, matrices, orthogonal_flops, step_seconds, work
from tests.engine.model.shapes import draw_config

BASE = Config().with_values({"train.max_steps": 10})
VOCAB = 1000


def seconds(config: Config, compiled: bool = False, precision: str = "bfloat16") -> float:
    counted = work(config, VOCAB, precision, "cpu")
    return sum(step_seconds(counted, find_pace("cpu", compiled, precision), 9e11, 4e10).values())


def test_every_matrix_is_counted_whatever_the_network() -> None:
    """Held and used, over the whole family: a forgotten one would make the plan too fast."""
    for seed in range(60):
        model = draw_config(seed)
        found = matrices(model, VOCAB)
        held = sum(matrix.held * matrix.numbers for matrix in found)
        assert held == multiplied_parameters(model, VOCAB), model
        config = Config(model=model, train=BASE.train)
        tokens = config.train.batch_size * model.context_length
        if not model.window:
            counted = work(config, VOCAB, "float32", "cpu")
            total = counted.products + counted.written + counted.fused
            assert total == pytest.approx(tokens * flops_per_token(model, VOCAB))


@pytest.mark.parametrize("lower", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_the_products_of_muon_are_those_that_it_makes(lower: torch.dtype, mlp: str) -> None:
    shape = ModelConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, context_length=8, mlp=mlp)
    precision = str(lower).removeprefix("torch.")
    optimizer = Optimizer(GPT(shape, 30), shape, OptimizerConfig(name="muon"), precision)
    with FlopCounterMode(display=False) as counted:
        optimizer.step()
    expected = orthogonal_flops(shape, 30, by_gram=lower is torch.float32)
    assert counted.get_total_flops() == expected


def test_more_work_takes_longer() -> None:
    base = seconds(BASE)
    for key, value in {
        "model.n_layer": 12,
        "model.n_embd": 768,
        "model.context_length": 512,
        "train.batch_size": 64,
        "train.accumulate": 2,
        "model.mlp": "swiglu",
        "model.position": "rope",
    }.items():
        change = {key: value, "model.n_hidden": 4 * BASE.model.n_embd}
        assert seconds(BASE.with_values(change)) > base, key


def test_small_matrices_reach_less_of_the_peak() -> None:
    """The whole point of a model: the same share for all sizes was wrong by four times."""

    def share(width: int) -> float:
        config = BASE.with_values({"model.n_embd": width, "model.n_head": width // 64})
        tokens = config.train.batch_size * config.model.context_length
        return tokens * flops_per_token(config.model, VOCAB) / 9e11 / seconds(config)

    assert share(64) < share(256) < share(1024) < 1.0


def test_a_compiled_step_is_never_slower_and_float32_never_faster() -> None:
    assert seconds(BASE, compiled=True) < seconds(BASE)
    counted = work(BASE, VOCAB, "float32", "cpu")
    plain = step_seconds(counted, find_pace("cpu", False, "float32"), 2e11, 4e10)
    assert sum(plain.values()) > seconds(BASE)
    assert set(plain) == set(NAMES)


def test_an_older_processor_is_planned_by_what_was_measured_on_one() -> None:
    """One without bfloat16: what was not measured there, and other devices, take the newer's."""
    newer = find_pace("cpu", False, "float32")
    older = find_pace("cpu", False, "float32", has_bfloat16=False)
    assert older.layers > newer.layers and older.bends > newer.bends
    assert find_pace("mps", False, "float32", has_bfloat16=False) == newer
    roomy = find_pace("cpu", False, "float32", has_bfloat16=False, last_cache=32 << 20)
    assert roomy.product_bytes < older.product_bytes
    assert find_pace("cpu", False, "float32", has_bfloat16=False, last_cache=8 << 20) == older
    assert find_pace("cpu", False, "float32", last_cache=32 << 20) == newer
    unmeasured = find_pace("cpu", True, "bfloat16", has_bfloat16=False)
    assert unmeasured == find_pace("cpu", True, "bfloat16")


NANOGPT = {
    "model.n_layer": 12,
    "model.n_head": 12,
    "model.n_embd": 768,
    "model.context_length": 1024,
    "model.bias": False,
    "train.batch_size": 12,
    "train.accumulate": 40,
}
LLAMA_8B = {
    "model.n_layer": 32,
    "model.n_head": 32,
    "model.n_kv_head": 8,
    "model.n_embd": 4096,
    "model.n_hidden": 14336,
    "model.context_length": 8192,
    "model.norm": "rmsnorm",
    "model.position": "rope",
    "model.mlp": "swiglu",
    "model.bias": False,
    "model.tie_embeddings": False,
    "train.batch_size": 1,
}


@pytest.mark.parametrize(
    ("values", "vocab_size", "compiled", "published"),
    [
        (NANOGPT, 50_304, True, 380_000),  # nanoGPT's own log, one of its GPUs
        (LLAMA_8B, 128_256, True, 6667),  # torchtitan's report, on H100s
        (LLAMA_8B, 128_256, False, 5762),
    ],
)
def test_published_rates_of_an_h100_come_out_within_a_third(
    values: dict, vocab_size: int, compiled: bool, published: float
) -> None:
    """Nobody measured a GPU here; this is all that its constants rest on."""
    config = BASE.with_values(values)
    card = find_card("h100")
    counted = work(config, vocab_size, "bfloat16", "cuda")
    pace = find_pace("cuda", compiled, "bfloat16")
    step = sum(step_seconds(counted, pace, card.peak("bfloat16"), card.bandwidth).values())
    train = config.train
    tokens = train.batch_size * train.accumulate * config.model.context_length
    assert tokens / step == pytest.approx(published, rel=1 / 3)


def test_the_shape_of_llama_is_what_it_is() -> None:
    """Else the comparison above would compare something else."""
    config = BASE.with_values(LLAMA_8B)
    assert count_parameters(config.model, 128_256) == pytest.approx(8.03e9, rel=0.001)
