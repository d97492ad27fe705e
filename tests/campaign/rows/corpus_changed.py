"""Corpus and shards edited, cut short, replaced, deleted under what reads and what makes them.

Three kinds of trials: a run whose shards are held in memory, a run that reads them where they lie,
and a preparation that is killed, or whose text is edited, or which two processes do at once. The
parent disturbs and judges; whatever might die does so in a process of its own.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

from engine import stream, tokenizers
from engine.corpora import find_prepared, preparation, prepare
from engine.errors import CorpusError
from engine.lab import Lab
from engine.metrics import read_metrics
from tests.campaign.processes import CORPUS, Forked, make_lab, train
from tests.campaign.row import Progress, Result, Row
from tests.campaign.story import differing, story

RUN = "run"
SHARD = 700  # tokens: the corpus has several shards, and windows that lie across two
VALUES = {
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.context_length": 16,
    "data.corpus": CORPUS,
    "data.tokenizer": "bytes",
    "schedule.warmup_steps": 3,
    "train.batch_size": 4,
    "train.max_steps": 60,
    "train.eval_every": 20,
    "train.threads": 1,
    "train.precision": "float32",
    "train.device": "cpu",
    "sample.every": 0,
    "save.every": 25,
}


def run(trials: int, folder: Path, progress: Progress) -> Result:
    result, counts = Result(), Counter[str]()
    whole = Undisturbed(folder / "whole")
    for number in range(trials):
        place = folder / f"trial-{number}"
        kind = KINDS[number % len(KINDS)]
        problems = kind(Trial(place, random.Random(number), counts), whole)
        result.failures += [f"trial {number} ({place.name}): {line}" for line in problems]
        result.trials += 1
        progress(result.trials)
        if not problems:
            shutil.rmtree(place)
    result.figures = {
        "disturbances": counts["disturbances"],
        "processes that died of SIGBUS": counts["died of signal 7"],
        "silent changes": counts["silent"],
        "runs that went on with their snapshot": counts["went on"],
        "runs that ended in a typed error, and were resumed": counts["refused"],
        "preparations killed": counts["killed"],
        "corpora built anew": counts["rebuilt"],
    }
    return result


class Undisturbed:
    """The run that all disturbed ones must become, and how long its steps take."""

    def __init__(self, place: Path) -> None:
        make_lab(place)
        child = Forked(trained, place, True, True)
        if child.finish():
            raise RuntimeError(f"the undisturbed run failed: {child.told[-1]}")
        begun = next(said for said in child.told if said.what == "begun")
        self.seconds = child.told[-1].at - begun.at
        path = place / "checkpoints" / RUN
        self.story, self.losses = story(path), _losses(path)


class Trial:
    """A lab of its own, what is done to it, and what is found there afterwards."""

    def __init__(self, place: Path, rng: random.Random, counts: Counter[str]) -> None:
        self.place, self.rng, self.counts = place, rng, counts
        self.lab = make_lab(place)
        self.source = place / f"{CORPUS}.txt"
        self.versions = [self.source.read_bytes()]
        self.tokenizer = tokenizers.build("bytes", lambda: (), 0)
        self.refusal = ""

    @property
    def run_path(self) -> Path:
        return self.lab.checkpoints / RUN

    def disturb(self) -> None:
        """Do something to one of the files that a run was made from, or to all of the shards."""
        self.counts["disturbances"] += 1
        prepared = [*(self.lab.corpus / "prepared").glob(f"{CORPUS}-*/*")]
        if self.rng.random() < 0.1 and prepared:
            shutil.rmtree(prepared[0].parent)
            return
        path = self.rng.choice([self.source, *prepared])
        if not path.exists() or not path.stat().st_size:
            return
        self.rng.choice(ACTIONS)(path, self.rng)
        if path == self.source and path.exists():
            self.versions.append(path.read_bytes())

    def wait_and_disturb(self, child: Forked, seconds: float) -> None:
        """A few times, at random moments of the `seconds` that the child is busy."""
        begun = child.told[-1].at
        moments = [self.rng.uniform(0, seconds) for _ in range(self.rng.randint(1, 4))]
        for moment in sorted(moments):
            for _ in child.listen(until=begun + moment):
                pass
            self.disturb()

    def ended(self, child: Forked, code: int) -> tuple[str, list[str]]:
        """How the child ended, and what is wrong with that."""
        if code < 0:
            self.counts[f"died of signal {-code}"] += 1
            return "died", [f"died of signal {-code}"]
        last = child.last("finished", "refused")
        if code or last is None:
            return "died", [f"no typed error: {child.told[-1:]}"]
        if last.what == "refused":
            self.refusal = last.text
        return last.what, []

    def put_back(self) -> None:
        self.source.unlink(missing_ok=True)
        self.source.write_bytes(self.versions[0])

    def found(self) -> list[str]:
        """A later start has the text that is there, for each text that has been there."""
        problems = []
        for number, text in enumerate(self.versions):
            self.source.unlink(missing_ok=True)
            self.source.write_bytes(text)
            if not text.strip():
                continue
            before = find_prepared(self.lab, CORPUS, self.tokenizer)
            damaged = before is not None and bool(before.verify())
            found = prepare(self.lab, CORPUS, self.tokenizer, shard_tokens=SHARD)
            self.counts["rebuilt"] += before is None or damaged
            tokens = found.tokens().slice(0, found.n_tokens)
            if found.verify() or tokens.tolist() != list(text.decode(errors="replace").encode()):
                self.counts["silent"] += 1
                problems.append(f"version {number} of the text: the shards hold another one")
        return problems


def a_run(trial: Trial, whole: Undisturbed, *, held: bool) -> list[str]:
    """Disturbed while it trains: it goes on as if nothing had happened, or says what has."""
    child = Forked(trained, trial.place, held, True)
    if not _begun(child):
        return [f"did not begin: {child.told[-1].text if child.told else ''}"]
    trial.wait_and_disturb(child, whole.seconds)
    how, problems = trial.ended(child, child.finish())
    if how == "refused" and held:
        problems.append(f"what is held in memory was lost: {trial.refusal}")
    steps = _losses(trial.run_path)
    if any(whole.losses[step] != loss for step, loss in steps.items()):
        trial.counts["silent"] += 1
        problems.append("trained on other data and said nothing")
    if not problems and how == "refused":
        trial.counts["refused"] += 1
        trial.put_back()
        again = Forked(trained, trial.place, held, not (steps and _has_checkpoint(trial.run_path)))
        how, problems = trial.ended(again, again.finish())
        if how == "refused":
            problems.append(f"cannot be resumed: {trial.refusal}")
    elif not problems:
        trial.counts["went on"] += 1
    if not problems:
        path = max(trial.lab.checkpoints.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        problems = [f"{name} differs" for name in differing(story(path), whole.story)]
    with _held(held):
        return problems + trial.found()


def a_preparation(trial: Trial, whole: Undisturbed) -> list[str]:
    """Killed, or its text edited, alone or two at once, over nothing or over damaged shards."""
    if trial.rng.random() < 0.5:
        prepare(trial.lab, CORPUS, trial.tokenizer, shard_tokens=SHARD)
        trial.disturb()
        trial.put_back()
    children = [Forked(prepared, trial.place) for _ in range(trial.rng.choice((1, 2)))]
    problems = []
    if all(_begun(child) for child in children):
        for _ in children[0].listen(until=children[0].told[-1].at + trial.rng.uniform(0, 0.1)):
            pass
        if trial.rng.random() < 0.3:
            _edit(trial.source, trial.rng)
            trial.versions.append(trial.source.read_bytes())
            trial.counts["disturbances"] += 1
        else:
            trial.counts["killed"] += children[0].kill()
            children = children[1:]
    for child in children:
        how, wrong = trial.ended(child, child.finish())
        problems += wrong
        if how == "refused" and len(trial.versions) == 1:
            problems.append(f"nothing was changed: {trial.refusal}")
    return problems + trial.found()


KINDS: list[Callable[[Trial, Undisturbed], list[str]]] = [
    partial(a_run, held=True),
    partial(a_run, held=False),
    a_preparation,
    a_preparation,
]


# In processes of their own --------------------------------------------------------------------


def trained(say: Callable[..., None], root: Path, held: bool, new: bool) -> None:
    """A run, or what remains of one; a typed error is told and is no failure of the process."""
    from engine import session

    session.prepare = partial(prepare, shard_tokens=SHARD)
    with _held(held), _refusals(say):
        train(say, root, RUN, VALUES if new else None)


def prepared(say: Callable[..., None], root: Path) -> None:
    preparation.CHUNK = 100
    tokenizer = tokenizers.build("bytes", lambda: (), 0)
    say("begun")
    with _refusals(say):
        prepare(Lab(root), CORPUS, tokenizer, shard_tokens=SHARD)
        say("finished")


@contextmanager
def _refusals(say: Callable[..., None]) -> Iterator[None]:
    try:
        yield
    except CorpusError as error:
        say("refused", 0, str(error))


@contextmanager
def _held(held: bool) -> Iterator[None]:
    """Whether shards of any size are read into memory, or none."""
    with mock.patch.object(stream, "HELD_BYTES", stream.HELD_BYTES if held else 0):
        yield


def _begun(child: Forked) -> bool:
    return any(said.what == "begun" for said in child.listen())


def _losses(path: Path) -> dict[int, float]:
    if not path.exists():
        return {}
    metrics = read_metrics(path)
    return dict(zip(metrics["step"].tolist(), metrics["loss"].tolist(), strict=True))


def _has_checkpoint(path: Path) -> bool:
    return any(path.glob("step_*"))


# What is done to a file ------------------------------------------------------------------------


def _edit(path: Path, rng: random.Random) -> None:
    """A digit in place: the size stays, and the corpus has no digits of its own."""
    with path.open("r+b") as file:
        file.seek(rng.randrange(path.stat().st_size))
        file.write(b"%d" % rng.randrange(10))


def _truncate(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(rng.randrange(path.stat().st_size))


def _replace(path: Path, rng: random.Random) -> None:
    """Another file of the same size and time takes its place."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    times = path.stat()
    _edit(other, rng)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)


def _delete(path: Path, rng: random.Random) -> None:
    path.unlink()


ACTIONS = (_edit, _truncate, _replace, _delete)

ROW = Row(
    number="18",
    fault="corpus and shards edited, truncated, replaced, deleted under a run; preparation killed",
    must="The run goes on with what it had, its losses those of an undisturbed run to the last "
    "bit, or ends in a typed error and is resumed; a later start builds anew what is damaged. No "
    "process dies of a signal, and no text is ever taken for another.",
    slice=8,
    full=200,
    run=run,
)
