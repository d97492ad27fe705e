"""Configurations measured one by one, each in a process of its own, and what the plan said of them.

What somebody else disturbed is measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.quiet import LIMIT, Watch
from engine import events, survey
from engine.config import Config
from engine.planner import CorpusFacts, DeviceFacts, plan
from engine.trial import WARM, Stopwatch, main, run_trial

MODERN = {
    "model.norm": "rmsnorm",
    "model.position": "rope",
    "model.mlp": "swiglu",
    "model.bias": False,
}
ATTEMPTS = 3
SECONDS, STEPS, FEW_STEPS = 2.0, 12, 5
"""The least that is timed of a configuration; few steps where they are longer than half a second,
and so less often disturbed."""


def shape(size: str, context: int, batch: int, vocabulary: int, **fields: Any) -> dict[str, Any]:
    """One configuration to measure. `size`: width×layers×heads. `fields`: section__field=value;
    `modern=True`: RMSNorm, RoPE, SwiGLU, no biases."""
    width, layers, heads = (int(number) for number in size.split("×"))
    name = f"{size}, {context}×{batch}, {vocabulary}"
    values: dict[str, Any] = {
        "model.n_embd": width,
        "model.n_layer": layers,
        "model.n_head": heads,
        "model.context_length": context,
        "train.batch_size": batch,
    }
    if fields.pop("modern", False):
        name += " modern"
        values |= MODERN
    for key, value in fields.items():
        name += f" {key.rpartition('__')[2]}={value}"
        values[key.replace("__", ".")] = value
    return {"name": name, "vocabulary": vocabulary, "values": values}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What both benchmarks of plans take."""
    parser.add_argument("--only", default="", help="only the configurations whose name has this")
    parser.add_argument(
        "--mode", choices=("eager", "compiled", "both"), default="both", help="of the steps"
    )


def add_rounds(parser: argparse.ArgumentParser) -> None:
    """How often each is measured: a run alone scatters by a third where others use the machine."""
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the median")


def chosen(
    options: argparse.Namespace, shapes: list[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], bool]]:
    """(configuration, compiled) of all that the options leave."""
    modes = {"eager": (False,), "compiled": (True,), "both": (False, True)}[options.mode]
    for compiled in modes:
        for about in shapes:
            if options.only in about["name"]:
                yield about, compiled


def configuration(about: dict[str, Any], compiled: bool) -> Config:
    values = {
        "train.max_steps": 100,
        "train.device": "cpu",
        "train.compile": "on" if compiled else "off",
        "save.policy": "none",
    }
    return Config().with_values(values | about["values"])


def facts(config: Config) -> DeviceFacts:
    """This machine, measured."""
    found = survey.survey_device(config)
    if survey.measure_device(found):
        found = survey.survey_device(config)
    return found


def predicted(about: dict[str, Any], compiled: bool) -> dict[str, Any]:
    """What the plan says, with nothing learnt from calibrations."""
    config, size = configuration(about, compiled), about["vocabulary"]
    corpus = CorpusFacts(size, True, 10**7, 10**6, exact=True, available=True)
    drawn = plan(config, corpus, facts(config))
    assert drawn.step_seconds is not None
    return {"step_seconds": drawn.step_seconds, "memory": drawn.memory.to_dict()}


def measure_all(
    options: argparse.Namespace, shapes: list[dict[str, Any]], rounds: int
) -> list[dict[str, Any]]:
    """Everything that the options leave, one after the other, and all of it `rounds` times: of each
    the run whose steps took the median. A machine that others use may be a third slower for the
    minute that one run takes."""
    found = [
        [measure(about, compiled) for about, compiled in chosen(options, shapes)]
        for _ in range(rounds)
    ]
    return [median_run(rows) for rows in zip(*found, strict=True)]


def median_run(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of runs of one configuration; with what the steps of each took."""
    ordered = sorted(rows, key=lambda row: row["measured"]["step_seconds"])
    seconds = [row["measured"]["step_seconds"] for row in rows]
    return ordered[len(rows) // 2] | {"step_seconds_of_rounds": seconds}


def measure(about: dict[str, Any], compiled: bool) -> dict[str, Any]:
    """One configuration: prediction and measurement, ready for JSON."""
    said = predicted(about, compiled)
    config = configuration(about, compiled)
    least = STEPS if said["step_seconds"] < 0.5 else FEW_STEPS
    steps = WARM + min(60, max(least, round(SECONDS / said["step_seconds"])))
    with tempfile.NamedTemporaryFile("r") as told:
        python = (sys.executable, "-m", "benchmarks.trials", told.name)
        for _ in range(ATTEMPTS):
            trial = run_trial(
                config, about["vocabulary"], compiled=compiled, steps=steps, python=python
            )
            assert trial is not None
            others = float(Path(told.name).read_text())
            if others <= LIMIT:
                break
    result = about | {
        "compiled": compiled,
        "predicted": said,
        "measured": asdict(trial),
        "others": others,
        "time_error": said["step_seconds"] / trial.step_seconds - 1,
        "memory_error": said["memory"]["total"] / trial.peak_memory - 1,
    }
    print(
        f"{about['name']:<34}{'compiled' if compiled else 'eager':<9}"
        f"{trial.step_seconds * 1e3:8.1f} ms {result['time_error']:+7.1%}"
        f"{trial.peak_memory / 1e6:9.0f} MB {result['memory_error']:+7.1%}"
        f"   others {others:.1%}",
        flush=True,
    )
    return result


# In the process of the run ---------------------------------------------------------------------


class Watched(Stopwatch):
    """A stopwatch that says what others took of the machine meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = Watch()
        self._heard = 0

    def __call__(self, event: events.Event) -> None:
        super().__call__(event)
        if isinstance(event, events.StepDone):
            self._heard += 1
            if self._heard == WARM:
                self.watch.__enter__()
        elif isinstance(event, events.Finished):
            self.watch.__exit__(None, None, None)


if __name__ == "__main__":
    told, folder = sys.argv[1:]
    stopwatch = Watched()
    main(Path(folder), stopwatch)
    Path(told).write_text(str(stopwatch.watch.others))
