"""Stops that cannot wait for the step under way, and loops in which nothing moves."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from engine import control, events, watchdog
from engine.checkpoints import list_checkpoints, verify
from engine.data import Batches
from engine.lab import Lab
from engine.objectives import Loss, Pretrain
from engine.session import run_training
from tests.engine.test_session import Run, assert_same, final_state, tiny_config

URGENT = control.Stop(reason="SIGTERM", urgent=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "PATIENCE", 0.3)
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.05)


class Stuck:
    """The loss of the given call hangs until `let_go`; `reached` is set when it does."""

    def __init__(self, patch: pytest.MonkeyPatch, call: int) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()
        real, calls = Pretrain.loss, {"count": 0}

        def loss(objective: Pretrain, model: Any, batch: Any) -> Loss:
            calls["count"] += 1
            if calls["count"] == call:
                self.reached.set()
                self.let_go.wait(30)
            return real(objective, model, batch)

        patch.setattr(Pretrain, "loss", loss)


def in_thread(run: Run, lab: Lab, name: str, **changes: Any) -> threading.Thread:
    def work() -> None:
        run_training(lab, tiny_config(**changes), emit=run.emit, inbox=run.inbox, name=name)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@pytest.mark.parametrize(("call", "step"), [(1, 0), (2, 0), (9, 4), (10, 4)])
def test_an_urgent_stop_saves_the_last_boundary_of_a_stuck_step(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch, call: int, step: int
) -> None:
    """Stuck in the first or the second of two micro-batches, before and after some steps; the run
    that goes on from what was saved is the one that was never stopped, to the bit."""
    Run().train(small_lab, tiny_config(), name="calm")
    with monkeypatch.context() as patch:
        stuck, run = Stuck(patch, call), Run()
        thread = in_thread(run, small_lab, "stuck")
        assert stuck.reached.wait(20)
        run.inbox.put(URGENT, "signal")
        until(lambda: run.of(events.Finished))
        finished = run.of(events.Finished)[0]
        assert (finished.step, finished.reason) == (step, "SIGTERM")
        assert verify(list_checkpoints(small_lab.checkpoints / "stuck")[-1].path) == []
        said = len(run.seen)
        stuck.let_go.set()  # the thread that comes back late changes nothing and says nothing
        thread.join(20)
        assert not thread.is_alive() and len(run.seen) == said
    assert list_checkpoints(small_lab.checkpoints / "stuck")[-1].step == step
    Run().resume(small_lab, "stuck")
    assert_same(final_state(small_lab, "stuck"), final_state(small_lab, "calm"))


def test_a_stop_that_can_wait_does_wait(small_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, run = Stuck(monkeypatch, 5), Run()
    thread = in_thread(run, small_lab, "patient")
    assert stuck.reached.wait(20)
    run.inbox.put(control.Stop(), "user")
    time.sleep(0.8)
    assert not run.of(events.Finished)
    stuck.let_go.set()
    thread.join(20)
    assert run.of(events.Finished)[0].step == 3


def test_a_hanging_read_is_told_of_and_a_stop_still_saves(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, let_go, calls = Batches.next, threading.Event(), {"count": 0}

    def hang(self: Batches) -> Any:
        calls["count"] += 1
        if calls["count"] > 8:
            let_go.wait(30)
        return real(self)

    monkeypatch.setattr(Batches, "next", hang)
    from engine.feed import Feed

    told = Feed.next

    def soon(self: Feed, should_stop: Any, on_silence: Any) -> Any:
        return told(self, should_stop, on_silence, silence_seconds=0.3)

    monkeypatch.setattr(Feed, "next", soon)
    run = Run()
    thread = in_thread(run, small_lab, "hung")
    until(lambda: any("no data" in alert.title for alert in run.of(events.Alert)))
    run.inbox.put(control.Stop(), "user")
    thread.join(10)
    let_go.set()
    assert not thread.is_alive()
    assert run.of(events.Finished)[0].step == 4
    monkeypatch.setattr(Batches, "next", real)
    Run().train(small_lab, tiny_config(), name="calm")
    Run().resume(small_lab, "hung")
    assert_same(final_state(small_lab, "hung"), final_state(small_lab, "calm"))


def test_a_step_in_which_nothing_moves_is_reported_once_and_its_end_too(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "SILENCE_SECONDS", 0.4)
    stuck, run = Stuck(monkeypatch, 5), Run()
    thread = in_thread(run, small_lab, "still")
    until(lambda: any("nothing has moved" in alert.title for alert in run.of(events.Alert)))
    time.sleep(0.3)
    stuck.let_go.set()
    thread.join(20)
    titles = [alert.title for alert in run.of(events.Alert)]
    assert sum("nothing has moved" in title for title in titles) == 1


def test_a_pause_is_no_silence(small_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "SILENCE_SECONDS", 0.2)
    run = Run({3: [control.Pause()]})
    thread = in_thread(run, small_lab, "paused")
    until(lambda: run.of(events.Paused))
    time.sleep(0.8)
    run.inbox.put(control.Resume())
    thread.join(20)
    assert not run.of(events.Alert)


@pytest.mark.parametrize("what", ["loading torch", ""])
def test_a_stop_while_it_prepares_ends_it_at_once(small_lab: Lab, what: str) -> None:
    run = Run()

    def emit(event: events.Event) -> None:
        run.emit(event)
        if isinstance(event, events.Preparing) and event.what.startswith(what):
            run.inbox.put(URGENT, "signal")

    finished = run_training(small_lab, tiny_config(), emit=emit, inbox=run.inbox)
    assert (finished.step, finished.reason, finished.checkpoint) == (0, "SIGTERM", "")
    assert run.seen[-1] is finished
    assert list(small_lab.checkpoints.iterdir()) == []


def test_a_stop_while_a_resume_prepares_leaves_the_run_as_it_was(small_lab: Lab) -> None:
    Run({3: [control.Stop()]}).train(small_lab, tiny_config(), name="a")
    before = list_checkpoints(small_lab.checkpoints / "a")[-1]
    run = Run()
    run.inbox.put(URGENT, "signal")
    finished = run.resume(small_lab, "a")
    assert (finished.run, finished.step, finished.checkpoint) == ("a", 3, str(before.path))
    assert list_checkpoints(small_lab.checkpoints / "a")[-1] == before
