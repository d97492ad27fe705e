"""Resuming with every single field changed, with another corpus and with another tokenizer."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import control, events
from engine.config import FIELDS, Config, load_file, to_toml
from engine.errors import EngineError
from engine.lab import Lab
from engine.resuming import FIXED, describe, open_resumption
from tests.campaign.processes import CORPUS, make_lab
from tests.campaign.row import Progress, Result, Row
from tests.campaign.tiny import Tiny

FILES = ("corpus edited", "corpus gone", "tokenizer of another run", "tokenizer gone")
CASES = [*(key for key, spec in FIELDS.items() if len(spec.choices) != 1), *FILES]


def run(trials: int, folder: Path, progress: Progress) -> Result:
    lab, result = make_lab(folder), Result()
    tiny = Tiny(lab, "a")
    tiny.listen = lambda event: (
        tiny.inbox.put(control.Stop(), "campaign")
        if isinstance(event, events.StepDone) and event.step == 3
        else None
    )
    tiny.train()
    other = Tiny(lab, "other").train(train__max_steps=1, data__tokenizer="bytes")
    kept = folder / "kept"
    shutil.copytree(tiny.path, kept)
    text = (lab.root / f"{CORPUS}.txt").read_bytes()
    refused = shown = 0
    for index in range(trials):
        case = CASES[index * len(CASES) // trials % len(CASES)]
        try:
            if case in FILES:
                wrong = changed_file(lab, tiny.path, other.path, case)
                refused += not wrong
            else:
                wrong = changed_field(lab, tiny.path, case)
                refused, shown = (
                    refused + case.startswith(FIXED),
                    shown + (not case.startswith(FIXED)),
                )
        finally:
            shutil.rmtree(tiny.path)
            shutil.copytree(kept, tiny.path)
            (lab.root / f"{CORPUS}.txt").write_bytes(text)
        result.failures += [f"{case}: {line}" for line in wrong]
        result.trials += 1
        progress(result.trials)
    again = Tiny(lab, "a").resume()
    if again.finished is None or again.finished.step != 10:
        result.failures.append(f"put back as it was, it does not go on: {again.error!r}")
    result.figures = {"changes": result.trials, "refused by name": refused, "shown": shown}
    return result


def changed_field(lab: Lab, run_path: Path, key: str) -> list[str]:
    path = run_path / "config.toml"
    config = load_file(path)
    # Not checked as a whole: by itself a field may also be one that the others do not go with.
    section, name = key.split(".")
    value = replace(getattr(config, section), **{name: another(config, key)})
    path.write_text(to_toml(replace(config, **{section: value})))
    try:
        taken = open_resumption(lab, run_path.name)
    except EngineError as error:
        if not key.startswith(FIXED):
            return [f"refused: {error}"]
        return [] if key in error.title else [f"refused without its name: {error}"]
    taken.folder.close()
    if key.startswith(FIXED):
        return ["not refused"]
    lines = describe(taken.differences)
    alone = len(lines) == 1 and lines[0].startswith(f"{key}: ")
    return [] if alone else [f"shown as {lines}"]


def another(config: Config, key: str) -> Any:
    """A value of the field that is valid and not the one it has."""
    spec, now = FIELDS[key], config.get(key)
    if spec.choices:
        return next(choice for choice in spec.choices if choice != now)
    match spec.kind:
        case "bool":
            return not now
        case "int":
            return now * 2 if now else 2
        case "float":
            return now / 2 if now else 0.5
        case "floats":
            return (0.8, 0.9)
        case "strings":
            return ["another prompt"]
    return {"data.corpus": "python-docs", "train.device": "cpu:0"}.get(key, "cpu")


def changed_file(lab: Lab, run_path: Path, other: Path, case: str) -> list[str]:
    text = lab.root / f"{CORPUS}.txt"
    if case == "corpus edited":
        text.write_bytes(text.read_bytes().replace(b"the", b"thy"))
    elif case == "corpus gone":
        text.unlink()
    else:
        shutil.rmtree(run_path / "tokenizer")
        if case == "tokenizer of another run":
            shutil.copytree(other / "tokenizer", run_path / "tokenizer")
    tiny = Tiny(lab, run_path.name).resume()
    word = case.split()[0]
    if tiny.finished is not None or not isinstance(tiny.error, EngineError):
        return [f"went on, or ended with {tiny.error!r}"]
    named = word in str(tiny.error) or CORPUS in str(tiny.error)
    return [] if named else [f"refused without naming it: {tiny.error}"]


ROW = Row(
    number="19",
    fault="resume with another configuration, corpus or tokenizer",
    must="what decides the weights' shape or the data is refused by its name; every other "
    "difference is shown, field by field, before it is confirmed",
    slice=20,
    full=len(CASES),
    run=run,
)
