"""The Train screen as it is seen: at three sizes, in every state a run can be in."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import events
from tests.tui_lab import fakes
from tests.tui_lab.fakes import FakeSession
from tests.tui_lab.pilots import app_with_history, make_app, shown, until
from tui_lab.settings import Settings

SIZES = {"small": (80, 24), "middle": (120, 36), "large": (200, 50)}
FINISHED = events.Finished(
    time=fakes.NOON + 40,
    run="micro-python-docs",
    step=1000,
    tokens=2_048_000,
    reason="completed",
    seconds=41.0,
    checkpoint="/lab/checkpoints/micro-python-docs/step_001000",
    best_val_loss=2.4219,
    best_step=1000,
)
FAILED = events.Failed(
    time=fakes.NOON + 20, step=333, title="the disk is full", hint="free 11 MB, then resume"
)


async def settle(pilot) -> None:
    """Until the run is on the screen, and nothing has changed there for some looks."""
    app = pilot.app
    await until(pilot, lambda: app.run_state is None or app.screen.has_class("-running"))
    same, before = 0, ""
    while same < 4:
        await pilot.pause(0.06)
        now = shown(app)
        same, before = (same + 1 if now == before else 0), now


@pytest.mark.parametrize("size", SIZES)
def test_a_run_in_its_middle(snap_compare, tmp_path: Path, size: str):
    app = app_with_history(tmp_path, 640)
    assert snap_compare(app, terminal_size=SIZES[size], run_before=settle)


@pytest.mark.parametrize("size", SIZES)
def test_nothing_trained_yet(snap_compare, tmp_path: Path, size: str):
    assert snap_compare(make_app(tmp_path), terminal_size=SIZES[size], run_before=settle)


@pytest.mark.parametrize("theme", ["light", "contrast"])
def test_the_other_themes(snap_compare, tmp_path: Path, theme: str):
    app = app_with_history(tmp_path, 640, settings=Settings(theme=theme))
    assert snap_compare(app, terminal_size=SIZES["middle"], run_before=settle)


def test_without_unicode(snap_compare, tmp_path: Path):
    app = app_with_history(tmp_path, 640, settings=Settings(ascii="always"))
    assert snap_compare(app, terminal_size=SIZES["small"], run_before=settle)


@pytest.mark.parametrize("size", ["small", "middle"])
def test_a_run_that_has_ended(snap_compare, tmp_path: Path, size: str):
    app = app_with_history(tmp_path, 1000, FINISHED)
    assert snap_compare(app, terminal_size=SIZES[size], run_before=settle)


def test_a_run_that_failed(snap_compare, tmp_path: Path):
    app = app_with_history(tmp_path, 333, FAILED)
    assert snap_compare(app, terminal_size=SIZES["small"], run_before=settle)


async def test_no_line_is_wider_than_the_smallest_screen(tmp_path: Path):
    app = app_with_history(tmp_path, 640)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        lines = shown(app).splitlines()
    assert len(lines) == 24 and {len(line) for line in lines} == {80}


async def test_nothing_is_drawn_but_ascii_without_unicode(tmp_path: Path):
    app = app_with_history(tmp_path, 640, FINISHED, settings=Settings(ascii="always"))
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        text = shown(app).replace("…", "")  # of the sample's own text
    assert [line for line in text.splitlines() if not line.isascii()] == []


async def test_phases_are_said_with_their_progress(tmp_path: Path):
    app = app_with_history(tmp_path, 100)
    async with app.run_test(size=(120, 36)) as pilot:
        app.run_state.apply(events.Phase(phase="compiling", step=100))
        await until(pilot, lambda: "compiling" in shown(app).splitlines()[1])
        app.run_state.apply(events.EvalProgress(step=100, done=12, total=40))
        await until(pilot, lambda: "evaluating 12/40" in shown(app).splitlines()[1])
        app.run_state.apply(events.Phase(phase="training", step=100))
        await until(pilot, lambda: "evaluating" not in shown(app))


async def test_preparing_is_said_with_its_progress(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=(120, 36)) as pilot:
        from tui_lab.state import RunState

        app.run_state = RunState(fakes.config(), "micro")
        app.run_state.apply(events.Preparing(what="tokenising python-docs", done=1, total=4))
        await until(pilot, lambda: " 25 %" in shown(app))
        assert "tokenising python-docs" in shown(app).splitlines()[1]


async def test_zoom_and_scale_change_the_chart_and_are_remembered(tmp_path: Path):
    path = tmp_path / "settings.toml"
    app = app_with_history(tmp_path, 640, settings=Settings(path=path))
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        axis = shown(app).splitlines()[24]
        await pilot.press("z")
        await until(pilot, lambda: "loss · plan" in shown(app))
        assert "1 000" in shown(app).splitlines()[24] != axis
        await pilot.press("z", "y")
        await until(pilot, lambda: "loss log · recent" in shown(app))
    kept = Settings.load(path)
    assert (kept.zoom, kept.log_scale) == ("recent", True)


async def test_a_gpu_shows_reserved_memory_load_and_heat(tmp_path: Path):
    app = app_with_history(tmp_path, 100)
    stats = events.DeviceStats(
        used=6_100_000_000,
        peak=7_000_000_000,
        total=12_000_000_000,
        reserved=8_000_000_000,
        utilization=97.0,
        temperature=71.0,
        power=212.0,
    )
    app.run_state.apply(fakes.started(fakes.config(), device="cuda"))
    app.run_state.apply(stats)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "VRAM         6.1 / 12.0 GB" in shown(app))
        assert "reserved 8.0 GB" in shown(app) and "97 %  71 °C  212 W" in shown(app)


async def test_an_unchanged_view_paints_nothing(tmp_path: Path):
    app = app_with_history(tmp_path, 640)
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        painted = []
        for widget in app.screen.query("*"):
            widget.refresh = lambda *args, w=widget, **kwargs: painted.append(w)  # type: ignore
        await pilot.pause(0.3)
    assert painted == []


async def test_one_more_step_repaints_lines_not_the_screen(tmp_path: Path):
    app = app_with_history(tmp_path, 640)
    async with app.run_test(size=(120, 36)) as pilot:
        await settle(pilot)
        chart = app.screen.query_one("#loss")
        lines = []
        chart.refresh = lambda *regions, **kwargs: lines.extend(regions)
        for step in range(641, 653):  # a quarter of a second of a fast run
            app.run_state.apply(fakes.step_done(fakes.config(), step, fakes.NOON + 26))
        await until(pilot, lambda: lines)
        assert len(lines) < chart.size.height / 2
