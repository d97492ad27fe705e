"""The configuration: frozen, typed, validated sections; each field carries its help text.

The command line's options, the new-run form, `config show` and the documentation are all derived
from these fields. Plain dataclasses, since the app's first paint and `--help` read this module and
a validation library alone would cost them half their time budget.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from engine.config.architecture import check_architecture
from engine.config.sections import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    SampleConfig,
    SaveConfig,
    ScheduleConfig,
    TrainConfig,
)
from engine.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Config:
    """One run's whole configuration."""

    title: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def get(self, key: str) -> Any:
        """The value of `section.field`. Raises ConfigError for an unknown key."""
        spec = find_field(key)
        return getattr(getattr(self, spec.section), spec.name)

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """A copy with `section.field` keys replaced; values may be text, as typed or in a flag."""
        changed: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            spec = find_field(key)
            changed.setdefault(spec.section, {})[spec.name] = spec.parse(value)
        sections = {
            name: replace(getattr(self, name), **new_values) for name, new_values in changed.items()
        }
        config = replace(self, **sections)
        config.check()
        return config

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def check(self) -> None:
        """Refuse what no single field can see. Raises ConfigError."""
        train = self.train
        check_architecture(self.model)
        if not (train.max_steps or train.epochs or train.max_tokens):
            raise ConfigError(
                "the run has no length", "set train.max_steps, train.epochs or train.max_tokens"
            )
        if self.sample.top_p == 0:
            raise ConfigError("sample.top_p = 0: must be above 0", "1 is off")


SECTIONS = ("model", "data", "optimizer", "schedule", "train", "save", "sample")


@dataclass(frozen=True)
class FieldSpec:
    """One field as forms and flags see it: `key` is `section.name`, `kind` its type's name."""

    section: str
    name: str
    kind: str  # int, float, bool, str, floats, strings
    default: Any
    help: str
    unit: str
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    def accepts(self) -> str:
        """What the field takes, in words, for error messages and forms."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = {
            "int": "a whole number",
            "float": "a number",
            "bool": "true or false",
            "str": "a text",
            "floats": "two numbers, as 0.9,0.95",
            "strings": 'a list of texts, as ["Once", "Then"]',
        }[self.kind]
        if self.minimum is not None and self.maximum is not None:
            words += f" between {self.minimum:g} and {self.maximum:g}"
        elif self.minimum is not None:
            words += f" of at least {self.minimum:g}"
        return words

    def parse(self, value: Any) -> Any:
        """The typed value of `value` (text or already typed). Raises ConfigError."""
        try:
            typed = self._typed(value)
        except (ValueError, TypeError, OverflowError):
            raise self._refusal(value) from None
        numbers = typed if self.kind == "floats" else (typed,) if self.kind in _NUMBERS else ()
        for number in numbers:
            # Beyond 64 bits a whole number fits no counter and no tensor.
            finite = abs(number) < 2**63 if isinstance(number, int) else math.isfinite(number)
            low = self.minimum is None or number >= self.minimum
            high = self.maximum is None or number <= self.maximum
            if not (finite and low and high):
                raise self._refusal(value)
        if self.choices and typed not in self.choices:
            near = did_you_mean(str(typed), self.choices)
            raise ConfigError(f"{self.key} = {_shown(value)}: not {self.accepts()}", near)
        return typed

    def _refusal(self, value: Any) -> ConfigError:
        return ConfigError(f"{self.key} = {_shown(value)}: not {self.accepts()}", self.help)

    def _typed(self, value: Any) -> Any:
        if self.kind == "int":
            return _whole(value)
        if self.kind == "float":
            if isinstance(value, bool):
                raise ValueError
            return float(value)
        if self.kind == "bool":
            if isinstance(value, bool):
                return value
            return _truth(str(value))
        if self.kind == "floats":
            parts = value.strip("[]() ").split(",") if isinstance(value, str) else list(value)
            first, second = (float(part) for part in parts)
            return (first, second)
        if self.kind == "strings":
            return _strings(value)
        if "on" in self.choices and str(value).lower() in ("true", "yes", "false", "no"):
            return "on" if _truth(str(value)) else "off"
        return _text(value)


_NUMBERS = ("int", "float")


def _shown(value: Any) -> str:
    """`value` as it would be written, cut short."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return "…"
    return text if len(text) <= 200 else text[:200] + "…"


def _text(value: Any) -> str:
    """`value` if it is text that a file can hold: a lone surrogate (a stray byte of a command
    line) cannot be written as UTF-8."""
    if not isinstance(value, str):
        raise ValueError
    value.encode()
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str):
        value = value.strip()
        try:
            return int(value)
        except ValueError:
            value = float(value)  # 1e6 is a fine way to write a number of tokens
    if value != int(value):
        raise ValueError
    return int(value)


def _truth(text: str) -> bool:
    for truth, words in ((True, ("true", "yes", "on", "1")), (False, ("false", "no", "off", "0"))):
        if text.strip().lower() in words:
            return truth
    raise ValueError


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            import tomllib

            try:
                value = tomllib.loads(f"v = {text}")["v"]
            except tomllib.TOMLDecodeError:
                raise ValueError from None
        else:
            value = [value]
    return tuple(_text(item) for item in value)


def _kind(annotation: Any) -> str:
    if isinstance(annotation, types.GenericAlias):
        return "strings" if typing.get_args(annotation)[0] is str else "floats"
    return annotation.__name__


def _specs() -> Iterator[FieldSpec]:
    for section in SECTIONS:
        cls = next(f for f in fields(Config) if f.name == section).default_factory
        assert cls is not MISSING
        hints = typing.get_type_hints(cls)
        for item in fields(cls):
            yield _spec(section, item, hints[item.name])


def _spec(section: str, item: Field[Any], annotation: Any) -> FieldSpec:
    return FieldSpec(section, item.name, _kind(annotation), item.default, **item.metadata)


FIELDS: dict[str, FieldSpec] = {spec.key: spec for spec in _specs()}


def find_field(key: str) -> FieldSpec:
    """The field called `key`. Raises ConfigError naming the nearest known one."""
    if key in FIELDS:
        return FIELDS[key]
    same_name = [known for known in FIELDS if known.split(".")[1] == key.rsplit(".", 1)[-1]]
    near = same_name or get_close_matches(key, FIELDS, n=1, cutoff=0.55)
    hint = f"did you mean '{near[0]}'?" if near else "list them: tui-lab config show --fields"
    raise ConfigError(f"unknown configuration key '{key}'", hint)


def default_values() -> dict[str, Any]:
    """Every field as `section.field` with its default, as a file would have it: what a run means
    that was made before a field was there."""
    values = Config().to_dict()
    return {
        f"{section}.{name}": list(value) if isinstance(value, tuple) else value
        for section in SECTIONS
        for name, value in values[section].items()
    }


def from_dict(values: Mapping[str, Any], source: str) -> Config:
    """The configuration that nested `values` describe. Raises ConfigError naming `source`."""
    flat: dict[str, Any] = {}
    title = ""
    for name, section in values.items():
        if name == "title" and isinstance(section, str):
            title = section
        elif name not in SECTIONS:
            hint = did_you_mean(name, (*SECTIONS, "title"))
            raise ConfigError(f"{source}: unknown section [{name}]", hint)
        elif not isinstance(section, Mapping):
            raise ConfigError(f"{source}: '{name}' must be a section", f"write [{name}] above it")
        else:
            flat |= {f"{name}.{key}": value for key, value in section.items()}
    try:
        return replace(Config(), title=title).with_values(flat)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.title}", error.hint) from None
