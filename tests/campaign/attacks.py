"""What somebody might plant in a lab: payloads, names, references, links, pipes and devices.

A case plants one thing on a bench and then does what could fall for it. Needs torch.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from engine import control, spool, tokenizers
from engine.checkpoints import (
    find_checkpoint,
)
from engine.config import Config, load_file
from engine.errors import EngineError
from engine.generation.load import load_generator
from engine.runs import RunFolder
from engine.session import check_request, run_training
from engine.status import own_status, write_status
from engine.text import visible
from tests.campaign.bench import RUN, STEP, Bench


@dataclass(frozen=True)
class Case:
    """`do(bench, rng)` plants something, does what could fall for it, and says what was wrong."""

    kind: str
    name: str
    do: Callable[[Bench, random.Random], list[str]]


def cases(
    kind: str, what: Callable[..., list[str]], choices: Iterable[tuple[str, ...]]
) -> list[Case]:
    """One case for each of `choices`, which are given to `what` beside the bench."""

    def case(values: tuple[str, ...]) -> Case:
        shown = " as ".join(repr(value)[:40] for value in values)
        return Case(kind, shown, lambda bench, rng: what(bench, *values))

    return [case(values) for values in choices]


def all_cases() -> list[Case]:
    return [*pickles(), *names(), *references(), *links(), *modes()]


# Pickles ------------------------------------------------------------------------------------------

FORMATS = ("protocol 0", "protocol 4", "zip", "legacy")
ENDINGS = ("x.pt", "x.pth", "x.bin", "x.ckpt", "X.PT", "planted", "x.safetensors")
INSIDE = (
    f"{STEP}/model.safetensors", f"{STEP}/training.safetensors", f"{STEP}/state.json",
    f"{STEP}/meta.json", f"{STEP}/manifest.json", f"{STEP}/model.pt", "checkpoint.pkl", "run.json",
    "config.toml", "status.json", "metrics.jsonl", "run.lock", "tokenizer/tokenizer.json",
    "control/inbox/1-1-1.json",
)  # fmt: skip


class Payload:
    """Unpickling it makes the folder `where`."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (self.where, 0o777, True)


def payload(form: str, canary: Path) -> bytes:
    content = {"model": Payload(str(canary)), "weight": torch.zeros(2)}
    if form.startswith("protocol"):
        return pickle.dumps(Payload(str(canary)), protocol=int(form.split()[1]))
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=form == "zip")
    return out.getvalue()


def pickles() -> list[Case]:
    inside = product(("protocol 4", "zip"), INSIDE)
    return [
        *cases("pickle named", name_it, product(FORMATS, ENDINGS)),
        *cases("pickle in a run", plant_it, inside),
    ]


def name_it(bench: Bench, form: str, name: str) -> list[str]:
    """Given wherever a checkpoint is expected."""
    file = bench.lab.root / name.replace("x", "planted").replace("X", "planted")
    file.write_bytes(payload(form, bench.canary))
    wrong = []
    for reference in (str(file), os.path.relpath(file)):
        try:
            find_checkpoint(bench.lab, reference)
            wrong.append("it was taken for a checkpoint")
        except EngineError as error:
            known = name != "x.safetensors" and not (form == "protocol 0" and name == "planted")
            if known and form != "protocol 0" and "pickle" not in error.title:
                wrong.append(f"does not say why: {error.title}")
    wrong += bench.attempt(load_generator, bench.lab, str(file))
    wrong += bench.attempt(tokenizers.find, bench.lab, str(file))
    for words in (
        ("generate", str(file), "--prompt", "a"),
        ("evaluate", str(file)),
        ("train", "--resume", str(file)),
        ("checkpoints", "show", str(file)),
        ("checkpoints", "verify", str(file)),
        ("config", "validate", str(file)),
    ):
        wrong += bench.command(*words)
    if bench.loads:
        wrong.append("torch.load was called without --trust")
    # Trusted, but nobody has said yes to running its code.
    return wrong + bench.command("checkpoints", "show", str(file), "--trust")


def plant_it(bench: Bench, form: str, name: str) -> list[str]:
    """In the place of a file of the run."""
    file = bench.run / name
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_bytes(payload(form, bench.canary))
    wrong = bench.read_everything() + bench.resume()
    return wrong + (["torch.load was called"] if bench.loads else [])


# Names and references -----------------------------------------------------------------------------

NAMES = (
    "", ".", "..", "...", "../x", "../../x", "/x", "/etc/cron.d/x", "a/../../x", "a/b", "a\\..\\b",
    "-rf", "--help", "~", "~root", "$HOME", "`id`", "$(id)", ";id", "a\nb", "a\rb", "a\0b", "\0",
    "a\x1b[2Jb", "a\x9b2Jb", "a\u202egnp.x", "a\u2066b", "\ufeffa", "a\u200bb", "a\u2028b", " a",
    "a ", "\ta", "a" * 101, "é" * 51, "a" * 5_000, "\u2215etc", "\uff0fetc", "a\u2044b", "CON",
    "nul.txt", "con:", "a@best", "@", "step_000001", ".tmp-1-1", "run.json", "\ud800", "\udcff",
    "a\u0301" * 20, "\U000e0041", "\U0001f642", "%2e%2e%2f", "..%00", "a" * 100,
)  # fmt: skip


def names() -> list[Case]:
    random_names = [Case("run name", "random", make_random_run)] * 10
    return [*cases("run name", make_run, product(NAMES)), *random_names]


def make_random_run(bench: Bench, rng: random.Random) -> list[str]:
    alphabet = (
        'a./\\-~\0\n\x1b\x7f\x85\u200f\u202e\u2069\ufeff\ud83d\udc00é@ :*?"<>|$`;&%\U000e0020'
    )
    return make_run(bench, "".join(rng.choices(alphabet, k=rng.randrange(1, 12))))


def make_run(bench: Bench, name: str) -> list[str]:
    """A run of this name: refused, or a folder of that name, one's own alone, where runs are."""
    before = set(bench.lab.checkpoints.iterdir())
    config = Config().with_values({"train.max_steps": 1, "data.corpus": "small"})
    wrong = bench.attempt(check_request, bench.lab, config, name)

    def create() -> None:
        RunFolder.create(bench.lab, name, config, {}).close()

    wrong += bench.attempt(create)
    made = set(bench.lab.checkpoints.iterdir()) - before
    for path in made:
        if path.name != name or visible(path.name, lines=False) != path.name:
            wrong.append(f"made {path.name!r}")
        if stat.S_IMODE(path.stat().st_mode) != 0o700:
            wrong.append(f"made with mode {path.stat().st_mode:o}")
        shutil.rmtree(path)
    return wrong + (["made more than one"] if len(made) > 1 else [])


REFERENCES = (
    "../../x@1", "../outside/file", f"{RUN}/../../outside/folder", f"{RUN}/../../../etc", "/etc",
    "/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/mem", "~", "~root", "~nobody-at-all/x",
    "~nobody-at-all", "\0", f"{RUN}\0", f"{RUN}/step_000030\0", "a" * 300, "/" + "a" * 300,
    "a/" * 3_000, f"{RUN}@../../x", f"{RUN}@-1", f"{RUN}@1e9", f"{RUN}@{'9' * 5_000}",
    f"{RUN}@\u0663\u0660", f"{RUN}@best@best", f"{RUN}/step_000030/..",
    f"{RUN}/step_000030/model.safetensors", f"{RUN}/step_\u0660\u0660\u0660\u0660\u0663\u0660",
    "@", "@best", "-", "--trust", "file:///etc/passwd", "http://x/y.pt", "\x1b[2J", "\u202e", ".",
    "..", "/", "//", "\ud800", "*", f"{RUN}*", "%s", "{0}",
)  # fmt: skip


def references() -> list[Case]:
    return cases("reference", refer, product(REFERENCES))


def refer(bench: Bench, text: str) -> list[str]:
    """Wherever a run or a checkpoint can be named."""
    wrong = bench.attempt(find_checkpoint, bench.lab, text)
    wrong += bench.attempt(load_generator, bench.lab, text or "none")
    wrong += bench.attempt(tokenizers.find, bench.lab, text)
    if "\0" in text or "\ud800" in text or text.startswith("-"):
        return wrong  # no command line can hold the first two; the last is an option there
    for words in (
        ("checkpoints", "show", text),
        ("checkpoints", "delete", text, "--run", "--yes"),
        ("train", "--resume", text),
    ):
        wrong += bench.command(*words)
    return wrong


# Links, pipes, devices ----------------------------------------------------------------------------

PLACES = (
    "run.json", "config.toml", "status.json", "metrics.jsonl", "events.jsonl", "log.txt",
    "run.lock", "tokenizer", "tokenizer/tokenizer.json", "control", "control/stop",
    "control/inbox", "control/answers", "control/inbox/1-1-1.json", STEP,
    f"{STEP}/model.safetensors", f"{STEP}/training.safetensors", f"{STEP}/state.json",
    f"{STEP}/meta.json", f"{STEP}/manifest.json", "step_000032", ".tmp-32-PID",
    ".status.json.PID.tmp", ".tmp-config.toml-TID-PID", "",
)  # fmt: skip


def make_device(bench: Bench, at: Path) -> None:
    """An endless one; where making it needs rights that are not there, a link to it."""
    try:
        os.mknod(at, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        at.symlink_to("/dev/zero")


PLANTS: dict[str, Callable[[Bench, Path], object]] = {
    "a link to a file": lambda bench, at: at.symlink_to(bench.outside.file),
    "a link to an object": lambda bench, at: at.symlink_to(bench.outside.data),
    "a link to a folder": lambda bench, at: at.symlink_to(bench.outside.folder),
    "a link to nothing": lambda bench, at: at.symlink_to(bench.outside.new),
    "a link to a device": lambda bench, at: at.symlink_to("/dev/zero"),
    "a pipe": lambda bench, at: os.mkfifo(at),
    "a device": make_device,
    "a hard link": lambda bench, at: os.link(bench.outside.file, at),
    "a folder": lambda bench, at: at.mkdir(),
}


def links() -> list[Case]:
    return cases("planted", plant, product(PLANTS, PLACES))


def plant(bench: Bench, what: str, place: str) -> list[str]:
    """In the place of a file or folder of the run; then everything is done to the run."""
    name = place.replace("TID", str(_thread())).replace("PID", str(os.getpid()))
    at = bench.run / name if name else bench.run
    at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if at.is_dir():
        shutil.rmtree(at)
    else:
        at.unlink(missing_ok=True)
    PLANTS[what](bench, at)
    wrong = bench.read_everything()
    wrong += bench.resume()
    wrong += bench.send()
    return wrong + bench.remove_everything()


def _thread() -> int:
    return threading.get_native_id()


# Modes --------------------------------------------------------------------------------------------


def modes() -> list[Case]:
    return [Case("modes", "of all that a run makes", look_at_modes)]


def look_at_modes(bench: Bench, rng: random.Random) -> list[str]:
    """Even without a umask folders are one's own alone, and so are files that steer."""
    config = load_file(bench.run / "config.toml").with_values({"train.max_steps": 3})
    inbox = control.Inbox()
    wrong = bench.attempt(
        run_training, bench.lab, config, emit=lambda event: None, inbox=inbox, name="modes"
    )
    run = bench.lab.checkpoints / "modes"
    write_status(run, own_status(), durable=False)
    wrong += bench.attempt(spool.send, run, control.Stop())
    for path in (run, *run.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir() and mode != 0o700:
            wrong.append(f"{path.relative_to(run)} has mode {mode:o}")
        steers = path.name == "run.lock" or "control" in path.parts
        if path.is_file() and steers and mode != 0o600:
            wrong.append(f"{path.relative_to(run)} has mode {mode:o}")
    return wrong
