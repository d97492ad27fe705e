"""The tensors of a public class under its names and in its layouts, from ours and back.

Of every tensor of ours it is told which of theirs it is made of, how they are joined, and how it is
cut into them: one table for both directions. Names are those of the folders that people publish
(`save_pretrained`'s too): experts one by one, GPT-2's projections stored (in, out).

Legend of shape suffixes: C width of the stream, F hidden width, E experts, D width of a head, H and
G heads of queries and of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from engine.arithmetic import parameter_table
from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.exchange.families import Family

OUTPUT = "lm_head.weight"


@dataclass(frozen=True)
class Part:
    """One tensor of ours. `cut` gives theirs in the order of `theirs`, as views where that can be;
    `join` undoes it."""

    ours: str
    theirs: tuple[str, ...]
    cut: Callable[[Tensor], Sequence[Tensor]] = lambda tensor: [tensor]
    join: Callable[[list[Tensor]], Tensor] = lambda tensors: tensors[0]


class Piece(NamedTuple):
    """One tensor of theirs: the `index`-th of those that `part` is cut into."""

    name: str
    shape: tuple[int, ...]
    part: Part
    index: int

    def of(self, state: Mapping[str, Tensor]) -> Tensor:
        """Its numbers, from our state."""
        return self.part.cut(state[self.part.ours])[self.index].contiguous()


def pieces(model: ModelConfig, vocab_size: int, family: Family) -> Iterator[Piece]:
    """Every tensor that a folder of theirs holds, in the order of the network."""
    ours = {name: shape for name, shape, _ in parameter_table(model, vocab_size)}
    for part in parts(model, family):
        cut = part.cut(torch.empty(ours[part.ours], device="meta"))
        for index, (name, tensor) in enumerate(zip(part.theirs, cut, strict=True)):
            yield Piece(name, tuple(tensor.shape), part, index)


def from_hf(
    read: Callable[[str], Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    model: ModelConfig,
    vocab_size: int,
    family: Family,
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors in float32, one after the other. `read` gives one of theirs, `shapes` all.

    Raises InputError, before anything is read, naming a tensor that is missing, that has another
    shape, or that this network has no place for.
    """
    named = _naming(shapes, family)
    check_shapes(shapes, model, vocab_size, family)
    for part in parts(model, family):
        yield part.ours, part.join([read(named(name)).float() for name in part.theirs])


def check_shapes(
    shapes: Mapping[str, tuple[int, ...]], model: ModelConfig, vocab_size: int, family: Family
) -> None:
    """Raise InputError unless the tensors are those of the network. Stops at the first that is
    not there: a configuration may claim millions."""
    named, known = _naming(shapes, family), set()
    for piece in pieces(model, vocab_size, family):
        name = named(piece.name)
        if name not in shapes:
            raise InputError(f"the tensor '{name}' is missing", "the folder is not whole")
        if shapes[name] != piece.shape:
            raise InputError(
                f"the tensor '{name}' has the shape {list(shapes[name])}, config.json makes it "
                f"{list(piece.shape)}",
                "config.json and the weights belong to different models",
            )
        known.add(name)
    for name in shapes:
        if name not in known and not _is_derived(name, model):
            raise InputError(
                f"the tensor '{name[:100]}' has no place in this network",
                "config.json and the weights belong to different models",
            )


def tied_twice(
    shapes: Mapping[str, tuple[int, ...]], model: ModelConfig, family: Family
) -> tuple[str, str] | None:
    """The names of an embedding and of an output matrix that should be the same tensor and are
    stored twice: whoever reads them compares them."""
    if not model.tie_embeddings or OUTPUT not in shapes:
        return None
    return _naming(shapes, family)(next(parts(model, family)).theirs[0]), OUTPUT


def _is_derived(name: str, model: ModelConfig) -> bool:
    """Whether a tensor repeats what others or the configuration say: GPT-2's masks, RoPE's speeds,
    a tied output matrix."""
    if name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")):
        return True
    return name == OUTPUT and model.tie_embeddings


def _naming(shapes: Mapping[str, tuple[int, ...]], family: Family) -> Callable[[str], str]:
    """How a folder spells our names of theirs: GPT-2's published one leaves out the prefix."""
    if family.model_type != "gpt2" or any(name.startswith("transformer.") for name in shapes):
        return lambda name: name
    return lambda name: name.removeprefix("transformer.")


def parts(model: ModelConfig, family: Family) -> Iterator[Part]:
    """Every tensor of ours, in the order of the network, the embedding first."""
    kind = family.model_type
    yield from _gpt2(model) if kind == "gpt2" else _modern(model, kind)
    if not model.tie_embeddings:
        yield Part(OUTPUT, (OUTPUT,))


def _gpt2(model: ModelConfig) -> Iterator[Part]:
    def transposed(ours: str, theirs: str) -> Part:
        return Part(ours, (theirs,), lambda x: [x.T], lambda xs: xs[0].T)

    for name in ("wte", "wpe"):
        yield Part(f"{name}.weight", (f"transformer.{name}.weight",))
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
                yield Part(f"{ours}.{norm}.{kind}", (f"{theirs}.{norm}.{kind}",))
        for name, other in names.items():
            yield transposed(f"{ours}.{name}.weight", f"{theirs}.{other}.weight")
            yield Part(f"{ours}.{name}.bias", (f"{theirs}.{other}.bias",))
    for kind in ("weight", "bias"):
        yield Part(f"ln_f.{kind}", (f"transformer.ln_f.{kind}",))


def _modern(model: ModelConfig, kind: str) -> Iterator[Part]:
    yield Part("wte.weight", ("model.embed_tokens.weight",))
    for layer in range(model.n_layer):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        yield Part(f"{ours}.ln_1.weight", (f"{theirs}.input_layernorm.weight",))
        yield Part(f"{ours}.ln_2.weight", (f"{theirs}.post_attention_layernorm.weight",))
        yield from _attention(model, f"{ours}.attn", f"{theirs}.self_attn")
        if kind == "gpt_oss":
            yield from _gpt_oss_experts(f"{ours}.mlp", f"{theirs}.mlp")
        elif model.n_expert:
            yield from _experts(model, f"{ours}.mlp", theirs, kind)
        else:
            yield from _mlp(model, f"{ours}.mlp", f"{theirs}.mlp")
    yield Part("ln_f.weight", ("model.norm.weight",))


def _attention(model: ModelConfig, ours: str, theirs: str) -> Iterator[Part]:
    D = model.head_width
    rows = [heads * D for heads in (model.n_head, model.kv_heads, model.kv_heads)]
    for kind in _ends(model.bias or model.qkv_bias):
        yield Part(
            f"{ours}.qkv.{kind}",
            tuple(f"{theirs}.{name}_proj.{kind}" for name in "qkv"),
            lambda x: x.split(rows),
            torch.cat,
        )
    for kind in _ends(model.bias):
        yield Part(f"{ours}.proj.{kind}", (f"{theirs}.o_proj.{kind}",))
    if model.qk_norm:
        for name in ("q_norm", "k_norm"):
            yield Part(f"{ours}.{name}.weight", (f"{theirs}.{name}.weight",))
    if model.learned_sinks:
        yield Part(f"{ours}.sinks", (f"{theirs}.sinks",))


def _ends(bias: bool) -> tuple[str, ...]:
    return ("weight", "bias") if bias else ("weight",)


def _halves(x: Tensor) -> tuple[Tensor, ...]:
    return x.chunk(2)


def _mlp(model: ModelConfig, ours: str, theirs: str) -> Iterator[Part]:
    for kind in _ends(model.bias):
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
        lambda x: x.unbind(),
        torch.stack,
    )
    yield Part(f"{ours}.router.weight", (f"{where}.gate.weight",))


def _gpt_oss_experts(ours: str, theirs: str) -> Iterator[Part]:
    """Stacked on both sides; theirs stored (in, out), gate and up in turn."""

    def interleaved(x: Tensor) -> Tensor:  # (E, 2F, …): gate then up -> gate, up, gate, up …
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)

    def apart(x: Tensor) -> Tensor:
        return torch.cat((x[:, ::2], x[:, 1::2]), dim=1)

    yield Part(
        f"{ours}.fc_weight",
        (f"{theirs}.experts.gate_up_proj",),
        lambda x: [interleaved(x).transpose(1, 2)],
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
        lambda x: [x.transpose(1, 2)],
        lambda xs: xs[0].transpose(1, 2),
    )
    yield Part(f"{ours}.proj_bias", (f"{theirs}.experts.down_proj_bias",))
    for kind in ("weight", "bias"):
        yield Part(f"{ours}.router.{kind}", (f"{theirs}.router.{kind}",))
