"""Weights fetched ahead: the lines are in the code, where they belong, and change no number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from engine import machine
from engine.config.sections import ModelConfig
from engine.generation import fetching
from engine.model import GPT

SHAPE = ModelConfig(n_layer=2, n_head=4, n_embd=64, context_length=24)


def products(
    weight_OI: torch.Tensor, bias_O: torch.Tensor, rows: list[torch.Tensor]
) -> torch.Tensor:
    return torch.stack([(weight_OI * x_I).sum(-1) for x_I in rows]) + bias_O


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_matrix_is_fetched_ahead_once_and_nothing_else_is(dtype: torch.dtype) -> None:
    """Were Inductor made otherwise one day, steps would silently be as slow as without."""
    from torch._inductor.utils import run_and_get_cpp_code

    torch.manual_seed(0)
    weight, bias = torch.randn(48, 96, dtype=dtype), torch.randn(48, dtype=dtype)
    rows = [torch.randn(96, dtype=dtype) for _ in range(3)]
    torch._dynamo.reset()
    with fetching.ahead():
        compiled = torch.compile(products, dynamic=False, options={"fx_graph_cache": False})
        got, code = run_and_get_cpp_code(compiled, weight, bias, rows)
    fetched = re.findall(r"__builtin_prefetch\(\(const char\*\)\((\w+) .*96L", code)
    assert len(fetched) == code.count("__builtin_prefetch") == 1
    # In bfloat16 a sum near 8 may be rounded the other way by another release's order of terms.
    torch.testing.assert_close(got, products(weight, bias, rows), atol=6e-2, rtol=2e-2)


def test_only_while_it_lasts() -> None:
    from torch._inductor.codegen.cpp import CppVecKernel

    load = CppVecKernel.load
    with pytest.raises(RuntimeError), fetching.ahead():
        assert CppVecKernel.load is not load
        raise RuntimeError("the compiler fails")
    assert CppVecKernel.load is load


@pytest.mark.parametrize(
    ("cache", "kind", "device", "expected"),
    [
        (1 << 10, "x86_64", "cpu", True),
        (800_000, "x86_64", "cpu", True),  # 423 kB of weights: more than stays
        (2_000_000, "x86_64", "cpu", False),
        (1 << 30, "x86_64", "cpu", False),  # the weights stay in the cache
        (0, "x86_64", "cpu", False),  # untold: taken for a large one
        (1 << 10, "aarch64", "cpu", False),
        (1 << 10, "x86_64", "cuda", False),
    ],
)
def test_it_pays_where_weights_pass_through_the_caches(
    monkeypatch: pytest.MonkeyPatch, cache: int, kind: str, device: str, expected: bool
) -> None:
    monkeypatch.setattr(machine, "last_cache", lambda: cache)
    monkeypatch.setattr(fetching.platform, "machine", lambda: kind)
    monkeypatch.setattr(fetching.sys, "platform", "linux")
    model = GPT(SHAPE, 65)
    assert fetching.pays(model, device) is expected


def test_the_last_cache_is_the_one_of_the_highest_level(tmp_path: Path) -> None:
    for at, (level, size) in enumerate([("1", "32K"), ("1", "64K"), ("3", "8192K"), ("2", "512K")]):
        folder = tmp_path / f"index{at}"
        folder.mkdir()
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{size}\n")
    assert machine.last_cache(tmp_path) == 8 << 20
    assert machine.last_cache(tmp_path / "missing") == 0
