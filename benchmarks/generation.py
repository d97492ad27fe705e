"""Tokens per second with the cache: ours, `transformers`' and nanoGPT's way, in turn.

    python -m benchmarks.generation [--nanogpt DIR]

A network of nanoGPT's character size (384 wide, 6 layers, 6 heads, context 256, 65 characters),
eager, float32, one text, 256 tokens from one, sampled at temperature 0.8. All three have the same
weights. nanoGPT keeps no keys and values: each token costs a pass over the whole context. Without
`--nanogpt`, a checkout of it, the same algorithm runs on plain modules written here.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quiet import Watch
from benchmarks.report import machine_facts, write_result
from engine.config.sections import ModelConfig
from engine.exchange import hf_config
from engine.exchange.families import family_of
from engine.exchange.weights import pieces
from engine.generation.generate import generate
from engine.generation.layout import lay_out
from engine.generation.params import SamplingParams
from engine.model import GPT
from engine.tokenizers import build

SHAPE = ModelConfig(n_layer=6, n_head=6, n_embd=384, context_length=256)
VOCAB, TOKENS, TEMPERATURE = 65, 256, 0.8
THREADS = 2
TARGETS = {"transformers": 1.2, "nanogpt": 6.0}
"""How many times as fast ours must be."""
CPU = torch.device("cpu")


class PlainBlock(nn.Module):
    """nanoGPT's block, as its model.py computes it; names are of GPT-2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.out = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
            for part in self.qkv(self.ln_1(x)).split(C, dim=2)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.out(functional.gelu(self.fc(self.ln_2(x))))


class PlainPeer(nn.Module):
    """nanoGPT's algorithm: the context, cropped, goes through the whole network for every token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.context = config.context_length
        self.wte = nn.Embedding(VOCAB, config.n_embd)
        self.wpe = nn.Embedding(config.context_length, config.n_embd)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)

    @torch.no_grad()
    def generate(self, ids: Tensor, tokens: int, temperature: float) -> Tensor:
        for _ in range(tokens):
            seen = ids[:, -self.context :]
            x = self.wte(seen) + self.wpe(torch.arange(seen.shape[1]))
            for block in self.blocks:
                x = block(x)
            # The output matrix for the last position alone, as nanoGPT does it.
            logits = functional.linear(self.ln_f(x)[:, -1], self.wte.weight) / temperature
            ids = torch.cat((ids, torch.multinomial(logits.softmax(-1), 1)), dim=1)
        return ids


def plain_peer(ours: GPT) -> PlainPeer:
    peer = PlainPeer(ours.config).eval()
    names = {
        ".attn.qkv.": ".qkv.",
        ".attn.proj.": ".proj.",
        ".mlp.fc.": ".fc.",
        ".mlp.proj.": ".out.",
    }
    state = {}
    for name, tensor in ours.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = tensor
    peer.load_state_dict(state)
    return peer


def checkout(folder: Path) -> Any:
    """nanoGPT's own GPT of this shape, with weights of its own: they do not change its speed."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    config = module.GPTConfig(
        block_size=SHAPE.context_length, vocab_size=VOCAB, n_layer=SHAPE.n_layer,
        n_head=SHAPE.n_head, n_embd=SHAPE.n_embd, dropout=0.0, bias=True,
    )  # fmt: skip
    return module.GPT(config).eval()


def transformers_peer(ours: GPT) -> Any:
    import transformers

    family = family_of(ours.config)
    values = hf_config.to_hf(ours.config, family, VOCAB, None, "float32")
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**values)).eval()
    state = ours.state_dict()
    state = {piece.name: piece.of(state) for piece in pieces(ours.config, VOCAB, family)}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    return theirs


def competitors(nanogpt: Path | None) -> dict[str, Callable[[], int]]:
    """Each generates once and tells how many tokens."""
    torch.manual_seed(1)
    ours = GPT(SHAPE, VOCAB).eval()
    tokenizer = build("char", lambda: iter(["".join(map(chr, range(48, 48 + VOCAB)))]), 0)
    params = SamplingParams(temperature=TEMPERATURE, max_tokens=TOKENS, seed=1)
    start = torch.zeros(1, 1, dtype=torch.long)
    theirs = transformers_peer(ours)
    plain = checkout(nanogpt) if nanogpt else plain_peer(ours)
    lay_out(ours)  # as a loaded checkpoint is

    def run_ours() -> int:
        return sum(1 for _ in generate(ours, tokenizer, [0], params, device=CPU))

    def run_transformers() -> int:
        made = theirs.generate(
            start, attention_mask=torch.ones_like(start), max_new_tokens=TOKENS, do_sample=True,
            temperature=TEMPERATURE, top_k=0, pad_token_id=0,
        )  # fmt: skip
        return made.shape[1] - 1

    def run_nanogpt() -> int:
        return plain.generate(start, TOKENS, TEMPERATURE).shape[1] - 1

    return {"ours": run_ours, "transformers": run_transformers, "nanogpt": run_nanogpt}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help="keep the result")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    runs = competitors(options.nanogpt)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        assert run() == TOKENS  # warm, and all of them to the end
    with Watch() as watch:
        for _ in range(options.rounds):
            for name, run in runs.items():
                started = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    result = {
        **machine_facts(),
        "shape": "384 x 6 x 6, context 256, 65 characters, float32, eager",
        "tokens": TOKENS,
        "threads": THREADS,
        "nanogpt": "its own code" if options.nanogpt else "its algorithm, on modules of this file",
        "others_share_of_cores": round(watch.others, 3),
        "tokens_per_second": {n: round(TOKENS / median, 1) for n, median in medians.items()},
        "seconds": {n: [round(t, 4) for t in times] for n, times in seconds.items()},
        "times_as_fast": {n: round(medians[n] / medians["ours"], 3) for n in TARGETS},
        "by_the_fastest": {n: round(min(seconds[n]) / min(seconds["ours"]), 3) for n in TARGETS},
        "targets": TARGETS,
    }
    for name, median in medians.items():
        low, high = min(seconds[name]), max(seconds[name])
        print(f"{name:13} {TOKENS / median:7.1f} tokens/s  ({low:.3f} to {high:.3f} s)")
    for name, target in TARGETS.items():
        print(f"{result['times_as_fast'][name]:.2f} times {name} (target {target})")
    print(f"others took {watch.others:.1%} of the cores")
    if options.write:
        write_result("generation", result)


if __name__ == "__main__":
    main()
