"""`tui-lab train` and `--resume` where nothing can be written: each a process of its own.

As root, which may write anywhere, the process gives that right up before it starts; folders of
another user and read-only mounts are then what they are to everybody. A moment counts until the
error was read; the limit holds for the process's own time, since the machine may be busy.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.campaign.row import Progress, Result, Row
from tests.campaign.small_disk import mount, unmount
from tests.tiny_run import make_tiny_run

LIMIT = 2.0
"""Seconds of processor time. (An idle machine of usual speed takes less than one.)"""
ROOM = 8 << 20
ANOTHER_USER = 65534

PROGRAM = """
import json, sys
from tui_lab.__main__ import main
try:
    main()
except SystemExit as end:
    print(json.dumps({"code": end.code, "torch": "torch" in sys.modules}))
"""


@dataclass
class Place:
    """A lab with a corpus and a run, and where nothing can be written in it."""

    lab: Path
    closed: Path
    undo: Callable[[], object] = lambda: None


def chmod(path: Path) -> Place:
    path.chmod(0o500)
    return Place(path, path, lambda: path.chmod(0o700))


def closed_checkpoints(lab: Path) -> Place:
    return Place(lab, lab / "checkpoints", chmod(lab / "checkpoints").undo)


def closed_run(lab: Path) -> Place:
    return Place(lab, lab / "checkpoints" / "tiny", chmod(lab / "checkpoints" / "tiny").undo)


def closed_lab(lab: Path) -> Place:
    """Its `checkpoints` is not there yet, and cannot be made."""
    (lab / "checkpoints").rename(lab / "elsewhere")
    chmod(lab)

    def undo() -> None:
        lab.chmod(0o700)
        (lab / "elsewhere").rename(lab / "checkpoints")

    return Place(lab, lab, undo)


def another_users(lab: Path) -> Place:
    place = lab / "checkpoints"
    os.chown(place, ANOTHER_USER, ANOTHER_USER)
    place.chmod(0o755)
    return Place(lab, place, lambda: os.chown(place, os.getuid(), os.getgid()))


def a_file_instead(lab: Path) -> Place:
    (lab / "checkpoints").rename(lab / "elsewhere")
    (lab / "checkpoints").write_text("not a folder")

    def undo() -> None:
        (lab / "checkpoints").unlink()
        (lab / "elsewhere").rename(lab / "checkpoints")

    return Place(lab, lab / "checkpoints", undo)


def read_only_mount(lab: Path) -> Place:
    copy = lab.with_name("mounted")
    copy.mkdir()
    if not mount(copy, ROOM):
        copy.rmdir()
        raise PermissionError("nothing may be mounted here")
    shutil.copytree(lab, copy, dirs_exist_ok=True)
    command = ["mount", "-o", "remount,ro", str(copy)]
    subprocess.run(command, check=True, capture_output=True)

    def undo() -> None:
        unmount(copy)
        copy.rmdir()

    return Place(copy, copy / "checkpoints", undo)


TRAIN = ("--corpus", "small", "--tokenizer", "char", "--max-steps", "5")
RESUME = ("--resume", "tiny", "--max-steps", "50")
KINDS: dict[str, tuple[Callable[[Path], Place], tuple[str, ...]]] = {
    "a closed checkpoints folder": (closed_checkpoints, TRAIN),
    "a closed run, resumed": (closed_run, RESUME),
    "a read-only mount": (read_only_mount, TRAIN),
    "another user's folder": (another_users, TRAIN),
    "a closed lab": (closed_lab, TRAIN),
    "a file in the folder's place": (a_file_instead, TRAIN),
    "a run on a read-only mount, resumed": (read_only_mount, RESUME),
}


def give_up_rights() -> None:
    """Root's right to write whatever the mode says; runs in the child before it starts."""
    libc = ctypes.CDLL(None)
    drop_from_bounding_set, write_anywhere, read_anywhere = 24, 1, 2
    for right in (write_anywhere, read_anywhere):
        libc.prctl(drop_from_bounding_set, right, 0, 0, 0)


def refused(place: Place, arguments: tuple[str, ...]) -> tuple[float, list[str]]:
    """Seconds until the refusal, and what is not as it must be."""
    before = sorted(str(path) for path in place.lab.rglob("*"))
    command = [sys.executable, "-c", PROGRAM, "--lab", str(place.lab), "train", *arguments]
    usage = os.times()
    started = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=give_up_rights, check=False
    )
    seconds = time.perf_counter() - started
    now = os.times()
    own = now.children_user + now.children_system - usage.children_user - usage.children_system
    found = []
    if f"'{place.closed}" not in done.stderr or "hint:" not in done.stderr:
        found.append(f"the error names no folder or no remedy: {done.stderr[-300:]!r}")
    try:
        end = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return seconds, [*found, f"it ended with {done.returncode}: {done.stdout[-300:]!r}"]
    if end["code"] != 2:
        found.append(f"exit code {end['code']}")
    if end["torch"]:
        found.append("torch was imported")
    if own > LIMIT:
        found.append(f"it took {own:.2f} s of its own")
    if sorted(str(path) for path in place.lab.rglob("*")) != before:
        found.append("something was written")
    return seconds, found


def run(trials: int, folder: Path, progress: Progress) -> Result:
    lab, _ = make_tiny_run(folder / "lab", "tiny")
    (lab.root / "small.txt").unlink()
    seconds: list[float] = []
    failures: list[str] = []
    tried: Counter[str] = Counter()
    left_out: set[str] = set()
    names = list(KINDS)
    for number in range(trials):
        name = names[number % len(names)]
        close, arguments = KINDS[name]
        try:
            place = close(lab.root)
        except PermissionError:  # not root: another user's folder or a mount cannot be made
            left_out.add(name)
            close, arguments = KINDS[names[0]]
            place = close(lab.root)
            name = names[0]
        try:
            took, found = refused(place, arguments)
        finally:
            place.undo()
        seconds.append(took)
        failures += [f"trial {number}, {name}: {line}" for line in found]
        tried[name] += 1
        progress(number + 1)
    figures = {
        **tried,
        "left out for want of rights": ", ".join(sorted(left_out)) or "none",
        "seconds until refused, median": statistics.median(seconds),
        "seconds until refused, worst": max(seconds),
    }
    return Result(trials, failures, figures)


ROW = Row(
    number="5",
    fault="the folder of a run cannot be written",
    must="refused with exit code 2 before torch is imported, in under two seconds of processor "
    "time, naming the folder and a remedy; nothing is written",
    slice=4,
    full=140,
    quiet=True,
    run=run,
)
