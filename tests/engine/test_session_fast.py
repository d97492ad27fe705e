"""Whole runs by the faster ways of a step: the same losses, and resumed to the bit."""

from __future__ import annotations

from typing import Any

import pytest

from engine import control, events
from engine.checkpoints import list_checkpoints
from engine.checkpoints.load import load_training
from engine.lab import Lab
from tests.engine.test_session import (
    Run,
    assert_resumes,
    assert_same,
    final_state,
    tiny_config,
)

WAYS: dict[str, dict[str, Any]] = {
    "muon": {"optimizer__name": "muon", "optimizer__muon_lr": 2e-2},
    "recompute": {"train__recompute": "on"},
    "chunks": {"train__loss_chunk": 7},
}


@pytest.mark.parametrize("name", WAYS)
def test_stopped_and_resumed_it_is_the_uninterrupted_run(small_lab: Lab, name: str) -> None:
    assert_resumes(small_lab, tiny_config(**WAYS[name]))


@pytest.mark.parametrize("name", ["recompute", "chunks"])
def test_what_saves_memory_changes_no_loss(small_lab: Lab, name: str) -> None:
    plain, saving = Run(), Run()
    plain.train(small_lab, tiny_config())
    saving.train(small_lab, tiny_config(**WAYS[name]))
    assert saving.losses() == pytest.approx(plain.losses(), abs=1e-5)


def test_muon_learns(small_lab: Lab) -> None:
    run = Run()
    run.train(small_lab, tiny_config(**WAYS["muon"], train__max_steps=60, train__eval_every=0))
    losses = list(run.losses().values())
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5


def test_a_compiled_run_has_the_losses_of_an_eager_one_and_resumes_as_it_was(
    small_lab: Lab,
) -> None:
    """Without dropout, whose numbers the compiler draws otherwise. That it was compiled is kept in
    its checkpoints: resumed by itself (auto), so short a run would not be, and would round
    otherwise."""
    still = {"model__dropout": 0.0, "model__n_layer": 1}
    eager, whole, first, second = Run(), Run(), Run({5: [control.Stop()]}), Run()
    eager.train(small_lab, tiny_config(**still))
    whole.train(small_lab, tiny_config(train__compile="on", **still), name="whole")
    phases = [event.phase for event in whole.of(events.Phase)]
    assert phases[:2] == ["compiling", "training"]
    assert not [alert for alert in whole.of(events.Alert) if "compile" in alert.title]
    assert whole.losses() == pytest.approx(eager.losses(), abs=1e-4)
    assert whole.losses() != eager.losses()
    first.train(small_lab, tiny_config(train__compile="on", **still), name="cut")
    newest = list_checkpoints(small_lab.checkpoints / "cut")[-1]
    assert load_training(newest).state["compiled"] is True
    second.resume(small_lab, "cut", overrides={"train.compile": "auto"})
    assert first.losses() | second.losses() == whole.losses()
    assert_same(final_state(small_lab, "whole"), final_state(small_lab, "cut"))
