"""Sliders and the seed field under keys and mouse, in a running app."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.events import MouseScrollUp

from tui_lab.widgets.scale import Scale
from tui_lab.widgets.slider import LABEL, MARK, VALUE, SeedField, Slider

TRACK = MARK + LABEL + VALUE + 1  # its first cell


class Sliders(App):
    def __init__(self) -> None:
        super().__init__()
        self.changes: list[float] = []

    def compose(self) -> ComposeResult:
        yield Slider("temperature", Scale(0, 5, step=0.05, coarse=0.25, track=(0, 2)), 0.8, id="t")
        yield Slider("top-k", Scale(0, 1e6, digits=0, log=True, track=(1, 1000), off=0), 0, id="k")
        yield SeedField("seed", 2**63 - 1, id="s")

    def on_slider_changed(self, event: Slider.Changed) -> None:
        self.changes.append(event.value)


@pytest.fixture
async def pilot():
    async with Sliders().run_test(size=(TRACK + 41, 6)) as pilot:  # 41 cells: a cell is 0.05
        yield pilot


async def test_keys_move_a_slider_and_say_so(pilot):
    slider = pilot.app.query_one("#t", Slider)
    slider.focus()
    await pilot.press("right", "right", "left")
    assert slider.value == pytest.approx(0.85)
    await pilot.press("shift+right")
    assert slider.value == pytest.approx(1.0)
    await pilot.press("home")
    assert slider.value == 0
    await pilot.press("end")
    assert slider.value == 2
    assert pilot.app.changes == pytest.approx([0.85, 0.9, 0.85, 1.0, 0, 2])


async def test_a_number_can_be_typed_and_taken_back(pilot):
    slider = pilot.app.query_one("#t", Slider)
    slider.focus()
    await pilot.press("1", ".", "3", "7")
    assert slider.value == 0.8, "nothing changes before enter"
    assert "1.37" in slider.render().plain
    await pilot.press("enter")
    assert slider.value == 1.37
    await pilot.press("9", "9", "enter")
    assert slider.value == 5, "the nearest value that is allowed"
    await pilot.press("1", "escape", "enter")
    assert slider.value == 5
    await pilot.press("3", "backspace", "backspace")
    assert slider.value == 0.8, "backspace with nothing typed brings the default"
    await pilot.press("1", ".", "1", ".", "1", "enter")
    assert slider.value == 0.8, "what is no number changes nothing"


async def test_leaving_a_slider_takes_the_number(pilot):
    slider = pilot.app.query_one("#t", Slider)
    slider.focus()
    await pilot.press("1", "down")
    assert slider.value == 1
    assert pilot.app.focused.id == "k"
    await pilot.press("up")
    assert pilot.app.focused is slider


async def test_click_drag_and_wheel(pilot):
    slider = pilot.app.query_one("#t", Slider)
    await pilot.click("#t", offset=(TRACK + 30, 0))
    assert slider.value == pytest.approx(1.5)
    await pilot.mouse_down("#t", offset=(TRACK + 10, 0))
    assert slider.value == pytest.approx(0.5)
    await pilot.hover("#t", offset=(TRACK + 20, 0))
    assert slider.value == pytest.approx(1.0)
    # A drag goes on outside the slider, and ends with the button.
    await pilot.hover("#s", offset=(TRACK + 35, 0))
    assert slider.value == pytest.approx(1.75)
    await pilot.mouse_up("#s", offset=(TRACK + 35, 0))
    await pilot.hover("#t", offset=(TRACK + 2, 0))
    assert slider.value == pytest.approx(1.75)
    await pilot._post_mouse_events([MouseScrollUp], "#t", (TRACK, 0), button=0)
    assert slider.value == pytest.approx(1.8)


async def test_the_label_is_no_part_of_the_track(pilot):
    slider = pilot.app.query_one("#t", Slider)
    await pilot.click("#t", offset=(3, 0))
    assert slider.value == 0.8
    assert pilot.app.focused is slider


async def test_off_is_written_as_a_word(pilot):
    slider = pilot.app.query_one("#k", Slider)
    assert "off" in slider.render().plain
    slider.focus()
    await pilot.press("4", "0", "enter")
    assert slider.value == 40
    assert " 40 " in slider.render().plain


async def test_a_seed_is_random_until_it_is_fixed(pilot):
    seed = pilot.app.query_one(SeedField)
    seed.focus()
    assert seed.value is None
    await pilot.press("1", "2", "3", "enter")
    assert seed.value == 123
    await pilot.press("backspace")
    assert seed.value is None
    seed.last = 77
    await pilot.press("space")
    assert seed.value == 77, "space fixes the seed that was drawn last"
    await pilot.press(*"9" * 19, "enter")
    assert seed.value == 2**63 - 1
