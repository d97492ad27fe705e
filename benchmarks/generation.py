"""Tokens per second with the cache: ours, `transformers`' and nanoGPT's, in turn.

    python -m benchmarks.generation [--nanogpt DIR] [--quick]

A network of nanoGPT's character size (384 wide, 6 layers, 6 heads, context 256, 65 characters),
random weights, one text of 256 tokens from one, sampled at temperature 0.8, in one process whose
sides take turns. Ours goes through the loop that serves a console: every token comes with its
probability, entropy and text. nanoGPT keeps no keys and values; without a checkout it is missing.

The roofline is the rate at which memory brings the weights that one token is multiplied with, and
nothing else (no keys and values): bandwidth, measured in every round, over their bytes.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import quiet
from benchmarks.interleave import MOST, spread
from benchmarks.peers.nanogpt import load_model
from benchmarks.ratios import Ratio, of_rounds
from benchmarks.report import machine_facts, write_result
from engine.arithmetic import matmul_parameters
from engine.bench.limits import READ, bandwidth
from engine.config.sections import ModelConfig
from engine.exchange import hf_config
from engine.exchange.families import family_of
from engine.exchange.weights import pieces
from engine.generation.compiled import Steps
from engine.generation.generate import generate, generate_batch
from engine.generation.layout import lay_out
from engine.generation.params import SamplingParams
from engine.model import GPT
from engine.tokenizers import build

SHAPE = ModelConfig(n_layer=6, n_head=6, n_embd=384, context_length=256)
VOCAB, TOKENS, TEMPERATURE, ROWS = 65, 256, 0.8, 16
PROMPT = 64
"""Tokens of the prompt whose first token is timed."""
FIRSTS = 10
"""Times that it is asked for in a window: once takes 20 ms, and rounds scattered from 0.74 to 1.55
of the other side's."""
THREADS = 2
ROUNDS, QUICK_ROUNDS = 9, 2
BANDWIDTH_SECONDS = 0.3
GROUP = "Generation"
CPU = torch.device("cpu")
OURS, EAGER, BF16, BATCH = "tui-lab", "tui-lab eager", "tui-lab bf16", f"tui-lab, {ROWS} at once"
TRANSFORMERS, NANOGPT = "transformers with its cache", "nanoGPT"
FIRST, THEIR_FIRST = "tui-lab, first token", "transformers, first token"

Run = Callable[[], int]
"""Generates once, and tells how many tokens."""


@dataclass(frozen=True)
class Sides:
    runs: dict[str, Run]
    compile_seconds: dict[str, float]
    weight_bytes: dict[str, int]
    """That one token is multiplied with, of ours in either precision."""


def make_sides(nanogpt: Path | None) -> Sides:
    """All that can run here, warm, with compiled steps ready."""
    torch.manual_seed(1)
    model = GPT(SHAPE, VOCAB).eval()
    theirs = _transformers(model)
    tokenizer = build("char", lambda: iter(["".join(map(chr, range(48, 48 + VOCAB)))]), 0)
    params = SamplingParams(temperature=TEMPERATURE, max_tokens=TOKENS, seed=1)
    start = torch.zeros(1, 1, dtype=torch.long)
    prompt = torch.arange(PROMPT)[None] % VOCAB
    eager, bf16 = copy.deepcopy(model), copy.deepcopy(model).bfloat16()
    lay_out(eager)  # as a loaded checkpoint is
    steps = {model: Steps(model, CPU, "behind"), bf16: Steps(bf16, CPU, "behind")}

    def ours(which: GPT) -> Run:
        return lambda: sum(
            1 for _ in generate(which, tokenizer, [0], params, device=CPU, steps=steps.get(which))
        )

    def batch() -> int:
        texts = generate_batch(
            model, tokenizer, [[0]] * ROWS, params, device=CPU, steps=steps[model]
        )
        return sum(1 for _ in texts)

    def first() -> int:
        for _ in range(FIRSTS):
            next(generate(eager, tokenizer, prompt[0].tolist(), params, device=CPU))
        return FIRSTS

    def their_first() -> int:
        return sum(their(prompt, 1)() for _ in range(FIRSTS))

    def their(ids: torch.Tensor, tokens: int) -> Run:
        def run() -> int:
            made = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=True,
                temperature=TEMPERATURE, top_k=0, pad_token_id=0,
            )  # fmt: skip
            return made.shape[1] - ids.shape[1]

        return run

    runs = {
        OURS: ours(model), EAGER: ours(eager), BF16: ours(bf16), BATCH: batch, FIRST: first,
        TRANSFORMERS: their(start, TOKENS), THEIR_FIRST: their_first,
    }  # fmt: skip
    if nanogpt is not None:
        plain = load_model(
            nanogpt, block_size=SHAPE.context_length, vocab_size=VOCAB, n_layer=SHAPE.n_layer,
            n_head=SHAPE.n_head, n_embd=SHAPE.n_embd,
        ).eval()  # fmt: skip
        runs[NANOGPT] = lambda: plain.generate(start, TOKENS, TEMPERATURE).shape[1] - 1
    seconds = {}
    for name, which in ((OURS, model), (BF16, bf16), (BATCH, model)):
        runs[name]()  # eager, and asks for the step
        began = time.perf_counter()
        steps[which].wait()
        seconds[name] = time.perf_counter() - began
    weights = matmul_parameters(SHAPE, VOCAB)
    return Sides(runs, seconds, {OURS: 4 * weights, EAGER: 4 * weights, BF16: 2 * weights})


def _transformers(ours: GPT) -> Any:
    """GPT-2 as `transformers` has it, with our weights."""
    import transformers

    family = family_of(ours.config)
    values = hf_config.to_hf(ours.config, family, VOCAB, None, "float32")
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**values)).eval()
    state = ours.state_dict()
    state = {piece.name: piece.of(state) for piece in pieces(ours.config, VOCAB, family)}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    return theirs


@dataclass
class Rounds:
    """Of every round: tokens a second of each side, bytes a second of memory, others' share."""

    rates: list[dict[str, float]]
    bandwidths: list[float]
    others: list[float]

    @property
    def kept(self) -> list[int]:
        """Numbers of the quiet rounds; of all, if there are none."""
        chosen = [at for at, share in enumerate(self.others) if share <= quiet.LIMIT]
        return chosen or list(range(len(self.rates)))

    def of(self, side: str) -> list[float]:
        return [self.rates[at][side] for at in self.kept]

    def ratios(self, ours: str, theirs: str) -> list[float]:
        return [self.rates[at][ours] / self.rates[at][theirs] for at in self.kept]

    def rooflines(self, side: str, weight_bytes: int) -> list[float]:
        return [self.rates[at][side] * weight_bytes / self.bandwidths[at] for at in self.kept]


def take_turns(runs: dict[str, Run], wanted: int) -> Rounds:
    """As many quiet rounds if `MOST` times as many bring them, every other one backwards."""
    for run in runs.values():
        run()  # warm, and not counted
    rounds = Rounds([], [], [])
    while len(rounds.rates) < MOST * wanted:
        if sum(share <= quiet.LIMIT for share in rounds.others) >= wanted:
            break
        order = list(runs) if len(rounds.rates) % 2 == 0 else list(reversed(runs))
        rates = {}
        with quiet.Watch() as watch:
            for name in order:
                began = time.perf_counter()
                tokens = runs[name]()
                rates[name] = tokens / (time.perf_counter() - began)
            rounds.bandwidths.append(bandwidth(CPU, BANDWIDTH_SECONDS).read)
        rounds.rates.append(rates)
        rounds.others.append(watch.others)
        told = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        print(f"    {told} tokens/s; others {watch.others:.0%}", flush=True)
    return rounds


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """`options`: `nanogpt`, a checkout or None, and `quick`. Facts, rates, and the ratios that are
    aimed at (`benchmarks.ratios.Ratio`), JSON-ready but for those."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as cache:
        kept = os.environ.get("TUI_LAB_CACHE_DIR")
        os.environ["TUI_LAB_CACHE_DIR"] = cache  # so that compiling is timed
        try:
            sides = make_sides(options.nanogpt)
            rounds = take_turns(sides.runs, QUICK_ROUNDS if options.quick else ROUNDS)
        finally:
            if kept is None:
                del os.environ["TUI_LAB_CACHE_DIR"]
            else:
                os.environ["TUI_LAB_CACHE_DIR"] = kept
    medians = {name: statistics.median(rounds.of(name)) for name in sides.runs}
    shares = {
        name: spread(rounds.rooflines(name, size)) for name, size in sides.weight_bytes.items()
    }
    return {
        "shape": "384 x 6 x 6, context 256, 65 characters, float32 unless said",
        "tokens": TOKENS,
        "threads": THREADS,
        "missing": [] if NANOGPT in sides.runs else [NANOGPT],
        "tokens_per_second": {name: spread(rounds.of(name)) for name in sides.runs},
        "first_token_seconds": {name: 1 / medians[name] for name in (FIRST, THEIR_FIRST)},
        "compile_seconds": sides.compile_seconds,
        "bandwidth": {
            **spread([rounds.bandwidths[at] for at in rounds.kept]),
            "how": READ,
            "weight_bytes": sides.weight_bytes,
        },
        "share_of_the_roofline": shares,
        "rounds": len(rounds.kept),
        "discarded": len(rounds.rates) - len(rounds.kept),
        "others_share_of_cores": [round(share, 3) for share in rounds.others],
        "ratios": _ratios(rounds, sides),
    }


def _ratios(rounds: Rounds, sides: Sides) -> list[Ratio]:
    discarded = len(rounds.rates) - len(rounds.kept)
    wanted = [
        ("one text against nanoGPT", OURS, NANOGPT, 15.0),
        ("one text against transformers with its cache", OURS, TRANSFORMERS, 3.0),
        ("one text, eager, against transformers with its cache", EAGER, TRANSFORMERS, None),
        ("one text in bfloat16 against float32", BF16, OURS, None),
        (f"{ROWS} texts at once against one", BATCH, OURS, 6.0),
        (f"first token after {PROMPT} against transformers", FIRST, THEIR_FIRST, 1.0),
    ]
    ratios = [
        of_rounds(GROUP, name, rounds.ratios(ours, theirs), target, discarded=discarded)
        for name, ours, theirs, target in wanted
        if theirs in sides.runs
    ]
    note = f"bandwidth: {READ}; its median of this run over the weights' bytes"
    for name, side, target in (("float32", OURS, 0.8), ("bfloat16", BF16, None)):
        values = rounds.rooflines(side, sides.weight_bytes[side])
        title = f"one text in {name}, share of the memory roofline"
        ratios.append(of_rounds(GROUP, title, values, target, discarded=discarded, note=note))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--write", action="store_true", help="keep the result")
    options = parser.parse_args()
    result = {**machine_facts(), **measure(options)}
    for name, rates in result["tokens_per_second"].items():
        print(f"{name:28}{rates['median']:9,.1f} ({rates['low']:,.1f} to {rates['high']:,.1f})")
    for ratio in result["ratios"]:
        print(ratio)
    for name in result["missing"]:
        print(f"{name}: missing, no checkout was given")
    result["ratios"] = [ratio.to_dict() for ratio in result["ratios"]]
    if options.write:
        write_result("generation", result)


if __name__ == "__main__":
    main()
