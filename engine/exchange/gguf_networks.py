"""Which architecture of llama.cpp a network equals, and why not. No torch, no gguf.

llama.cpp knows a network by the name that a file's metadata gives (`general.architecture`), and has
code of its own for each. What that code does not compute is refused by the name of the field:
Mistral's window, for one, which its code for `llama` passes over without a word. Read off
llama.cpp's `src/models/*.cpp`; tests compare its tokens with ours.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.exchange.families import FAMILIES, Family

Needs = dict[str, tuple[str, Callable[[ModelConfig], bool]]]

MOST_LAYERS = MOST_EXPERTS = 512
"""llama.cpp's LLAMA_MAX_LAYERS and LLAMA_MAX_EXPERTS."""

_LIMITS: Needs = {
    "n_layer": (f"at most {MOST_LAYERS}", lambda model: model.n_layer <= MOST_LAYERS),
    "rope_truncate": ("true: it rounds the bounds of YaRN", lambda model: model.rope_truncate),
}
_NO_WINDOW: Needs = {
    "window": (
        "no windows: it would read the whole context",
        lambda model: not _windowed(model),
    )
}
_NO_LLAMA3: Needs = {
    "rope_scaling": (
        "'none', 'linear' or 'yarn'",
        lambda model: model.rope_scaling in ("none", "linear", "yarn"),
    )
}
_FEW_EXPERTS: Needs = {
    "n_expert": (f"2 to {MOST_EXPERTS} experts", lambda model: 2 <= model.n_expert <= MOST_EXPERTS)
}
_RENORMALISED: Needs = {"renormalise": ("true", lambda model: model.renormalise)}


def _windowed(model: ModelConfig) -> bool:
    """Whether a window hides anything within the context."""
    return 0 < model.window < model.context_length


def _alternates(model: ModelConfig) -> bool:
    return not _windowed(model) or model.window_layers == "alternate" or model.n_layer == 1


def _network(name: str, family: str, needs: Needs, free: tuple[str, ...] = ()) -> Family:
    """What llama.cpp calls `name`: the class, with further `needs`, and without those of `free`."""
    own = FAMILIES[family].needs | _LIMITS | needs
    return Family(
        model_type=name,
        class_name=FAMILIES[family].class_name,
        needs={field: need for field, need in own.items() if field not in free},
    )


NETWORKS = (
    # The file must have every bias; of a network that has none they are zero.
    _network("gpt2", "gpt2", {}, free=("bias",)),
    _network("llama", "mixtral", _NO_WINDOW | _FEW_EXPERTS, free=("window_layers",)),
    _network("llama", "llama", _NO_WINDOW, free=("n_head",)),
    _network("qwen2", "qwen2", _NO_WINDOW | _NO_LLAMA3),
    _network("qwen3", "qwen3", _NO_WINDOW | _NO_LLAMA3),
    _network(
        "qwen3moe",
        "qwen3_moe",
        _NO_WINDOW | _NO_LLAMA3 | _FEW_EXPERTS | _RENORMALISED,
        free=("window_layers",),
    ),
    _network(
        "gpt-oss",
        "gpt_oss",
        _NO_LLAMA3
        | _FEW_EXPERTS
        | {"window_layers": ("windows in every other layer alone ('alternate')", _alternates)},
        free=("bias",),
    ),
)
"""`model_type` is llama.cpp's name, `class_name` the class of `transformers` that it stands for."""


_KINDS = {"norm", "position", "qk_norm", "learned_sinks", "n_expert"}
"""Fields that make a network one of a kind: another kind is farther than another setting."""


def _distance(misfits: list[tuple[str, str]]) -> int:
    return sum(2 if name in _KINDS else 1 for name, _ in misfits)


def network_of(model: ModelConfig) -> Family:
    """llama.cpp's architecture for the network. Raises InputError naming the field that no one has,
    and what the nearest has in its place."""
    misfits = [(network, network.misfits(model)) for network in NETWORKS]
    nearest, wrong = min(misfits, key=lambda pair: _distance(pair[1]))
    if not wrong:
        return nearest
    (name, words), *others = wrong
    value = getattr(model, name)
    shown = f"'{value}'" if isinstance(value, str) else str(value).lower()
    told = "; ".join(f"model.{other} would have to be: {what}" for other, what in others)
    raise InputError(
        f"model.{name} = {shown}: llama.cpp runs no such network; the nearest that it has, "
        f"'{nearest.model_type}' ({nearest.class_name}), has {words.lower()}",
        told or "train a run with that setting, or export it with --format hf",
    )
