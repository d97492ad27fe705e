"""What becomes of a model that reads on, token by token, far beyond the context it was trained at.

    python -m benchmarks.beyond_the_context --data DIR [--text backcopy] [--lab DIR]

A RoPE model is trained at a short context, once as it is and once with a learned sink in every head
(GPT-OSS): on the letters of the Bigram-Backcopy task, of which a small network with a narrow MLP
learns to have a sink, and on WikiText-2's characters. Every training sequence begins with a mark,
as those of Llama and its kin do, so that there is a first position to know again. Each model then
reads stretches of text that it never saw, 20 times the context, in three ways:

    sinks   a rolling cache of the context's size that keeps the first 4 positions (StreamingLLM)
    window  the same cache without them: the newest positions alone
    plain   a cache that keeps everything, at positions that were never trained

against the same tokens read within the trained context, in windows half a context apart. Reported:
perplexity by position up to 3 times the context, and over the last quarter of the 20; the cache's
bytes and the process's on the way; and how much attention the first position takes, since that is
what the window throws away. With `--lab` the trained runs are kept, and are not trained again.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from torch import Tensor

from benchmarks import training
from benchmarks.marked import Marked, Stretches
from benchmarks.reading import Read, attention_mass, perplexity, read, read_within
from benchmarks.report import machine_facts, write_result
from engine.checkpoints import find_checkpoint
from engine.config import Config
from engine.device import choose_device
from engine.errors import InputError
from engine.generation.load import Generator, load_checkpoint
from engine.lab import Lab
from engine.model import GPT
from engine.session import Material

SHARED: dict[str, Any] = {
    "model.norm": "rmsnorm",
    "model.position": "rope",
    "model.mlp": "swiglu",
    "model.bias": False,
    "data.tokenizer": "char",
    "optimizer.lr": 4e-3,
    "train.max_steps": 2000,
    "train.eval_every": 500,
    "save.policy": "rolling",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "backcopy": SHARED
    | {
        "model.n_layer": 1,
        "model.n_head": 1,
        "model.n_embd": 64,
        "model.n_hidden": 8,
        "model.context_length": 63,
        "optimizer.lr": 1e-2,
        "train.batch_size": 32,
    },
    "wikitext-2": SHARED
    | {
        "model.n_layer": 3,
        "model.n_head": 3,
        "model.n_embd": 96,
        "model.context_length": 127,
        "train.batch_size": 16,
    },
}
"""Name of a kind of text -> what is trained on it."""
QUICK: dict[str, Any] = {
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 32,
    "model.context_length": 16,
    "train.batch_size": 4,
    "train.max_steps": 30,
    "train.eval_every": 0,
}
LEARNED = {"model.learned_sinks": True}
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    # With a wide MLP the network can leave out, after attention, what it brings to no purpose.
    "backcopy": {"ordinary": {}, "learned-sinks": LEARNED, "wide-mlp": {"model.n_hidden": 0}},
    "wikitext-2": {"ordinary": {}, "learned-sinks": LEARNED},
}
"""Name of a kind of text -> the networks, by name."""
SEED = 1337
SEEDS: dict[str, tuple[int, ...]] = {"backcopy": (1, 2), "wikitext-2": ()}
"""More seeds of the ordinary network, of which the last quarter alone is told."""
WAYS: dict[str, int | None] = {"sinks": 4, "window": 0, "plain": None}
"""Name of a way to read -> first positions that the rolling cache keeps; None keeps everything."""
LIMIT = 0.10
"""What a stream with sinks may lose against the same tokens within the context."""
COLLAPSE = 0.5
"""A perplexity higher by more than this share is called a collapse."""
TIMES = 20
"""The length of a stream, in contexts."""
SHOWN = 3
"""Contexts over which perplexity is told by position."""
ROWS, QUICK_ROWS = 16, 4
"""Stretches that are read side by side."""


def trained(lab: Lab, name: str, config: Config) -> Generator:
    """The run called `name`, trained now unless the lab has it already.

    Raises InputError when it would read the text more than once: from the second pass on windows
    are shifted, and their marks would stand anywhere.
    """
    windows = len(Material(lab, config, lambda _: None).train)
    if config.train.max_steps * config.train.batch_size > windows:
        raise InputError(
            f"train.max_steps = {config.train.max_steps}: more than one pass over the text",
            f"at most {windows // config.train.batch_size} steps",
        )
    if not (lab.checkpoints / name).exists():
        training.train(lab, config, name)
    return load_checkpoint(find_checkpoint(lab, name), choose_device("cpu"))


def by_position(losses: dict[str, Tensor], context: int) -> list[dict[str, float]]:
    """Perplexity in buckets of a quarter of the context, over the first few contexts."""
    quarter = context // 4
    return [
        {"from": start, "to": start + quarter}
        | {way: perplexity(nats[:, start : start + quarter]) for way, nats in losses.items()}
        for start in range(0, SHOWN * context, quarter)
    ]


def by_context(losses: dict[str, Tensor], context: int) -> list[dict[str, float]]:
    """Perplexity of each of the stream's contexts."""
    return [
        {"from": start, "to": start + context}
        | {way: perplexity(nats[:, start : start + context]) for way, nats in losses.items()}
        for start in range(0, TIMES * context, context)
    ]


def last_quarter(losses: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Over the last quarter of the stream, each way's perplexity and what it is of that of the same
    tokens within the context; with the standard error of that ratio over the stretches."""
    summary = {}
    for way, nats_RN in losses.items():
        tail = 3 * nats_RN.shape[1] // 4
        more_R = (nats_RN - losses["within"])[:, tail:].double().mean(1)
        ratio = math.exp(more_R.mean().item())
        error = ratio * more_R.std().item() / math.sqrt(len(more_R)) if len(more_R) > 1 else 0.0
        summary[way] = {"perplexity": perplexity(nats_RN[:, tail:]), "ratio": ratio, "error": error}
    return summary


def memory(reads: dict[str, Read], context: int) -> dict[str, list[dict[str, int]]]:
    """By way, what the cache and the process held after so many tokens."""
    return {
        way: [
            {"contexts": tokens // context, "cache_bytes": cache, "process_bytes": process}
            for tokens, cache, process in one.memory
        ]
        for way, one in reads.items()
    }


def by_kind(losses: dict[str, Tensor], copies_RN: Tensor) -> dict[str, dict[str, float]]:
    """Over the last quarter of the stream, each way's perplexity on copies and on other letters."""
    tail = 3 * copies_RN.shape[1] // 4
    copied = copies_RN[:, tail:]
    return {
        way: {
            "copies": perplexity(nats_RN[:, tail:][copied]),
            "others": perplexity(nats_RN[:, tail:][~copied]),
        }
        for way, nats_RN in losses.items()
    }


def measure(lab: Lab, text: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train on one kind of text, read, and look, one model after another."""
    torch.set_num_threads(1)
    settings = SETTINGS[text] | (QUICK if options.quick else {}) | training.chosen(options)
    context = settings["model.context_length"]
    marked = Marked.register(lab, text, context, options)
    settings["data.corpus"] = marked.corpus
    settings["data.stride"] = context + 1
    result: dict[str, Any] = {"text": text, "settings": settings, "stream": TIMES}
    result |= {"models": {}, "seeds": {}}
    rows, length = QUICK_ROWS if options.quick else ROWS, TIMES * context
    networks = {name: parts | {"train.seed": SEED} for name, parts in MODELS[text].items()}
    seeds = SEEDS[text][:1] if options.quick else SEEDS[text]
    networks |= {f"seed {seed}": {"train.seed": seed} for seed in seeds}
    for name, parts in networks.items():
        config = training.configure(settings | parts)
        generator = trained(lab, f"{text}-{name.replace(' ', '-')}", config)
        stretches = marked.stretches(lab, config, generator.tokenizer, rows, length)
        found = examine(generator.model, stretches)
        show(name, found)
        result["models" if name in MODELS[text] else "seeds"][name] = found
    return result


def examine(model: GPT, stretches: Stretches) -> dict[str, Any]:
    """All that is reported of one model."""
    context, tokens_RN = model.config.context_length, stretches.tokens_RN
    marks = [times * context for times in (1, 5, 10, 15, TIMES)]
    reads = {way: read(model, tokens_RN, kept, marks) for way, kept in WAYS.items()}
    losses = {way: one.losses_RN for way, one in reads.items()}
    losses["within"] = read_within(model, tokens_RN)
    if stretches.rule_RN is not None:
        losses["rule"] = stretches.rule_RN
    found = {
        "rows": len(tokens_RN),
        "by_position": by_position(losses, context),
        "by_context": by_context(losses, context),
        "last_quarter": last_quarter(losses),
        "memory": memory(reads, context),
        "attention": vars(attention_mass(model, tokens_RN)),
    }
    if (copies_RN := stretches.copies_RN) is not None:
        found["by_kind"] = by_kind(losses, copies_RN)
        # The letter before a copy is the trigger, and the query that looks for the original.
        found["attention_of"] = {
            kind: vars(attention_mass(model, tokens_RN, queries_RN))
            for kind, queries_RN in (("triggers", copies_RN), ("others", ~copies_RN))
        }
    return found


def verdict(model: dict[str, Any]) -> str:
    """Whether the sinks held and whether the window collapsed, over the last quarter."""
    tail = model["last_quarter"]
    sinks, window, plain = (tail[way]["ratio"] - 1 for way in WAYS)
    held = "stays" if sinks <= LIMIT else "does not stay"
    fell = "collapses" if window > COLLAPSE else "does not collapse"
    lost = "collapses" if plain > COLLAPSE else "does not collapse"
    return (
        f"With sinks perplexity {held} within {LIMIT:.0%} of that within the context "
        f"({sinks:+.1%}); the window without them {fell} ({window:+.1%}); reading on at untrained "
        f"positions {lost} ({plain:+.1%})."
    )


def show(name: str, model: dict[str, Any]) -> None:
    first = [mass for layer in model["attention"]["first"] for mass in layer]
    print(
        f"{name}: attention on the first position {sum(first) / len(first):.3f}"
        f" (even {model['attention']['even']:.3f}), most in a head {max(first):.3f}"
    )
    for way, about in model["last_quarter"].items():
        print(
            f"  {way:8} last quarter: perplexity {about['perplexity']:.2f},"
            f" {about['ratio']:.3f} ± {about['error']:.3f} of that within the context"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    training.add_options(parser)
    parser.add_argument("--text", choices=sorted(SETTINGS), help="only this one (default: both)")
    options = parser.parse_args(arguments)
    with training.open_lab(options) as lab:
        for text in [options.text] if options.text else SETTINGS:
            result = machine_facts() | measure(lab, text, options)
            if not options.quick:
                write_result(f"beyond-the-context-{text}", result)


if __name__ == "__main__":
    main()
