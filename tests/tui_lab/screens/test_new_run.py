"""The form: refusals beside the fields, the plan beside the form, and nothing lost of either."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.config import FIELDS
from engine.correction import Correction, remember
from engine.planner import CorpusFacts, DeviceFacts
from tests.tui_lab.fakes import FakeSession
from tests.tui_lab.pilots import make_app, shown, until
from tui_lab.screens.dialogs import Dialog

SIZE = (120, 36)


async def opened(app, pilot):
    await pilot.press("6")
    await until(pilot, lambda: "parameters" in shown(app))
    return app.screen


def field(screen, key: str):
    return screen.query_one("#field-" + key.replace(".", "-"))


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)], ids=["small", "middle", "large"])
def test_the_form_and_its_plan(snap_compare, tmp_path: Path, monkeypatch, size: tuple[int, int]):
    """With a machine and a corpus that are the same everywhere."""
    machine = DeviceFacts("cpu", "a processor", "bfloat16", 24e9, 20e9, 9e11, "measured here")
    monkeypatch.setattr("engine.survey.survey_device", lambda config, device=None: machine)
    corpus = CorpusFacts(1024, True, 140_000, 15_000, True, True)
    monkeypatch.setattr("engine.survey.survey_corpus", lambda lab, config: corpus)
    monkeypatch.setattr("engine.survey.disk_free", lambda path: 50e9)
    app = make_app(tmp_path)

    async def open_form(pilot):
        await opened(app, pilot)
        await pilot.pause(0.2)

    assert snap_compare(app, terminal_size=size, run_before=open_form)


async def test_the_plan_follows_the_form(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(app, pilot)
        before = shown(app)
        field(screen, "model.n_layer").value = "8"
        await until(pilot, lambda: shown(app) != before and "1.73 M" in shown(app))


async def test_a_refusal_stands_beside_its_field_and_the_start_is_held(tmp_path: Path):
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(app, pilot)
        field(screen, "model.n_layer").value = "many"
        field(screen, "optimizer.lr").value = "0.002"
        await until(pilot, lambda: "'many': not a whole number" in shown(app))
        assert screen.query_one("#start").disabled
        await pilot.press("f5")
        await until(pilot, lambda: screen.focused is field(screen, "model.n_layer"))
        assert not app.trainer.active
        assert field(screen, "optimizer.lr").value == "0.002"


async def test_the_form_starts_the_run_it_describes(tmp_path: Path):
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(app, pilot)
        field(screen, "train.max_steps").value = "70000"
        screen.query_one("#name").value = "mine"
        await pilot.press("f5")
        await until(pilot, lambda: app.run_state is not None and app.run_state.step > 2)
        assert app.current_mode == "train"
        assert app.run_state.config.train.max_steps == 70_000
        app.stop_run()


async def test_a_bad_name_is_refused_beside_it(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(app, pilot)
        screen.query_one("#name").value = "../escape"
        await until(pilot, lambda: screen.query_one("#start").disabled)
        assert "escape" in str(screen.query_one("#name-note").content)


async def test_starting_while_training_asks_and_keeps_the_form(tmp_path: Path):
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(app, pilot)
        field(screen, "train.max_steps").value = "70000"
        await pilot.press("f5")
        await until(pilot, lambda: app.run_state is not None and app.run_state.step > 2)
        await pilot.press("6", "f5")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("n")
        await until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert app.trainer.active and not app.run_state.stopping
        assert field(screen, "train.max_steps").value == "70000"
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("y")
        await until(pilot, lambda: app.run_state.finished is not None)


async def test_another_preset_fills_the_form_and_reset_brings_it_back(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(app, pilot)
        preset = screen.query_one("#preset")
        before = field(screen, "model.n_embd").value
        field(screen, "model.n_embd").value = "64"
        await pilot.press("f8")
        assert field(screen, "model.n_embd").value == before
        preset.value = next(name for name in preset.options if name != preset.value)
        await until(pilot, lambda: screen.preset == preset.value)
        assert field(screen, "model.n_embd").value == str(screen.form.base.model.n_embd)


async def test_unfolding_shows_every_field_and_keeps_what_was_typed(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(app, pilot)
        field(screen, "model.n_layer").value = "7"
        await pilot.press("f2")
        await until(pilot, lambda: len(screen.query("FieldRow")) == len(FIELDS))
        assert field(screen, "model.n_layer").value == "7"


async def test_letters_go_into_the_field_that_has_the_focus(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(app, pilot)
        screen.query_one("#name").focus()
        await pilot.press("q", "1", "t")
        assert screen.query_one("#name").value == "q1t"
        assert app.current_mode == "new_run" and app.theme == "dark"


async def test_calibrating_puts_the_plan_right(tmp_path: Path, monkeypatch):
    """Shown while it is measured, said when it is done, and in the plan from then on."""
    facts = DeviceFacts("cpu", "a processor", "bfloat16", 24 * 10**9, 0, 9e11, "measured here")
    monkeypatch.setattr("engine.survey.survey_device", lambda config, device=None: facts)
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))
    measured = threading.Event()

    def calibrate(lab, config, *, should_stop):
        assert measured.wait(5)
        for compiled in (False, True):
            remember(facts, compiled, Correction(1.25, 0, "2026-11-25", "this shape"))
        return SimpleNamespace(time_error=-0.2, memory_error=0.03)

    monkeypatch.setattr("engine.calibration.calibrate", calibrate)
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(app, pilot)
        await pilot.press("f6")
        await until(pilot, lambda: "f6 leaves off" in shown(app))
        measured.set()
        await until(pilot, lambda: "time -20%, memory +3%" in shown(app))
        await until(pilot, lambda: "corrected by 1.25, 2026-11-25" in shown(app))
        assert "f6 leaves off" not in shown(app)
        assert screen.calibrating is None


async def test_calibrating_is_left_off_by_its_key_by_starting_and_by_leaving(
    tmp_path: Path, monkeypatch
):
    """A measured run must neither slow the user's own one nor hold up the app's end."""
    left_off = []

    def calibrate(lab, config, *, should_stop):
        while not should_stop():
            time.sleep(0.01)
        left_off.append(config)

    monkeypatch.setattr("engine.calibration.calibrate", calibrate)
    app = make_app(tmp_path, FakeSession(pause=0.05))
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(app, pilot)
        await pilot.press("f6")
        await until(pilot, lambda: screen.calibrating is not None)
        await pilot.press("f6")
        await until(pilot, lambda: len(left_off) == 1 and screen.calibrating is None)
        await pilot.press("f6", "f5")
        await until(pilot, lambda: len(left_off) == 2 and app.trainer.active)
        app.stop_run()
        await until(pilot, lambda: not app.trainer.active)
        await pilot.press("6", "f6")
        await until(pilot, lambda: screen.calibrating is not None)
    end = time.monotonic() + 5.0  # the app has not waited for its thread
    while len(left_off) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)


async def test_calibrating_is_refused_beside_a_run(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(app, pilot)
        field(screen, "train.max_steps").value = "70000"
        await pilot.press("f5")
        await until(pilot, lambda: app.run_state is not None and app.run_state.step > 2)
        await pilot.press("6", "f6")
        await until(pilot, lambda: "beside a run" in shown(app))
        assert screen.calibrating is None
        app.stop_run()


async def test_a_broken_preset_is_told_and_the_form_opens(tmp_path: Path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "micro.toml").write_text("[model]\nn_layr = 3\n")
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("6")
        await until(pilot, lambda: "micro.toml: unknown configuration key" in shown(app))


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_every_row_fits(tmp_path: Path, size: tuple[int, int]):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        for row in screen.query("FieldRow"):
            cells = [child.region for child in row.children]
            assert all(a.right <= b.x for a, b in zip(cells, cells[1:], strict=False))
            assert cells[-1].right <= screen.query_one("#plan").region.x
