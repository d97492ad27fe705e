"""A run of another process, watched and steered through its files: real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import control, events
from engine.corpora import add
from engine.errors import EngineError
from engine.lab import Lab
from engine.metrics import read_events
from engine.spool import own_name
from engine.status import read_status
from tests.conftest import small_text
from tests.tui_lab.cli.processes import TINY, command, environment
from tests.tui_lab.fakes import FakeSession, config
from tests.tui_lab.pilots import make_app, shown, until
from tests.tui_lab.terminals import Terminal
from tui_lab.attached import AttachedRun
from tui_lab.screens.dialogs import Dialog

SIZE = (120, 36)
SLOW = 30.0  # seconds: another process answers, on a machine that may be busy
ENDLESS = (*TINY, "--max-steps", "1000000", "--eval-every", "0", "--set", "sample.every=0")


class Training:
    """`tui-lab train` without a screen, in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.lab = Lab.init(root)
        (root / "small.txt").write_text(small_text())
        add(self.lab, "small", [root / "small.txt"])
        self.path = self.lab.checkpoints / "watched"
        self.process = subprocess.Popen(
            command(root, "train", *ENDLESS, "--name", "watched"),
            env=environment(),
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: read_status(self.path).step > 0, 2 * SLOW)
        except BaseException:
            self.close()  # else it would train on, and slow whatever comes after
            raise

    def commands(self) -> list[tuple[str, str]]:
        """What the run has recorded, and of whom."""
        told = read_events(self.path, ["control_applied"])
        return [(record["command"], record["who"]) for record in told]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def wait_for(condition: Callable[[], object], seconds: float = SLOW) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """A run that tests only watch and steer."""
    made = Training(tmp_path_factory.mktemp("lab"))
    yield made
    made.close()


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    """A run that a test may end."""
    made = Training(tmp_path / "lab")
    yield made
    made.close()


async def test_the_app_steers_the_run_and_each_command_is_recorded_with_who_asked(shared: Training):
    app = make_app(shared.lab.root, FakeSession(), attach=shared.path)
    me = own_name()
    async with app.run_test(size=SIZE) as pilot:
        run = lambda: app.run_state  # noqa: E731  the past is folded elsewhere, then handed over
        await until(pilot, lambda: run().step > 3, SLOW)
        where = f"attached · {read_status(shared.path).host} · {shared.process.pid}"
        await until(pilot, lambda: where in shown(app))
        await pilot.press("space")
        await until(pilot, lambda: run().status == "paused" and "space resume" in shown(app), SLOW)
        step = run().step
        await pilot.press("full_stop")
        await until(pilot, lambda: run().step == step + 1, SLOW)
        await pilot.press("space")
        await until(pilot, lambda: run().step > step + 5, SLOW)
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press(*"5e", "minus", "4", "enter")
        await until(pilot, lambda: any(m.kind == "rate" for m in run().marks), SLOW)
        for key, effect in (
            ("s", lambda: run().checkpoint),
            ("e", lambda: run().evaluation),
            ("g", lambda: run().sample),
        ):
            await pilot.press(key)
            await until(pilot, effect, SLOW)
        assert me not in "".join(line.text for line in run().lines), "it was this very user"
    kinds = {"Pause", "Step", "Resume", "SetLearningRate", "SaveNow", "EvalNow", "Sample"}
    assert {kind for kind, who in shared.commands() if who == me} >= kinds


async def test_the_console_streams_tokens_from_the_live_weights(shared: Training):
    app = make_app(shared.lab.root, FakeSession(), attach=shared.path)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.run_state.step > 0, SLOW)
        app.open_console(None)
        await until(pilot, lambda: app.current_mode == "console" and app.screen.source is not None)
        app.screen.prompt.text = "the "
        app.screen.action_generate()
        generations = app.screen.transcript.generations
        await until(pilot, lambda: generations and generations[-1].reason, SLOW)
        assert generations[-1].reason == "length" and generations[-1].tokens > 20
        assert len(generations[-1].text) == generations[-1].tokens
    answers = shared.path / "control" / "answers"
    wait_for(lambda: not list(answers.iterdir()))  # whoever asked takes the file away


async def test_two_attached_at_once_see_each_other_and_leave_the_run_alone(shared: Training):
    app = make_app(shared.lab.root, FakeSession(), attach=shared.path)
    other = AttachedRun(shared.path)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.run_state.step > 0, SLOW)
        wait_for(lambda: other.take_history() is not None)
        other.put(control.Pause(), "ann@elsewhere")
        await until(pilot, lambda: app.run_state.status == "paused", SLOW)
        await until(pilot, lambda: "paused by ann@elsewhere" in shown(app), SLOW)
        wait_for(lambda: other.paused)
        other.put(control.Resume())
        await until(pilot, lambda: app.run_state.status == "training", SLOW)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        assert f"process {shared.process.pid} on " in app.screen.body
        await pilot.press("l")
        await until(pilot, lambda: not app.is_running)
    other.close()
    assert shared.process.poll() is None
    step = read_status(shared.path).step
    wait_for(lambda: read_status(shared.path).step > step)


def test_the_command_in_a_terminal_and_a_signal_leaves_the_run_alone(shared: Training, tmp_path):
    places = {"TUI_LAB_CONFIG_DIR": str(tmp_path), "TERM": "xterm-256color"}
    one = Terminal("-m", "tui_lab", "--lab", str(shared.lab.root), "attach", **places)
    try:
        one.until(lambda: b"attached" in one.written and b"tokens/s" in one.written, SLOW)
        os.kill(one.pid, signal.SIGTERM)
        one.until(one.ended)
        assert one.code == 143
        assert b"\x1b[?1049l" in one.written and b"Traceback" not in one.written
    finally:
        one.close()
    assert shared.process.poll() is None


def test_a_terminal_that_closes_ends_the_watching_and_not_the_run(shared: Training, tmp_path):
    places = {"TUI_LAB_CONFIG_DIR": str(tmp_path), "TERM": "xterm-256color"}
    one = Terminal("-m", "tui_lab", "--lab", str(shared.lab.root), "attach", "watched", **places)
    try:
        one.until(lambda: b"attached" in one.written and b"tokens/s" in one.written, SLOW)
        before = len(shared.commands())
        os.close(one.fd)
        one.fd = os.open(os.devnull, os.O_RDWR)
        wait_for(one.ended)
    finally:
        one.close()
    assert shared.process.poll() is None and len(shared.commands()) == before


async def test_a_stop_saves_there_and_the_run_can_be_resumed_here(training: Training):
    session = FakeSession()
    app = make_app(training.lab.root, session, attach=training.path)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.run_state.step > 3, SLOW)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("y")
        await until(pilot, lambda: app.run_state.finished and not app.trainer.active, SLOW)
        await until(pilot, lambda: "r resume" in shown(app), SLOW)
        assert training.process.wait(SLOW) == 0
        assert ("Stop", own_name()) in training.commands()
        await pilot.press("r")
        await until(pilot, lambda: session.resumed == "watched")
        assert not app.trainer.elsewhere and not app.run_state.elsewhere
        app.stop_run()


async def test_a_killed_process_is_shown_as_crashed_and_told_nothing_more(training: Training):
    app = make_app(training.lab.root, FakeSession(), attach=training.path)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: app.run_state.step > 3, SLOW)
        training.process.kill()
        training.process.wait()
        await until(pilot, lambda: app.run_state.failed, SLOW)
        await until(pilot, lambda: "crashed" in shown(app), SLOW)
        assert "tui-lab train --resume watched" in app.run_state.failed.hint
        assert not app.trainer.active
        app.trainer.put(control.SaveNow())  # as if pressed just before the end was known
        await until(pilot, lambda: "not training: crashed" in shown(app), SLOW)
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)


async def test_a_run_that_trains_here_is_not_left_for_another(shared: Training, tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        app.start_run(config(train__max_steps=100_000), preset="micro")
        await until(pilot, lambda: app.run_state.step > 3)
        with pytest.raises(EngineError, match="trains in this app"):
            app.attach(shared.path)
        assert not app.trainer.elsewhere
        app.stop_run()
        await until(pilot, lambda: not app.trainer.active)
        app.attach(shared.path)
        await until(pilot, lambda: app.run_state.started and app.run_state.run == "watched", SLOW)
        # And a run that is started here takes the place of the one that was watched.
        app.start_run(config(train__max_steps=100_000), preset="micro")
        await until(pilot, lambda: app.run_state.run == "micro-python-docs")
        assert not app.trainer.elsewhere
        app.stop_run()


def test_a_thread_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(self):
        raise MemoryError("none left")

    monkeypatch.setattr("tui_lab.attached.Follower.poll", broken)
    one = AttachedRun(tmp_path)
    assert one.wait(5.0)
    failed = one.events[-1]
    assert isinstance(failed, events.Failed) and "MemoryError" in failed.title
