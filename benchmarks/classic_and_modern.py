"""Classic against modern: equal parameters, equal tokens, each with the better of a few rates.

    python -m benchmarks.classic_and_modern --data DIR [--text wikitext-2] [--parts]

Classic is GPT-2's network; modern is Llama's with QK-norm: RMSNorm, RoPE, SwiGLU, no biases. Same
shape, schedule, batches, context and steps; the modern MLP is as wide as makes the parameters equal
to within 1 %. Each side's learning rate is the best of one grid on the first seed, and the grid is
extended while its best lies at an end; then come the other seeds. With `--parts`, instead: the
classic network with one of the modern parts at a time, all at `--rate`, one seed. `--quick` does
both in a minute with a tiny network, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import training
from benchmarks.report import machine_facts, write_result
from engine.arithmetic import count_parameters
from engine.config.sections import ModelConfig
from engine.corpora import get_tokenizer
from engine.lab import Lab

CLASSIC: dict[str, Any] = {}
"""The defaults of `ModelConfig` are GPT-2's."""
PARTS: dict[str, dict[str, Any]] = {
    "no biases": {"model.bias": False},
    "RMSNorm": {"model.norm": "rmsnorm"},
    "RoPE": {"model.position": "rope"},
    "SwiGLU": {"model.mlp": "swiglu"},
    "QK-norm": {"model.qk_norm": True},
}
MODERN = {key: value for part in PARTS.values() for key, value in part.items()}
RATES = (2e-3, 4e-3, 8e-3)
MOST_RATES = 4
SEEDS = (1, 2, 3)

SETTINGS: dict[str, dict[str, Any]] = {
    "tinyshakespeare": {
        "model.n_layer": 4,
        "model.n_head": 4,
        "model.n_embd": 128,
        "model.context_length": 64,
        "data.tokenizer": "char",
        "train.batch_size": 12,
        "train.max_steps": 1000,
        "train.eval_every": 50,
    },
    "wikitext-2": {
        "model.n_layer": 4,
        "model.n_head": 4,
        "model.n_embd": 128,
        "model.context_length": 128,
        "data.tokenizer": "bpe",
        "data.vocab_size": 2048,
        "train.batch_size": 12,
        "train.max_steps": 400,
        "train.eval_every": 40,
    },
    "tiny": {
        "model.n_layer": 1,
        "model.n_head": 2,
        "model.n_embd": 24,
        "model.context_length": 16,
        "data.tokenizer": "char",
        "train.batch_size": 4,
        "train.max_steps": 24,
        "train.eval_every": 8,
        "train.eval_tokens": 512,
        "schedule.warmup_steps": 4,
    },
}


def width_for(model: ModelConfig, parameters: int, vocab_size: int) -> int:
    """The hidden width, a multiple of 8, that brings `model` nearest to so many parameters."""

    def miss(width: int) -> int:
        values = {**vars(model), "n_hidden": width}
        return abs(count_parameters(ModelConfig(**values), vocab_size) - parameters)

    return min(range(8, 8 * model.n_embd, 8), key=miss)


class Contest:
    """All runs of one text."""

    def __init__(self, lab: Lab, text: str, options: argparse.Namespace) -> None:
        self.lab, self.text = lab, text
        self.settings = {"data.corpus": training.add_text(lab, text, options.data)}
        self.settings |= SETTINGS[text] | training.chosen(options)
        self.vocab_size = get_tokenizer(
            lab,
            self.settings["data.corpus"],
            self.settings["data.tokenizer"],
            self.settings.get("data.vocab_size", 1024),
        ).vocab_size
        classic = training.configure(self.settings | CLASSIC).model
        self.parameters = count_parameters(classic, self.vocab_size)
        self.runs = 0

    def train(self, name: str, parts: dict[str, Any], lr: float, seed: int) -> dict[str, Any]:
        """One run; a network with a gated MLP is made as large as the classic."""
        values = self.settings | parts | {"optimizer.lr": lr, "train.seed": seed}
        if "model.mlp" in parts:
            model = training.configure(values).model
            values["model.n_hidden"] = width_for(model, self.parameters, self.vocab_size)
        self.runs += 1
        config = training.configure(values)
        return training.train(self.lab, config, f"{self.text}-{self.runs}-{name}")

    def side(self, name: str, parts: dict[str, Any], seeds: tuple[int, ...]) -> dict[str, Any]:
        """The best rate on the first seed, then the other seeds with it."""
        by_rate = {lr: self.train(name, parts, lr, seeds[0]) for lr in RATES}
        while len(by_rate) < MOST_RATES:
            best = min(by_rate, key=lambda lr: by_rate[lr]["val_loss"])
            if best not in (min(by_rate), max(by_rate)):
                break
            lr = best / 2 if best == min(by_rate) else best * 2
            by_rate[lr] = self.train(name, parts, lr, seeds[0])
        best = min(by_rate, key=lambda lr: by_rate[lr]["val_loss"])
        runs = [by_rate[best], *(self.train(name, parts, best, seed) for seed in seeds[1:])]
        return {
            "settings": parts,
            "lr": best,
            "rates_tried": {f"{lr:g}": by_rate[lr]["val_loss"] for lr in sorted(by_rate)},
            "parameters": runs[0]["parameters"],
            "val_loss": training.spread(runs),
            "curve": training.curve(runs),
            "runs": runs,
        }


def measure(lab: Lab, text: str, options: argparse.Namespace) -> dict[str, Any]:
    """The whole contest on one text."""
    contest = Contest(lab, text, options)
    seeds = SEEDS[:2] if options.quick else SEEDS
    classic = contest.side("classic", CLASSIC, seeds)
    modern = contest.side("modern", MODERN, seeds)
    return {"text": text, "settings": contest.settings, "classic": classic, "modern": modern}


def measure_parts(lab: Lab, text: str, options: argparse.Namespace) -> dict[str, Any]:
    """The classic network with one modern part at a time, and with all of them."""
    contest = Contest(lab, text, options)
    networks = {"classic": CLASSIC, **PARTS, "all": MODERN}
    runs = {
        name: contest.train("part", values, options.rate, SEEDS[0])
        for name, values in networks.items()
    }
    return {"text": text, "settings": contest.settings, "lr": options.rate, "runs": runs}


def verdict(result: dict[str, Any]) -> str:
    """Who wins, by the seeds: a difference inside the spread is none."""
    classic, modern = result["classic"]["val_loss"], result["modern"]["val_loss"]
    by = classic["mean"] - modern["mean"]
    if modern["high"] < classic["low"]:
        return f"modern wins by {by:.3f} nats: its worst seed is below classic's best"
    if classic["high"] < modern["low"]:
        return f"classic wins by {-by:.3f} nats: its worst seed is below modern's best"
    return f"no winner: the seeds overlap (modern's mean is lower by {by:.3f} nats)"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    training.add_options(parser)
    parser.add_argument(
        "--text", choices=sorted(training.TEXTS), help="only this one (default: both)"
    )
    parser.add_argument("--parts", action="store_true", help="classic with one part at a time")
    parser.add_argument("--rate", type=float, default=4e-3, help="learning rate of --parts")
    options = parser.parse_args(arguments)
    texts = [options.text] if options.text else list(training.TEXTS)
    with training.open_lab(options) as lab:
        for text in [training.EMBEDDED] if options.quick else texts:
            if not options.parts:
                result = machine_facts() | measure(lab, text, options)
                print(f"{text}: {verdict(result)}")
                if not options.quick:
                    write_result(f"classic-and-modern-{text}", result)
            if options.parts or options.quick:
                result = machine_facts() | measure_parts(lab, text, options)
                if not options.quick:
                    write_result(f"modern-parts-{text}", result)


if __name__ == "__main__":
    main()
