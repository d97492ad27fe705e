"""Greedy tokens equal to those of `transformers.generate`, for every public class."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from engine.exchange import hf_config
from engine.exchange.families import family_of
from engine.generation.generate import generate_batch
from engine.generation.params import SamplingParams
from engine.model import GPT
from engine.tokenizers import build
from tests.engine.exchange.pairs import as_theirs, draw_member

VOCAB = 60
LETTERS = build("char", lambda: iter(["".join(map(chr, range(48, 48 + VOCAB)))]), 0)
LENGTHS = (1, 4, 9, 17)
TOKENS = 200
CONTEXT = 240
CPU = torch.device("cpu")
MEMBERS = (
    ("gpt2", 3), ("llama", 0), ("mistral", 1), ("qwen3", 7),
    ("mixtral", 0), ("qwen3_moe", 0), ("gpt_oss", 6), ("gpt_oss", 7),
)  # fmt: skip
"""Of every class a network with grouped heads, a window or a longer context, whose greedy texts are
no loops and are nowhere decided by rounding."""


@pytest.fixture(autouse=True)
def _without_progress_bars() -> None:
    transformers.utils.logging.disable_progress_bar()


def lively_pair(kind: str, seed: int, folder: Path, std: float = 0.4) -> tuple[GPT, nn.Module]:
    """Ours, and the public class with its weights: large ones, whose text does not soon repeat."""
    config = replace(draw_member(kind, seed), context_length=CONTEXT)
    torch.manual_seed(seed)
    ours = GPT(config, VOCAB).eval()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            gain = name.endswith("weight") and parameter.dim() == 1
            parameter.normal_(1.0 if gain else 0.0, std)
    values = hf_config.to_hf(config, family_of(config), VOCAB, None, "float32")
    (folder / "config.json").write_text(json.dumps(values))
    state = as_theirs(config, ours.state_dict())
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager"
    )
    return ours, theirs.eval()


@pytest.mark.parametrize(("kind", "seed"), MEMBERS)
def test_two_hundred_greedy_tokens_equal_transformers(kind: str, seed: int, tmp_path: Path) -> None:
    """Prompts of four lengths in one batch, padded at the left, both with their caches."""
    ours, theirs = lively_pair(kind, seed, tmp_path)
    torch.manual_seed(0)
    prompts = [torch.randint(0, VOCAB, (length,)).tolist() for length in LENGTHS]
    longest = max(LENGTHS)
    padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - n) + [1] * n for n in LENGTHS])
    expected = theirs.generate(
        padded, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0
    )[:, longest:].tolist()

    params = SamplingParams(temperature=0.0, max_tokens=TOKENS)
    rows: list[list[int]] = [[] for _ in prompts]
    margins = []
    for row, token in generate_batch(ours, LETTERS, prompts, params, device=CPU, alternatives=2):
        rows[row].append(token.token)
        (_, first), (_, second) = token.alternatives
        margins.append(first / second)
    assert rows == expected
    # What the equality is worth.
    assert min(margins) > 1.0003
    assert all(len(set(row)) >= 15 for row in rows)
