"""What a token's colour says: the steps of each measure, and that no two look alike."""

from __future__ import annotations

import math

import pytest
from textual.app import App

from tui_lab.widgets.colouring import (
    MEASURES,
    Coloured,
    Legend,
    Piece,
    difference_level,
    entropy_level,
)


def test_entropy_and_difference_have_their_steps_where_the_legend_says():
    assert [entropy_level(nats) for nats in (0, 0.49, 0.5, 1.5, 2.5, 4.0, 9)] == [
        0,
        0,
        1,
        2,
        3,
        4,
        4,
    ]
    assert [difference_level(p, 0.1) for p in (0.9, 0.8001, 0.3, 0.1, 0.06, 0.02, 0.001)] == [
        0, 0, 1, 2, 2, 3, 4,
    ]  # fmt: skip
    assert difference_level(0.0, 0.0) == 2
    assert (difference_level(0.5, 0.0), difference_level(0.0, 0.5)) == (0, 4)
    assert entropy_level(math.nan) == difference_level(math.nan, 0.5) == 4


def test_a_token_that_was_not_judged_takes_no_side():
    measure = MEASURES["difference"]
    assert measure.style_of(Piece("x", 0.5)) == "heading"
    assert measure.style_of(Piece("x", 0.5, other=0.5)) == ("side", 2)
    assert measure.style_of(Piece("x")) == "prompt"


@pytest.mark.parametrize("environment", ["colour", "sixteen", "none"])
async def test_the_steps_of_a_measure_all_look_different(monkeypatch, environment):
    """In full colour, in sixteen colours, and without any."""
    if environment == "none":
        monkeypatch.setenv("NO_COLOR", "1")

    class Alone(App):
        def compose(self):
            yield Legend()

    async with Alone().run_test() as pilot:
        if environment == "sixteen":
            monkeypatch.setattr(type(pilot.app.console), "color_system", "standard")
        legend = pilot.app.query_one(Coloured)
        for measure in MEASURES.values():
            styles = [legend.styles_by_level[measure.style_of_step(index)] for index in range(5)]
            assert len({str(style) for style in styles}) == 5, measure.name
