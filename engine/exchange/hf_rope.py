"""Rotary positions in a `config.json`, both ways, in the spellings of transformers 4 and 5.

Version 5 has one object `rope_parameters`; older files, and other programs that read them, have
`rope_theta` with `rope_scaling` beside it. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.config.sections import ModelConfig
from engine.exchange.hf_fields import Fields

LLAMA3_FACTORS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN_FACTORS = {"beta_fast": 32.0, "beta_slow": 1.0}
"""The bounds of `engine.model.rope`, under their names there. Others are refused."""
_LAYER_TYPES = ("full_attention", "sliding_attention")


def to_hf(model: ModelConfig) -> dict[str, Any]:
    """The fields about positions, in both spellings."""
    rope = _parameters(model)
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    return {
        "rope_parameters": rope,
        "rope_theta": model.rope_base,
        "rope_scaling": None if model.rope_scaling == "none" else scaling,
    }


def _parameters(model: ModelConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"rope_type": "default", "rope_theta": model.rope_base}
    if model.rope_scaling == "none":
        return values
    values |= {"rope_type": model.rope_scaling, "factor": model.rope_factor}
    if model.rope_scaling == "linear":
        return values
    original = model.rope_original_context or int(model.context_length / model.rope_factor)
    values["original_max_position_embeddings"] = original
    if model.rope_scaling == "llama3":
        return values | LLAMA3_FACTORS
    return values | YARN_FACTORS | ({} if model.rope_truncate else {"truncate": False})


def from_hf(fields: Fields, base: float, context: int) -> dict[str, Any]:
    """The fields of `ModelConfig` about positions. `base`: the class's own `rope_theta`.

    Raises InputError naming what cannot be honoured.
    """
    # The older spelling wins where both are, as in transformers.
    name = "rope_scaling" if fields.values.get("rope_scaling") else "rope_parameters"
    given = fields.values.get(name) or {}
    if not isinstance(given, Mapping):
        raise fields.refusal(name, "an object")
    if any(kind in given for kind in _LAYER_TYPES):
        each = [given.get(kind) for kind in _LAYER_TYPES if kind in given]
        if any(one != each[0] for one in each) or not isinstance(each[0], Mapping):
            raise fields.refusal(name, "the same rotation in all layers")
        given = each[0]
    fields.demand("partial_rotary_factor", 1.0)
    rope = Fields(given, name)
    rope.demand("partial_rotary_factor", 1.0)
    values: dict[str, Any] = {
        "rope_base": rope.number("rope_theta", fields.number("rope_theta", base))
    }
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind == "default":
        return values
    if kind not in ("linear", "llama3", "yarn"):
        wanted = "rope_type" if given.get("rope_type") else "type"
        raise rope.refusal(wanted, "the types default, linear, llama3 and yarn")
    factor = rope.number("factor")
    values |= {"rope_scaling": kind, "rope_factor": factor}
    if kind == "linear":
        return values
    for key, value in (LLAMA3_FACTORS if kind == "llama3" else YARN_FACTORS).items():
        rope.demand(key, value)
        if kind == "llama3":
            rope.number(key)  # the class has no default of its own
    if kind == "yarn":
        # Null is false to the class, and absent is true.
        values["rope_truncate"] = given.get("truncate", True) is not None and rope.flag(
            "truncate", True
        )
        _check_attention_factor(rope, factor)
    outer = fields.values.get("original_max_position_embeddings")
    if outer is not None:  # some files have it beside the object, and the class takes that one
        rope.demand("original_max_position_embeddings", outer)
        return values | {"rope_original_context": fields.whole("original_max_position_embeddings")}
    return values | {
        "rope_original_context": rope.whole("original_max_position_embeddings", context)
    }


def _check_attention_factor(rope: Fields, factor: float) -> None:
    """YaRN's sharper softmax as its paper derives it from `factor`, be it spelled out or not."""
    for name in ("mscale", "mscale_all_dim"):
        if rope.values.get(name):
            raise rope.refusal(name, "the factor on attention that YaRN's paper derives")
    derived = 0.1 * math.log(max(factor, 1.0)) + 1.0
    if not math.isclose(rope.number("attention_factor", derived), derived, rel_tol=1e-6):
        raise rope.refusal("attention_factor", f"{derived:.6g}, which YaRN's paper derives")
