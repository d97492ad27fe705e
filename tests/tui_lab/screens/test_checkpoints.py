"""The Checkpoints screen on real checkpoints: what it tells of them, and each of its actions."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.lab import Lab
from tests.tui_lab import labs
from tests.tui_lab.screens.browsing import Browser, screen_text, until
from tui_lab.catalogue import Catalogue
from tui_lab.screens import checkpoints_rows
from tui_lab.screens.dialogs import Dialog


def own_lab(path: Path) -> Lab:
    lab = Lab.init(path)
    labs.make_run(lab, "first", steps=60, saves=(30, 60), hours_ago=50.2)
    labs.make_run(lab, "second", steps=40, saves=(40,), hours_ago=5.2, end="stopped")
    return lab


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A lab that no test changes."""
    return own_lab(tmp_path_factory.mktemp("checkpoints") / "lab")


@pytest.fixture
def changing(tmp_path: Path) -> Lab:
    return own_lab(tmp_path / "lab")


@pytest.fixture
def own_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the lab's own checkpoints, at a fixed size: what ships, and versions, may change."""
    found = Catalogue.checkpoints

    def steady(self: Catalogue, run: str | None = None) -> list:
        pairs = [(info, own) for info, own in found(self, run) if own]
        return [(dataclasses.replace(info, bytes=290_500), own) for info, own in pairs]

    monkeypatch.setattr(Catalogue, "checkpoints", steady)


async def ready(pilot) -> None:
    screen = pilot.app.screen
    await until(pilot, lambda: screen.found)
    await until(pilot, lambda: screen.selected and screen.selected[0].path in screen._inspections)
    await pilot.pause()


def detail(pilot) -> str:
    return pilot.app.screen.query_one("#pane").text


async def show_tensors(pilot) -> None:
    await ready(pilot)
    await pilot.press("right", "right")
    await until(pilot, lambda: "wte.weight" in detail(pilot))
    await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)], ids=str)
def test_the_tensors_of_a_checkpoint_at_each_size(
    snap_compare, shared: Lab, own_only: None, size
) -> None:
    app = Browser(shared, "checkpoints")
    assert snap_compare(app, terminal_size=size, run_before=show_tensors)


async def test_all_runs_newest_first_with_the_best_marked(shared: Lab, own_only: None) -> None:
    app = Browser(shared, "checkpoints")
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        cells = [[getattr(c, "text", c) for c in row.cells] for row in app.screen.table.rows]
    assert [row[1:3] for row in cells] == [["second", "40"], ["first", "60"], ["first", "30"]]
    assert [row[0] for row in cells] == ["★", "★", ""]


async def test_the_overview_tells_the_training_state(shared: Lab, own_only: None) -> None:
    async with Browser(shared, "checkpoints").run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        text = detail(pilot)
    for words in ("second, step 40", "3.00e-04", "epoch 0, index 40", "random state  cpu", "★"):
        assert words in text
    assert "not checked yet" in text


async def test_each_view_shows_its_part(shared: Lab, own_only: None) -> None:
    async with Browser(shared, "checkpoints").run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        said = {}
        for view in checkpoints_rows.VIEWS:
            pilot.app.screen.views.current = view
            await pilot.pause()
            said[view] = detail(pilot)
    assert "34 720 parameters" in said["parameters"] and "2 ×" in said["parameters"]
    assert "257×32" in said["tensors"] and "F32" in said["tensors"]
    assert "reads 290.5 kB" in said["statistics"]
    assert "[optimizer]" in said["configuration"] and "n_embd" in said["configuration"]


async def test_statistics_are_read_when_asked(shared: Lab, own_only: None) -> None:
    async with Browser(shared, "checkpoints").run_test(size=(180, 40)) as pilot:
        await ready(pilot)
        await pilot.press("s")
        await until(pilot, lambda: "histogram" in detail(pilot))
        line = next(x for x in detail(pilot).splitlines() if x.startswith("wte.weight"))
    assert "0.020" in line and "█" in line  # GPT-2's initialisation, and its bell


async def test_statistics_under_way_can_be_stopped(
    shared: Lab, own_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk stands in for a large checkpoint."""
    going = threading.Event()

    def slow(path, name, progress, should_stop):
        progress(1, 4)
        going.set()
        while not should_stop():
            going.wait(0.01)
        return []

    monkeypatch.setattr("engine.checkpoints.tensor_statistics", slow)
    async with Browser(shared, "checkpoints").run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("s")
        await until(pilot, lambda: "25 %" in detail(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: not pilot.app.screen._progress)
        assert not pilot.app.screen.measured


async def test_verifying_says_sound_and_names_what_is_broken(changing: Lab, own_only: None) -> None:
    async with Browser(changing, "checkpoints").run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("v")
        await until(pilot, lambda: "✓ sound" in detail(pilot))
        path = pilot.app.screen.selected[0].path / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        await pilot.press("v")
        await until(pilot, lambda: "✗ broken" in detail(pilot))
        assert "model.safetensors" in detail(pilot)
        await pilot.pause()
        assert "✗ broken" in screen_text(pilot.app).splitlines()[3]


async def test_a_checkpoint_without_a_readable_header_is_explained(
    changing: Lab, own_only: None
) -> None:
    (changing.checkpoints / "second" / "step_000040" / "model.safetensors").write_bytes(b"short")
    async with Browser(changing, "checkpoints").run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "is broken" in detail(pilot)
        assert "✗ not whole" in screen_text(pilot.app)


async def test_filter_and_all_runs(shared: Lab, own_only: None) -> None:
    app = Browser(shared, "checkpoints")
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("slash", *"first best", "enter")
        await until(pilot, lambda: len(app.screen.table.rows) == 1)
        await pilot.press("escape", "end", "a")
        await until(pilot, lambda: app.screen.run == "first" and len(app.screen.table.rows) == 2)
        assert "2 checkpoints of first" in screen_text(app)
        await pilot.press("a")
        await until(pilot, lambda: len(app.screen.table.rows) == 3)


async def test_opening_in_the_console_names_run_and_step(
    shared: Lab, own_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str | None] = []
    monkeypatch.setattr(Browser, "open_console", lambda self, ref: opened.append(ref))
    async with Browser(shared, "checkpoints").run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("end", "enter")
        assert opened == ["first/step_000030"]


async def test_copying_the_path(shared: Lab, own_only: None) -> None:
    app = Browser(shared, "checkpoints")
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("y")
        assert app.clipboard == str(app.screen.selected[0].path)


async def test_resuming_tells_from_what_step_and_what_is_lost(shared: Lab, own_only: None) -> None:
    app = Browser(shared, "checkpoints")
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("end", "r")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        assert "from step 30" in app.screen.body and "been at step 60" in app.screen.body
        await pilot.press("y")
        await until(pilot, lambda: app.trainer._session.resumed == "first/step_000030")
        app.stop_run()
        await until(pilot, lambda: not app.trainer.active)


async def test_deleting_asks_twice(changing: Lab, own_only: None) -> None:
    path = changing.checkpoints / "second" / "step_000040"
    app = Browser(changing, "checkpoints")
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("delete")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        assert "only one" in app.screen.body and "290.5 kB" in app.screen.body
        await pilot.press("y")
        await until(pilot, lambda: "Really" in getattr(app.screen, "question", ""))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert path.exists()
        for question in ("Delete", "Really"):
            if question == "Delete":
                await pilot.press("delete")
            await until(pilot, lambda q=question: getattr(app.screen, "question", "").startswith(q))
            await pilot.press("y")
        await until(pilot, lambda: not path.exists())
        await until(pilot, lambda: len(app.screen.table.rows) == 2)


async def test_what_was_read_while_the_app_was_left_is_shown_nowhere(shared: Lab) -> None:
    """It ended in a traceback when the headers of a checkpoint came late."""
    app = Browser(shared, "checkpoints")
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        screen = app.screen
        await screen.query_one("#checkpoints").remove()
        await screen._inspect(screen.found[0][0].path)
        screen.show_rows()


async def test_what_ships_is_shown_as_such_and_refused(
    shared: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lab's own checkpoints stand in for the shipped one."""
    found = Catalogue.checkpoints
    monkeypatch.setattr(
        Catalogue, "checkpoints", lambda self: [(info, False) for info, _ in found(self)]
    )
    app = Browser(shared, "checkpoints")
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "(shipped)" in screen_text(app)
        await pilot.press("delete")
        await until(pilot, lambda: any("cannot be deleted" in said for said in app.said))
        assert not isinstance(app.screen, Dialog)


async def test_an_empty_lab_says_what_to_do(lab: Lab, own_only: None) -> None:
    async with Browser(lab, "checkpoints").run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: pilot.app.screen.has_class("-empty"))
        await pilot.pause()
        assert "No checkpoints yet" in screen_text(pilot.app)


def test_a_histogram_shows_every_bin_that_holds_anything() -> None:
    """One element among millions is where the outliers are."""
    assert checkpoints_rows.histogram((1, 0, 1_000_000, 8), 4) == "▁ █▁"
    assert len(checkpoints_rows.histogram(tuple(range(32)), 16)) == 16


def test_browsing_needs_no_torch(shared: Lab) -> None:
    """Listing, describing, verifying and measuring must not wait seconds for it."""
    program = f"""
import sys
from pathlib import Path
import tui_lab.screens.runs, tui_lab.screens.checkpoints, tui_lab.screens.corpus
from engine.checkpoints import inspect, tensor_statistics, verify
from engine.lab import Lab
from tui_lab.catalogue import Catalogue
from tui_lab.screens.corpus_files import survey
lab = Lab.find({str(shared.root)!r})
info, _ = Catalogue(lab).checkpoints("first")[0]
inspect(info.path), tensor_statistics(info.path), verify(info.path), Catalogue(lab).runs()
survey(lab)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
