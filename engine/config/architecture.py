"""Which settings of the network go together. No torch: a wrong shape is refused before it loads."""

from __future__ import annotations

from engine.config.sections import ModelConfig
from engine.errors import ConfigError


def check_architecture(model: ModelConfig) -> None:
    """Raises ConfigError naming the field, its value, and what would be accepted."""
    _check_heads(model)
    _check_positions(model)
    _check_attention(model)
    _check_experts(model)


def _check_heads(model: ModelConfig) -> None:
    if not model.head_dim and model.n_embd % model.n_head:
        raise ConfigError(
            f"model.n_head = {model.n_head}: does not divide model.n_embd = {model.n_embd}",
            "head width is n_embd / n_head, or model.head_dim",
        )
    if model.n_head % model.kv_heads:
        raise ConfigError(
            f"model.n_kv_head = {model.n_kv_head}: does not divide model.n_head = {model.n_head}",
            "each head of keys serves as many query heads; 0 gives every head its own",
        )


def _check_positions(model: ModelConfig) -> None:
    if model.position != "rope" and model.rope_scaling != "none":
        raise ConfigError(
            f"model.rope_scaling = '{model.rope_scaling}': there is nothing to scale",
            f"model.position is '{model.position}', not 'rope'",
        )
    if model.position == "rope" and model.head_width % 2:
        raise ConfigError(
            f"model.position = 'rope': turns pairs, and a head is {model.head_width} wide",
            "choose n_head or head_dim so that the width of a head is even",
        )
    if model.position == "rope" and model.rope_scaling == "none" and model.rope_factor != 1:
        raise ConfigError(
            f"model.rope_factor = {model.rope_factor:g}: does nothing without a rope_scaling",
            "set model.rope_scaling to linear, llama3 or yarn",
        )
    if not model.rope_truncate and model.rope_scaling != "yarn":
        raise ConfigError(
            "model.rope_truncate = false: there are no bounds to round",
            f"model.rope_scaling is '{model.rope_scaling}', not 'yarn'",
        )


def _check_attention(model: ModelConfig) -> None:
    if model.sink_tokens and not model.window:
        raise ConfigError(
            f"model.sink_tokens = {model.sink_tokens}: without a model.window they are always seen",
            "set model.window, or leave sink_tokens at 0",
        )
    if model.window_layers == "alternate" and not model.window:
        raise ConfigError(
            "model.window_layers = 'alternate': no layer has a window", "set model.window"
        )
    if model.qkv_bias and model.bias:
        raise ConfigError(
            "model.qkv_bias = true: queries, keys and values have theirs already",
            "model.bias gives every linear layer one; set one of the two",
        )
    if model.attention == "flex" and model.dropout:
        raise ConfigError(
            f"model.attention = 'flex': cannot drop attention weights, and model.dropout is "
            f"{model.dropout:g}",
            "set model.dropout to 0, or model.attention to auto",
        )


def _check_experts(model: ModelConfig) -> None:
    if model.n_expert == 1:
        raise ConfigError("model.n_expert = 1: leaves nothing to choose", "0 is the plain MLP")
    if model.n_expert and model.n_expert_active > model.n_expert:
        raise ConfigError(
            f"model.n_expert_active = {model.n_expert_active}: there are only {model.n_expert} "
            "experts (model.n_expert)",
            "choose at most as many",
        )
