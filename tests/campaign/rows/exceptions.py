"""An exception of any kind at any stage: in the interface, while a run trains; in the engine.

The interface may fail as it likes: the run goes on to its end. The engine may fail as it likes: its
last word is heard, once, by the screen, the command line, the log and the run's status.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from engine import control, events
from engine.config import Config
from engine.errors import EngineError
from engine.lab import Lab
from tests.campaign.captured import Hung, in_terminal
from tests.campaign.row import Progress, Result, Row
from tests.conftest import small_text
from tests.tiny_run import SETTINGS


class Odd(BaseException):
    """As some libraries raise: no Exception."""


class Unspeakable(Exception):
    """Whoever wants to say what happened fails."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


KINDS: tuple[Callable[[], BaseException], ...] = (
    lambda: RuntimeError("a word of explanation\nand a second line"),
    lambda: MemoryError(),
    lambda: SystemExit(0),
    lambda: KeyboardInterrupt(),
    lambda: Odd("neither one nor the other"),
    lambda: Unspeakable(),
)

WRITER = "a listener of events"
ENGINE = {
    "preparing": "engine.session.Material.__init__",
    "building the model": "engine.model.gpt.GPT.__init__",
    "the first step": "engine.model.gpt.GPT.features",
    "reading data": "engine.data.Batches.next",
    "evaluating": "engine.trainer.evaluate",
    "sampling": "engine.trainer.generate",
    "saving": "engine.checkpoints.background.write_checkpoint",
    "reporting": "engine.trainer.Trainer.report",
    WRITER: "engine.run_writer.RunWriter.__call__",
}
"""What raises, by stage."""

INTERFACE = ("a widget's drawing", "a timer", "a screen's tick", "a key's action")
PATIENCE = 60.0
STEPS = 40


def cases() -> list[tuple[str, int]]:
    """Every stage with every kind of exception, in an order whose beginning has some of each."""
    every = [(stage, kind) for kind in range(len(KINDS)) for stage in (*INTERFACE, *ENGINE)]
    return sorted(every, key=lambda case: (every.index(case) * 31) % len(every))


def run(trials: int, folder: Path, progress: Progress) -> Result:
    lab = _lab(folder)
    result = Result(trials)
    stuck = interface = 0
    every = cases()
    for number in range(trials):
        stage, kind = every[number % len(every)]
        name = f"{stage}, {type(KINDS[kind]()).__name__}"
        try:
            if stage in INTERFACE:
                interface += 1
                faults = list(_interface_fails(folder / str(number), stage, kind))
            else:
                faults = list(_engine_fails(lab, f"run-{number}", stage, kind))
        except Hung as error:
            stuck += 1
            faults = [f"never ended: {error}"]
        result.failures += [f"{name}: {fault}" for fault in faults]
        progress(number + 1)
    result.figures = {
        "exceptions in the interface": interface,
        "exceptions in the engine": trials - interface,
        "stages": len(INTERFACE) + len(ENGINE),
        "kinds of exception": len(KINDS),
        "stuck, silent or wrong ends": len(result.failures),
        "stuck": stuck,
    }
    return result


def _lab(folder: Path) -> Lab:
    from engine.corpora import add

    lab = Lab.init(folder / "lab")
    source = lab.root / "small.txt"
    source.write_text(small_text())
    add(lab, "small", [source])
    return lab


# The engine.


class _Ears:
    """A listener of a headless run that remembers."""

    def __init__(self) -> None:
        self.heard: list[events.Event] = []

    def handle(self, event: events.Event) -> None:
        self.heard.append(event)

    def pulse(self) -> None:
        pass

    def close(self) -> None:
        pass


def _engine_fails(lab: Lab, name: str, stage: str, kind: int) -> Iterator[str]:
    """A real, tiny run that fails, as `tui-lab train` runs it; what is wrong with its end."""
    from engine.session import run_training
    from tui_lab.headless import run_headless

    changes = {"train.max_steps": 12, "train.eval_every": 4, "save.every": 4, "sample.every": 4}
    prompts = {"sample.prompts": ("the cat",), "sample.max_tokens": 4}
    config = Config().with_values(SETTINGS | changes | prompts)
    ears, said = _Ears(), io.StringIO()
    failure: BaseException | None = None
    began = time.monotonic()

    def work(emit: events.Emit, inbox: control.Inbox) -> events.Finished:
        return run_training(lab, config, emit=emit, inbox=inbox, name=name)

    with ExitStack() as stack:
        stack.enter_context(patch(ENGINE[stage], partial(_raise, kind)))
        stack.enter_context(redirect_stderr(said))
        try:
            code = run_headless(work, ears)
        except BaseException as error:
            failure, code = error, 1
    if time.monotonic() - began > PATIENCE:
        yield f"it took {time.monotonic() - began:.0f} s to end"
    path = lab.checkpoints / name
    yield from _last_word(path, ears.heard, failure, code)
    begun = any(isinstance(event, events.RunStarted) for event in ears.heard)
    failed = any(isinstance(event, events.Failed) for event in ears.heard)
    # Where the writer of the files is what fails, there is nobody to write it down.
    if begun and failed and stage != WRITER and not _is_recorded(path):
        yield "the run's files do not say that it failed"


def _raise(kind: int, *_: Any, **__: Any) -> Any:
    raise KINDS[kind]()


def _last_word(
    path: Path, heard: list[events.Event], failure: BaseException | None, code: int
) -> Iterator[str]:
    """Whether the command line, the events, the status and the screen agree on how it ended."""
    ends = [event for event in heard if isinstance(event, events.Finished | events.Failed)]
    if len(ends) != 1:
        yield f"{len(ends)} last words"
        return
    (end,) = ends
    if isinstance(end, events.Finished):
        troubled = [e for e in heard if isinstance(e, events.Alert) and e.level == "error"]
        if failure is not None or code:
            yield f"finished, and yet the command ends with {code} and {failure!r:.100}"
        if not troubled and not any(isinstance(e, events.SampleDone) and e.error for e in heard):
            yield "finished without a word of what went wrong"
        return
    if not isinstance(failure, EngineError):
        yield f"the command line is given {type(failure).__name__}: no line that explains it"
    elif not failure.title or "\n" in failure.title:
        yield f"the error is not one clear line: {failure.title!r}"
    begun = any(isinstance(event, events.RunStarted) for event in heard)
    if begun and failure is not None and end.traceback and "log.txt" not in str(failure):
        yield f"the error does not name the log: {failure}"
    yield from _on_screen(path, heard)


def _is_recorded(path: Path) -> bool:
    """Whether status and log tell of the failure."""
    status = json.loads((path / "status.json").read_text())
    return status["state"] == "failed" and "failed: " in (path / "log.txt").read_text()


def _on_screen(path: Path, heard: list[events.Event]) -> Iterator[str]:
    """What the Train screen would say at the end."""
    from tui_lab.screens.train_view import summary
    from tui_lab.state import RunState

    run = RunState(None, "run", 0)
    for event in heard:
        run.apply(event)
    text = "".join(text for text, _ in summary(run, f"{path}/log.txt"))
    if run.live or not run.failed or "log.txt" not in text:
        yield f"the screen does not say that it failed, or where: {text!r:.100}"


# The interface.


def _interface_fails(folder: Path, stage: str, kind: int) -> Iterator[str]:
    """The app in a real terminal, whose screen fails while a run trains; how the run ended."""
    folder.mkdir()
    ended = folder / "ended"
    output, code = in_terminal(partial(_failing_app, folder, ended, stage, kind))
    text = output.decode(errors="replace")
    if not ended.exists():
        yield f"the run did not come to its end: {text[-300:]!a}"
    elif ended.read_text() != f"completed {STEPS}":
        yield f"the run ended as {ended.read_text()!r}"
    if code != 1:
        yield f"the process ended with {code}"
    if "the screen failed" not in text or "app.log" not in text:
        yield f"nobody was told that the screen failed: {text[-300:]!a}"
    if "\x1b[?1049l" not in text:
        yield "the terminal was not given back"


def _failing_app(folder: Path, ended: Path, stage: str, kind: int) -> None:
    """In the child: the app as `launch` shows it, over a session that trains nothing."""
    import os
    import sys

    from tests.tui_lab.fakes import FakeSession, config
    from tui_lab.app import LabApp
    from tui_lab.driver import LabDriver
    from tui_lab.launch import run_app
    from tui_lab.screens.train import TrainScreen
    from tui_lab.widgets.chart import Chart

    os.environ |= {"TUI_LAB_CONFIG_DIR": str(folder / "config"), "TERM": "xterm-256color"}

    class Session(FakeSession):
        def run_training(self, lab, told, *, emit, inbox, **_):  # type: ignore[no-untyped-def]
            short = config(train__max_steps=STEPS)
            done = super().run_training(lab, short, emit=emit, inbox=inbox)
            ended.write_text(f"{done.reason} {done.step}")
            return done

    class App(LabApp):
        CSS_PATH = Path(sys.modules[LabApp.__module__].__file__ or "").with_name("app.tcss")

        def on_mount(self) -> None:  # Textual calls LabApp's as well
            if stage == "a timer":
                self.set_timer(0.6, partial(_raise, kind))
            elif stage == "a key's action":
                self.set_timer(0.6, lambda: self.simulate_key("z"))

    lab = Lab.init(folder / "lab")
    app = App(lab, session=Session(pause=0.05), start="micro", driver=LabDriver)
    broken = {
        "a widget's drawing": (Chart, "build"),
        "a screen's tick": (TrainScreen, "tick"),
        "a key's action": (TrainScreen, "action_zoom"),
    }
    with ExitStack() as stack:
        if stage in broken:
            owner, method = broken[stage]
            stack.enter_context(patch.object(owner, method, partial(_raise, kind)))
        sys.exit(run_app(app))


ROW = Row(
    number="13",
    fault="an exception of any kind in the interface, or in the engine at each stage",
    must="the interface's failure leaves the run training to its end; the engine's is said by the "
    "screen, the log, the status and the command line, once; nothing is stuck or silent",
    slice=8,
    full=len(KINDS) * (len(INTERFACE) + len(ENGINE)),
    run=run,
)
