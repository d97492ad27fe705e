"""Runs side by side: only what differs, and time without the pauses."""

from __future__ import annotations

import numpy as np

from engine.config.schema import default_values
from engine.lab import Lab
from tests.tui_lab import labs
from tui_lab.comparison import Curve, differences, elapsed, read_values


def test_only_fields_that_differ_are_listed_also_unknown_ones() -> None:
    first = {"model.n_layer": 4, "train.compile": True, "optimizer.betas": [0.9, 0.95]}
    second = {**first, "train.compile": False, "new.field": 1}
    assert differences([first, second]) == [
        ("train.compile", ["yes", "no"]),
        ("new.field", ["–", "1"]),
    ]
    assert differences([first, first]) == []


def test_a_field_that_an_older_version_did_not_write_has_its_default(tmp_path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[model]\nn_layer = 3\n")
    old, now = read_values(path), default_values()
    assert differences([old, now]) == [("model.n_layer", ["3", str(now["model.n_layer"])])]


def test_a_broken_configuration_compares_as_empty(tmp_path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("not = [toml")
    assert read_values(path) == {} and read_values(tmp_path / "absent") == {}


def test_time_leaves_out_the_night_between_two_sessions_and_a_clock_set_back() -> None:
    times = np.array([100.0, 101.0, 103.0, 40_000.0, 40_002.0, 39_000.0, 39_001.0])
    assert elapsed(times).tolist() == [0, 1, 3, 3, 5, 5, 6]


def test_a_curve_reads_on_where_it_stopped(lab: Lab) -> None:
    path = labs.make_run(lab, "run", steps=100)
    curve = Curve(path)
    assert curve.poll() and len(curve) == 100
    assert not curve.poll()
    x, y = curve.xy("loss", "tokens")
    assert x[-1] == 100 * 256 and np.isfinite(y).all()
    steps, losses = curve.xy("validation", "steps")
    assert steps.tolist() == [50, 100] and losses[0] > losses[1]


def test_an_evaluation_between_logged_steps_tears_no_hole_into_the_loss(lab: Lab) -> None:
    path = labs.make_run(lab, "run", steps=40)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 45, "val_loss": 2.5, "time": 1.0}\n')
        file.write('{"step": 50, "tokens": 12800, "loss": 2.0, "lr": 0.001, "time": 2.0}\n')
    curve = Curve(path)
    curve.poll()
    steps, losses = curve.xy("loss", "steps")
    assert steps[-2:].tolist() == [40, 50] and np.isfinite(losses).all()
    assert curve.xy("validation", "tokens")[0].tolist() == [45 * 256]


def test_a_loss_that_is_not_a_number_stays_a_gap(lab: Lab) -> None:
    path = labs.make_run(lab, "run", steps=10)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "tokens": 2816, "loss": NaN, "lr": 0.001, "time": 2.0}\n')
        file.write('{"step": 12, "tokens": 3072, "loss": 2.0, "lr": 0.001, "time": 3.0}\n')
    curve = Curve(path)
    curve.poll()
    assert np.isnan(curve.xy("loss", "steps")[1]).tolist() == [False] * 10 + [True, False]
