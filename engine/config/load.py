"""Configurations as TOML: presets found in a lab or shipped, files, and overrides on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config.schema import Config, find_field, from_dict
from engine.errors import ConfigError, did_you_mean
from engine.lab import Lab
from engine.toml import read_toml

LENGTHS = ("train.max_steps", "train.epochs", "train.max_tokens")


@dataclass(frozen=True)
class Preset:
    """A named configuration file; `own` tells the lab's from the shipped."""

    name: str
    path: Path
    own: bool


def list_presets(lab: Lab) -> list[Preset]:
    """All presets by name; a lab's own file hides the shipped one of the same name."""
    found: dict[str, Preset] = {}
    for place in reversed(lab.places("configs")):
        if place.is_dir():
            for path in place.glob("*.toml"):
                found[path.stem] = Preset(path.stem, path, place == lab.configs)
    return sorted(found.values(), key=lambda preset: preset.name)


def load_file(path: Path, *, follow: bool = True) -> Config:
    """The configuration in a TOML file. Raises ConfigError naming file, line and field.

    `follow`: a link may lead to it, as people arrange for presets; a run's own file is no link.
    """
    try:
        values = read_toml(path, follow=follow)
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path.name}: not valid TOML: {error}") from error
    return from_dict(values, path.name)


def load_preset(lab: Lab, name: str) -> Config:
    """The preset called `name`. Raises ConfigError naming the nearest known one."""
    presets = {preset.name: preset for preset in list_presets(lab)}
    if name not in presets:
        raise ConfigError(f"unknown preset '{name}'", did_you_mean(name, presets))
    return load_file(presets[name].path)


def resolve(lab: Lab, name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """A preset by name, or a TOML file by path, with `section.field` overrides on top.

    Naming one length (steps, epochs, tokens) clears the lengths that were not named: somebody who
    asks for three epochs does not want the preset's number of steps to cut them short.
    """
    as_path = Path(name).expanduser()
    is_file = name.endswith(".toml") or len(as_path.parts) > 1
    config = load_file(as_path) if is_file else load_preset(lab, name)
    return override(config, overrides or {})


def override(config: Config, overrides: Mapping[str, Any]) -> Config:
    """`config` with overrides on top, by the rule of lengths that `resolve` states."""
    values = dict(overrides)
    if any(key in values for key in LENGTHS):
        values = dict.fromkeys(LENGTHS, 0) | values
    return config.with_values(values)


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """`["optimizer.lr=3e-4"]` as a mapping. Raises ConfigError for a text without '='."""
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"'{assignment}' sets nothing", "write it as section.field=value")
        values[find_field(key.strip()).key] = value.strip()
    return values


def to_toml(config: Config) -> str:
    """The whole configuration as TOML that `load_file` reads back to an equal one."""
    import tomli_w

    values = {name: value for name, value in config.to_dict().items() if name != "title" or value}
    return tomli_w.dumps(values)
