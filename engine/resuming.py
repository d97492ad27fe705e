"""Going on with a run: which checkpoint, held by this process alone, and what is different now.

A run's configuration may change between two of its processes (a longer run, another rate), by
flags or by an edited file. What decides the shape of the weights or the data may not. Knows no
torch, and asks nobody: whoever calls shows the differences and has them confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from engine.checkpoints import CheckpointInfo, find_checkpoint
from engine.checkpoints.find import run_of
from engine.checkpoints.layout import META, newest_first
from engine.checkpoints.layout import describe as describe_checkpoint
from engine.checkpoints.tensors import read_json
from engine.config import Config, from_dict
from engine.config.load import override
from engine.errors import CheckpointError, ConfigError, InputError
from engine.lab import Lab
from engine.runs import RunFolder, compare_configs

FIXED = ("model.", "data.")
"""Fields that a resumed run keeps: with others it would be another run."""
IMPORTED = "imported"
"""The kind of a checkpoint that came from elsewhere and was trained on nothing here."""
OPEN = ("data.corpus", "data.stride", "data.val_fraction")
"""Fixed fields that such a checkpoint leaves open: what the first training of it decides."""

Difference = tuple[str, Any, Any]
"""(field, value in the checkpoint, value from now on)."""


@dataclass(frozen=True)
class Resumption:
    """A run about to go on. `folder` is locked for this process until it is closed.

    `threads`: what the processor's run was made with, 0 if it is not known. `skipped`: what is
    wrong with newer checkpoints that were passed over.
    """

    folder: RunFolder
    info: CheckpointInfo
    config: Config
    differences: list[Difference]
    threads: int
    skipped: list[str]


def open_resumption(
    lab: Lab, reference: str, overrides: Mapping[str, Any] | None = None
) -> Resumption:
    """Take the run that `reference` names, and its newest sound checkpoint (or the one named).

    Raises RunBusy when another process has it, ConfigError for a change that cannot be, and
    CheckpointError when there is nothing sound to go on from.
    """
    path = run_of(lab, reference)
    if not lab.owns_run(path):
        raise InputError(
            f"'{path.name}' ships with tui-lab and cannot be resumed",
            "start a run of your own: tui-lab train",
        )
    folder = RunFolder.open(lab, path)
    try:
        skipped: list[str] = []
        info = find_checkpoint(lab, reference, skipped)
        for key in overrides or {}:
            if _is_fixed(key, info):
                raise _fixed(key)
        config = override(folder.config(), overrides or {})
        differences = differences_from(info, config)
        return Resumption(folder, info, config, differences, _threads_of(info), skipped)
    except BaseException:
        folder.close()
        raise


def _threads_of(info: CheckpointInfo) -> int:
    try:
        found = read_json(info.path / META).get("threads", 0)
    except CheckpointError:
        return 0
    return found if isinstance(found, int) and found > 0 else 0


def preview(lab: Lab, reference: str) -> list[Difference]:
    """What would be different if the run went on now, without taking it or proving any byte.

    Raises as `open_resumption` does, RunBusy aside.
    """
    from engine.config import load_file
    from engine.runs import CONFIG_FILE

    path = run_of(lab, reference)
    found = (describe_checkpoint(folder) for folder in newest_first(path))
    newest = next((info for info in found if info.complete), None)
    return differences_from(newest, load_file(path / CONFIG_FILE)) if newest else []


def differences_from(info: CheckpointInfo, config: Config) -> list[Difference]:
    """In what `config` differs from the one that the checkpoint was made with, field by field.

    Raises ConfigError when a fixed field is among them.
    """
    before: Config | None = None
    with suppress(CheckpointError, ConfigError, TypeError, KeyError, AttributeError):
        # Of another version, or anybody's: what cannot be read is not compared.
        before = from_dict(read_json(info.path / META)["config"], "the checkpoint")
    found = compare_configs(before, config) if before is not None else []
    for key, was, now in found:
        if _is_fixed(key, info):
            raise _fixed(key, f" (it was {was!r}, config.toml says {now!r})")
    return found


def _is_fixed(key: str, info: CheckpointInfo) -> bool:
    return key.startswith(FIXED) and not (info.kind == IMPORTED and key in OPEN)


def _fixed(key: str, what: str = "") -> ConfigError:
    return ConfigError(
        f"{key} cannot change when a run is resumed{what}",
        "it decides the shape of the weights or the data; start a new run with it",
    )


def describe(differences: list[Difference]) -> list[str]:
    """One line a difference, for people."""
    return [f"{key}: {_plain(was)} → {_plain(now)}" for key, was, now in differences]


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
