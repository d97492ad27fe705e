"""Preparing a corpus against tiktoken alone, its memory by size, and how long training waits.

    python -m benchmarks.preparation [--megabytes 48] [--rounds 3] [--sizes 200 2000] [--shapes …]

Rate: `prepare` from a plain text file (hashed, read, cut, encoded on all cores, written, flushed to
the disk) against `tiktoken.Encoding.encode_ordinary` on one core with the very same vocabulary, the
text in memory, in turn, each in a process of its own. Per core: what divides the one by the other
divides by the number of cores too. Peers' own limits, two of them at once, are told beside.
Memory: the largest resident size of the process that prepares, at two sizes of one text.
Waiting: the seconds inside `Feed.next` over those between the first and the last batch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import quiet
from benchmarks.program import ROOT, python
from benchmarks.ratios import Ratio, of_rounds
from benchmarks.report import machine_facts, write_result
from engine import control
from engine.config import Config
from engine.corpora import add, interpreter, prepare
from engine.errors import TokenizerError
from engine.feed import Feed
from engine.lab import Lab
from engine.tokenizers import BpeTokenizer, Gpt2Tokenizer, Tokenizer, load

RATE, MEMORY, WAITING = 0.8, 1.1, 0.01
"""Of tiktoken's rate per core, at least; of the smaller text's memory, at most; of the time."""
VOCABULARY = 16_384
CORPUS = "text"
LEARNED_FROM = 20 << 20  # characters of text that merges are learned from
SHAPES = {"128x4x4": (128, 4, 4, 64, 400), "384x6x6": (384, 6, 6, 256, 40)}
"""Width, layers, heads, context, and the steps that are looked at; 12 windows a batch."""
WARM_STEPS = 20


def write_text(path: Path, size: int) -> None:
    """At least `size` bytes of Python's own library and its help, a paragraph after the other in
    an order that does not repeat."""
    paragraphs = [text.encode() for text in interpreter.help_topics()]
    for source in interpreter.library_files():
        paragraphs += source.read_bytes().split(b"\n\n")
    paragraphs = [text for text in paragraphs if text.strip() and _is_text(text)]
    draw = random.Random(0)
    with open(path, "wb", buffering=1 << 20) as file:
        while file.tell() < size:
            draw.shuffle(paragraphs)
            for text in paragraphs:
                file.write(text + b"\n\n")
                if file.tell() >= size:
                    break


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


# In a process of its own ----------------------------------------------------------------------


def job_prepare(lab: Lab, tokenizer: Tokenizer) -> dict[str, Any]:
    shutil.rmtree(lab.corpus / "prepared", ignore_errors=True)
    before = _resident()
    began = time.perf_counter()
    prepared = prepare(lab, CORPUS, tokenizer)
    return {
        "seconds": time.perf_counter() - began,
        "bytes": prepared.n_bytes,
        "resident_before": before,
        "resident_peak": _resident(),
    }


def job_tiktoken(lab: Lab, tokenizer: BpeTokenizer | Gpt2Tokenizer) -> dict[str, Any]:
    """Its plain call on pieces of about a megabyte: the fastest that it has."""
    text = (lab.root / f"{CORPUS}.txt").read_bytes().decode()
    encoding = tokenizer._encoding
    encoding.encode_ordinary(text[: 1 << 20])
    began = time.perf_counter()
    for at in range(0, len(text), 1 << 20):
        encoding.encode_ordinary(text[at : at + (1 << 20)])
    return {"seconds": time.perf_counter() - began, "bytes": len(text.encode())}


def _resident() -> int:
    """The most that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


JOBS = {"prepare": job_prepare, "tiktoken": job_tiktoken}


def _start(job: str, lab: Lab, tokenizer: str) -> subprocess.Popen[str]:
    command = python("benchmarks.preparation", "--job", job, str(lab.root), tokenizer)
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return json.loads(out)


def _run(job: str, lab: Lab, tokenizer: str) -> dict[str, Any]:
    return _result(_start(job, lab, tokenizer))


# What is measured -----------------------------------------------------------------------------


def rates(lab: Lab, tokenizer: str, rounds: int) -> dict[str, Any]:
    """Bytes a second of both sides in turn; rounds with other processes at work are told and, if
    there are quiet ones, do not count."""
    cores = len(os.sched_getaffinity(0))
    kept: list[tuple[float, float]] = []
    noisy: list[tuple[float, float]] = []
    both: list[float] = []
    for number in range(rounds):
        order = ("prepare", "tiktoken") if number % 2 == 0 else ("tiktoken", "prepare")
        with quiet.Watch() as watch:
            found = {job: _run(job, lab, tokenizer) for job in order}
            beside = [_start("tiktoken", lab, tokenizer) for _ in range(cores)]
            together = [_result(process) for process in beside]
        ours, theirs = (found[job]["bytes"] / found[job]["seconds"] for job in JOBS)
        both.append(sum(one["bytes"] / one["seconds"] for one in together) / cores / theirs)
        (kept if watch.others <= quiet.LIMIT else noisy).append((ours, theirs))
        print(
            f"    {tokenizer}: {ours / 1e6:.1f} MB/s on {cores} cores, tiktoken {theirs / 1e6:.1f} "
            f"on one: {ours / cores / theirs:.2f} a core; {cores} tiktoken at once {both[-1]:.2f}; "
            f"others took {watch.others:.0%}",
            flush=True,
        )
    return {
        "tokenizer": tokenizer,
        "cores": cores,
        "rates": kept or noisy,
        "per_core": [ours / cores / theirs for ours, theirs in kept or noisy],
        "tiktoken_at_once": both,
        "discarded": len(noisy) if kept else 0,
    }


def memory(folder: Path, megabytes: list[int], tokenizer: str) -> list[dict[str, Any]]:
    """The preparing process at each size of text; the text is gone afterwards."""
    found = []
    for size in megabytes:
        lab = Lab.init(folder / f"lab-{size}")
        shutil.copytree(folder / "lab" / tokenizer, lab.root / tokenizer)
        try:
            write_text(lab.root / f"{CORPUS}.txt", size * 1_000_000)
            add(lab, CORPUS, [lab.root / f"{CORPUS}.txt"])
            one = _run("prepare", lab, tokenizer)
        finally:
            shutil.rmtree(lab.root)
        found.append({"megabytes": size} | one)
        print(
            f"    {size} MB: {one['resident_peak'] / 1e6:.0f} MB resident at most, "
            f"{one['bytes'] / one['seconds'] / 1e6:.1f} MB/s",
            flush=True,
        )
    return found


class Waits:
    """Stands before `Feed.next`, and times it."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seconds: list[float] = []
        self.began = self.ended = 0.0
        self._real = Feed.next
        self._taken = 0

    def next(self, feed: Feed, *arguments: Any, **named: Any) -> np.ndarray:
        start = time.perf_counter()
        batch = self._real(feed, *arguments, **named)
        self.ended = time.perf_counter()
        self._taken += 1
        if self._taken <= WARM_STEPS:
            self.began = self.ended
        else:
            self.seconds.append(self.ended - start)
        return batch

    @property
    def share(self) -> float:
        return sum(self.seconds) / (self.ended - self.began)


def waiting(lab: Lab, shape: str) -> dict[str, Any]:
    """How long a training of `shape` waited for its batches."""
    from engine.session import run_training  # torch is no part of the memory of those that prepare

    width, layers, heads, context, steps = SHAPES[shape]
    config = Config().with_values(
        {
            "data.corpus": "python-docs",
            "model.n_embd": width,
            "model.n_layer": layers,
            "model.n_head": heads,
            "model.context_length": context,
            "train.batch_size": 12,
            "train.max_steps": steps + WARM_STEPS,
            "train.eval_every": 0,
            "sample.every": 0,
            "save.policy": "none",
            "save.every": 0,
        }
    )
    waits = Waits(steps)
    real, Feed.next = Feed.next, lambda feed, *told, **named: waits.next(feed, *told, **named)  # type: ignore[method-assign]
    try:
        run_training(lab, config, emit=lambda event: None, inbox=control.Inbox(), name=shape)
    finally:
        Feed.next = real  # type: ignore[method-assign]
    step = (waits.ended - waits.began) / len(waits.seconds)
    print(f"    {shape}: {waits.share:.3%} of steps of {1000 * step:.1f} ms", flush=True)
    return {
        "shape": shape,
        "steps": len(waits.seconds),
        "step_seconds": step,
        "median_wait_seconds": statistics.median(waits.seconds),
        "longest_wait_seconds": max(waits.seconds),
        "share": waits.share,
    }


def tokenizers(lab: Lab) -> list[str]:
    """Save those that are compared into folders of the lab; their names. GPT-2's where it is."""
    with open(lab.root / f"{CORPUS}.txt", encoding="utf-8") as file:
        learned = BpeTokenizer.train([file.read(LEARNED_FROM)], VOCABULARY)
    learned.save(lab.root / "bpe")
    try:
        Gpt2Tokenizer.local(lab).save(lab.root / "gpt2")
    except TokenizerError as lack:
        print(f"    gpt2 is not measured: {lack.title}")
        return ["bpe"]
    return ["bpe", "gpt2"]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All of it, with `ratios` against their targets."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        lab = Lab.init(folder / "lab")
        write_text(lab.root / f"{CORPUS}.txt", options.megabytes * 1_000_000)
        add(lab, CORPUS, [lab.root / f"{CORPUS}.txt"])
        kinds = tokenizers(lab)
        speeds = [rates(lab, kind, options.rounds) for kind in kinds] if options.rounds else []
        sizes = memory(folder, options.sizes, kinds[0])
        waits = [waiting(lab, shape) for shape in options.shapes]
    ratios = [
        of_rounds(
            "Data",
            f"preparing with {one['tokenizer']}, bytes a second per core, against tiktoken alone",
            one["per_core"],
            RATE,
            discarded=one["discarded"],
        )
        for one in speeds
    ]
    if len(sizes) > 1:
        small, large = sizes[0], sizes[-1]
        what = f"memory to prepare {large['megabytes']} MB, against {small['megabytes']} MB"
        grown = large["resident_peak"] / small["resident_peak"]
        ratios.append(Ratio("Data", what, grown, MEMORY, at_least=False))
    ratios += [
        Ratio("Data", f"waiting for data at {one['shape']}", one["share"], WAITING, at_least=False)
        for one in waits
    ]
    return {
        "rates": speeds,
        "memory": sizes,
        "waiting": waits,
        "ratios": [ratio.to_dict() for ratio in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=48, help="of text, for the rates")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[200, 2000], help="megabytes, for the memory"
    )
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    parser.add_argument("--job", nargs=3, metavar=("JOB", "LAB", "TOKENIZER"), help="of a process")
    options = parser.parse_args()
    if options.job:
        job, root, kind = options.job
        lab = Lab.find(root)
        json.dump(JOBS[job](lab, load(lab.root / kind)), sys.stdout)
        return
    result = machine_facts() | measure(options)
    for ratio in result["ratios"]:
        print(f"  {Ratio(**{key: ratio[key] for key in ratio if key != 'met'})}")
    write_result("preparation", result)


if __name__ == "__main__":
    main()
