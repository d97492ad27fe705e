"""The new-run form without its widgets: texts in, a checked configuration or refusals out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.config.schema import FIELDS, SECTIONS, Config, FieldSpec
from engine.errors import ConfigError
from engine.text import to_json

MAIN = (
    "data.corpus",
    "data.tokenizer",
    "data.vocab_size",
    "model.n_layer",
    "model.n_head",
    "model.n_embd",
    "model.context_length",
    "train.max_steps",
    "train.epochs",
    "train.batch_size",
    "train.eval_every",
    "train.device",
    "optimizer.lr",
    "schedule.kind",
    "schedule.warmup_steps",
    "save.policy",
    "sample.prompts",
)
"""The fields shown while the form is folded, in this order."""

NETWORK = {
    "shape": "n_layer n_embd n_head n_kv_head head_dim context_length norm norm_eps bias dropout",
    "positions": (
        "position rope_base rope_scaling rope_factor rope_original_context rope_truncate"
    ),
    "attention": "qk_norm qkv_bias window window_layers sink_tokens learned_sinks attention",
    "MLP and experts": "mlp n_hidden n_expert n_expert_active renormalise balance_loss",
    "output": "tie_embeddings logit_softcap",
}
"""The many fields of the network, in the groups that they are shown in."""

NEEDS = {
    "model.rope_base": ("model.position", "rope"),
    "model.rope_scaling": ("model.position", "rope"),
    "model.rope_factor": ("model.rope_scaling", ""),
    "model.rope_original_context": ("model.rope_scaling", ""),
    "model.rope_truncate": ("model.rope_scaling", "yarn"),
    "model.window_layers": ("model.window", ""),
    "model.sink_tokens": ("model.window", ""),
    "model.n_expert_active": ("model.n_expert", ""),
    "model.renormalise": ("model.n_expert", ""),
    "model.balance_loss": ("model.n_expert", ""),
    "schedule.decay_fraction": ("schedule.kind", "wsd"),
}
"""Fields that do something only where another has this value; "": where it is set at all."""
UNSET = ("0", "none", "false")


def groups() -> list[tuple[str, list[str]]]:
    """All fields as the unfolded form shows them: (heading, keys)."""
    found = []
    for section in SECTIONS:
        if section == "model":
            for name, fields in NETWORK.items():
                found.append((f"model: {name}", [f"model.{field}" for field in fields.split()]))
        else:
            found.append((section, [key for key in FIELDS if FIELDS[key].section == section]))
    return found


def as_text(spec: FieldSpec, value: Any) -> str:
    """A field's value as one would type it; `spec.parse` reads it back to the same value."""
    if spec.kind == "bool":
        return "true" if value else "false"
    if spec.kind == "floats":
        return ", ".join(f"{number:g}" for number in value)
    if spec.kind == "strings":
        plain = len(value) == 1 and value[0].isprintable() and value[0].strip() == value[0] != ""
        if plain and not value[0].startswith("["):
            return value[0]
        return to_json(list(value))
    return f"{value:g}" if spec.kind == "float" else str(value)


@dataclass
class Form:
    """Texts by field over a base configuration; `errors` by field, "" for the form as a whole."""

    base: Config
    texts: dict[str, str] = field(default_factory=dict)
    errors: dict[str, ConfigError] = field(default_factory=dict)
    config: Config | None = None

    def text(self, key: str) -> str:
        """What a field shows: what was typed, else the base's value."""
        return self.texts.get(key, as_text(FIELDS[key], self.base.get(key)))

    def idle(self, key: str) -> str:
        """What a field that does nothing now would need; "" for one that counts."""
        if key not in NEEDS:
            return ""
        other, wanted = NEEDS[key]
        name, text = FIELDS[other].name, self.text(other).strip()
        if wanted:
            return "" if text == wanted else f"needs {wanted}"
        return self.idle(other) or (f"needs {name}" if text in UNSET else "")

    def put(self, key: str, text: str) -> None:
        """Take a typed text in; one that says the base's value is no change."""
        if text == as_text(FIELDS[key], self.base.get(key)):
            self.texts.pop(key, None)
        else:
            self.texts[key] = text

    def check(self) -> Config | None:
        """The configuration, or None with every refusal in `errors`."""
        self.errors = {}
        values: dict[str, Any] = {}
        for key, text in self.texts.items():
            try:
                values[key] = FIELDS[key].parse(text)
            except ConfigError as error:
                self.errors[key] = error
        self.config = None if self.errors else self._whole(values)
        return self.config

    def _whole(self, values: Mapping[str, Any]) -> Config | None:
        try:
            return self.base.with_values(values)
        except ConfigError as error:
            # What concerns several fields names the one to look at first, if any.
            named = error.title.split(" = ")[0]
            self.errors[named if named in FIELDS else ""] = error
            return None
