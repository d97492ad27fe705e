"""Files of a run damaged as disks, tools and people damage them; what is loaded, and what is said.

A trial damages one thing and then asks everything that loads: the list, the proof, references,
tensors, the generator, and in a part of the trials a whole resumed training. A damaged checkpoint
must be named and the one before it taken; whatever goes on without a word must end in the very bits
of an undamaged run.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from engine import control, events, tokenizers
from engine.checkpoints import find_checkpoint, list_checkpoints, newest_verified, verify
from engine.checkpoints.layout import MANIFEST, META, MODEL, STATE, TRAINING, CheckpointInfo
from engine.checkpoints.load import load_training, load_weights
from engine.errors import EngineError
from engine.generation.load import load_checkpoint
from engine.lab import Lab
from engine.session import resume_training
from engine.tokenizers import CharTokenizer
from tests.campaign.readers import sealed
from tests.campaign.row import Progress, Result, Row
from tests.tiny_run import make_tiny_run

FILES = (MODEL, TRAINING, STATE, META, MANIFEST)
STEPS = (10, 20, 30)
GO_ON = {"train.max_steps": 32}
RESUMED = 4  # one trial with a damaged checkpoint in so many also resumes
CPU = torch.device("cpu")


@dataclass
class Bench:
    """The run `tiny`, and what it is when nothing is damaged. `other` has the same shape and
    corpus, `foreign` the same shape and other tokens."""

    lab: Lab
    other: Path
    foreign: Path
    sound: dict[str, bytes] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    """What resuming from each step ends in."""

    @property
    def run(self) -> Path:
        return self.lab.checkpoints / "tiny"

    def step(self, step: int) -> Path:
        return self.run / f"step_{step:06}"

    def mend(self) -> None:
        """Every file as it was."""
        for path in sorted(self.run.rglob("*"), reverse=True):
            name = str(path.relative_to(self.run))
            if path.is_symlink() or (path.is_file() and name not in self.sound):
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        for name, data in self.sound.items():
            path = self.run / name
            if not path.is_file() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


@dataclass
class Trial:
    """One damage: what it is called, and what must be named when something is said of it.

    `left`: the step of the newest checkpoint that is still sound.
    """

    what: str
    named: str
    left: int = 30
    newest_broken: bool = False


def run(trials: int, folder: Path, progress: Progress) -> Result:
    os.environ.setdefault("TUI_LAB_CACHE_DIR", str(folder / "cache"))
    bench = make_bench(folder)
    result, figures = Result(trials), Counter()
    for number in range(trials):
        rng = random.Random(number)
        trial = damage(bench, rng)
        figures[trial.what.partition(" of ")[0]] += 1
        try:
            for words in judge(bench, trial, number, figures):
                result.failures.append(f"trial {number}: {trial.what}: {words}")
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            result.failures.append(f"trial {number}: {trial.what}: {words}"[:400])
        bench.mend()
        progress(number + 1)
    result.figures = {
        "silent loads": figures.pop("silent", 0),
        "resumed trainings": figures.pop("resumed", 0),
        "checkpoints passed over aloud": figures.pop("passed over", 0),
        "kinds of damage": ", ".join(f"{count} {kind}" for kind, count in sorted(figures.items())),
    }
    return result


def make_bench(folder: Path) -> Bench:
    lab, _ = make_tiny_run(folder / "lab")
    elsewhere, _ = make_tiny_run(folder / "other", train__seed=5)
    foreign, _ = make_tiny_run(folder / "foreign")
    bench = Bench(
        lab, elsewhere.checkpoints / "tiny", foreign.checkpoints / "tiny", read_all(lab, "tiny")
    )
    mix_tokens(bench)
    for step in STEPS:
        for later in STEPS:
            if later > step:
                shutil.rmtree(bench.step(later))
        _, error = resumed(bench)
        assert error is None, error
        bench.ends[step] = end_of(bench)
        bench.mend()
    return bench


def mix_tokens(bench: Bench) -> None:
    """Train `foreign` anew on a tokenizer that gives the same characters other numbers."""
    folder = bench.foreign / "tokenizer"
    mine = tokenizers.load(folder)
    CharTokenizer("".join(reversed(mine.settings()["characters"]))).save(folder)
    other = tokenizers.load(folder).digest
    assert mine.vocab_size == tokenizers.load(folder).vocab_size
    for info in list_checkpoints(bench.foreign):
        reseal(info, lambda facts: facts["digests"].update(tokenizer=other))


def reseal(info: CheckpointInfo, change: Callable[[dict], None]) -> None:
    """Change the facts of a checkpoint and the manifest with them, as saving it so would have."""
    facts = json.loads((info.path / META).read_bytes())
    change(facts)
    (info.path / META).write_text(json.dumps(facts))
    manifest = json.loads((info.path / MANIFEST).read_bytes())
    manifest["digests"] = facts["digests"]
    (info.path / MANIFEST).write_bytes(sealed(json.dumps(manifest).encode(), info.path / META))


def read_all(lab: Lab, name: str) -> dict[str, bytes]:
    run = lab.checkpoints / name
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def damage(bench: Bench, rng: random.Random) -> Trial:
    """Something happens to the run's files."""
    kind = rng.random()
    if kind < 0.62:
        trial = damage_checkpoint(bench, rng, 30)
        if rng.random() < 0.25:
            damage_checkpoint(bench, rng, 20)
            trial.left = 10
        return trial
    if kind < 0.74:
        return swap_folders(bench, rng)
    name = rng.choice(("tokenizer/tokenizer.json", "run.json", "config.toml"))
    file = bench.run / name
    if name.startswith("tokenizer") and rng.random() < 0.3:
        shutil.copyfile(bench.foreign / name, file)
        return Trial(f"swapped tokenizer of {name}", "tokenizer")
    how = rng.choice((flip, flip, flips, cut, empty, remove, extend, blank))
    how(rng, file)
    return Trial(f"{how.__name__} of {name}", file.name)


def damage_checkpoint(bench: Bench, rng: random.Random, step: int) -> Trial:
    name = rng.choice(FILES)
    file = bench.step(step) / name
    how = rng.choice((flip, flip, flips, cut, empty, remove, extend, blank, swap, swap))
    if how is swap:
        source = rng.choice((bench.step(step - 10), bench.other / file.parent.name))
        shutil.copyfile(source / name, file)
        if rng.random() < 0.2:  # two at once, of one and the same other checkpoint
            name = rng.choice([each for each in FILES if each != name])
            shutil.copyfile(source / name, bench.step(step) / name)
    else:
        how(rng, file)
    named = f"step_{step:06}"
    return Trial(f"{how.__name__} of {file.parent.name}/{name}", named, step - 10, step == 30)


def swap_folders(bench: Bench, rng: random.Random) -> Trial:
    """A whole checkpoint, sound in itself, in the place of another."""
    newest = bench.step(30)
    shutil.rmtree(newest)
    kind = rng.randrange(3)
    if kind == 0:
        shutil.copytree(bench.step(20), newest)
        return Trial("renamed of step_000020", "step_000030", 20, True)
    if kind == 1:
        shutil.copytree(bench.other / newest.name, newest)
        return Trial("other run's checkpoint of step_000030", "train.seed")
    shutil.copytree(bench.foreign / newest.name, newest)
    return Trial("foreign checkpoint of step_000030", "tokenizer")


def flip(rng: random.Random, file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def flips(rng: random.Random, file: Path) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    data[rng.randrange(len(data))] ^= 255  # so that an even number of flips does not undo itself
    file.write_bytes(data)


def cut(rng: random.Random, file: Path) -> None:
    os.truncate(file, rng.randrange(file.stat().st_size))


def empty(rng: random.Random, file: Path) -> None:
    file.write_bytes(b"")


def remove(rng: random.Random, file: Path) -> None:
    file.unlink()


def extend(rng: random.Random, file: Path) -> None:
    with file.open("ab") as out:
        out.write(rng.choice((b"\0", b"\n", rng.randbytes(8), bytes(4096))))


def blank(rng: random.Random, file: Path) -> None:
    """A block of zeros, as a file system leaves where a block was never written."""
    data = bytearray(file.read_bytes())
    start = rng.randrange(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    file.write_bytes(data)


def swap(rng: random.Random, file: Path) -> None:
    """Another checkpoint's file of the same name."""


def judge(bench: Bench, trial: Trial, number: int, figures: Counter[str]) -> list[str]:
    """What is wrong with how the program took it, in words."""
    wrong = []
    if trial.newest_broken:
        wrong += judge_checkpoint(bench, trial, figures)
        if number % RESUMED:
            return wrong
    else:
        wrong += judge_generator(bench, trial, figures)
    figures["resumed"] += 1
    return wrong + judge_resumed(bench, trial, figures)


def judge_checkpoint(bench: Bench, trial: Trial, figures: Counter[str]) -> list[str]:
    wrong = []
    listed = list_checkpoints(bench.run)
    broken = [info for info in listed if info.path == bench.step(30)]
    if broken and not verify(bench.step(30)):
        figures["silent"] += 1
        return ["verify finds nothing"]
    newest, problems = newest_verified(bench.run)
    said: list[str] = []
    found = find_checkpoint(bench.lab, "tiny", said)
    for info, words in ((newest, problems), (found, said)):
        if info is None or info.step != trial.left:
            wrong.append(f"took {info and info.step}, not {trial.left}")
        if not any(trial.named in problem for problem in words):
            wrong.append(f"does not name {trial.named}: {words}")
    figures["passed over"] += len(problems)
    for info in broken:
        try:
            load_weights(info)
            load_training(info)
        except EngineError as error:
            if trial.named not in error.title:
                wrong.append(f"loading does not name {trial.named}: {error.title}")
        else:
            figures["silent"] += 1
            wrong.append("everything of it loads")
    return wrong


def judge_generator(bench: Bench, trial: Trial, figures: Counter[str]) -> list[str]:
    """A run's own files: refused, or the very tokens and weights that were saved."""
    try:
        generator = load_checkpoint(find_checkpoint(bench.lab, str(bench.run)), CPU)
    except EngineError:
        return []
    sound = tokenizers.load(bench.other / "tokenizer").digest
    if generator.tokenizer.digest != sound:
        figures["silent"] += 1
        return ["it speaks with another tokenizer"]
    return []


def judge_resumed(bench: Bench, trial: Trial, figures: Counter[str]) -> list[str]:
    said, error = resumed(bench)
    if error is not None:
        if trial.newest_broken:
            return [f"not resumed: {error}"]
        return [] if trial.named in str(error) else [f"does not name {trial.named}: {error}"]
    alerts = [event.title for event in said if isinstance(event, events.Alert)]
    told = [title for title in alerts if "train.max_steps" not in title]
    step = next(event.step for event in said if isinstance(event, events.RunStarted))
    wrong = [] if step == trial.left else [f"resumed from {step}, not {trial.left}"]
    if trial.newest_broken and not any(trial.named in title for title in told):
        wrong.append(f"resumed without naming {trial.named}: {alerts}")
    if not told or trial.newest_broken:
        end = end_of(bench)
        if end != bench.ends[step]:
            figures["silent"] += 1
            wrong.append("resumed without a word, and ended otherwise")
    return wrong


def resumed(bench: Bench) -> tuple[list[events.Event], EngineError | None]:
    said: list[events.Event] = []
    try:
        resume_training(
            bench.lab, str(bench.run), overrides=GO_ON, emit=said.append, inbox=control.Inbox()
        )
    except EngineError as error:
        return said, error
    return said, None


def end_of(bench: Bench) -> str:
    """The weights that the resumed run ended with, by their hash."""
    newest = list_checkpoints(bench.run)[-1]
    assert newest.step == GO_ON["train.max_steps"], newest
    return hashlib.sha256((newest.path / MODEL).read_bytes()).hexdigest()


ROW = Row(
    number="6",
    fault="bit flips, truncation, empty, missing, swapped and extended files",
    must="the file is named and the checkpoint before it is used; nothing loads silently.",
    slice=30,
    full=1_000,
    run=run,
)
