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

from engine.errors import ConfigError, did_you_mean


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A field with its help; `minimum` and `maximum` are inclusive."""
    metadata = {
        "help": help,
        "unit": unit,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network."""

    n_layer: int = setting(6, "transformer blocks", minimum=1)
    n_head: int = setting(6, "attention heads; must divide n_embd", minimum=1)
    n_embd: int = setting(384, "width of the residual stream", minimum=1)
    context_length: int = setting(256, "positions the model can see", unit="tokens", minimum=1)
    dropout: float = setting(0.0, "share of activations dropped in training", minimum=0, maximum=1)
    bias: bool = setting(True, "biases in linear layers and norms, as GPT-2 has")
    tie_embeddings: bool = setting(True, "one matrix for token embedding and output")
    attention: str = setting(
        "auto",
        "sdpa: the fused kernel; reference: the same written out; auto: the faster one here",
        choices=("auto", "sdpa", "reference"),
    )


@dataclass(frozen=True)
class DataConfig:
    """What is learned from, and how it is cut."""

    corpus: str = setting("python-docs", "name of a registered corpus")
    tokenizer: str = setting(
        "bpe", "how text becomes tokens", choices=("bytes", "char", "word", "bpe", "gpt2")
    )
    vocab_size: int = setting(
        1024, "entries of a trained vocabulary (bpe, word)", unit="tokens", minimum=2
    )
    stride: int = setting(
        0, "distance between window starts; 0: the context length", unit="tokens", minimum=0
    )
    val_fraction: float = setting(
        0.1, "share of the corpus, at its end, kept for validation", minimum=0.0, maximum=0.9
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    name: str = setting("adamw", "the optimiser", choices=("adamw",))
    lr: float = setting(1e-3, "peak learning rate", minimum=0.0)
    weight_decay: float = setting(
        0.1, "decoupled decay of matrices (never of biases, norms, positions)", minimum=0.0
    )
    betas: tuple[float, float] = setting(
        (0.9, 0.95), "decay of the first and second moment", minimum=0.0, maximum=0.999999
    )
    clip: float = setting(1.0, "largest gradient norm; 0: no clipping", minimum=0.0)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run."""

    kind: str = setting(
        "cosine",
        "cosine and linear fall to min_lr; wsd holds, then falls at the end",
        choices=("cosine", "linear", "constant", "wsd"),
    )
    warmup_steps: int = setting(100, "steps of linear rise from 0", unit="steps", minimum=0)
    min_lr: float = setting(1e-4, "the floor that the rate falls to (never above lr)", minimum=0.0)
    decay_fraction: float = setting(
        0.2, "wsd: share of the run, at its end, that falls", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class TrainConfig:
    """The loop. It ends at the first of max_steps, epochs and max_tokens that is set."""

    batch_size: int = setting(16, "windows in one micro-batch", minimum=1)
    accumulate: int = setting(1, "micro-batches summed into one step", minimum=1)
    max_steps: int = setting(0, "length in optimiser steps; 0: not set", unit="steps", minimum=0)
    epochs: float = setting(
        0.0, "length in passes over the training split; 0: not set", minimum=0.0
    )
    max_tokens: int = setting(0, "length in tokens; 0: not set", unit="tokens", minimum=0)
    eval_every: int = setting(
        250, "steps between evaluations; 0: only at the end", unit="steps", minimum=0
    )
    eval_tokens: int = setting(
        0, "tokens scored in a periodic evaluation; 0: the whole split", unit="tokens", minimum=0
    )
    log_every: int = setting(1, "steps between logged steps", unit="steps", minimum=1)
    seed: int = setting(1337, "of weights, data order and dropout", minimum=0)
    device: str = setting("auto", "auto takes cuda, then mps, then cpu (also cuda:1, …)")
    precision: str = setting(
        "auto",
        "of the matrix products; auto takes bfloat16 where the device has it",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    compile: bool = setting(False, "compile the model with torch.compile (a wait, then speed)")
    threads: int = setting(0, "CPU threads for torch; 0: all cores", minimum=0)


@dataclass(frozen=True)
class SaveConfig:
    """Which checkpoints a run keeps."""

    policy: str = setting(
        "rolling",
        "rolling keeps the newest one; all keeps periodic ones and the best; none keeps nothing",
        choices=("rolling", "all", "none"),
    )
    every: int = setting(
        500, "steps between checkpoints; 0: only at the end", unit="steps", minimum=0
    )


@dataclass(frozen=True)
class SampleConfig:
    """Samples drawn during training from pinned prompts; they never change the training."""

    prompts: tuple[str, ...] = setting(("\n",), "texts to continue")
    every: int = setting(250, "steps between samples; 0: never", unit="steps", minimum=0)
    max_tokens: int = setting(100, "length of a sample", unit="tokens", minimum=1)
    temperature: float = setting(0.8, "of the sampling; 0 is greedy", minimum=0.0, maximum=5.0)
    top_k: int = setting(50, "keeps the k likeliest tokens; 0: off", minimum=0)
    top_p: float = setting(1.0, "keeps this mass of likeliest tokens; 1: off", minimum=0, maximum=1)
    seed: int = setting(1337, "of the sampler's own generator", minimum=0)


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
        model, train = self.model, self.train
        if model.n_embd % model.n_head:
            raise ConfigError(
                f"model.n_head = {model.n_head}: does not divide model.n_embd = {model.n_embd}",
                "head width is n_embd / n_head",
            )
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
            finite = math.isfinite(number)
            low = self.minimum is None or number >= self.minimum
            high = self.maximum is None or number <= self.maximum
            if not (finite and low and high):
                raise self._refusal(value)
        if self.choices and typed not in self.choices:
            near = did_you_mean(str(typed), self.choices)
            raise ConfigError(f"{self.key} = {value!r}: not {self.accepts()}", near)
        return typed

    def _refusal(self, value: Any) -> ConfigError:
        return ConfigError(f"{self.key} = {value!r}: not {self.accepts()}", self.help)

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
        if not isinstance(value, str):
            raise ValueError
        return value


_NUMBERS = ("int", "float")


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
    if not all(isinstance(item, str) for item in value):
        raise ValueError
    return tuple(value)


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
