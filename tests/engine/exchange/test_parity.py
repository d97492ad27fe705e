"""Logits equal to seven public classes', exported and imported; and proof that errors show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from engine.exchange import hf_config, weights
from engine.exchange.families import FAMILIES, family_of
from engine.model import GPT
from engine.model.attend import Sight, reference_attention
from engine.model.norm import RMSNorm
from engine.model.rope import Rotation
from tests.engine.exchange.pairs import KINDS, as_theirs, difference, network, tokens_for

TOLERANCE = 1e-5
VOCAB = 60
SEEDS = 40


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()


def exported(model: GPT, folder: Path) -> nn.Module:
    """The public class that `transformers` makes of our files."""
    family = family_of(model.config)
    values = hf_config.to_hf(model.config, family, VOCAB, 0, "float32")
    (folder / "config.json").write_text(json.dumps(values))
    state = as_theirs(model.config, model.state_dict())
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    assert type(theirs).__name__ == family.class_name
    return theirs


def imported(folder: Path, kind: str) -> GPT:
    """Our network from the files that `transformers` writes."""
    config, vocab_size = hf_config.from_hf(json.loads((folder / "config.json").read_text()))
    state = load_file(folder / "model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    ours = weights.from_hf(state.__getitem__, shapes, config, vocab_size, FAMILIES[kind])
    model = GPT(config, vocab_size).eval()
    model.load_state_dict(dict(ours))
    return model


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_both_ways(kind: str, first: int, tmp_path: Path) -> None:
    """Random shapes, every weight, norm, bias and sink random: ours to theirs, theirs to ours."""
    for seed in range(first, first + 10):
        ours = network(kind, seed, VOCAB)
        tokens = tokens_for(ours.config, VOCAB, seed)
        theirs = exported(ours, tmp_path)
        assert difference(ours, theirs, tokens) < TOLERANCE, seed
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        theirs.save_pretrained(tmp_path / "back")
        assert difference(imported(tmp_path / "back", kind), theirs, tokens) < TOLERANCE, seed


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_comes_back_as_the_same_network(kind: str) -> None:
    """What a config.json can hold; dropout and the choice of a kernel it cannot."""
    for seed in range(SEEDS):
        config = network(kind, seed, VOCAB).config
        values = hf_config.to_hf(config, family_of(config), VOCAB, None, "float32")
        back, vocab_size = hf_config.from_hf(json.loads(json.dumps(values)))
        assert vocab_size == VOCAB
        again = hf_config.to_hf(back, family_of(back), VOCAB, None, "float32")
        assert again == values


# Errors that people make, each applied to our network alone -------------------------------------


def blocks(model: GPT) -> Any:
    return model.blocks


def exact_gelu(model: GPT) -> None:
    for block in blocks(model):
        mlp = block.mlp
        mlp.forward = lambda x, mlp=mlp: mlp.proj(functional.gelu(mlp.fc(x)))


def no_position_embedding(model: GPT) -> None:
    assert model.wpe is not None
    model.wpe.weight.data.zero_()


def positions_off_by_one(model: GPT) -> None:
    assert model.wpe is not None
    model.wpe.weight.data = model.wpe.weight.data.roll(1, dims=0)


def other_epsilon(model: GPT) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | RMSNorm):
            module.eps = 1e-2


def no_causal_mask(model: GPT) -> None:
    everything = Sight(causal=False)
    for block in blocks(model):
        block.attn.attend = lambda q, k, v, _, s, d: reference_attention(q, k, v, everything, s, d)


def no_attention_scale(model: GPT) -> None:
    for block in blocks(model):
        attend, root = block.attn.attend, block.attn.head_width**0.5
        block.attn.attend = lambda q, *told, a=attend, r=root: a(q * r, *told)


def values_for_keys(model: GPT) -> None:
    for block in blocks(model):
        attend = block.attn.attend
        block.attn.attend = lambda q, k, v, *told, a=attend: a(q, v, k, *told)


def norm_after_the_sum(model: GPT) -> None:
    for block in blocks(model):

        def forward(x: Tensor, reading: Any, *_: Any, block: Any = block) -> Tensor:
            x = block.ln_1(x + block.attn(x, reading))
            return block.ln_2(x + block.mlp(x))

        block.forward = forward


def no_final_norm(model: GPT) -> None:
    model.ln_f = nn.Identity()


def no_qk_norm(model: GPT) -> None:
    for block in blocks(model):
        block.attn.q_norm = block.attn.k_norm = None


def no_qkv_bias(model: GPT) -> None:
    for block in blocks(model):
        block.attn.qkv.bias = None


def window_off_by_one(model: GPT) -> None:
    model.config = replace(model.config, window=model.config.window + 1)


def window_of_the_other_layers(model: GPT) -> None:
    windows = [model.config.window_of(layer) for layer in range(model.config.n_layer)]
    swapped = {0: windows[1], 1: windows[0]}

    class Swapped(type(model.config)):  # type: ignore[misc]
        def window_of(self, layer: int) -> int:
            return swapped[layer % 2]

    model.config = Swapped(**vars(model.config))


def other_rope_base(model: GPT) -> None:
    model.config = replace(model.config, rope_base=model.config.rope_base * 3)


def neighbours_turned(model: GPT) -> None:
    """RoPE on pairs of neighbours, as its paper has it, instead of halves."""

    def turn(self: Rotation, x: Tensor) -> Tensor:
        even, odd = x[..., ::2], x[..., 1::2]
        turned = (even * self.cos - odd * self.sin, odd * self.cos + even * self.sin)
        return torch.stack(turned, -1).flatten(-2)

    patch.setattr(Rotation, "__call__", turn)


def gate_and_up_swapped(model: GPT) -> None:
    for block in blocks(model):
        mlp = block.mlp
        for part in (mlp.fc_weight, mlp.fc_bias) if model.config.n_expert else (mlp.fc.weight,):
            if part is not None:
                dim = 1 if model.config.n_expert else 0
                part.data = torch.cat(part.data.chunk(2, dim)[::-1], dim)


def experts_not_renormalised(model: GPT) -> None:
    for block in blocks(model):
        block.mlp.renormalise = not block.mlp.renormalise


def one_expert_less(model: GPT) -> None:
    for block in blocks(model):
        block.mlp.n_active -= 1


def no_sinks(model: GPT) -> None:
    for block in blocks(model):
        block.attn.sinks = None


def unclamped(model: GPT) -> None:
    for block in blocks(model):
        block.mlp.kind = "swiglu"


def groups_dealt_in_turn(model: GPT) -> None:
    """Key head 0 for query heads 0, 2, 4 … instead of the first half."""
    H, G = model.config.n_head, model.config.kv_heads
    for block in blocks(model):
        attend = block.attn.attend

        def dealt(q: Tensor, k: Tensor, v: Tensor, *told: Any, a: Any = attend) -> Tensor:
            return a(q, k.repeat(1, H // G, 1, 1), v.repeat(1, H // G, 1, 1), *told)

        block.attn.attend = dealt


patch = pytest.MonkeyPatch()


@pytest.fixture(autouse=True)
def _unpatched() -> Any:
    yield
    patch.undo()


EVERY: list[Callable[[GPT], None]] = [
    other_epsilon, no_causal_mask, no_attention_scale, values_for_keys, norm_after_the_sum,
    no_final_norm,
]  # fmt: skip
CLASSIC = [exact_gelu, no_position_embedding, positions_off_by_one]
MODERN = [other_rope_base, neighbours_turned, gate_and_up_swapped, groups_dealt_in_turn]
ERRORS = {
    "gpt2": CLASSIC,
    "llama": MODERN,
    "mistral": [*MODERN, window_off_by_one],
    "qwen2": [*MODERN, no_qkv_bias, window_off_by_one, window_of_the_other_layers],
    "qwen3": [*MODERN, no_qk_norm, window_off_by_one, window_of_the_other_layers],
    "mixtral": [*MODERN, window_off_by_one, experts_not_renormalised, one_expert_less],
    "qwen3_moe": [
        *MODERN, no_qk_norm, window_off_by_one, experts_not_renormalised, one_expert_less,
    ],
    "gpt_oss": [
        *MODERN, window_off_by_one, window_of_the_other_layers, no_sinks, unclamped,
        one_expert_less, experts_not_renormalised,
    ],
}  # fmt: skip


def applies(error: Callable[[GPT], None], model: GPT, length: int) -> bool:
    """Whether the error can matter for this network: a window of one layer has no other."""
    config = model.config
    if error is groups_dealt_in_turn:
        return 1 < config.kv_heads < config.n_head
    if error in (experts_not_renormalised, one_expert_less):
        return 1 < config.n_expert_active < config.n_expert
    if error is window_off_by_one:
        return 0 < config.window < length
    if error is window_of_the_other_layers:
        return config.window_layers == "alternate" and config.n_layer > 1 and config.window < length
    if error in (no_causal_mask, other_rope_base, neighbours_turned, no_attention_scale):
        return config.head_width > 4 and length > 3 and config.window != 1
    return True


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        pytest.param(kind, error, id=f"{kind}-{error.__name__}")
        for kind in KINDS
        for error in [*EVERY, *ERRORS[kind]]
    ],
)
def test_a_deliberate_error_is_noticed(
    kind: str, error: Callable[[GPT], None], tmp_path: Path
) -> None:
    """In every network where it matters the comparison fails, and in the worst one by far."""
    differences = []
    seed = 0
    while len(differences) < 3:
        assert seed < 400, "no network in which the error could matter"
        ours = network(kind, seed, VOCAB)
        tokens = tokens_for(ours.config, VOCAB, seed)
        seed += 1
        if not applies(error, ours, tokens.shape[1]):
            continue
        theirs = exported(ours, tmp_path)
        assert difference(ours, theirs, tokens) < TOLERANCE
        error(ours)
        differences.append(difference(ours, theirs, tokens))
        patch.undo()
    assert min(differences) > TOLERANCE
    assert max(differences) > 50 * TOLERANCE
