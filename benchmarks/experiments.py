"""Writes docs/experiments.md and its charts from the newest results of the three experiments.

    python -m benchmarks.experiments

Every figure and verdict on the page comes from a file in benchmarks/results/; an experiment without
one is named as missing.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import beyond_the_context, classic_and_modern, experts_and_dense
from benchmarks.charts import Series, line_chart
from benchmarks.report import RESULTS

DOCS = RESULTS.parent.parent / "docs"
TEXTS = {"tinyshakespeare": "Tiny Shakespeare, characters", "wikitext-2": "WikiText-2, BPE"}
DASHES = {"window": "9 6", "within": "2 5"}
SINK = 0.2
"""Share of a head's attention from which the first position is called a sink."""

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


def newest(name: str, folder: Path) -> dict[str, Any] | None:
    """The result of that name with the latest date; None when there is none."""
    found = sorted(folder.glob(f"????-??-??-{name}.json"))
    return json.loads(found[-1].read_text()) if found else None


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table whose first column is text and the others numbers."""
    align = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, align, *rows])


def where(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{result['date']}, {result['machine']}, Python {result['python']}, {versions}."


def shape(result: dict[str, Any]) -> str:
    """The settings that both sides share, in a sentence."""
    about = result["settings"]
    tokens = about["model.context_length"] * about["train.batch_size"] * about["train.max_steps"]
    return (
        f"{about['model.n_embd']}×{about['model.n_layer']}×{about['model.n_head']} "
        f"(width, layers, heads), context {about['model.context_length']}, "
        f"batch {about['train.batch_size']}, {about['train.max_steps']:,} steps: "
        f"{tokens / 1e6:.2f} M tokens."
    )


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


def beyond_section(result: dict[str, Any] | None, charts: dict[str, str]) -> str:
    """Reading on beyond the context."""
    title = "## Beyond the trained context, with and without sinks"
    command = "python -m benchmarks.beyond_the_context --data DIR"
    if result is None:
        return f"{title}\n\nNot measured yet: `{command}`\n"
    parts = [
        title,
        f"`{command}`",
        shape(result)
        + " RoPE, RMSNorm, SwiGLU; WikiText-2 by characters. Every training sequence begins "
        "with a mark, as those of Llama and its kin do. **ordinary** is the network as it is, "
        "**learned-sinks** the same with a learned sink in every head (GPT-OSS).",
        "Ways to read, token by token: **sinks**, a rolling cache of the context's size that keeps "
        "the first 4 positions; **window**, the same cache with the newest positions alone; "
        "**plain**, a cache that keeps everything, at positions never trained. **within** is the "
        "control: the same tokens read within the trained context, each after at least half a "
        "context (and the mark).",
    ]
    for name, model in result["models"].items():
        parts += beyond_model(name, model, result, charts)
    return "\n\n".join([*parts, where(result)]) + "\n"


def beyond_model(
    name: str, model: dict[str, Any], result: dict[str, Any], charts: dict[str, str]
) -> list[str]:
    """One network's tables and charts."""
    ways = [*beyond_the_context.WAYS, "within"]
    context, times = result["settings"]["model.context_length"], result["stream"]
    for kind, rows in (("position", model["by_position"]), ("context", model["by_context"])):
        charts[f"beyond-{name}-by-{kind}.svg"] = line_chart(
            f"Perplexity by position, network: {name}, {model['rows']} stretches of text",
            "position",
            "perplexity",
            [
                Series(
                    way,
                    [(row["from"] + row["to"]) / 2 for row in rows],
                    [row[way] for row in rows],
                    dash=DASHES.get(way, "none"),
                )
                for way in ways
            ],
            logarithmic=True,
            mark=(context, "trained context"),
        )
    attention = model["attention"]
    first = [mass for layer in attention["first"] for mass in layer]
    looks = (
        f"In the second half of a context the first position gets {statistics.mean(first):.1%} of "
        f"the attention (mean of heads; evenly spread it would be {attention['even']:.1%}), in the "
        f"head where it is most {max(first):.1%}."
    )
    if max(first) < SINK:
        looks += (
            " So no head has made a sink of it, as heads of larger networks do after longer "
            "training: a window that drops it has nothing to lose."
        )
    if attention["learned"]:
        learned = [mass for layer in attention["learned"] for mass in layer]
        looks += (
            f" The learned sinks get {statistics.mean(learned):.1%}, at most {max(learned):.1%}."
        )
    position_rows = [
        [f"{row['from']:.0f}–{row['to']:.0f}", *(f"{row[way]:.2f}" for way in ways)]
        for row in model["by_position"]
    ]
    tail = [
        [way, f"{about['perplexity']:.2f}", f"{about['ratio']:.3f} ± {about['error']:.3f}"]
        for way, about in model["last_quarter"].items()
    ]
    memory = [
        [
            f"{way}, cache / process",
            *(
                f"{at['cache_bytes'] / 1e6:.1f} / {at['process_bytes'] / 1e6:.0f} MB"
                for at in marks
            ),
        ]
        for way, marks in model["memory"].items()
    ]
    heads = [f"{at['contexts']}×" for at in next(iter(model["memory"].values()))]
    return [
        f"### Network: {name}",
        looks,
        f"Perplexity by position, over {model['rows']} stretches of the validation text:",
        table(["positions", *ways], position_rows),
        f"![by position](experiments/beyond-{name}-by-position.svg)",
        f"A stream of {times}× the context ({times * context:,} tokens): perplexity over its last "
        "quarter, and what it is of that of the same tokens within the context (± the standard "
        "error over the stretches):",
        table(["way", "perplexity", "against within"], tail),
        f"**{beyond_the_context.verdict(model)}**",
        f"![by context](experiments/beyond-{name}-by-context.svg)",
        f"Memory after so many contexts, for {model['rows']} stretches at once (the process holds "
        "the network, the text and what was measured before as well):",
        table(["way", *heads], memory),
    ]


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
        beyond_section(newest("beyond-the-context", results), charts),
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
