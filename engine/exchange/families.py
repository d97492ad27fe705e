"""Which public class of `transformers` a network equals, and why not.

A family is a class and the settings that its arithmetic allows. Exporting asks for the family that
a configuration belongs to; what no class has is refused by the name of the field. No torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.config.sections import ModelConfig
from engine.errors import InputError


@dataclass(frozen=True, eq=False)
class Family:
    """A public class. `needs`: for each field of `ModelConfig` that is not free, the values that
    the class computes, in words and as a test."""

    model_type: str
    class_name: str
    needs: dict[str, tuple[str, Callable[[ModelConfig], bool]]]

    def misfits(self, model: ModelConfig) -> list[tuple[str, str]]:
        """(field, what the class has in its place) of all that it cannot be."""
        return [(name, words) for name, (words, fits) in self.needs.items() if not fits(model)]


def _is(name: str, *values: Any) -> tuple[str, Callable[[ModelConfig], bool]]:
    words = " or ".join(repr(value) if isinstance(value, str) else str(value) for value in values)
    return words, lambda model: getattr(model, name) in values


def _needs(**values: Any) -> dict[str, tuple[str, Callable[[ModelConfig], bool]]]:
    return {
        name: _is(name, *(value if isinstance(value, tuple) else (value,)))
        for name, value in values.items()
    }


_SCALINGS = ("none", "linear", "llama3", "yarn")
_PLAIN: dict[str, Any] = {"logit_softcap": 0.0, "sink_tokens": 0, "qkv_bias": False}
_MODERN = _PLAIN | {"norm": "rmsnorm", "position": "rope", "rope_scaling": _SCALINGS}
_DENSE = {"n_expert": 0}
_NO_SINKS = {"learned_sinks": False}
_EXPERTS = ("a mixture", lambda model: model.n_expert > 0)
_EVERYWHERE = (
    "'all', or no window",
    lambda model: not model.window or model.window_layers == "all",
)

FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            "gpt2",
            "GPT2LMHeadModel",
            _needs(
                **_PLAIN,
                **_DENSE,
                **_NO_SINKS,
                norm="layernorm",
                position="learned",
                mlp="gelu",
                qk_norm=False,
                window=0,
                bias=True,
            )
            | {
                "n_kv_head": ("n_head", lambda model: model.kv_heads == model.n_head),
                "head_dim": (
                    "n_embd / n_head",
                    lambda model: model.head_width * model.n_head == model.n_embd,
                ),
            },
        ),
        Family(
            "llama",
            "LlamaForCausalLM",
            _needs(**_MODERN, **_DENSE, **_NO_SINKS, mlp="swiglu", qk_norm=False, window=0)
            | {
                # The class checks it, though it has a head_dim.
                "n_head": ("a divisor of n_embd", lambda model: model.n_embd % model.n_head == 0)
            },
        ),
        Family(
            "mistral",
            "MistralForCausalLM",
            _needs(**_MODERN, **_DENSE, **_NO_SINKS, mlp="swiglu", qk_norm=False, bias=False)
            | {"window_layers": _EVERYWHERE},
        ),
        Family(
            "qwen2",
            "Qwen2ForCausalLM",
            _needs(
                **(_MODERN | {"qkv_bias": True}),
                **_DENSE,
                **_NO_SINKS,
                mlp="swiglu",
                qk_norm=False,
                bias=False,
            ),
        ),
        Family(
            "qwen3",
            "Qwen3ForCausalLM",
            _needs(**_MODERN, **_DENSE, **_NO_SINKS, mlp="swiglu", qk_norm=True, bias=False),
        ),
        Family(
            "mixtral",
            "MixtralForCausalLM",
            _needs(
                **_MODERN, **_NO_SINKS, mlp="swiglu", qk_norm=False, bias=False, renormalise=True
            )
            | {"n_expert": _EXPERTS, "window_layers": _EVERYWHERE},
        ),
        Family(
            "qwen3_moe",
            "Qwen3MoeForCausalLM",
            _needs(**_MODERN, **_NO_SINKS, mlp="swiglu", qk_norm=True, bias=False)
            | {"n_expert": _EXPERTS, "window_layers": _EVERYWHERE},
        ),
        Family(
            "gpt_oss",
            "GptOssForCausalLM",
            _needs(
                **_MODERN,
                learned_sinks=True,
                mlp="swiglu-clamped",
                qk_norm=False,
                bias=True,
                renormalise=True,
            )
            | {"n_expert": _EXPERTS},
        ),
    )
}
"""By `model_type`, as config.json names them."""


def family_of(model: ModelConfig) -> Family:
    """The public class that the network equals. Raises InputError naming the field that none has,
    and the nearest class."""
    misfits = {family: family.misfits(model) for family in FAMILIES.values()}
    nearest = min(misfits, key=lambda family: len(misfits[family]))
    if not misfits[nearest]:
        return nearest
    nowhere = set.intersection(*({name for name, _ in found} for found in misfits.values()))
    # A field that no class has is the one to name: no change of others would help.
    (name, words), *others = sorted(misfits[nearest], key=lambda found: found[0] not in nowhere)
    value = _shown(getattr(model, name))
    hint = "; ".join(f"model.{other} would have to be {has}" for other, has in others)
    if name in nowhere:
        raise InputError(
            f"model.{name} = {value}: no class of transformers has it",
            f"the nearest, {nearest.class_name}, has {words}" + (f"; {hint}" if hint else ""),
        )
    raise InputError(
        f"model.{name} = {value}: no class of transformers has it together with the other "
        f"settings; the nearest, {nearest.class_name}, has {words}",
        hint or "train a run with that setting to export it",
    )


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value).lower()
