"""The tensors of a GGUF file under llama.cpp's names and in its layouts, from ours.

Needs torch. Shapes here are numpy's; the file lists them in reverse, as ggml counts dimensions.

Legend of shape suffixes: C width of the stream, F hidden width, E experts, D width of a head, H and
G heads of queries and of keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from engine.config.sections import ModelConfig
from engine.exchange.families import Family
from engine.model.rope import speeds

Named = Iterator[tuple[str, Tensor]]


def to_gguf(state: Mapping[str, Tensor], model: ModelConfig, network: Family) -> Named:
    """The file's tensors one after the other, in its order, from our state (`GPT.state_dict()`).

    The state may lie on the meta device: then these are their shapes.
    """
    yield "token_embd.weight", state["wte.weight"]
    if model.position == "learned":
        yield "position_embd.weight", state["wpe.weight"]
    if model.rope_scaling == "llama3":
        yield "rope_freqs.weight", _rope_factors(model)
    for layer in range(model.n_layer):
        yield from _block(state, model, network.model_type, layer)
    yield from _affine(state, "ln_f", "output_norm")
    if network.model_type == "gpt2":
        yield from _missing_bias(state, "ln_f", "output_norm")
    if not model.tie_embeddings:
        yield "output.weight", state["lm_head.weight"]
    elif network.model_type == "gpt-oss":  # the one architecture whose file must hold it
        yield "output.weight", state["wte.weight"]


def wants_float32(name: str) -> bool:
    """Whether llama.cpp keeps a tensor in float32 whatever the file's type: norms, biases, sinks
    and the router, which cost next to nothing, and learned positions."""
    return name.endswith(
        ("norm.weight", ".bias", "ffn_gate_inp.weight", "attn_sinks.weight")
    ) or name in ("position_embd.weight", "rope_freqs.weight")


def _block(state: Mapping[str, Tensor], model: ModelConfig, kind: str, layer: int) -> Named:
    ours, theirs = f"blocks.{layer}", f"blk.{layer}"
    before_mlp = "post_attention_norm" if kind == "gpt-oss" else "ffn_norm"
    names = [(f"{ours}.ln_1", f"{theirs}.attn_norm"), (f"{ours}.ln_2", f"{theirs}.{before_mlp}")]
    yield from _attention(state, model, kind, f"{ours}.attn", theirs)
    names.append((f"{ours}.attn.proj", f"{theirs}.attn_output"))
    if model.n_expert:
        yield from _experts(state, model, kind, f"{ours}.mlp", theirs)
    elif model.gated:
        names.append((f"{ours}.mlp.proj", f"{theirs}.ffn_down"))
        for end in _ends(state, f"{ours}.mlp.fc"):
            gate, up = state[f"{ours}.mlp.fc.{end}"].chunk(2)
            yield f"{theirs}.ffn_gate.{end}", gate
            yield f"{theirs}.ffn_up.{end}", up
    else:
        names.append((f"{ours}.mlp.fc", f"{theirs}.ffn_up"))
        names.append((f"{ours}.mlp.proj", f"{theirs}.ffn_down"))
    for our_name, their_name in names:
        yield from _affine(state, our_name, their_name)
        if kind == "gpt2" or (kind == "gpt-oss" and our_name.endswith("attn.proj")):
            yield from _missing_bias(state, our_name, their_name)


def _attention(
    state: Mapping[str, Tensor], model: ModelConfig, kind: str, ours: str, theirs: str
) -> Named:
    if kind == "gpt2":
        yield from _affine(state, f"{ours}.qkv", f"{theirs}.attn_qkv")
        yield from _missing_bias(state, f"{ours}.qkv", f"{theirs}.attn_qkv")
        return
    H, G, D = model.n_head, model.kv_heads, model.head_width
    for end in _ends(state, f"{ours}.qkv"):
        q, k, v = state[f"{ours}.qkv.{end}"].split((H * D, G * D, G * D))
        if kind == "llama":
            # The only one whose pairs are neighbours: it was written for Meta's own files.
            q, k = _interleaved(q, D), _interleaved(k, D)
        for name, part in zip("qkv", (q, k, v), strict=True):
            yield f"{theirs}.attn_{name}.{end}", part
            if kind == "gpt-oss" and not model.bias:
                yield f"{theirs}.attn_{name}.bias", part.new_zeros(len(part))
    if model.qk_norm:
        yield f"{theirs}.attn_q_norm.weight", state[f"{ours}.q_norm.weight"]
        yield f"{theirs}.attn_k_norm.weight", state[f"{ours}.k_norm.weight"]
    if model.learned_sinks:
        yield f"{theirs}.attn_sinks.weight", state[f"{ours}.sinks"]


def _experts(
    state: Mapping[str, Tensor], model: ModelConfig, kind: str, ours: str, theirs: str
) -> Named:
    yield from _affine(state, f"{ours}.router", f"{theirs}.ffn_gate_inp")
    gate_EFC, up_EFC = state[f"{ours}.fc_weight"].chunk(2, dim=1)
    down_ECF = state[f"{ours}.proj_weight"]
    yield f"{theirs}.ffn_gate_exps.weight", gate_EFC
    yield f"{theirs}.ffn_up_exps.weight", up_EFC
    yield f"{theirs}.ffn_down_exps.weight", down_ECF
    if kind != "gpt-oss":
        return
    if model.bias:
        gate_EF, up_EF = state[f"{ours}.fc_bias"].chunk(2, dim=1)
        down_EC = state[f"{ours}.proj_bias"]
    else:
        yield from _missing_bias(state, f"{ours}.router", f"{theirs}.ffn_gate_inp")
        gate_EF = up_EF = gate_EFC.new_zeros(gate_EFC.shape[:2])
        down_EC = down_ECF.new_zeros(down_ECF.shape[:2])
    yield f"{theirs}.ffn_gate_exps.bias", gate_EF
    yield f"{theirs}.ffn_up_exps.bias", up_EF
    yield f"{theirs}.ffn_down_exps.bias", down_EC


def _ends(state: Mapping[str, Tensor], name: str) -> list[str]:
    return [end for end in ("weight", "bias") if f"{name}.{end}" in state]


def _affine(state: Mapping[str, Tensor], ours: str, theirs: str) -> Named:
    """A norm, or a linear layer, with its bias where it has one."""
    for end in _ends(state, ours):
        yield f"{theirs}.{end}", state[f"{ours}.{end}"]


def _missing_bias(state: Mapping[str, Tensor], ours: str, theirs: str) -> Named:
    """Zeros for a bias that llama.cpp wants and the network does not have: the same function."""
    if f"{ours}.bias" not in state:
        weight = state[f"{ours}.weight"]
        yield f"{theirs}.bias", weight.new_zeros(len(weight))


def _interleaved(rows: Tensor, D: int) -> Tensor:
    """Every head's rows so that a pair that turns together, row i and row i + D/2, is neighbours.

    `rows`: (heads · D, C), or a bias (heads · D,). Queries and keys are moved alike, so that their
    products stay what they were.
    """
    return rows.unflatten(0, (-1, 2, D // 2)).transpose(1, 2).flatten(0, 2)


def _rope_factors(model: ModelConfig) -> Tensor:
    """(D / 2,) what llama.cpp divides each pair's plain speed by."""
    device = torch.device("cpu")
    plain, _ = speeds(replace(model, rope_scaling="none", rope_factor=1.0), device)
    scaled, _ = speeds(model, device)
    return plain / scaled
