"""A checkpoint is described from its headers, measured exactly, and neither needs torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoints import inspect, tensor_statistics
from engine.checkpoints.save import save
from engine.errors import CheckpointError
from tests.engine.checkpoints.making import CONFIG, checkpoint, meta, tensors


def test_description(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 7, 1.5)
    seen = inspect(path)
    given = {name: value for name, value in tensors().items() if name != "lm_head.weight"}
    assert seen.config == CONFIG
    assert seen.info.step == 7
    assert seen.info.best
    assert seen.n_parameters == sum(tensor.numel() for tensor in given.values())
    assert {t.name: (t.shape, t.bytes) for t in seen.tensors} == {
        name: (tuple(t.shape), t.numel() * t.element_size()) for name, t in given.items()
    }
    assert seen.tensors[0].name == "wte.weight"  # in the order that a text goes through
    assert seen.state == {"progress": {"step": 7}}


def test_no_weight_is_read(tmp_path: Path) -> None:
    """The description of a checkpoint whose weights were zeroed is the same."""
    path = checkpoint(tmp_path, 7)
    before = inspect(path)
    model = path / "model.safetensors"
    size = int.from_bytes(model.read_bytes()[:8], "little") + 8
    model.write_bytes(model.read_bytes()[:size] + bytes(model.stat().st_size - size))
    assert inspect(path).tensors == before.tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int32])
def test_statistics_are_those_of_the_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Also when the tensor is read in pieces; a mean far from 0 must not cost the deviation."""
    monkeypatch.setattr("engine.checkpoints.inspection.PIECE", 1000)
    weight = (torch.randn(70, 100) * 3 + 50).to(dtype)
    path = save(tmp_path, {"w": weight, "b": torch.zeros(4)}, None, None, meta(1)).path
    seen: list[tuple[int, int]] = []
    found = {item.name: item for item in tensor_statistics(path, None, lambda *a: seen.append(a))}
    exact = weight.double()
    item = found["w"]
    assert item.mean == pytest.approx(exact.mean().item())
    assert item.std == pytest.approx(exact.std(correction=0).item())
    assert item.norm == pytest.approx(exact.norm().item())
    assert (item.minimum, item.maximum) == (exact.min().item(), exact.max().item())
    assert item.counts == tuple(np.histogram(exact.numpy(), bins=32)[0])
    assert sum(found["b"].counts) == 4
    assert seen[-1][0] == seen[-1][1]


def test_what_is_not_finite_is_counted_apart(tmp_path: Path) -> None:
    weight = torch.tensor([1.0, float("nan"), 3.0, float("inf")])
    path = save(tmp_path, {"w": weight, "n": weight[1:2]}, None, None, meta(1)).path
    item, bad = tensor_statistics(path, "w")[0], tensor_statistics(path, "n")[0]
    assert (item.non_finite, item.mean, item.maximum) == (2, 2.0, 3.0)
    assert (bad.non_finite, bad.mean) == (1, None)
    with pytest.raises(CheckpointError, match="no tensor 'v'"):
        tensor_statistics(path, "v")


def test_looking_needs_no_torch() -> None:
    """Browsing must not wait a second for torch."""
    code = (
        "import sys, engine.checkpoints, engine.runs, engine.metrics, engine.series\n"
        "import tui_lab.cli.runs, tui_lab.cli.checkpoints, tui_lab.cli.checkpoint_report\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
