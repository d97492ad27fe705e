"""`config.json` of a Hugging Face folder: written from a `ModelConfig`, and read into one.

Every field of theirs that changes the arithmetic is honoured or refused by its name; those that
are about training, caching or devices are passed over. No torch, no transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.config.architecture import check_architecture
from engine.config.sections import ModelConfig
from engine.errors import ConfigError, InputError
from engine.exchange.families import FAMILIES, Family

LLAMA3_FACTORS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN_FACTORS = {"beta_fast": 32.0, "beta_slow": 1.0}


# Writing --------------------------------------------------------------------------------------


def to_hf(
    model: ModelConfig, family: Family, vocab_size: int, eot_id: int | None, dtype: str
) -> dict[str, Any]:
    """What config.json holds. `eot_id`: the token that begins and ends a document, or None."""
    common = {
        "architectures": [family.class_name],
        "model_type": family.model_type,
        "vocab_size": vocab_size,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
        "initializer_range": 0.02,
        "dtype": dtype,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    if family.model_type == "gpt2":
        return common | _gpt2(model)
    return common | _modern(model, family)


def _gpt2(model: ModelConfig) -> dict[str, Any]:
    return {
        "n_positions": model.context_length,
        "n_embd": model.n_embd,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_inner": model.hidden_width,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": model.norm_eps,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
        "attn_pdrop": model.dropout,
        "scale_attn_weights": True,
    }


def _modern(model: ModelConfig, family: Family) -> dict[str, Any]:
    rope = _rope(model)
    values: dict[str, Any] = {
        "hidden_size": model.n_embd,
        "intermediate_size": model.hidden_width,
        "num_hidden_layers": model.n_layer,
        "num_attention_heads": model.n_head,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": model.context_length,
        "rms_norm_eps": model.norm_eps,
        "attention_dropout": 0.0,
        # Both spellings: the older is what programs beside transformers 5 read.
        "rope_parameters": rope,
        "rope_theta": model.rope_base,
        "rope_scaling": None
        if rope["rope_type"] == "default"
        else {key: value for key, value in rope.items() if key != "rope_theta"},
    }
    kind = family.model_type
    layers = [
        "sliding_attention" if model.window_of(layer) else "full_attention"
        for layer in range(model.n_layer)
    ]
    if kind in ("llama", "gpt_oss"):
        values["attention_bias"] = model.bias
    if kind == "llama":
        values["mlp_bias"] = model.bias
    if kind in ("mistral", "mixtral"):
        values["sliding_window"] = model.window or None
    if kind in ("qwen3", "qwen3_moe"):
        values |= {
            "attention_bias": False,
            "use_sliding_window": bool(model.window),
            "sliding_window": model.window or None,
        }
    if kind == "qwen3":
        values |= {"layer_types": layers, "max_window_layers": 0 if model.window else model.n_layer}
    if kind == "mixtral":
        values["num_local_experts"] = model.n_expert
    if kind == "qwen3_moe":
        values |= {
            "num_experts": model.n_expert,
            "moe_intermediate_size": model.hidden_width,
            "norm_topk_prob": model.renormalise,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    if kind == "gpt_oss":
        values |= {
            "num_local_experts": model.n_expert,
            "layer_types": layers,
            # A class that has no layer with a window still wants a number.
            "sliding_window": model.window or model.context_length,
            "swiglu_limit": 7.0,
        }
    if model.n_expert:
        values |= {
            "num_experts_per_tok": model.n_expert_active,
            "router_aux_loss_coef": model.balance_loss,
            "output_router_logits": False,
        }
    return values


def _rope(model: ModelConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"rope_type": "default", "rope_theta": model.rope_base}
    if model.rope_scaling == "none":
        return values
    values |= {"rope_type": model.rope_scaling, "factor": model.rope_factor}
    if model.rope_scaling == "linear":
        return values
    original = model.rope_original_context or int(model.context_length / model.rope_factor)
    values["original_max_position_embeddings"] = original
    return values | (LLAMA3_FACTORS if model.rope_scaling == "llama3" else YARN_FACTORS)


# Reading --------------------------------------------------------------------------------------


class _Reader:
    """Fields of a config.json, with their types checked. All refusals are InputErrors."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def whole(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if type(value) is not int or not 0 <= value < 2**31:
            raise self.refusal(name, "a whole number")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._get(name, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.refusal(name, "a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if type(value) is not bool:
            raise self.refusal(name, "true or false")
        return value

    def demand(self, name: str, *accepted: Any) -> None:
        """Refuse a value that would change the arithmetic in a way that we do not have."""
        value = self.values.get(name)
        if value is not None and value not in accepted:
            raise self.refusal(name, " or ".join(str(one).lower() for one in accepted))

    def refusal(self, name: str, accepted: str) -> InputError:
        value = repr(self.values.get(name))
        shown = value if len(value) <= 60 else value[:60] + "…"
        return InputError(f"config.json: {name} = {shown}: this network has {accepted}")

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise InputError(f"config.json: {name} is missing", "the folder is not whole")
        return value


def from_hf(values: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """The network that a config.json describes, and its vocabulary's size.

    Raises InputError naming the field that cannot be honoured.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        shown = kind if isinstance(kind, str) and len(kind) < 60 else "…"
        raise InputError(
            f"config.json: model_type = '{shown}': not a class that can be imported",
            f"known: {', '.join(FAMILIES)}",
        )
    if values.get("quantization_config") is not None:
        raise InputError(
            "config.json: quantization_config: quantised weights cannot be imported",
            "take the folder with the weights in float32, float16 or bfloat16",
        )
    read = _Reader(values)
    fields = _read_gpt2(read) if kind == "gpt2" else _read_modern(read, kind)
    model = ModelConfig(**fields)
    for name, least in (("n_layer", 1), ("n_head", 1), ("n_embd", 1), ("context_length", 1)):
        if getattr(model, name) < least:
            raise InputError(f"config.json: {name} = {getattr(model, name)}: must be at least 1")
    try:
        check_architecture(model)
    except ConfigError as error:
        raise InputError(f"config.json: {error.title}", error.hint) from None
    default = 50257 if kind == "gpt2" else None
    return model, read.whole("vocab_size", default)


def _read_gpt2(read: _Reader) -> dict[str, Any]:
    read.demand("activation_function", "gelu_new", "gelu_pytorch_tanh")
    read.demand("scale_attn_weights", True)
    read.demand("scale_attn_by_inverse_layer_idx", False)
    read.demand("add_cross_attention", False)
    width = read.whole("n_embd", 768)
    context = read.values.get("n_positions") or read.values.get("n_ctx") or 1024
    if type(context) is not int:
        raise read.refusal("n_positions", "a whole number")
    return {
        "n_layer": read.whole("n_layer", 12),
        "n_head": read.whole("n_head", 12),
        "n_embd": width,
        "n_hidden": _unless(read.whole("n_inner", 4 * width), 4 * width),
        "context_length": context,
        "norm_eps": read.number("layer_norm_epsilon", 1e-5),
        "dropout": 0.0,
        "bias": True,
        "tie_embeddings": read.flag("tie_word_embeddings", True),
    }


def _read_modern(read: _Reader, kind: str) -> dict[str, Any]:
    read.demand("hidden_act", "silu", "swish")
    read.demand("partial_rotary_factor", 1.0)
    heads, width = read.whole("num_attention_heads"), read.whole("hidden_size")
    default_head = {"qwen3": 128, "gpt_oss": 64}.get(kind, width // max(1, heads))
    head = read.whole("head_dim", default_head)
    kv_heads = read.whole("num_key_value_heads", heads)
    context = read.whole("max_position_embeddings")
    bases = {"mixtral": 1e6, "gpt_oss": 150_000.0}
    values = {
        "n_layer": read.whole("num_hidden_layers"),
        "n_head": heads,
        "n_kv_head": _unless(kv_heads, heads),
        "head_dim": 0 if head * heads == width else head,
        "n_embd": width,
        "context_length": context,
        "norm": "rmsnorm",
        "norm_eps": read.number("rms_norm_eps", 1e-5 if kind in ("mixtral", "gpt_oss") else 1e-6),
        "position": "rope",
        "mlp": "swiglu-clamped" if kind == "gpt_oss" else "swiglu",
        "qk_norm": kind.startswith("qwen3"),
        "learned_sinks": kind == "gpt_oss",
        "bias": False,
        "tie_embeddings": read.flag("tie_word_embeddings", False),
    }
    values |= _read_rope(read, bases.get(kind, 10_000.0), context)
    values |= _read_bias(read, kind) | _read_window(read, kind, values["n_layer"])
    values |= _read_experts(read, kind)
    hidden = "moe_intermediate_size" if kind == "qwen3_moe" else "intermediate_size"
    own = ModelConfig(n_embd=width, mlp=values["mlp"]).hidden_width
    values["n_hidden"] = _unless(read.whole(hidden), own)
    return values


def _read_bias(read: _Reader, kind: str) -> dict[str, Any]:
    if kind == "gpt_oss":
        read.demand("attention_bias", True)
        return {"bias": True}
    if kind != "llama":
        read.demand("attention_bias", False)
        return {"bias": False}
    bias = read.flag("attention_bias", False)
    if read.flag("mlp_bias", False) != bias:
        raise read.refusal("mlp_bias", f"biases everywhere or nowhere (attention_bias is {bias})")
    return {"bias": bias}


def _read_window(read: _Reader, kind: str, n_layer: int) -> dict[str, Any]:
    """`window` and `window_layers`, from whichever way the class says it."""
    if kind == "llama":
        return {}
    if kind in ("qwen3", "qwen3_moe") and not read.flag("use_sliding_window", False):
        return {}
    defaults = {"gpt_oss": 128, "mixtral": 0, "mistral": 4096}
    absent = "sliding_window" in read.values and read.values["sliding_window"] is None
    window = 0 if absent else read.whole("sliding_window", defaults.get(kind, 4096))
    if not window:
        return {}
    slides = _sliding_layers(read, kind, n_layer)
    if not any(slides):
        return {}
    if all(slides):
        return {"window": window}
    if slides == [layer % 2 == 0 for layer in range(n_layer)]:
        return {"window": window, "window_layers": "alternate"}
    raise read.refusal(
        "layer_types" if "layer_types" in read.values else "max_window_layers",
        "a window in all layers, or in every second one from the first on",
    )


def _sliding_layers(read: _Reader, kind: str, n_layer: int) -> list[bool]:
    types = read.values.get("layer_types")
    if kind in ("qwen3", "gpt_oss") and types is not None:
        known = ("sliding_attention", "full_attention")
        if not isinstance(types, list) or any(one not in known for one in types):
            raise read.refusal("layer_types", "a list of sliding_attention and full_attention")
        if len(types) != n_layer:
            raise read.refusal("layer_types", f"an entry for each of {n_layer} layers")
        return [one == "sliding_attention" for one in types]
    if kind == "qwen3":
        first = read.whole("max_window_layers", 28)
        return [layer >= first for layer in range(n_layer)]
    if kind == "gpt_oss":
        return [layer % 2 == 0 for layer in range(n_layer)]
    return [True] * n_layer


def _read_experts(read: _Reader, kind: str) -> dict[str, Any]:
    if kind not in ("mixtral", "qwen3_moe", "gpt_oss"):
        return {}
    values: dict[str, Any] = {
        "n_expert_active": read.whole(
            "num_experts_per_tok", {"mixtral": 2, "qwen3_moe": 8, "gpt_oss": 4}[kind]
        ),
        "renormalise": True,
        "balance_loss": max(0.0, read.number("router_aux_loss_coef", 0.001)),
    }
    if kind == "qwen3_moe":
        read.demand("decoder_sparse_step", 1)
        read.demand("mlp_only_layers", [])
        count = "num_experts" if "num_experts" in read.values else "num_local_experts"
        return values | {
            "n_expert": read.whole(count, 128),
            "renormalise": read.flag("norm_topk_prob", False),
        }
    if kind == "gpt_oss":
        read.demand("swiglu_limit", 7.0, 7)
        read.demand("swiglu_alpha", 1.702)
    count = "num_local_experts" if "num_local_experts" in read.values else "num_experts"
    return values | {"n_expert": read.whole(count, 8 if kind == "mixtral" else 128)}


def _read_rope(read: _Reader, base: float, context: int) -> dict[str, Any]:
    """From `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`."""
    given = read.values.get("rope_parameters") or read.values.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise read.refusal("rope_parameters", "an object")
    rope = _Reader(given)
    outer = read.number("rope_theta", base)
    values: dict[str, Any] = {"rope_base": rope.number("rope_theta", outer)}
    kind = given.get("rope_type") or given.get("type") or "default"
    rope.demand("partial_rotary_factor", 1.0)
    if kind == "default":
        return values
    if kind not in ("linear", "llama3", "yarn"):
        raise read.refusal("rope_parameters", "the types default, linear, llama3 and yarn")
    values |= {"rope_scaling": kind, "rope_factor": rope.number("factor", 1.0)}
    if kind == "linear":
        return values
    for name, value in (LLAMA3_FACTORS if kind == "llama3" else YARN_FACTORS).items():
        rope.demand(name, value)
    if kind == "yarn":
        rope.demand("truncate", True)
        for name in ("attention_factor", "mscale", "mscale_all_dim"):
            if given.get(name) is not None:
                raise rope.refusal(name, "the factor that YaRN's paper derives")
    original = rope.whole("original_max_position_embeddings", context)
    return values | {"rope_original_context": original}


def _unless(value: int, default: int) -> int:
    return 0 if value == default else value
