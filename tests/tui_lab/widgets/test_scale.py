"""Values and places on a slider's track."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_lab.widgets.scale import Scale

TEMPERATURE = Scale(0, 5, step=0.05, coarse=0.25, track=(0, 2))
TOP_K = Scale(0, 1_000_000, digits=0, log=True, track=(1, 1000), off=0)


@given(st.floats(0, 1))
def test_a_place_gives_a_value_that_lies_there(fraction):
    """A click must put the knob where the mouse is, to within a step."""
    value = TEMPERATURE.value_at(fraction)
    assert abs(TEMPERATURE.fraction(value) - fraction) <= 0.0126


@given(st.floats(0, 1))
def test_logarithmic_values_are_round_and_in_reach(fraction):
    value = TOP_K.value_at(fraction)
    assert value == int(value)
    assert value == 0 or 1 <= value <= 1000


def test_off_takes_the_right_end_though_it_is_the_number_zero():
    """No limit on k is the widest choice: it belongs beyond the largest k."""
    assert TOP_K.fraction(0) == 1.0
    assert TOP_K.value_at(1.0) == 0
    assert TOP_K.nudge(1000, 1) == 0
    assert TOP_K.nudge(0, -1) == 1000
    assert TOP_K.nudge(0, 1) == 0
    assert (TOP_K.start(), TOP_K.end()) == (1, 0)


@pytest.mark.parametrize(
    ("value", "direction", "coarse", "expected"),
    [
        (0.8, 1, False, 0.85),
        (0.8, -1, False, 0.75),
        (0.83, 1, False, 0.85),  # a typed value joins the steps
        (0.83, -1, False, 0.8),
        (0.8, 1, True, 1.0),
        (0.8, -1, True, 0.75),
        (0.0, -1, False, 0.0),
        (2.0, 1, False, 2.0),
        (3.0, -1, False, 2.0),  # typed beyond the track
        (3.0, 1, False, 3.05),
    ],
)
def test_steps(value, direction, coarse, expected):
    assert TEMPERATURE.nudge(value, direction, coarse) == pytest.approx(expected)


def test_logarithmic_steps_and_typed_values_between_them():
    assert TOP_K.nudge(40, 1) == 50
    assert TOP_K.nudge(47, 1) == 50
    assert TOP_K.nudge(47, -1) == 40
    assert TOP_K.nudge(47, 1, coarse=True) == 50
    assert TOP_K.nudge(1, -1) == 1


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_whatever_is_typed_ends_within_the_bounds(value):
    assert 0 <= TEMPERATURE.clamp(value) <= 5
    assert 0 <= TOP_K.clamp(value) <= 1_000_000
