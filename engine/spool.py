"""The spool of a run: commands from other processes as files, and the answers to their samples.

    control/inbox/<time>-<pid>-<n>.json   one command, gone once it is taken

Files and nothing else, so that a run on another host of a shared file system is steered alike. The
process that trains owns a `Spool`; any other one calls `send`, and reads what comes of a sample
with `Answers`. Knows neither the trainer nor who asks; a command's file is believed no further than
`control.from_record` believes it.
"""

from __future__ import annotations

import getpass
import itertools
import json
import os
import secrets
import shutil
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import events
from engine.answers import AnswerFile, Answers, answers_folder
from engine.control import MAX_LINE, Command, Inbox, Sample, from_record, to_record
from engine.errors import EngineError, InputError
from engine.plain_file import open_plain
from engine.status import is_running, judged, read_status
from engine.text import to_json

__all__ = ["Answers", "Spool", "new_request", "own_name", "send"]

LOOK_SECONDS = 0.1
MAX_COMMAND = 1 << 20  # bytes of a command's file
KEEP_ANSWER_SECONDS = 600.0  # for a reader that never took it away

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


def own_name() -> str:
    """Who this process speaks for, as it is recorded with a command: user@host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without an entry, as in containers
        user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    return f"{user}@{socket.gethostname()}"


def new_request() -> str:
    """A name for a sample's request that no other process will use."""
    return f"spool-{secrets.token_hex(8)}"


# The sender's side ------------------------------------------------------------------------------


def send(run_path: Path, command: Command, who: str = "") -> None:
    """Put `command` where the process that trains `run_path` finds it. Returns before it is taken.

    Raises InputError when the run is not alive, when its folder cannot be written, or when the
    command is one that its owner would refuse.
    """
    record = json.loads(json.dumps(to_record(command)))
    from_record(record)
    status = read_status(run_path)
    if not is_running(status):
        raise InputError(
            f"run '{run_path.name}' is not training: {judged(status)}",
            f"go on with it: tui-lab train --resume {run_path.name}",
        )
    inbox = inbox_folder(run_path)
    data = to_json({"who": who or own_name(), **record}).encode()
    name = _next_name()
    temporary = inbox / f".{name}.tmp"
    try:
        _check_folder(inbox)
        descriptor = os.open(temporary, _NEW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, inbox / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(
            f"cannot write in '{inbox}': {error.strerror}",
            "a run is steered by whoever may write in its folder",
        ) from error


_numbers = itertools.count(1)
_naming = threading.Lock()
_latest = 0


def _next_name() -> str:
    """Names sort as they were sent, also when the clock is put back in between."""
    global _latest
    with _naming:
        _latest = max(time.time_ns(), _latest + 1)
        return f"{_latest:020d}-{os.getpid()}-{next(_numbers)}.json"


def inbox_folder(run_path: Path) -> Path:
    return run_path / "control" / "inbox"


def _check_folder(path: Path) -> None:
    """Raises OSError unless `path` is a folder itself, not a link to one."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise NotADirectoryError(20, "not a folder", str(path))


# The owner's side -------------------------------------------------------------------------------


class Spool:
    """Brings other processes' commands into `inbox`, and answers the samples among them.

    Also a listener: `spool(event)` from the thread that trains only keeps the event; files are
    touched by the spool's own thread alone, so that no slow disk is felt by the training.
    """

    def __init__(
        self,
        run_path: Path,
        inbox: Inbox,
        on_refused: Callable[[str], None] = lambda title: None,
    ) -> None:
        """Clears what was meant for an earlier process: make this first, then say that one runs.

        `on_refused(title)` is told, in the spool's thread, of a file that is no command.
        """
        self._inbox, self._on_refused = inbox, on_refused
        self._beat: Callable[[], None] = lambda: None
        self._folder, self._answers = inbox_folder(run_path), answers_folder(run_path)
        self._events: deque[events.Event] = deque()
        self._requests: set[str] = set()
        self._open: dict[str, AnswerFile] = {}
        self._done: list[tuple[float, Path]] = []
        self._seen: set[str] = set()  # names that could not be deleted: never taken twice
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="spool", daemon=True)
        self._trouble = ""
        try:
            for folder in (self._folder.parent, self._folder, self._answers):
                _make_folder(folder)
            for folder in (self._folder, self._answers):
                for entry in os.scandir(folder):
                    _remove(entry)
        except OSError as error:
            self._trouble = f"other processes cannot steer this run: {error.strerror}"

    def start(self, beat: Callable[[], None] = lambda: None) -> None:
        """Begin to look, and call `beat` at each look. A spool that cannot be made is said to
        `on_refused`, no more."""
        self._beat = beat
        if self._trouble:
            self._on_refused(self._trouble)
        self._thread.start()

    def close(self) -> None:
        """End the thread, with every answer written; what was not taken is left undone."""
        if self._thread.is_alive():
            self._closing.set()
            self._thread.join(5.0)

    def __call__(self, event: events.Event) -> None:
        wanted = isinstance(event, events.TokenGenerated | events.SampleDone)
        if wanted and event.request in self._requests:  # type: ignore[attr-defined]
            self._events.append(event)

    def _watch(self) -> None:
        ending = False
        while not ending:
            ending = self._closing.wait(LOOK_SECONDS)
            if not ending:
                self._look()
            self._write_answers()
            self._beat()

    def _look(self) -> None:
        try:
            with os.scandir(self._folder) as entries:
                found = sorted((e for e in entries if not e.name.startswith(".")), key=_name)
        except OSError:
            return  # the folder may be gone for a while, as on a file system that went away
        for entry in found:
            if entry.name not in self._seen:
                self._take(entry)

    def _take(self, entry: os.DirEntry[str]) -> None:
        """Bring one command in, once: it is deleted before it can take effect."""
        try:
            command, who = _read(Path(entry.path))
        except FileNotFoundError:
            return
        except (EngineError, OSError) as error:
            self._forget(entry)
            title = error.title if isinstance(error, EngineError) else error.strerror
            self._on_refused(f"command '{entry.name}' was refused: {title}")
            return
        self._forget(entry)
        if isinstance(command, Sample) and command.request:
            self._requests.add(command.request)
        self._inbox.put(command, who)

    def _forget(self, entry: os.DirEntry[str]) -> None:
        try:
            _remove(entry)
        except OSError:
            self._seen.add(entry.name)

    def _write_answers(self) -> None:
        while self._events:
            event = self._events.popleft()
            request = event.request  # type: ignore[attr-defined]
            path = self._answers / f"{request}.jsonl"
            answer = self._open.get(request) or self._open.setdefault(request, AnswerFile(path))
            answer.add(event)
            if isinstance(event, events.SampleDone):
                self._requests.discard(request)
                self._done.append((time.monotonic(), path))
                del self._open[request]
                answer.flush()
        for answer in self._open.values():
            answer.flush()
        while self._done and time.monotonic() - self._done[0][0] > KEEP_ANSWER_SECONDS:
            with suppress(OSError):
                self._done.pop(0)[1].unlink(missing_ok=True)


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _make_folder(path: Path) -> None:
    """A folder of one's own at `path`: a link that was planted there is not followed."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            path.unlink()
    path.mkdir(mode=0o700, exist_ok=True)


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        Path(entry.path).unlink(missing_ok=True)


def _read(path: Path) -> tuple[Command, str]:
    """The command in a file, and who sent it. Raises InputError, or OSError, and nothing else."""
    with open_plain(path) as file:
        owner = os.fstat(file.fileno()).st_uid
        data = file.read(MAX_COMMAND + 1)
    if hasattr(os, "geteuid") and owner not in (os.geteuid(), 0):
        raise InputError(f"it belongs to another user ({owner})")
    if len(data) > MAX_COMMAND:
        raise InputError(f"it is larger than {MAX_COMMAND} bytes")
    try:
        record: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError("it is not JSON") from error
    if not isinstance(record, dict):
        raise InputError("it is not a JSON object")
    who = record.pop("who", "")
    if type(who) is not str or not who:
        raise InputError("it does not say who sent it")
    return from_record(record), who[:MAX_LINE].encode("utf-8", "replace").decode()
