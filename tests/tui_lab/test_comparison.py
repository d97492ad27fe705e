"""Runs side by side: only what differs, and time without the pauses."""

from __future__ import annotations

import numpy as np

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
    steps, losses = curve.validation("steps")
    assert steps.tolist() == [50, 100] and losses[0] > losses[1]
