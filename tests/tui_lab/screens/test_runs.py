"""The Runs screen on real run folders: what it shows, and each of its actions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from engine.events import StepDone, to_json
from engine.lab import Lab
from tests.tui_lab import labs
from tests.tui_lab.screens.browsing import Browser, screen_text, until
from tui_lab.catalogue import Catalogue
from tui_lab.screens.dialogs import Dialog


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab that no test changes."""
    lab = Lab.init(tmp_path_factory.mktemp("runs") / "lab")
    labs.four_runs(lab, weights=False)
    return lab


@pytest.fixture
def own_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the lab's own runs, at fixed sizes: what ships, and versions in files, may change."""
    found = Catalogue.runs

    def steady(self: Catalogue) -> list:
        own = [run for run in found(self) if run.own]
        return [dataclasses.replace(run, bytes=1_234_567 + 1000 * run.step) for run in own]

    monkeypatch.setattr(Catalogue, "runs", steady)


async def ready(pilot) -> None:
    """The table is filled and the curve of the first run is read."""
    screen = pilot.app.screen
    await until(pilot, lambda: screen.runs and screen.chosen and not screen._found)
    await until(pilot, lambda: all(name in screen._curves for name, _ in screen._wanted))
    await until(pilot, lambda: not screen._grown)
    await pilot.pause()


async def compare_two(pilot) -> None:
    await ready(pilot)
    await pilot.press("end", "up", "space", "space")
    await ready(pilot)


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)], ids=str)
def test_two_marked_runs_at_each_size(snap_compare, four: Lab, own_runs: None, size) -> None:
    """Columns leave by priority, the curves carry letters, the widest shows the differences."""
    assert snap_compare(Browser(four, "runs"), terminal_size=size, run_before=compare_two)


def test_letters_tell_the_curves_apart_without_colour(
    snap_compare, four: Lab, own_runs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(Browser(four, "runs"), terminal_size=(80, 24), run_before=compare_two)


async def test_the_table_says_what_the_files_say(four: Lab, own_runs: None) -> None:
    async with Browser(four, "runs").run_test(size=(160, 40)) as pilot:
        await ready(pilot)
        text = screen_text(pilot.app)
    assert "4 runs" in text
    for word in ("✓ finished", "■ stopped", "✗ failed", "✗ crashed", "200 / 400", "42 min"):
        assert word in text


async def test_an_empty_lab_says_what_to_do(lab: Lab, own_runs: None) -> None:
    async with Browser(lab, "runs").run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: pilot.app.screen.has_class("-empty"))
        await pilot.pause()
        assert "No runs yet" in screen_text(pilot.app)


async def test_filter_narrows_while_typing_and_escape_takes_it_away(
    four: Lab, own_runs: None
) -> None:
    async with Browser(four, "runs").run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        table = pilot.app.screen.table
        await pilot.press("slash", *"micro stop")
        await until(pilot, lambda: [row.key for row in table.rows] == ["micro-docs-2"])
        await pilot.press("enter")
        assert table.has_focus and len(table.rows) == 1
        await pilot.press("escape")
        await until(pilot, lambda: len(table.rows) == 4)


async def test_sorting_by_key_and_by_header_and_it_is_remembered(four: Lab, own_runs: None) -> None:
    app = Browser(four, "runs")
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        keys = lambda: [row.key for row in app.screen.table.rows]  # noqa: E731
        assert keys()[0].startswith("long-name")  # the newest first
        await pilot.press("s")
        assert keys() == sorted(keys())
        await pilot.press("S")
        assert keys() == sorted(keys(), reverse=True)
        header = screen_text(app).splitlines()[2]
        await pilot.click("#runs", offset=(header.index("best val") - 1, 0))
        assert keys()[0] == "micro-docs"  # the lowest validation loss
        assert app.settings.of("runs")["sort"] == "best"


async def test_differences_show_only_the_fields_that_differ(four: Lab, own_runs: None) -> None:
    async with Browser(four, "runs").run_test(size=(100, 40)) as pilot:
        await compare_two(pilot)
        await pilot.press("d")
        await pilot.pause()
        text = pilot.app.screen.query_one("#details").text
    assert "optimizer.lr" in text and "0.0003" in text and "model.dropout" in text
    assert "train.max_steps" not in text and "model.n_embd" not in text


async def test_curve_and_axis_keys_change_what_is_drawn(four: Lab, own_runs: None) -> None:
    async with Browser(four, "runs").run_test(size=(100, 30)) as pilot:
        await compare_two(pilot)
        chart = pilot.app.screen.query_one("#overlay")
        seen = []
        for key in ("x", "x", "c", "c", "c"):
            await pilot.press(key)
            seen.append(chart.plot.title[0][0].strip().split(",")[0])
        assert seen == [
            "loss by tokens",
            "loss by time",
            "validation by time",
            "learning rate by time",
            "gradient norm by time",
        ]
        assert all(len(line.x) for line in chart.plot.lines)


async def test_a_run_that_another_process_writes_grows_on_the_screen(
    lab: Lab, own_runs: None
) -> None:
    """The files are the truth: nothing but appended lines tells the screen."""
    path = labs.make_run(lab, "growing", steps=50, end="crashed")
    async with Browser(lab, "runs").run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        screen = pilot.app.screen
        before = len(screen._curves["growing"])
        more = [
            StepDone(step=s, tokens=s * 256, loss=2.0, lr=1e-3, grad_norm=1.0,
                     tokens_per_second=1.0, mfu=None, memory_bytes=0)
            for s in range(51, 91)
        ]  # fmt: skip
        with (path / "metrics.jsonl").open("a") as file:
            file.write("".join(to_json(event) + "\n" for event in more))
        status = json.loads((path / "status.json").read_text())
        (path / "status.json").write_text(json.dumps(status | {"step": 90}))
        screen.look_soon()
        await until(pilot, lambda: len(screen._curves["growing"]) == before + 40)
        await until(pilot, lambda: screen.runs[0].step == 90)


async def test_an_unchanged_look_paints_nothing(
    four: Lab, own_runs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Browser(four, "runs").run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        screen = pilot.app.screen
        screen.take(screen._catalogue.runs())  # what came since the last look is shown
        await pilot.pause()
        painted = []
        for widget in screen.query("*"):
            monkeypatch.setattr(widget, "refresh", lambda *a, **k: painted.append(a))
        screen.take(screen._catalogue.runs())
        assert painted == []


async def test_enter_opens_the_checkpoints_of_this_run(four: Lab, own_runs: None) -> None:
    async with Browser(four, "runs").run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("end", "enter")
        await until(pilot, lambda: pilot.app.current_mode == "checkpoints")
        await until(pilot, lambda: pilot.app.screen.run == "micro-docs")


async def test_a_shows_any_run_on_the_train_screen(four: Lab, own_runs: None) -> None:
    """By its files alone: also one that has ended, and then another instead of it."""
    app = Browser(four, "runs")
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.screen.runs)
        for _ in range(2):
            app.go("runs")
            await until(pilot, lambda: app.screen.NAME == "runs")
            await pilot.press("down")
            wanted = app.screen.selected
            await pilot.press("a")
            await until(pilot, lambda run=wanted: app.run_state.run == run.name)
            assert app.current_mode == "train" and app.trainer.path == wanted.path
            assert app.run_state.step == wanted.step and not app.run_state.live
            await until(pilot, lambda run=wanted: run.name in screen_text(app))
        before = app.trainer
        app.go("runs")
        await until(pilot, lambda: app.screen.NAME == "runs")
        await pilot.press("a")  # the one that is shown already
        await until(pilot, lambda: app.current_mode == "train")
        assert app.trainer is before


async def test_the_mouse_moves_the_cursor_and_a_double_click_opens(
    four: Lab, own_runs: None
) -> None:
    async with Browser(four, "runs").run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        table = pilot.app.screen.table
        await pilot.click("#runs", offset=(10, 3))
        assert table.key == "micro-docs-2"
        await pilot.double_click("#runs", offset=(10, 4))
        await until(pilot, lambda: pilot.app.current_mode == "checkpoints")
        await until(pilot, lambda: pilot.app.screen.run == "micro-docs")


async def test_deleting_asks_twice_and_says_what_goes(lab: Lab, own_runs: None) -> None:
    path = labs.make_run(lab, "old", steps=20)
    app = Browser(lab, "runs")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        assert "1.3 MB" in app.screen.body and str(path) in app.screen.body
        await pilot.press("enter")  # the answer that Enter gives is no
        await until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert path.exists()
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("y")
        await until(pilot, lambda: "Really" in getattr(app.screen, "question", ""))
        assert path.exists()
        await pilot.press("y")
        await until(pilot, lambda: not path.exists())
        await until(pilot, lambda: app.screen.has_class("-empty"))


async def test_a_running_run_is_refused_before_it_is_asked(lab: Lab, own_runs: None) -> None:
    path = labs.make_run(lab, "busy", steps=20, end="running")
    app = Browser(lab, "runs")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        for key, word in (("delete", "deleted"), ("r", "resumed")):
            await pilot.press(key)
            await until(pilot, lambda word=word: any(word in said for said in app.said))
        assert not isinstance(app.screen, Dialog) and path.exists()


async def test_resuming_names_the_step_and_starts(lab: Lab, own_runs: None) -> None:
    labs.make_run(lab, "half", steps=200, saves=(150,), end="stopped")
    app = Browser(lab, "runs")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        assert "step 150" in app.screen.body and "step 400" in app.screen.body
        await pilot.press("y")
        await until(pilot, lambda: app.trainer._session.resumed == "half")
        app.stop_run()
        await until(pilot, lambda: not app.trainer.active)


async def test_a_run_without_checkpoints_says_so_instead_of_opening(
    four: Lab, own_runs: None
) -> None:
    app = Browser(four, "runs")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        for key in ("o", "r"):
            await pilot.press(key)
            await until(pilot, lambda: any("has no checkpoint" in said for said in app.said))
            app.said.clear()
        assert app.current_mode == "runs"


async def test_hostile_names_reach_the_screen_as_glyphs(lab: Lab, own_runs: None) -> None:
    path = labs.make_run(lab, "hostile", steps=5)
    identity = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(identity | {"preset": "\x1b]52;c;AA\x07[red]x"}))
    async with Browser(lab, "runs").run_test(size=(200, 30)) as pilot:
        await ready(pilot)
        text = screen_text(pilot.app)
    assert "\x1b" not in text and "␛]52" in text


def test_two_hundred_unchanged_runs_are_looked_at_without_reading_a_file(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look of every second costs file statuses only."""
    first = labs.make_run(lab, "run", steps=3)
    for number in range(199):
        copy = lab.checkpoints / f"run-{number:03}"
        copy.mkdir()
        for name in ("run.json", "config.toml", "status.json", "metrics.jsonl"):
            (copy / name).write_bytes((first / name).read_bytes())
    catalogue = Catalogue(lab)
    assert sum(run.own for run in catalogue.runs()) == 200
    monkeypatch.setattr(Path, "open", lambda *a, **k: pytest.fail("a file was opened"))
    monkeypatch.setattr("tui_lab.catalogue.summarise", lambda *a, **k: pytest.fail("read again"))
    assert sum(run.own for run in catalogue.runs()) == 200


async def test_a_run_at_its_end_is_not_resumed_in_vain(lab: Lab, own_runs: None) -> None:
    labs.make_run(lab, "done", steps=400, saves=(400,))
    app = Browser(lab, "runs")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("r")
        await until(pilot, lambda: any("--max-steps 800" in said for said in app.said))
        assert not isinstance(app.screen, Dialog)


async def test_an_edited_configuration_is_shown_and_confirmed_before_a_run_goes_on(
    lab: Lab, own_runs: None
) -> None:
    path = labs.make_run(lab, "half", steps=200, saves=(150,), end="stopped") / "config.toml"
    path.write_text(path.read_text().replace("clip = 1.0", "clip = 0.25"))
    app = Browser(lab, "runs")

    async def ask() -> None:
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Dialog) and "step 150" in app.screen.body)
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, Dialog) and "clip" in app.screen.body)
        assert "optimizer.clip: 1 → 0.25" in app.screen.body

    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await ask()
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert app.trainer._session.resumed == ""
        await ask()
        await pilot.press("y")
        await until(pilot, lambda: app.trainer._session.resumed == "half")
        app.stop_run()
        await until(pilot, lambda: not app.trainer.active)
