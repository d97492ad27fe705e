"""The state that screens read: what each event does to it, and that nothing poisons it."""

from __future__ import annotations

import math

import pytest

from engine import events
from tests.tui_lab import fakes
from tui_lab.state import RunState


def run_to(step: int, **values) -> RunState:
    told = fakes.config(**values)
    run = RunState(told, "micro")
    for event in fakes.history(told, step):
        run.apply(event)
    return run


def test_the_newest_numbers_and_the_whole_series_are_kept():
    run = run_to(640)
    assert (run.status, run.step, run.max_steps) == ("training", 640, 1000)
    assert len(run.series) == len(run.series.smooth) == 640
    assert [step for step, _ in run.validation] == [100, 200, 300, 400, 500, 600]
    assert {(mark.step, mark.kind) for mark in run.marks} == {(250, "saved"), (500, "saved")}
    assert run.best.step == 600


def test_smoothing_averages_every_point_and_starts_at_the_first():
    run = RunState(fakes.config(), smoothing=3)
    for step, loss in enumerate([4.0, 2.0, 3.0], 1):
        run.apply(fakes.step_done(run.config, step, fakes.NOON, loss))
    # Weights 1, then 1 / (1 + 1/8), then 1 / (1 + 2/8): all above 2 / (3 + 1).
    second = 4.0 - 2.0 / (1 + 1 / 8)
    assert list(run.series.smooth) == pytest.approx([4.0, second, second + (3.0 - second) / 1.25])


def test_nan_is_a_gap_and_an_alert_but_never_poisons_the_average():
    run = RunState(fakes.config())
    for step, loss in enumerate([4.0, math.nan, math.inf, 4.0], 1):
        run.apply(fakes.step_done(run.config, step, fakes.NOON, loss))
    assert run.smooth == 4.0
    assert [math.isnan(value) for value in run.series.smooth] == [False, True, True, False]
    assert [mark.kind for mark in run.marks] == ["alert"]


def test_time_left_follows_the_recent_rate_not_one_slow_step():
    run = run_to(600)
    steady = run.eta
    slow = fakes.step_done(run.config, 601, fakes.NOON)
    run.apply(events.StepDone(**(vars(slow) | {"tokens_per_second": 10.0})))
    assert steady == pytest.approx(400 * 2048 / 48_000, rel=0.1)
    assert run.eta == pytest.approx(steady, rel=0.05)


def test_pause_finish_and_failure_are_told_apart():
    run = run_to(10)
    run.apply(events.Paused(step=10))
    assert run.status == "paused" and run.live
    run.apply(events.Resumed(step=10))
    assert run.status == "training"
    run.apply(events.Failed(step=10, title="no"))
    assert not run.live and run.lines[-1].level == "error"


def test_a_changed_learning_rate_is_marked_and_scales_the_plan():
    run = run_to(500)
    assert run.lr_scale() == 1.0
    run.apply(
        events.ControlApplied(
            step=500, command="SetLearningRate", before="1e-3", after="5e-4", who="user"
        )
    )
    halved = fakes.step_done(run.config, 501, fakes.NOON)
    run.apply(events.StepDone(**(vars(halved) | {"lr": halved.lr / 2})))
    assert run.lr_scale() == pytest.approx(0.5)
    assert run.marks[-1].kind == "rate"


def test_what_was_asked_for_is_remembered_until_the_run_answers():
    run = run_to(10)
    run.ask("pausing")
    before = run.version
    run.apply(
        events.ControlApplied(step=10, command="Pause", before="", after="paused", who="user")
    )
    assert run.asked == "" and run.version > before


def test_the_past_of_a_resumed_run_goes_before_its_present_once():
    told = fakes.config()
    whole = run_to(300)
    run = RunState(told)
    run.apply(fakes.started(told, step=200, resumed=True))
    for step in range(201, 301):
        run.apply(fakes.step_done(told, step, fakes.NOON))
    # The files hold lines beyond the checkpoint too: the crashed attempt's. They are not shown.
    past = RunState(told)
    past.max_steps = run.max_steps
    for event in fakes.history(told, 230):
        if isinstance(event, events.StepDone) and event.step <= 200:
            past.apply(event)
    run.preload(past)
    assert list(run.series.step) == list(range(1, 301))
    assert list(run.series.loss) == list(whole.series.loss)
    assert list(run.series.smooth) == pytest.approx(list(whole.series.smooth))


def test_a_run_that_tells_a_configuration_that_cannot_be_read_is_shown_all_the_same():
    run = RunState(None)
    run.apply(fakes.started(fakes.config(), config="not [toml"))
    assert run.config is None and run.max_steps == 1000


def test_the_console_answers_are_not_shown_as_the_runs_sample():
    run = run_to(100)
    shown = run.sample
    run.apply(fakes.sample_done(101, fakes.NOON, "private", request="console-1"))
    assert run.sample is shown
