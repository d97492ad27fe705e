"""One training run for an experiment, made as a user makes it: a lab, a corpus, a configuration.

Knows how to find the texts and what a run said; nothing of what is compared with what.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import control, events
from engine.config import Config
from engine.config.load import parse_assignments
from engine.config.schema import find_field
from engine.corpora import add
from engine.corpora.registry import read_entries
from engine.errors import InputError
from engine.lab import Lab
from engine.session import run_training

DATA_VARIABLE = "TUI_LAB_BENCHMARK_DATA"
TEXTS = {
    "tinyshakespeare": ("tinyshakespeare/input.txt",),
    # The cut between training and validation moves to a document's start: here, to the second file.
    "wikitext-2": ("wikitext-2/train.txt", "wikitext-2/valid.txt"),
}
"""Name of a text -> its files inside the folder of data."""
EMBEDDED = "tiny"
"""The corpus of `--quick`, which every installation carries."""
TAIL = 50
"""Last steps over which what a router does is averaged."""


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """`--data`: where the texts lie."""
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get(DATA_VARIABLE),
        help=f"folder with tinyshakespeare/ and wikitext-2/ (default: ${DATA_VARIABLE})",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every experiment has."""
    add_data_option(parser)
    parser.add_argument("--quick", action="store_true", help="a minute, on the text at hand")
    parser.add_argument(
        "--set", action="append", default=[], help="a field for all runs, as in tui-lab train"
    )
    parser.add_argument("--lab", type=Path, help="a folder to train in, and to keep")


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of `--set`, with their values. Raises ConfigError."""
    given = parse_assignments(options.set)
    return {key: find_field(key).parse(value) for key, value in given.items()}


@contextmanager
def open_lab(options: argparse.Namespace) -> Iterator[Lab]:
    """The lab of `--lab`, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Lab.init(options.lab or Path(folder))


def add_text(lab: Lab, name: str, data: Path | None) -> str:
    """Register one of `TEXTS` in the lab; the name of its corpus. Raises InputError."""
    if name == EMBEDDED:
        return name
    if data is None:
        raise InputError(
            f"where is {name}? no folder of data was named",
            f"pass --data DIR, or set {DATA_VARIABLE}",
        )
    corpus = f"{name}-whole"  # the registry has the plain names, for texts that are fetched
    if corpus not in read_entries(lab, only=corpus):
        add(lab, corpus, [data / file for file in TEXTS[name]])
    return corpus


def configure(settings: Mapping[str, Any]) -> Config:
    """`settings` over what all experiments share: one thread, the same schedule, no checkpoints."""
    shared = {
        "optimizer.betas": (0.9, 0.99),
        "train.threads": 1,
        "train.device": "cpu",
        "train.eval_tokens": 16_384,
        "save.policy": "none",
        "save.every": 0,
        "sample.every": 0,
    }
    config = Config().with_values(shared | dict(settings))
    # A tenth of the peak, as usual: a rate that is chosen from a grid brings its floor with it.
    return config.with_values({"schedule.min_lr": config.optimizer.lr / 10})


def train(lab: Lab, config: Config, name: str) -> dict[str, Any]:
    """Train a run called `name`; what it ended with, ready for JSON.

    `val_loss` is over the whole validation split; the points of `curve`, [step, loss], are over its
    first `train.eval_tokens`.
    """
    said: list[events.Event] = []
    run_training(lab, config, emit=said.append, inbox=control.Inbox(), name=name)
    steps = [event for event in said if isinstance(event, events.StepDone)]
    evaluations = [event for event in said if isinstance(event, events.EvalDone)]
    started = next(event for event in said if isinstance(event, events.RunStarted))
    finished = next(event for event in said if isinstance(event, events.Finished))
    last = evaluations[-1]
    result = {
        "run": name,
        "seed": config.train.seed,
        "lr": config.optimizer.lr,
        "parameters": started.n_parameters,
        "precision": started.precision,
        "tokens": finished.tokens,
        "val_loss": last.val_loss,
        "val_tokens": last.tokens,
        "bits_per_byte": last.bits_per_byte,
        "curve": [[event.step, round(event.val_loss, 4)] for event in evaluations[:-1]],
        "tokens_per_second": round(statistics.median(step.tokens_per_second for step in steps)),
        "seconds": round(finished.seconds, 1),
    }
    if steps[-1].router_balance is not None:
        names = ("router_balance", "expert_busiest", "expert_idlest", "router_entropy")
        result["router"] = {
            name: round(statistics.mean(getattr(step, name) for step in steps[-TAIL:]), 4)
            for name in names
        }
    print(
        f"{name}: seed {result['seed']}, rate {result['lr']:g}, {result['parameters']:,} parameters"
        f" -> {result['val_loss']:.4f} ({result['tokens_per_second']:,} tokens/s)",
        flush=True,
    )
    return result


def spread(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Mean, lowest and highest final loss of several seeds."""
    losses = [run["val_loss"] for run in runs]
    return {"mean": statistics.mean(losses), "low": min(losses), "high": max(losses)}


def curve(runs: list[dict[str, Any]]) -> list[list[float]]:
    """[step, mean, lowest, highest] of the seeds' validation losses, by step."""
    points = zip(*(run["curve"] for run in runs), strict=True)
    rows = []
    for column in points:
        losses = [loss for _, loss in column]
        rows.append([column[0][0], round(statistics.mean(losses), 4), min(losses), max(losses)])
    return rows
