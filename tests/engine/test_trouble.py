"""Steps that go wrong: the policies for NaN and spikes, rollback, and memory that runs out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine import control, events
from engine.checkpoints import list_checkpoints
from engine.checkpoints.load import load_weights
from engine.errors import EngineError
from engine.lab import Lab
from engine.metrics import read_metrics
from engine.objectives import Loss, Pretrain
from engine.out_of_memory import OutOfMemory, is_out_of_memory
from engine.session import run_training
from tests.campaign.faults import WANTS, changed, out_of_memory
from tests.engine.test_session import Run, assert_same, final_state, tiny_config


def poison(
    patch: pytest.MonkeyPatch, steps: set[int], worsen: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Change the loss of the calls numbered `steps` (from 1; with accumulate 1 these are steps)."""
    real, calls = Pretrain.loss, {"count": 0}

    def loss(self: Pretrain, model: Any, batch: Any) -> Loss:
        calls["count"] += 1
        value = real(self, model, batch)
        return changed(value, worsen) if calls["count"] in steps else value

    patch.setattr(Pretrain, "loss", loss)


def to_nan(loss: torch.Tensor) -> torch.Tensor:
    return loss * math.nan


def single(**changes: Any) -> Any:
    return tiny_config(train__accumulate=1, train__eval_every=0, sample__every=0, **changes)


def titles(run: Run) -> list[str]:
    return [alert.title for alert in run.of(events.Alert)]


@pytest.mark.parametrize(("patience", "ends_at"), [(1, 3), (2, 4)])
def test_stop_saves_and_ends(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch, patience: int, ends_at: int
) -> None:
    poison(monkeypatch, {3, 4, 5}, to_nan)
    run = Run()
    config = single(train__on_nan="stop", train__nan_patience=patience)
    finished = run.train(small_lab, config)
    assert (finished.step, finished.reason) == (ends_at, "not finite")
    assert list_checkpoints(small_lab.checkpoints / finished.run)[-1].step == ends_at


def test_skip_goes_on_and_does_not_repeat_itself_for_ever(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(3, 40)), to_nan)
    run = Run()
    finished = run.train(small_lab, single(train__on_nan="skip", train__max_steps=41))
    assert finished.reason == "completed" and not run.of(events.Paused)
    # 37 in a row are told of at 1, 2, 3, 4, 8, 16 and 32.
    assert len(titles(run)) == 7
    assert all(torch.isfinite(t).all() for t in final_state(small_lab, finished.run).values())


def test_rollback_takes_the_newest_checkpoint_and_data_that_follows(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {5, 6}, to_nan)
    seen: list[list[int]] = []
    patched = Pretrain.loss

    def note(self: Pretrain, model: Any, batch: Any) -> Loss:
        seen.append(batch.flatten().tolist())
        return patched(self, model, batch)

    monkeypatch.setattr(Pretrain, "loss", note)
    run = Run()
    config = single(train__on_nan="rollback", train__nan_patience=2)  # saved at 3 and 6
    finished = run.train(small_lab, config)
    (rolled,) = run.of(events.RolledBack)
    assert (rolled.step, rolled.from_step) == (3, 6) and "2 skipped updates" in rolled.reason
    assert finished.step == 8 and len(seen) == 6 + 5
    assert len({tuple(batch) for batch in seen}) == len(seen)  # no batch came a second time
    assert list(read_metrics(small_lab.checkpoints / finished.run)["step"]) == list(range(1, 9))
    assert all(math.isfinite(loss) for loss in list(run.losses().values())[6:])


def test_a_rolled_back_run_resumes_to_the_bit(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = single(train__on_nan="rollback", train__nan_patience=1)
    with monkeypatch.context() as patch:
        poison(patch, {5}, to_nan)
        Run().train(small_lab, config, name="whole")
    with monkeypatch.context() as patch:
        poison(patch, {5}, to_nan)
        stopping = Run()

        def emit(event: events.Event) -> None:
            stopping.emit(event)
            if isinstance(event, events.StepDone) and stopping.of(events.RolledBack):
                stopping.inbox.put(control.Stop())

        run_training(small_lab, config, emit=emit, inbox=stopping.inbox, name="cut")
        Run().resume(small_lab, "cut")
    assert_same(final_state(small_lab, "cut"), final_state(small_lab, "whole"))


def test_rollbacks_that_do_not_help_become_a_pause(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, set(range(5, 100)), to_nan)
    run = Run()

    def emit(event: events.Event) -> None:
        run.emit(event)
        if isinstance(event, events.Paused):
            run.inbox.put(control.Stop())

    config = single(train__on_nan="rollback", train__nan_patience=1)
    finished = run_training(small_lab, config, emit=emit, inbox=run.inbox)
    assert len(run.of(events.RolledBack)) == 3 and len(run.of(events.Paused)) == 1
    assert any("did not help" in title for title in titles(run))
    assert finished.reason == "stopped"


def test_weights_that_are_not_finite_are_never_saved_over_good_ones(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, models = Pretrain.loss, []

    def remember(self: Pretrain, model: Any, batch: Any) -> Loss:
        models.append(model)
        return real(self, model, batch)

    monkeypatch.setattr(Pretrain, "loss", remember)
    run = Run()

    def emit(event: events.Event) -> None:
        run.emit(event)
        if isinstance(event, events.StepDone) and event.step == 5:
            with torch.no_grad():
                next(models[-1].parameters())[:] = math.nan
        if isinstance(event, events.Paused):
            run.inbox.put(control.Stop())

    finished = run_training(small_lab, single(), emit=emit, inbox=run.inbox)
    assert any("not saved: its weights are not finite" in title for title in titles(run))
    newest = list_checkpoints(small_lab.checkpoints / finished.run)[-1]
    assert newest.step == 3
    assert all(torch.isfinite(tensor).all() for tensor in load_weights(newest).values())


@pytest.mark.parametrize("policy", ["warn", "skip", "pause", "rollback"])
def test_a_spike_is_met_by_its_policy(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    poison(monkeypatch, {40}, lambda loss: loss * 1e4)
    run = Run()

    def emit(event: events.Event) -> None:
        run.emit(event)
        if isinstance(event, events.Paused):
            run.inbox.put(control.Resume())

    config = single(
        train__on_spike=policy, train__max_steps=45, save__every=35, schedule__min_lr=0.0
    )
    finished = run_training(small_lab, config, emit=emit, inbox=run.inbox)
    assert finished.step == 45
    (spike,) = [title for title in titles(run) if "gradient norm" in title and "step 40" in title]
    assert ("was made" in spike) == (policy == "warn")
    assert len(run.of(events.Paused)) == (policy == "pause")
    assert [event.step for event in run.of(events.RolledBack)] == [35] * (policy == "rollback")


# Memory ------------------------------------------------------------------------------------------


def test_every_kind_of_want_is_known_and_nothing_else() -> None:
    assert all(is_out_of_memory(make()) for make in WANTS.values())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("not enough memory"))


@pytest.mark.parametrize("stage", ["forward", "backward"])
def test_one_want_of_memory_is_tried_again_and_changes_nothing(small_lab: Lab, stage: str) -> None:
    """Dropout on: the second try draws the same numbers and the same batches."""
    Run().train(small_lab, tiny_config(), name="calm")
    run = Run()
    with out_of_memory(stage, 4, 1, "device") as struck:
        run.train(small_lab, tiny_config(), name="short")
    assert struck.count == 1
    assert any("tried once more" in title for title in titles(run))
    assert_same(final_state(small_lab, "short"), final_state(small_lab, "calm"))


@pytest.mark.parametrize("stage", ["forward", "backward", "optimizer"])
def test_want_that_lasts_says_what_to_change_and_keeps_the_weights(
    small_lab: Lab, stage: str
) -> None:
    Run().train(small_lab, tiny_config(), name="calm")
    with out_of_memory(stage, 5, 99, "device"):
        run = Run()
        with pytest.raises(OutOfMemory) as caught:
            run.train(small_lab, tiny_config(), name="short")
    assert f"step 5 ({stage})" in caught.value.title
    assert "--batch-size 2 --set train.accumulate=4" in caught.value.hint
    assert run.of(events.Failed)[0].hint == caught.value.hint
    saved = list_checkpoints(small_lab.checkpoints / "short")[-1]
    assert saved.step == (3 if stage == "optimizer" else 4)
    Run().resume(small_lab, "short")
    assert_same(final_state(small_lab, "short"), final_state(small_lab, "calm"))


@pytest.mark.parametrize("stage", ["evaluating", "sampling"])
def test_want_beside_the_training_does_not_end_it(small_lab: Lab, stage: str) -> None:
    Run().train(small_lab, tiny_config(), name="calm")
    run = Run()
    with out_of_memory(stage, 1, 99, "device"):
        finished = run.train(small_lab, tiny_config(), name="short")
    assert finished.reason == "completed"
    assert any("out of memory while" in title for title in titles(run))
    calm, short_of = final_state(small_lab, "calm"), final_state(small_lab, "short")
    assert_same(calm, short_of)


def test_another_error_is_not_taken_for_want_of_memory(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Pretrain, model: Any, batch: Any) -> Loss:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Pretrain, "loss", broken)
    with pytest.raises(RuntimeError) as caught:
        Run().train(small_lab, tiny_config())
    assert not isinstance(caught.value, EngineError)
