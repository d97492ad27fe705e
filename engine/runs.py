"""Runs on disk: making and opening their folders, listing and comparing them.

    checkpoints/<run>/   run.json  config.toml  status.json  metrics.jsonl  events.jsonl  log.txt
                         tokenizer/  control/  step_000500/ …

The files are the truth: a run of this process, of another one, and a finished one are read alike.
Knows no torch. Writing a run's history is `run_writer`, reading it `metrics`.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import __version__, atomic
from engine.checkpoints.find import RUN_FILE, find_run_folder, run_folders
from engine.checkpoints.layout import as_float, check_name, checkpoint_folders
from engine.checkpoints.retention import clean_leftovers, is_abandoned
from engine.checkpoints.tensors import read_json
from engine.config import FIELDS, Config, load_file, to_toml
from engine.errors import CheckpointError, InputError
from engine.lab import Lab
from engine.metrics import MetricsTail, read_events, read_metrics
from engine.run_lock import RunBusy, RunLock
from engine.run_writer import RunWriter
from engine.status import ACTIVE, judged, read_status, still_seconds

__all__ = [
    "MetricsTail",
    "RunBusy",
    "RunFolder",
    "RunLock",
    "RunSummary",
    "RunWriter",
    "build_run",
    "check_writable",
    "compare_configs",
    "find_run",
    "list_runs",
    "read_events",
    "read_metrics",
    "summarise",
]

CONFIG_FILE = "config.toml"


class RunFolder:
    """A run's folder, held by this process alone until `close` (or the end of a `with`)."""

    def __init__(self, path: Path, lock: RunLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, lab: Lab, name: str, config: Config, identity: Mapping[str, Any]) -> RunFolder:
        """A new folder called `name`, or `name-2`, `name-3`, … when that is in use.

        `identity` joins name, time of creation and version in run.json. Raises InputError for a
        name that cannot be, or a lab that cannot be written.
        """
        check_name(name)
        try:
            lab.checkpoints.mkdir(parents=True, exist_ok=True)
            path = _make_free(lab.checkpoints, name)
            lock = RunLock(path)
            lock.acquire()
            _describe(path, path.name, config, identity)
            atomic.sync_directory(lab.checkpoints)
            atomic.sync_directory(lab.root)
        except OSError as error:
            raise _cannot_make(lab, error) from error
        return cls(path, lock)

    @classmethod
    def open(cls, lab: Lab, run: str | Path) -> RunFolder:
        """The folder of a run that is there, to go on with it; clears what a crash left in it.

        Raises CheckpointError when there is none, RunBusy (telling host, process and since when)
        when another process has it, InputError when it cannot be written.
        """
        path = run if isinstance(run, Path) else find_run_folder(lab, run)
        if not (path / RUN_FILE).is_file():
            raise CheckpointError(f"'{path}' is not a run's folder")
        check_writable(path)
        lock = RunLock(path)
        lock.acquire()
        clean_leftovers(path)
        return cls(path, lock)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def identity(self) -> dict[str, Any]:
        """What run.json says. Raises CheckpointError when it is broken."""
        return read_json(self.path / RUN_FILE)

    def config(self) -> Config:
        """The run's resolved configuration. Raises ConfigError when the file is broken."""
        return load_file(self.path / CONFIG_FILE, follow=False)

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def build_run(
    lab: Lab,
    name: str,
    config: Config,
    identity: Mapping[str, Any],
    fill: Callable[[Path], None],
) -> Path:
    """A new run whose folder appears with all that is in it; its path, named as by `create`.

    `fill(folder)` puts the rest of the run into a folder of another name, which is gone when it
    raises. What a process that was killed has left of one goes now. Raises as `create`, and what
    `fill` raises.
    """
    check_name(name)
    own = f"{_unfinished()}{threading.get_native_id()}-{os.getpid()}"
    build = lab.checkpoints / own
    try:
        lab.checkpoints.mkdir(parents=True, exist_ok=True)
        _sweep_unfinished(lab.checkpoints)
        build.mkdir(mode=0o700)
        fill(build)
        path = _make_free(lab.checkpoints, name)
        try:
            _describe(build, path.name, config, identity)
            os.rename(build, path)  # over the empty folder that keeps the name for it
        except BaseException:
            with suppress(OSError):
                path.rmdir()
            raise
        atomic.sync_directory(lab.checkpoints)
        atomic.sync_directory(lab.root)
    except OSError as error:
        raise _cannot_make(lab, error) from error
    finally:
        atomic.discard(build)
    return path


def _unfinished() -> str:
    """How folders begin in which this machine builds runs: a lab may be shared between machines,
    and a process is known to its own alone."""
    return f".tmp-run-{socket.gethostname()}-"


def _sweep_unfinished(checkpoints: Path) -> None:
    for path in checkpoints.iterdir():
        if path.name.startswith(_unfinished()) and is_abandoned(path):
            atomic.discard(path)


def _describe(path: Path, name: str, config: Config, identity: Mapping[str, Any]) -> None:
    """Write what makes the folder at `path` the run `name`. Raises OSError."""
    atomic.write_text(path / CONFIG_FILE, to_toml(config))
    facts = {"corpus": config.data.corpus, "tokenizer": config.data.tokenizer, **identity}
    head = {"name": name, "created": time.time(), "version": __version__}
    atomic.write_json(path / RUN_FILE, {**head, **facts})


def _cannot_make(lab: Lab, error: OSError) -> InputError:
    return InputError(
        f"cannot make a run in '{lab.checkpoints}': {error.strerror}",
        "choose a lab that can be written: --lab DIR",
    )


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, by writing in it: rights alone do not tell of a
    read-only mount. One that is not there yet counts as what it would be made in.

    Raises InputError naming the folder.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    probe = place / f".tmp-probe-{threading.get_native_id()}-{os.getpid()}"
    try:
        probe.mkdir(mode=0o700)
        probe.rmdir()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space" if full else "make it writable"
        raise InputError(
            f"cannot write in '{place}': {error.strerror}",
            f"{remedy}, or choose another lab: --lab DIR",
        ) from error


def _make_free(parent: Path, name: str) -> Path:
    """Make the first folder of `name`, `name-2`, … that is free: `mkdir` decides every race."""
    number = 1
    while True:
        ending = f"-{number}" if number > 1 else ""
        stem = name.encode()[: 100 - len(ending)].decode(errors="ignore")
        path = parent / (stem + ending)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return path


@dataclass(frozen=True)
class RunSummary:
    """One row of the table of runs, from small files alone.

    `status`: running, paused, stalled (its loop has been still for long), finished, stopped,
    failed, crashed (its process is gone without a last word) or unknown. `own`: False for a run
    that ships with the program. What follows `error` is told by the process that last had the run:
    what it does, seconds a step, since when (epoch). `still`: for how many seconds the loop of an
    active run has done nothing.
    """

    name: str
    path: Path
    created: float
    title: str
    preset: str
    corpus: str
    status: str
    step: int
    max_steps: int
    tokens: int
    loss: float | None
    val_loss: float | None
    best_val_loss: float | None
    best_step: int | None
    seconds: float
    n_parameters: int
    device: str
    n_checkpoints: int
    bytes: int
    own: bool
    pid: int
    host: str
    updated: float
    error: str
    phase: str = ""
    phase_done: int = 0
    phase_total: int = 0
    step_seconds: float = 0.0
    since: float = 0.0
    still: float = 0.0

    def config(self) -> Config:
        """The run's configuration. Raises ConfigError when the file is absent or broken."""
        return load_file(self.path / CONFIG_FILE, follow=False)


def list_runs(lab: Lab) -> list[RunSummary]:
    """All runs of the lab and the shipped ones, newest first. Broken ones are listed as well."""
    runs = [summarise(path, own=lab.owns_run(path)) for path in run_folders(lab).values()]
    return sorted(runs, key=lambda run: (-run.created, run.name))


def find_run(lab: Lab, name: str) -> RunSummary:
    """The run called `name`. Raises CheckpointError naming the nearest known one."""
    path = find_run_folder(lab, name)
    return summarise(path, own=lab.owns_run(path))


def summarise(path: Path, *, own: bool = True) -> RunSummary:
    """One run from its run.json, its status and the names and sizes of its files."""
    try:
        identity = read_json(path / RUN_FILE)
    except CheckpointError:
        identity = {}

    def text(key: str) -> str:
        value = identity.get(key)
        return value if isinstance(value, str) else ""

    status = read_status(path)
    word = judged(status)
    return RunSummary(
        name=path.name,
        path=path,
        created=as_float(identity.get("created")) or 0.0,
        title=text("title"),
        preset=text("preset"),
        corpus=text("corpus"),
        status=word,
        step=status.step,
        max_steps=status.max_steps,
        tokens=status.tokens,
        loss=status.loss,
        val_loss=status.val_loss,
        best_val_loss=status.best_val_loss,
        best_step=status.best_step,
        seconds=status.seconds,
        n_parameters=status.n_parameters,
        device=status.device or text("device"),
        n_checkpoints=len(checkpoint_folders(path)),
        bytes=folder_bytes(path),
        own=own,
        pid=status.pid,
        host=status.host,
        updated=status.updated,
        error=status.error,
        phase=status.phase,
        phase_done=status.phase_done,
        phase_total=status.phase_total,
        step_seconds=status.step_seconds,
        since=status.since,
        still=still_seconds(status) if word in ACTIVE else 0.0,
    )


def folder_bytes(path: Path) -> int:
    """What the plain files in and below a folder take, links not followed."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    except OSError:  # a checkpoint that retention deletes while it is looked at
        return total
    return total


def compare_configs(a: Config, b: Config) -> list[tuple[str, Any, Any]]:
    """(key, value in `a`, value in `b`) of every field that differs, in the fields' own order."""
    pairs = ((key, a.get(key), b.get(key)) for key in FIELDS)
    return [(key, mine, other) for key, mine, other in pairs if mine != other]
