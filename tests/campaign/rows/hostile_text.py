"""Text that wants to command the terminal, at every place where the program shows text.

Three ways: random markup given to each widget; every screen walked through in the app over a lab
whose every string is hostile; and the bytes that the app and each command write to a real terminal.
The detector is proved first, on the very sequences, written as they are.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from textual.pilot import Pilot

from engine.lab import Lab
from tests.campaign import hostile, hostile_lab, hostile_sinks
from tests.campaign.captured import Hung, in_terminal
from tests.campaign.row import Progress, Result, Row
from tests.tui_lab.labs import NOW
from tui_lab.app import LabApp
from tui_lab.generation_thread import GenerationThread
from tui_lab.settings import Settings

FULL = 20_000
WALKS = 8
"""Labs at full size, each of which begins with another sequence; the narrow places show no more."""
TERMINALS = 4
"""How many of them are also seen in a real terminal."""

WALK = """
start  1  z  y  g  l escape  s  e  x enter
2 down space down space d d c c x u  slash m escape  s S  D escape  r escape
3 down up right right right right  v  left left s  D escape  r escape  a a
4 ctrl+o down escape  h i enter  escape left left up  u  ctrl+s escape  escape ctrl+l
5 down up  right left  enter right  n  a escape  escape f escape  z
6 right right right tab tab f2 tab tab f8 escape
1 question_mark escape  ctrl+p b escape  t t
""".split()
"""Keys, as Textual names them; `start` begins the hostile run."""
BRIEF = "start 1 2 D escape 3 right 4 h enter escape 5 enter 6 right".split()
SCREENS = {
    "TrainScreen", "RunsScreen", "CheckpointsScreen", "ConsoleScreen", "CorpusScreen",
    "NewRunScreen", "Dialog", "TextDialog", "SourceDialog", "HelpScreen", "CommandPalette",
}  # fmt: skip
"""What a whole walk must have seen."""

_BYTES = {
    "enter": b"\r", "escape": b"\x1b", "tab": b"\t", "space": b" ", "up": b"\x1b[A",
    "down": b"\x1b[B", "right": b"\x1b[C", "left": b"\x1b[D", "slash": b"/", "question_mark": b"?",
    "f2": b"\x1bOQ", "f8": b"\x1b[19~", "start": b"", "ctrl+o": b"\x0f", "ctrl+p": b"\x10",
    "ctrl+s": b"\x13", "ctrl+l": b"\x0c",
}  # fmt: skip

COMMANDS = (
    """
runs|runs --json|runs --plot|runs --filter {bad}|runs --sort {bad}
checkpoints list|checkpoints list --json|checkpoints list {bad}
checkpoints show hostile-one|checkpoints show hostile-one --stats
checkpoints show hostile-one --json
checkpoints show {bad}|checkpoints show hostile-one --tensor {bad}
checkpoints verify --all|checkpoints verify hostile-one --json
checkpoints diff hostile-one hostile-two
checkpoints delete hostile-one|checkpoints delete {bad} --run --yes
corpus list|corpus list --json|corpus show hostile-text|corpus show hostile-absent
corpus show hostile-absent --json|corpus show {bad}|corpus fetch hostile-absent --from {bad}
corpus show hostile-text --tokens 300 --tokenizer char|corpus add {bad} {bad}
tokenizer show hostile-one|tokenizer show hostile-one --json|tokenizer show {bad}
tokenizer encode {bad} --tokenizer bytes|tokenizer encode {bad} --tokenizer hostile-one
tokenizer decode 1 2 3 4 5 6 7 8 9 --tokenizer hostile-one
config list|config list --json|config show a-hostile|config show a-hostile --json
config show {bad}|config validate {lab}/configs/c-broken.toml|config validate {bad}
plan --config a-hostile|plan --config {bad}|plan --set {bad}
train --config {bad}|train --resume {bad}|train --resume hostile-two|train --set {bad}={bad}
train --name {bad}|train --corpus {bad}|train --lr {bad}|train --{bad}|{bad}|generate {bad}
--debug train --config {bad}|--debug checkpoints show {bad}|--lab {bad} runs
""".strip()
    .replace("\n", "|")
    .split("|")
)
"""Every command that lists or shows, in tables, plain, JSON and refusals."""


def run(trials: int, folder: Path, progress: Progress) -> Result:
    full = trials >= FULL
    texts = len(hostile.texts())
    walks, walk = (WALKS, WALK) if full else (1, BRIEF)
    result = Result(trials, list(_control()))
    os.environ["TUI_LAB_CONFIG_DIR"] = str(folder / "config")
    try:
        result.failures += asyncio.run(_markup(trials, progress))
        places = set()
        for number in range(walks):
            first = number * texts // walks
            lab = hostile_lab.make(folder / f"lab-{number}", first)
            faults, seen = asyncio.run(_walk(lab, first, walk))
            result.failures += faults
            places |= seen
        if full:
            unseen = SCREENS - {place.partition(".")[0] for place in places}
            result.failures += [f"the walk never came to {screen}" for screen in unseen]
        written = ran = 0
        for number in range(0, walks, WALKS // TERMINALS):
            lab = Lab(folder / f"lab-{number}")
            for name, output in _terminal(lab, number * texts // walks, walk, full):
                ran += 1
                written += len(output)
                leaks = hostile.foreign(output)
                result.failures += [f"{name}: {leak}" for leak in leaks[:3]]
    finally:
        del os.environ["TUI_LAB_CONFIG_DIR"]
    result.figures = {
        "escape sequences and other texts": texts,
        "widgets given markup": len(hostile_sinks.SINKS) + 3,
        "markup strings": trials,
        "places looked at in the app": len(places),
        "walks through the app": walks,
        "programs run in a terminal": ran,
        "bytes written to terminals": written,
        "lines that only the last sieve caught": sum("sieve" in line for line in result.failures),
        "foreign sequences, wrong texts, crashes": len(result.failures),
    }
    return result


def _control() -> Iterator[str]:
    """Each sequence as it is must be found in a terminal's bytes; else nothing below means much."""
    every = hostile.sequences()

    def shout() -> None:
        for text in every:
            os.write(1, text.encode("utf-8", "surrogatepass") + b"\n--\n")

    output, _ = in_terminal(shout)
    parts = output.split(b"\r\n--\r\n")
    if len(parts) != len(every) + 1:
        yield f"the control wrote {len(every)} sequences and {len(parts) - 1} came"
    for text, part in zip(every, parts, strict=False):
        if not hostile.foreign(part):
            yield f"the detector is blind to {text!a}"
    if leaks := hostile.foreign("harmless [bold]text[/], 日本語\r\n".encode()):
        yield f"the detector sees what is not there: {leaks}"


async def _markup(trials: int, progress: Progress) -> list[str]:
    app, faults = hostile_sinks.Places(), []
    async with app.run_test(size=hostile_sinks.SIZE, notifications=True) as pilot:
        await pilot.pause()
        for number in range(trials):
            text = hostile.markup(number)
            faults += [f"markup {number}, {fault}" for fault in hostile_sinks.put(app, text)]
            if number % hostile_sinks.RARELY == 0:
                found = await hostile_sinks.put_rarely(app, pilot, text)
                faults += [f"markup {number}, {fault}" for fault in found]
                progress(number)
        for text in hostile.texts():
            faults += [f"{text!a}, {fault}" for fault in hostile_sinks.put(app, text)]
    if app.sieve.caught:
        faults.append(f"a widget left {app.sieve.caught} lines to the sieve")
    return faults


def make_app(lab: Lab, first: int, **told: Any) -> LabApp:
    """The app on a hostile lab, with a hostile run to start and a hostile memory."""
    settings = Settings(refresh=30.0, memory=hostile_lab.settings(first))
    session = hostile_lab.Session(first)
    return LabApp(lab, settings, session=session, clock=lambda: NOW, **told)


def hostile_models(first: int) -> Any:
    """While it lasts, every checkpoint that the console loads speaks hostile tokens."""
    load = lambda self: lambda lab, reference: hostile_lab.Generator(first)  # noqa: E731
    return patch.object(GenerationThread, "_loader", load)


async def _walk(lab: Lab, first: int, keys: list[str]) -> tuple[list[str], set[str]]:
    """Through every screen; what each frame lets through, and the widgets that were looked at."""
    faults: list[str] = []
    places: set[str] = set()
    with hostile_models(first):
        app = make_app(lab, first)
        async with app.run_test(size=(140, 44), notifications=True) as pilot:
            await pilot.pause()
            for number, key in enumerate(keys):
                await _press(app, pilot, key)
                where = f"lab {first}, key {number} ({key}), {type(app.screen).__name__}"
                faults += [f"{where}: {fault}" for fault in _look(app)]
                for widget in app.screen.walk_children():
                    if widget.is_on_screen:
                        places.add(
                            f"{type(app.screen).__name__}.{widget.id or type(widget).__name__}"
                        )
                if app.sieve.caught:
                    app.sieve.caught = 0
                    faults.append(f"{where}: a widget left its line to the sieve")
            app.stop_run()
            await pilot.pause(0.1)
    return faults, places


async def _press(app: LabApp, pilot: Pilot[int], key: str) -> None:
    if key == "start":
        app.start_preset("a-hostile")
        await pilot.pause(0.3)
    else:
        await pilot.press(key)
    # Threads look at the files, load and generate meanwhile.
    await pilot.pause(0.15 if key in ("1", "2", "3", "4", "5", "6", "enter", "v", "s") else 0.02)


def _look(app: LabApp) -> Iterator[str]:
    """What the screen, as it is now, would write to a terminal, and where a click would lead."""
    for line in app.screen._compositor.render_strips():
        leaks = hostile.foreign(line.text.encode("utf-8", "surrogatepass"))
        yield from (f"lets through {leak}" for leak in leaks)
        for segment in line:
            style = segment.style
            if style is not None and (style.link or "@click" in (style.meta or {})):
                yield f"reads markup: {segment.text[:60]!a}"


def _terminal(lab: Lab, first: int, walk: list[str], full: bool) -> Iterator[tuple[str, bytes]]:
    """The bytes of the app and of every command, on a terminal and into a pipe."""
    # Nothing may follow an escape at once: the two would be another key.
    waits = [0.3 if "escape" in pair else 0.2 if full else 0.06 for pair in pairwise(["", *walk])]
    keys = [(_BYTES.get(key, key.encode()), wait) for key, wait in zip(walk, waits, strict=True)]
    leave = (signal.SIGTERM, 0.5)
    yield from _ran("the app", partial(_app, lab, first), [(b"", 0.5), *keys, leave])
    bad = hostile.without_surrogates(hostile.blob(first)).replace("\x00", "")[:400]
    for command in COMMANDS[:: 1 if full else 6]:
        words = command.replace("{lab}", str(lab.root)).split(" ")
        words = [word.replace("{bad}", bad) for word in words]
        yield from _ran(command, partial(_command, lab, words), [(b"n\r", 0.3)])


def _ran(name: str, body: Callable[[], None], keys: Any = ()) -> Iterator[tuple[str, bytes]]:
    try:
        output, code = in_terminal(body, keys)
    except Hung as error:
        yield f"{name} hung", b"\x1b]hung" + str(error).encode()
        return
    crashed = b"Traceback" in output and not name.startswith("--debug")
    if crashed or code not in (0, 1, 2, 143) or (name == "the app" and code != 143):
        yield name, b"\x1b]ended with %d: %s" % (code, output[-300:])
    yield name, output


def _command(lab: Lab, words: list[str]) -> None:
    from tui_lab.__main__ import main

    os.environ["TUI_LAB_DIR"] = str(lab.root)
    sys.argv = ["tui-lab", *words]
    main()


def _app(lab: Lab, first: int) -> None:
    from tui_lab import launch

    made = LabApp.__init__

    def with_hostile_run(self: LabApp, *arguments: Any, **told: Any) -> None:
        made(self, *arguments, session=hostile_lab.Session(first), **told)
        self.settings.memory = hostile_lab.settings(first)

    LabApp.__init__ = with_hostile_run  # type: ignore[method-assign]
    LabApp.bell = lambda self: None  # type: ignore[method-assign]  # any bell left is a foreign one
    os.environ["TERM"] = "xterm-256color"
    with hostile_models(first):
        launch.launch("a-hostile", lab.root)


ROW = Row(
    number="9",
    fault="hostile text at every place that shows text: samples, names, files, errors",
    must="it is drawn as glyphs: no sequence of its reaches the terminal, no markup is read, "
    "nothing fails",
    slice=150,
    full=FULL,
    run=run,
)
