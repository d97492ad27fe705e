"""`config.json` of a Hugging Face folder: written from a `ModelConfig`, and read into one.

Every field of theirs that changes the arithmetic is honoured or refused by its name; those that
are about training, caching or devices are passed over. No torch, no transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.config import FIELDS
from engine.config.architecture import check_architecture
from engine.config.sections import ModelConfig
from engine.errors import ConfigError, InputError, did_you_mean
from engine.exchange import hf_rope
from engine.exchange.families import FAMILIES, Family
from engine.exchange.hf_fields import Fields

CLASS_DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 50257},
    "llama": {"rms_norm_eps": 1e-6},
    "mistral": {"rms_norm_eps": 1e-6, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"rms_norm_eps": 1e-6, "num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": {
        "rms_norm_eps": 1e-6,
        "num_key_value_heads": 32,
        "sliding_window": 4096,
        "head_dim": 128,
    },
    "mixtral": {
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "rope_theta": 1e6,
        "num_experts": 8,
        "num_experts_per_tok": 2,
    },
    "qwen3_moe": {
        "rms_norm_eps": 1e-6,
        "num_key_value_heads": 4,
        "sliding_window": 4096,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    },
    "gpt_oss": {
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "sliding_window": 128,
        "head_dim": 64,
        "rope_theta": 150_000.0,
        "num_experts": 128,
        "num_experts_per_tok": 4,
    },
}
"""What a class of transformers takes for a field that config.json leaves out, where it matters and
is not the same for all. Sizes that every published file states are not guessed."""


QWEN = ("qwen2", "qwen3", "qwen3_moe")
"""Classes in which a window is there only when `use_sliding_window` says so."""


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
    } | hf_rope.to_hf(model)
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
    if kind in QWEN:
        values |= {
            "use_sliding_window": bool(model.window),
            "sliding_window": model.window or None,
        }
    if kind in ("qwen3", "qwen3_moe"):
        values["attention_bias"] = False
    if kind in ("qwen2", "qwen3"):
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


# Reading --------------------------------------------------------------------------------------


def from_hf(values: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """The network that a config.json describes, and its vocabulary's size.

    Raises InputError naming the field that cannot be honoured.
    """
    family = _family(values)
    kind, read = family.model_type, Fields(values)
    try:
        fields = _read_gpt2(read) if kind == "gpt2" else _read_modern(read, kind)
        model = ModelConfig(
            **{name: FIELDS[f"model.{name}"].parse(value) for name, value in fields.items()}
        )
        check_architecture(model)
    except ConfigError as error:  # out of the range that our field of that meaning has
        raise InputError(f"config.json: {error.title}", error.hint) from None
    return model, read.whole("vocab_size", CLASS_DEFAULTS[kind].get("vocab_size"))


def _family(values: Mapping[str, Any]) -> Family:
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        shown = kind[:60] if isinstance(kind, str) else ""
        raise InputError(
            f"config.json: model_type = '{shown}': not a class that can be imported",
            did_you_mean(shown, FAMILIES),
        )
    family = FAMILIES[kind]
    classes = values.get("architectures")
    if classes is not None and (
        not isinstance(classes, list) or (classes and family.class_name not in classes)
    ):
        raise Fields(values).refusal("architectures", f"the class {family.class_name}")
    if values.get("quantization_config") is not None:
        raise InputError(
            "config.json: quantization_config: quantised weights cannot be imported",
            "take the folder with the weights in float32, float16 or bfloat16",
        )
    return family


def _read_gpt2(read: Fields) -> dict[str, Any]:
    read.demand("activation_function", "gelu_new", "gelu_pytorch_tanh")
    read.demand("scale_attn_weights", True)
    read.demand("scale_attn_by_inverse_layer_idx", False)
    read.demand("add_cross_attention", False)
    width = read.whole("n_embd", 768)
    return {
        "n_layer": read.whole("n_layer", 12),
        "n_head": read.whole("n_head", 12),
        "n_embd": width,
        "n_hidden": _unless(read.whole("n_inner", 4 * width), 4 * width),
        "context_length": read.whole("n_positions", read.whole("n_ctx", 1024)),
        "norm_eps": read.number("layer_norm_epsilon", 1e-5),
        "bias": True,
        "tie_embeddings": read.flag("tie_word_embeddings", True),
    }


def _read_modern(read: Fields, kind: str) -> dict[str, Any]:
    defaults = CLASS_DEFAULTS[kind]
    read.demand("hidden_act", "silu", "swish")
    heads, width = read.whole("num_attention_heads"), read.whole("hidden_size")
    head = read.whole("head_dim", defaults.get("head_dim") or width // max(1, heads))
    # Null means one for each query head; only a field left out has the class's own number.
    absent = "num_key_value_heads" not in read.values
    kv_heads = read.whole(
        "num_key_value_heads", defaults.get("num_key_value_heads", heads) if absent else heads
    )
    context = read.whole("max_position_embeddings")
    if kind == "gpt_oss" and not (
        read.values.get("rope_parameters") or read.values.get("rope_scaling")
    ):
        # The class would take YaRN with bounds that are not rounded.
        raise InputError("config.json: rope_parameters is missing", "write them out")
    values = {
        # Checked before any list as long as it is made.
        "n_layer": FIELDS["model.n_layer"].parse(read.whole("num_hidden_layers")),
        "n_head": heads,
        "n_kv_head": _unless(kv_heads, heads),
        "head_dim": 0 if head * heads == width else head,
        "n_embd": width,
        "context_length": context,
        "norm": "rmsnorm",
        "norm_eps": read.number("rms_norm_eps", defaults["rms_norm_eps"]),
        "position": "rope",
        "mlp": "swiglu-clamped" if kind == "gpt_oss" else "swiglu",
        "qk_norm": kind.startswith("qwen3"),
        "learned_sinks": kind == "gpt_oss",
        "tie_embeddings": read.flag("tie_word_embeddings", False),
    }
    values |= hf_rope.from_hf(read, defaults.get("rope_theta", 10_000.0), context)
    values |= _read_bias(read, kind) | _read_window(read, kind, values["n_layer"])
    values |= _read_experts(read, kind)
    hidden = "moe_intermediate_size" if kind == "qwen3_moe" else "intermediate_size"
    own = ModelConfig(n_embd=width, mlp=values["mlp"]).hidden_width
    values["n_hidden"] = _unless(read.whole(hidden), own)
    return values


def _read_bias(read: Fields, kind: str) -> dict[str, Any]:
    if kind == "gpt_oss":
        read.demand("attention_bias", True)
        return {"bias": True}
    if kind == "qwen2":  # which has no field for them
        return {"bias": False, "qkv_bias": True}
    if kind != "llama":
        read.demand("attention_bias", False)
        return {"bias": False}
    bias = read.flag("attention_bias", False)
    if read.flag("mlp_bias", False) != bias:
        raise read.refusal("mlp_bias", f"biases everywhere or nowhere (attention_bias is {bias})")
    return {"bias": bias}


def _read_window(read: Fields, kind: str, n_layer: int) -> dict[str, Any]:
    """`window` and `window_layers`, from whichever way the class says it."""
    if kind == "llama":
        return {}
    slides = _sliding_layers(read, kind, n_layer)
    if kind in QWEN and not read.flag("use_sliding_window", False):
        if "layer_types" in read.values and any(slides):
            raise read.refusal("layer_types", "no window unless use_sliding_window says so")
        return {}
    # Null turns the window off; only a field left out has the class's own.
    default = CLASS_DEFAULTS[kind].get("sliding_window", 0)
    window = read.whole("sliding_window", 0 if "sliding_window" in read.values else default)
    if not window or not any(slides):
        return {}
    if all(slides):
        return {"window": window}
    if slides == [layer % 2 == 0 for layer in range(n_layer)]:
        return {"window": window, "window_layers": "alternate"}
    raise read.refusal(
        "layer_types" if "layer_types" in read.values else "max_window_layers",
        "a window in all layers, or in every second one from the first on",
    )


def _sliding_layers(read: Fields, kind: str, n_layer: int) -> list[bool]:
    types = read.values.get("layer_types")
    if types is not None:
        known = ("sliding_attention", "full_attention")
        if not isinstance(types, list) or any(one not in known for one in types):
            raise read.refusal("layer_types", "a list of sliding_attention and full_attention")
        if len(types) != n_layer:
            raise read.refusal("layer_types", f"an entry for each of {n_layer} layers")
        slides = [one == "sliding_attention" for one in types]
        if kind not in ("qwen2", "qwen3", "gpt_oss") and len(set(slides)) > 1:
            raise read.refusal("layer_types", "all layers alike: the class passes over this field")
        return slides
    if kind in ("qwen2", "qwen3"):
        first = read.whole("max_window_layers", 28)
        return [layer >= first for layer in range(n_layer)]
    if kind == "gpt_oss":
        return [layer % 2 == 0 for layer in range(n_layer)]
    return [True] * n_layer


def _read_experts(read: Fields, kind: str) -> dict[str, Any]:
    defaults = CLASS_DEFAULTS[kind]
    if "num_experts" not in defaults:
        return {}
    count = "num_experts" if "num_experts" in read.values else "num_local_experts"
    values: dict[str, Any] = {
        "n_expert": read.whole(count, defaults["num_experts"]),
        "n_expert_active": read.whole("num_experts_per_tok", defaults["num_experts_per_tok"]),
        "renormalise": True,
        "balance_loss": max(0.0, read.number("router_aux_loss_coef", 0.001)),
    }
    if kind == "qwen3_moe":
        read.demand("decoder_sparse_step", 1)
        read.demand("mlp_only_layers", [])
        values["renormalise"] = read.flag("norm_topk_prob", False)
    if kind == "gpt_oss":
        read.demand("swiglu_limit", 7.0)
        read.demand("swiglu_alpha", 1.702)
    return values


def _unless(value: int, default: int) -> int:
    return 0 if value == default else value
