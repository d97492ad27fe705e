"""What only a CUDA device can show. Deselected by default; `benchmarks/gpu.sh` runs these."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from engine import control, events
from engine.lab import Lab
from engine.objectives import Loss, Pretrain
from tests.campaign.faults import changed
from tests.engine.test_session import Run, assert_same, final_state, tiny_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_the_gpu_learns_in_every_precision(small_lab: Lab, precision: str) -> None:
    run = Run()
    config = tiny_config(train__device="cuda", train__precision=precision, train__max_steps=60)
    run.train(small_lab, config)
    losses = list(run.losses().values())
    assert sum(losses[-5:]) / 5 < losses[0] - 0.3
    stats = run.of(events.DeviceStats)[-1]
    assert 0 < stats.used <= stats.total and stats.reserved is not None


def test_a_run_resumed_on_the_gpu_goes_on_from_the_same_state(small_lab: Lab) -> None:
    whole, first, second = Run(), Run({4: [control.Stop()]}), Run()
    config = tiny_config(train__device="cuda")
    whole.train(small_lab, config, name="whole")
    first.train(small_lab, config, name="cut")
    second.resume(small_lab, "cut")
    for step, loss in (first.losses() | second.losses()).items():
        assert loss == pytest.approx(whole.losses()[step], rel=1e-4)


def test_a_nan_on_the_gpu_is_skipped_on_the_device(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fused optimiser reads the verdict there: the step that saw NaN changes nothing."""
    real, calls = Pretrain.loss, {"count": 0}

    def poisoned(self: Pretrain, model: Any, batch: Any) -> Loss:
        calls["count"] += 1
        factor = float("nan") if calls["count"] == 4 else 1.0
        return changed(real(self, model, batch), lambda x: x * factor)

    def states(max_steps: int, name: str) -> dict[str, torch.Tensor]:
        calls["count"] = 0
        config = tiny_config(
            train__device="cuda", train__accumulate=1, train__max_steps=max_steps,
            schedule__kind="constant",
        )  # fmt: skip
        run = Run()
        run.train(small_lab, config, name=name)
        losses = run.losses()
        assert [step for step in losses if math.isnan(losses[step])] == [4] * (max_steps >= 4)
        state = final_state(small_lab, name)
        beside = ("cpu", "cuda", "guard.")
        return {key: value for key, value in state.items() if not key.startswith(beside)}

    monkeypatch.setattr(Pretrain, "loss", poisoned)
    assert_same(states(3, "before"), states(4, "after"))
