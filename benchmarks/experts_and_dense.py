"""A mixture of experts against a dense network that does the same arithmetic for a token.

    python -m benchmarks.experts_and_dense --data DIR

Both are modern networks of one shape on WikiText-2. The dense one has one MLP; the other has 8
experts of half its width, of which a token goes through 2: so as many parameters are active, but
for the router, and 2.5 times as many exist in all. Same tokens, schedule and learning rate (that of
`--rate`, chosen for neither), three seeds. Reported: validation loss with its spread, speed, and
what the routers did over the last 50 steps. `--quick` does it in a minute with a tiny network.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import training
from benchmarks.classic_and_modern import MODERN, SEEDS, SETTINGS
from benchmarks.report import machine_facts, write_result
from engine.arithmetic import active_parameters, count_parameters
from engine.config import Config
from engine.corpora import get_tokenizer
from engine.lab import Lab

EXPERTS, ACTIVE = 8, 2
RATE = 4e-3


def configure(settings: dict[str, Any], rate: float, seed: int) -> tuple[Config, Config]:
    """The dense run's configuration, and the other's."""
    values = settings | MODERN | {"optimizer.lr": rate, "train.seed": seed}
    width = training.configure(values).model.hidden_width
    width -= width % (8 * ACTIVE)  # so that it divides
    dense = training.configure(values | {"model.n_hidden": width})
    routed = {"model.n_hidden": width // ACTIVE}
    routed |= {"model.n_expert": EXPERTS, "model.n_expert_active": ACTIVE}
    return dense, training.configure(values | routed)


def measure(lab: Lab, text: str, options: argparse.Namespace) -> dict[str, Any]:
    """All runs, the two kinds in turn: a slow hour of the machine slows both."""
    corpus = training.add_text(lab, text, options.data)
    settings = SETTINGS[text] | {"data.corpus": corpus} | training.chosen(options)
    runs: dict[str, list[dict[str, Any]]] = {"dense": [], "experts": []}
    for seed in SEEDS[:2] if options.quick else SEEDS:
        configs = configure(settings, options.rate, seed)
        for (name, done), config in zip(runs.items(), configs, strict=True):
            done.append(training.train(lab, config, f"{name}-{seed}"))
    tokenizer = get_tokenizer(
        lab, corpus, settings["data.tokenizer"], settings.get("data.vocab_size", 1024)
    )
    result: dict[str, Any] = {"text": text, "settings": settings, "lr": options.rate}
    for (name, done), config in zip(runs.items(), configs, strict=True):
        result[name] = {
            "parameters": count_parameters(config.model, tokenizer.vocab_size),
            "active_parameters": active_parameters(config.model, tokenizer.vocab_size),
            "hidden_width": config.model.hidden_width,
            "val_loss": training.spread(done),
            "curve": training.curve(done),
            "runs": done,
        }
    return result


def verdict(result: dict[str, Any]) -> str:
    """Who wins, by the seeds: a difference inside the spread is none."""
    dense, experts = result["dense"]["val_loss"], result["experts"]["val_loss"]
    by = dense["mean"] - experts["mean"]
    if experts["high"] < dense["low"]:
        return f"experts win by {by:.3f} nats: their worst seed is below the dense network's best"
    if dense["high"] < experts["low"]:
        return f"dense wins by {-by:.3f} nats: its worst seed is below the experts' best"
    return f"no winner: the seeds overlap (the experts' mean is lower by {by:.3f} nats)"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    training.add_options(parser)
    parser.add_argument("--rate", type=float, default=RATE, help="learning rate of both")
    options = parser.parse_args(arguments)
    text = training.EMBEDDED if options.quick else "wikitext-2"
    with training.open_lab(options) as lab:
        result = machine_facts() | measure(lab, text, options)
    print(f"{text}: {verdict(result)}")
    if not options.quick:
        write_result("experts-and-dense", result)


if __name__ == "__main__":
    main()
