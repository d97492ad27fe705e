"""Writes docs/experiments.md and its charts from the newest results of the experiments.

    python -m benchmarks.experiments

Every figure and verdict on the page comes from a file in benchmarks/results/; an experiment without
one is named as missing.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks import classic_and_modern, experts_and_dense
from benchmarks.beyond_section import beyond_section
from benchmarks.charts import Series, line_chart
from benchmarks.page import newest, shape, table, where
from benchmarks.report import RESULTS

DOCS = RESULTS.parent.parent / "docs"
TEXTS = {"tinyshakespeare": "Tiny Shakespeare, characters", "wikitext-2": "WikiText-2, BPE"}

INTRO = """# Experiments

What the networks of this program do, measured by the program itself: each run below was made by
`engine.session.run_training`, as `tui-lab train` makes it. This page is written from the files in
`benchmarks/results/` by `python -m benchmarks.experiments`; run an experiment again with the
command above its table (`--quick` takes a minute and shows that it works, not more).

The networks are small and trained for minutes on one thread of a processor. What wins here wins at
this size, this budget and these texts. Speeds are those of long runs beside whatever else the
machine did, and good for no more than a rough comparison within a table. Losses are nats per token
over the whole validation split; curves are over its first 16 384 tokens. Bands and brackets are the
lowest and the highest seed.
"""


def between(spread: dict[str, float]) -> str:
    return f"{spread['mean']:.4f} [{spread['low']:.4f}, {spread['high']:.4f}]"


def banded(name: str, curve: list[list[float]]) -> Series:
    steps, mean, low, high = (list(column) for column in zip(*curve, strict=True))
    return Series(name, steps, mean, low, high)


def median_rate(side: dict[str, Any]) -> str:
    return f"{statistics.median(run['tokens_per_second'] for run in side['runs']):,.0f}"


def classic_and_modern_section(
    text: str, title: str, result: dict[str, Any] | None, charts: dict[str, str]
) -> str:
    """One text's contest."""
    command = f"python -m benchmarks.classic_and_modern --data DIR --text {text}"
    if result is None:
        return f"### {title}\n\nNot measured yet: `{command}`\n"
    sides = {name: result[name] for name in ("classic", "modern")}
    chart = f"classic-and-modern-{text}.svg"
    charts[chart] = line_chart(
        f"Validation loss, {title}: mean of the seeds, and their range",
        "step",
        "nats per token",
        [banded(name, side["curve"]) for name, side in sides.items()],
    )
    rows = [
        [
            name,
            f"{side['parameters']:,}",
            f"{side['lr']:g}",
            between(side["val_loss"]),
            f"{math.exp(side['val_loss']['mean']):.2f}",
            f"{statistics.mean(run['bits_per_byte'] for run in side['runs']):.4f}",
            median_rate(side),
        ]
        for name, side in sides.items()
    ]
    rates = sorted({rate for side in sides.values() for rate in side["rates_tried"]}, key=float)
    tried = [
        [
            name,
            *(f"{side['rates_tried'][r]:.4f}" if r in side["rates_tried"] else "" for r in rates),
        ]
        for name, side in sides.items()
    ]
    seeds = len(sides["classic"]["runs"])
    parts = [
        f"### {title}",
        f"`{command}`",
        shape(result) + " Both sides read the same ones in the same order.",
        table(
            ["network", "parameters", "rate", f"loss, {seeds} seeds", "perplexity", "bits/byte",
             "tokens/s"],
            rows,
        ),
        f"**{classic_and_modern.verdict(result)[:1].upper()}"
        f"{classic_and_modern.verdict(result)[1:]}.**",
        f"![curves](experiments/{chart})",
        "Loss by learning rate on the first seed; the grid is extended while its best lies at an "
        f"end, to at most {classic_and_modern.MOST_RATES} rates:",
        table(["network", *rates], tried),
    ]  # fmt: skip
    return "\n\n".join([*parts, where(result)]) + "\n"


def parts_section(results: dict[str, dict[str, Any] | None]) -> str:
    """The classic network with one modern part at a time, by text."""
    parts = [
        "### One part at a time",
        "`python -m benchmarks.classic_and_modern --data DIR --parts`",
    ]
    measured = {text: result for text, result in results.items() if result is not None}
    for text, result in measured.items():
        classic = result["runs"]["classic"]
        rows = [
            [
                name,
                f"{run['parameters']:,}",
                f"{run['val_loss']:.4f}",
                f"{run['val_loss'] - classic['val_loss']:+.4f}",
            ]
            for name, run in result["runs"].items()
        ]
        parts += [
            f"{TEXTS[text]}: the classic network with one modern part, all at the rate "
            f"{result['lr']:g}, one seed. A difference smaller than the range of seeds above says "
            "nothing.",
            table(["network", "parameters", "loss", "against classic"], rows),
            where(result),
        ]
    return "\n\n".join(parts if measured else [*parts, "Not measured yet."]) + "\n"


def experts_section(result: dict[str, Any] | None, charts: dict[str, str]) -> str:
    """Experts against dense."""
    title = "## Experts against dense at equal active parameters"
    command = "python -m benchmarks.experts_and_dense --data DIR"
    if result is None:
        return f"{title}\n\nNot measured yet: `{command}`\n"
    sides = {name: result[name] for name in ("dense", "experts")}
    charts["experts-and-dense.svg"] = line_chart(
        "Validation loss, WikiText-2: mean of the seeds, and their range",
        "step",
        "nats per token",
        [banded(name, side["curve"]) for name, side in sides.items()],
    )
    rows = [
        [
            name,
            f"{side['parameters']:,}",
            f"{side['active_parameters']:,}",
            between(side["val_loss"]),
            median_rate(side),
        ]
        for name, side in sides.items()
    ]
    routers = [
        [str(run["seed"]), *(f"{run['router'][key]:.3f}" for key in run["router"])]
        for run in sides["experts"]["runs"]
    ]
    verdict = experts_and_dense.verdict(result)
    parts = [
        title,
        f"`{command}`",
        shape(result) + f" Both at the rate {result['lr']:g}. {experts_and_dense.EXPERTS} experts "
        f"of half the width, {experts_and_dense.ACTIVE} for each token.",
        table(["network", "parameters", "active", f"loss, {len(routers)} seeds", "tokens/s"], rows),
        f"**{verdict[:1].upper()}{verdict[1:]}.**",
        "![curves](experiments/experts-and-dense.svg)",
        "The routers over the last 50 steps. Balance is the load-balancing loss (2 when all are "
        "equally busy); busiest and idlest are loads over the even share, each in the layer "
        "where it is worst; entropy in nats (at most ln 8 = 2.079):",
        table(["seed", "balance", "busiest", "idlest", "entropy"], routers),
        where(result),
    ]
    return "\n\n".join(parts) + "\n"


def page(results: Path = RESULTS) -> tuple[str, dict[str, str]]:
    """The page, and its charts by file name."""
    charts: dict[str, str] = {}
    contests = [
        classic_and_modern_section(
            text, title, newest(f"classic-and-modern-{text}", results), charts
        )
        for text, title in TEXTS.items()
    ]
    networks = (
        "## Classic against modern\n\nClassic is GPT-2's network: LayerNorm, learned positions, "
        "GELU, biases. Modern has RMSNorm, RoPE, SwiGLU, QK-norm and no biases, and an MLP as wide "
        "as makes the parameters equal to within 1 %.\n"
    )
    sections = [
        INTRO,
        networks,
        *contests,
        parts_section({text: newest(f"modern-parts-{text}", results) for text in TEXTS}),
        beyond_section(results, charts),
        experts_section(newest("experts-and-dense", results), charts),
    ]
    return "\n".join(sections), charts


def main() -> None:
    text, charts = page()
    folder = DOCS / "experiments"
    folder.mkdir(exist_ok=True)
    for name, chart in charts.items():
        (folder / name).write_text(chart)
    (DOCS / "experiments.md").write_text(text)
    print(f"wrote docs/experiments.md and {len(charts)} charts")


if __name__ == "__main__":
    main()
