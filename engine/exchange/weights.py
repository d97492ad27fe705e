"""The tensors of a public class under its names and in its layouts, from ours and back.

Of every tensor of ours it is told which of theirs it is made of, how they are joined, and how it is
cut into them: one table for both directions. Names are those of the folders that people publish
(`save_pretrained`'s too): experts one by one, GPT-2's projections stored (in, out).

Legend of shape suffixes: C width of the stream, F hidden width, E experts, D width of a head, H and
G heads of queries and of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.arithmetic import parameter_table
from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.exchange.families import Family


@dataclass(frozen=True)
class Part:
    """One tensor of ours. `cut` gives theirs in the order of `theirs`, `join` undoes it."""

    ours: str
    theirs: tuple[str, ...]
    cut: Callable[[Tensor], list[Tensor]] = lambda tensor: [tensor]
    join: Callable[[list[Tensor]], Tensor] = lambda tensors: tensors[0]


def to_hf(
    state: Mapping[str, Tensor], model: ModelConfig, family: Family
) -> Iterator[tuple[str, Tensor]]:
    """Their tensors, one after the other, from our state (`GPT.state_dict()`)."""
    for part in parts(model, family):
        yield from zip(part.theirs, part.cut(state[part.ours]), strict=True)


def from_hf(
    read: Callable[[str], Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    model: ModelConfig,
    vocab_size: int,
    family: Family,
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors in float32, one after the other. `read` gives one of theirs, `shapes` all.

    Raises InputError naming a tensor that is missing, that has another shape, or that this network
    has no place for.
    """
    ours = {name: shape for name, shape, _ in parameter_table(model, vocab_size)}
    table = parts(model, family)
    prefix = _prefix(shapes, family)
    wanted: dict[str, tuple[int, ...]] = {}
    for part in table:
        pieces = part.cut(torch.empty(ours[part.ours], device="meta"))
        for name, piece in zip(part.theirs, pieces, strict=True):
            wanted[_named(name, prefix, family)] = tuple(piece.shape)
    _check(wanted, shapes, model)
    for part in table:
        pieces = [read(_named(name, prefix, family)).float() for name in part.theirs]
        yield part.ours, part.join(pieces).contiguous()


def _check(
    wanted: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    model: ModelConfig,
) -> None:
    for name, shape in wanted.items():
        if name not in shapes:
            raise InputError(f"the tensor '{name}' is missing", "the folder is not whole")
        if shapes[name] != shape:
            raise InputError(
                f"the tensor '{name}' has the shape {list(shapes[name])}, config.json makes it "
                f"{list(shape)}"
            )
    for name in shapes:
        if name not in wanted and not _is_derived(name, model):
            raise InputError(
                f"the tensor '{name[:100]}' has no place in this network",
                "config.json and the weights belong to different models",
            )


def _is_derived(name: str, model: ModelConfig) -> bool:
    """Whether a tensor repeats what others or the configuration say: GPT-2's masks, RoPE's speeds,
    a tied output matrix."""
    if name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")):
        return True
    return name == "lm_head.weight" and model.tie_embeddings


def _prefix(shapes: Mapping[str, tuple[int, ...]], family: Family) -> bool:
    """Whether names begin with the class's own prefix; GPT-2's published folder has none."""
    return family.model_type != "gpt2" or any(name.startswith("transformer.") for name in shapes)


def _named(name: str, prefix: bool, family: Family) -> str:
    return name if prefix else name.removeprefix("transformer.")


def parts(model: ModelConfig, family: Family) -> list[Part]:
    """Every tensor of ours, in the order of the network."""
    kind = family.model_type
    table = _gpt2(model) if kind == "gpt2" else _modern(model, kind)
    if not model.tie_embeddings:
        table.append(Part("lm_head.weight", ("lm_head.weight",)))
    return table


def _gpt2(model: ModelConfig) -> list[Part]:
    def transposed(ours: str, theirs: str) -> Part:
        return Part(ours, (theirs,), lambda x: [x.T.contiguous()], lambda xs: xs[0].T)

    table = [Part(f"{name}.weight", (f"transformer.{name}.weight",)) for name in ("wte", "wpe")]
    names = {
        "attn.qkv": "attn.c_attn",
        "attn.proj": "attn.c_proj",
        "mlp.fc": "mlp.c_fc",
        "mlp.proj": "mlp.c_proj",
    }
    for layer in range(model.n_layer):
        ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            for kind in ("weight", "bias"):
                table.append(Part(f"{ours}.{norm}.{kind}", (f"{theirs}.{norm}.{kind}",)))
        for name, other in names.items():
            table.append(transposed(f"{ours}.{name}.weight", f"{theirs}.{other}.weight"))
            table.append(Part(f"{ours}.{name}.bias", (f"{theirs}.{other}.bias",)))
    for kind in ("weight", "bias"):
        table.append(Part(f"ln_f.{kind}", (f"transformer.ln_f.{kind}",)))
    return table


def _modern(model: ModelConfig, kind: str) -> list[Part]:
    table = [Part("wte.weight", ("model.embed_tokens.weight",))]
    for layer in range(model.n_layer):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        table += [
            Part(f"{ours}.ln_1.weight", (f"{theirs}.input_layernorm.weight",)),
            Part(f"{ours}.ln_2.weight", (f"{theirs}.post_attention_layernorm.weight",)),
            *_attention(model, f"{ours}.attn", f"{theirs}.self_attn"),
        ]
        if kind == "gpt_oss":
            table += _gpt_oss_experts(f"{ours}.mlp", f"{theirs}.mlp")
        elif model.n_expert:
            table += _experts(model, f"{ours}.mlp", theirs, kind)
        else:
            table += _mlp(model, f"{ours}.mlp", f"{theirs}.mlp")
    table.append(Part("ln_f.weight", ("model.norm.weight",)))
    return table


def _attention(model: ModelConfig, ours: str, theirs: str) -> Iterator[Part]:
    D = model.head_width
    rows = [heads * D for heads in (model.n_head, model.kv_heads, model.kv_heads)]
    for kind in ("weight", "bias") if model.bias else ("weight",):
        yield Part(
            f"{ours}.qkv.{kind}",
            tuple(f"{theirs}.{name}_proj.{kind}" for name in "qkv"),
            lambda x: [piece.contiguous() for piece in x.split(rows)],
            torch.cat,
        )
        yield Part(f"{ours}.proj.{kind}", (f"{theirs}.o_proj.{kind}",))
    if model.qk_norm:
        for name in ("q_norm", "k_norm"):
            yield Part(f"{ours}.{name}.weight", (f"{theirs}.{name}.weight",))
    if model.learned_sinks:
        yield Part(f"{ours}.sinks", (f"{theirs}.sinks",))


def _halves(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [half.contiguous() for half in x.chunk(2, dim)]


def _mlp(model: ModelConfig, ours: str, theirs: str) -> Iterator[Part]:
    for kind in ("weight", "bias") if model.bias else ("weight",):
        names = (f"{theirs}.gate_proj.{kind}", f"{theirs}.up_proj.{kind}")
        yield Part(f"{ours}.fc.{kind}", names, _halves, torch.cat)
        yield Part(f"{ours}.proj.{kind}", (f"{theirs}.down_proj.{kind}",))


def _experts(model: ModelConfig, ours: str, theirs: str, kind: str) -> Iterator[Part]:
    """Stacked with us, one by one with them: gate, up and down of each."""
    mixtral = kind == "mixtral"
    where = f"{theirs}.block_sparse_moe" if mixtral else f"{theirs}.mlp"
    gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    each = range(model.n_expert)

    def join(pieces: list[Tensor]) -> Tensor:
        pairs = zip(pieces[::2], pieces[1::2], strict=True)
        return torch.stack([torch.cat(pair) for pair in pairs])

    yield Part(
        f"{ours}.fc_weight",
        tuple(f"{where}.experts.{e}.{name}.weight" for e in each for name in (gate, up)),
        lambda x: [half for one in x for half in _halves(one)],
        join,
    )
    yield Part(
        f"{ours}.proj_weight",
        tuple(f"{where}.experts.{e}.{down}.weight" for e in each),
        lambda x: [one.contiguous() for one in x],
        torch.stack,
    )
    yield Part(f"{ours}.router.weight", (f"{where}.gate.weight",))


def _gpt_oss_experts(ours: str, theirs: str) -> Iterator[Part]:
    """Stacked on both sides; theirs stored (in, out), gate and up in turn."""

    def interleaved(x: Tensor) -> Tensor:  # (E, 2F, …): gate then up -> gate, up, gate, up …
        return torch.stack(x.chunk(2, dim=1), dim=2).flatten(1, 2)

    def apart(x: Tensor) -> Tensor:
        return torch.cat((x[:, ::2], x[:, 1::2]), dim=1)

    yield Part(
        f"{ours}.fc_weight",
        (f"{theirs}.experts.gate_up_proj",),
        lambda x: [interleaved(x).transpose(1, 2).contiguous()],
        lambda xs: apart(xs[0].transpose(1, 2)),
    )
    yield Part(
        f"{ours}.fc_bias",
        (f"{theirs}.experts.gate_up_proj_bias",),
        lambda x: [interleaved(x)],
        lambda xs: apart(xs[0]),
    )
    yield Part(
        f"{ours}.proj_weight",
        (f"{theirs}.experts.down_proj",),
        lambda x: [x.transpose(1, 2).contiguous()],
        lambda xs: xs[0].transpose(1, 2),
    )
    yield Part(f"{ours}.proj_bias", (f"{theirs}.experts.down_proj_bias",))
    for kind in ("weight", "bias"):
        yield Part(f"{ours}.router.{kind}", (f"{theirs}.router.{kind}",))
