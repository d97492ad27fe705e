"""Writes docs/performance.md and its charts from the results of `python -m benchmarks`.

    python -m benchmarks.performance_page

Every figure comes from a file in benchmarks/results/: of each device, each part's newest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.charts import Bar, Series, bar_chart, line_chart
from benchmarks.report import RESULTS

DOCS = Path(__file__).resolve().parent.parent / "docs"
FOLDER = "performance"
KINDS = {"cpu": "On a processor", "cuda": "On a GPU"}

INTRO = """# Performance

Every ratio that this program is held to, measured by `make bench` and written from the files in
`benchmarks/results/` by `python -m benchmarks.performance_page`.

How: peer and program in processes of their own, one working while the other waits, A B A B …, after
a warm-up that is not counted; every other round in the opposite order. A round in which other
processes took more than 3 % of the machine is made again, and counted as discarded. Figures are
medians, with the lowest and the highest round in brackets. The peers are nanoGPT, from a checkout,
as its README tells people to run it on this device and at every setting that could be its best; and
`transformers`. Ours is what a user gets: default settings, through the code that trains every run.
Absolute rates drift from one half hour to the next: only the ratios compare.
"""

NO_GPU = """## On a GPU

No GPU figure exists yet: none was at hand. `benchmarks/gpu.sh` measures everything that a GPU can
show in under eight minutes (correctness, nanoGPT compiled with flash attention, MFU of `medium` and
`llama-1b`, generation against the memory's rate, the app against headless, predicted memory); it
runs on a processor in a reduced form (`benchmarks/gpu.sh --quick --device cpu`).
"""


def devices(results: Path) -> list[dict[str, Any]]:
    """Of each device one result, whose parts are the newest there are, the processors' first."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(results.glob("????-??-??-*.json")):
        result = json.loads(path.read_text())
        if "parts" not in result or "kind" not in result:
            continue  # of a benchmark with a page of its own
        parts = found.get(result["device"], {}).get("parts", {})
        found[result["device"]] = result | {"parts": parts | result["parts"]}
    return sorted(found.values(), key=lambda result: list(KINDS).index(result["kind"]))


def slug(device: str) -> str:
    """A device's name as names of files have it."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def page(results: Path = RESULTS) -> tuple[str, dict[str, str]]:
    """The page, and its charts by file name."""
    charts: dict[str, str] = {}
    told = devices(results)
    sections = [INTRO, *(_device(result, charts) for result in told)]
    kinds = {result["kind"] for result in told}
    if "cpu" not in kinds:
        sections.append("## On a processor\n\nNot measured yet: `make bench`\n")
    if "cuda" not in kinds:
        sections.append(NO_GPU)
    return "\n".join(sections), charts


def _device(result: dict[str, Any], charts: dict[str, str]) -> str:
    parts, name = result["parts"], slug(result["device"])
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    sections = [
        f"## {KINDS[result['kind']]}: {result['device']}",
        f"Python {result['python']}, {versions}.",
        *_machine(parts.get("machine")),
        "### The targets",
        _targets(parts),
        *_training(parts.get("training"), name, charts),
        *_presets(parts.get("presets")),
        *_quality(parts.get("quality"), name, charts),
        *_generation(parts.get("generation"), name, charts),
        *_linear(parts.get("linear"), name, charts),
    ]
    return "\n\n".join(sections) + "\n"


def _machine(part: dict[str, Any] | None) -> list[str]:
    """What the device can do."""
    if part is None:
        return []
    matmul = {f["name"]: f["flops"] for f in part["findings"] if f["what"] == "matmul"}
    rates = ", ".join(f"{name} {flops / 1e9:,.0f} GFLOP/s" for name, flops in matmul.items())
    [memory] = [finding for finding in part["findings"] if finding["what"] == "memory"]
    return [
        f"At best (`tui-lab bench`, {part['measured']}): matrix products in {rates}; memory read "
        f"at {memory['read'] / 1e9:.1f} GB/s ({memory['read_is']}), copied at "
        f"{memory['copy'] / 1e9:.1f} GB/s ({memory['copy_is']})."
    ]


def _targets(parts: dict[str, Any]) -> str:
    """Every ratio, by group; those with a target say whether it is met."""
    rows = []
    for part in parts.values():
        for ratio in part["ratios"]:
            value, target = ratio["value"], ratio["target"]
            edge = "" if ratio["low"] is None else f" [{ratio['low']:.3g}, {ratio['high']:.3g}]"
            word = "≥" if ratio["at_least"] else "≤"
            wanted = "" if target is None else f"{word} {target:.3g}"
            verdict = {True: "met", False: "**missed**", None: ""}[ratio["met"]]
            note = f" ({ratio['note']})" if ratio["note"] else ""
            figure = "never" if value is None else f"{value:.3g}{edge}"
            rounds = f"{ratio['rounds']}" + (
                f", {ratio['discarded']} discarded" if ratio["discarded"] else ""
            )
            name = f"{ratio['group']}: {ratio['name']}{note}"
            rows.append([name, figure, wanted, verdict, rounds, part["measured"][:10]])
    head = ["what", "measured", "target", "", "rounds", "on"]
    return table(head, rows) if rows else "Nothing was measured."


def _training(part: dict[str, Any] | None, device: str, charts: dict[str, str]) -> list[str]:
    if part is None:
        return []
    sections = ["### Training"]
    for name, shape in part["shapes"].items():
        chart = f"{device}-training-{name}.svg"
        sides = sorted(
            shape["sides"].items(), key=lambda item: -item[1]["tokens_per_second"]["median"]
        )
        charts[chart] = bar_chart(
            f"Training, {shape['shape']}",
            "tokens a second: median, lowest and highest round",
            [
                Bar(
                    side,
                    about["tokens_per_second"]["median"],
                    about["tokens_per_second"]["low"],
                    about["tokens_per_second"]["high"],
                    ours="mfu" in about,
                )
                for side, about in sides
            ],
        )
        rows = []
        for side, about in sides:
            rate, mfu = about["tokens_per_second"], about.get("mfu")
            rows.append(
                [
                    side,
                    f"{rate['median']:,.0f} [{rate['low']:,.0f}, {rate['high']:,.0f}]",
                    "" if mfu is None else f"{mfu:.0%} of {about['precision']}",
                ]
            )
        sections += [
            f"{shape['shape']} (width × layers × heads):",
            table(["", "tokens/s", "MFU"], rows),
            f"![{shape['shape']}]({FOLDER}/{chart})",
        ]
        sections += [f"{side} could not be run." for side in shape["failed"]]
    return sections


def _presets(part: dict[str, Any] | None) -> list[str]:
    """Whole presets: rate, shares, memory."""
    if part is None or not part["presets"]:
        return []
    rows = []
    for name, about in part["presets"].items():
        rate, mfu, made = about["tokens_per_second"], about["mfu"], about["generation"]
        rows.append(
            [
                name,
                f"{rate['median']:,.0f} [{rate['low']:,.0f}, {rate['high']:,.0f}]",
                "" if mfu is None else f"{mfu:.0%} of {about['precision']}",
                f"{about['memory_bytes'] / 1e9:.2f}",
                f"{about['memory_planned'] / 1e9:.2f}",
                f"{made['tokens_per_second']:,.0f}",
                f"{made['roofline']:.0%}",
            ]
        )
    head = ["preset", "tokens/s", "MFU", "GB at most", "planned", "generated/s", "of the roofline"]
    return ["### Presets", table(head, rows)]


def _quality(part: dict[str, Any] | None, device: str, charts: dict[str, str]) -> list[str]:
    """Loss against time."""
    if part is None:
        return []
    chart = f"{device}-time-to-quality.svg"
    curves = part["curves"]
    charts[chart] = line_chart(
        "Tiny Shakespeare: loss over the whole validation split, compiling included",
        "seconds of training",
        "nats per character",
        [
            Series(name, [p[1] for p in curve["points"]], [p[2] for p in curve["points"]])
            for name, curve in curves.items()
        ],
    )
    rows = [
        [
            name,
            f"{curve['points'][-1][0]:,}",
            f"{curve['seconds']:.1f}",
            f"{curve['compile_seconds']:.1f}",
            f"{curve['lowest']:.4f}",
            f"{curve['others']:.1%}",
        ]
        for name, curve in curves.items()
    ]
    head = ["", "steps", "seconds", "of them compiling", "lowest loss", "others took"]
    sections = ["### Time to quality", table(head, rows), f"![loss]({FOLDER}/{chart})"]
    if part["missing"]:
        sections.append(f"Not measured: {', '.join(part['missing'])}.")
    return sections


def _generation(part: dict[str, Any] | None, device: str, charts: dict[str, str]) -> list[str]:
    """Rates of whole texts, ours and the peers'."""
    if part is None:
        return []
    result = part["result"]
    rates = {
        side: rate
        for side, rate in result["tokens_per_second"].items()
        if side not in result["first_token_seconds"]
    }
    ordered = sorted(rates, key=lambda side: -rates[side]["median"])
    chart = f"{device}-generation.svg"
    charts[chart] = bar_chart(
        f"Generation, {result['shape']}, {result['tokens']} tokens",
        "tokens a second: median, lowest and highest round",
        [
            Bar(side, *(rates[side][edge] for edge in ("median", "low", "high")),
                ours=side.startswith("tui-lab"))
            for side in ordered
        ],
    )  # fmt: skip
    shares = result["share_of_the_roofline"]
    rows = [
        [
            side,
            f"{rates[side]['median']:,.0f} [{rates[side]['low']:,.0f}, {rates[side]['high']:,.0f}]",
            f"{shares[side]['median']:.0%}" if side in shares else "",
            f"{result['compile_seconds'][side]:.0f}" if side in result["compile_seconds"] else "",
        ]
        for side in ordered
    ]
    first = ", ".join(
        f"{side.replace(', first token', '')} {1000 * seconds:.1f} ms"
        for side, seconds in result["first_token_seconds"].items()
    )
    head = ["", "tokens/s", "of the roofline", "compiled in, s"]
    return [
        "### Generation",
        f"{result['shape']}, {result['tokens']} tokens. The roofline is the rate at which memory, "
        f"read at {result['bandwidth']['median'] / 1e9:.1f} GB/s, brings the weights of one token.",
        table(head, rows),
        f"The first token: {first}.",
        f"![tokens a second]({FOLDER}/{chart})",
        *(f"Not measured: {side}." for side in result["missing"]),
    ]


def _linear(part: dict[str, Any] | None, device: str, charts: dict[str, str]) -> list[str]:
    if part is None:
        return []
    chart = f"{device}-linear-cost.svg"
    course = part["course"]
    charts[chart] = line_chart(
        "A long run of a tiny network",
        "step",
        "tokens a second",
        [Series("as it came", [point[0] for point in course], [point[1] for point in course])],
    )
    memory = ", ".join(
        f"{place[2] / 1e6:,.0f} MB after {place[0]:,.0f} steps" for place in (course[0], course[-1])
    )
    return [
        "### Linear cost",
        f"A run of {part['steps']:,} steps, held at its end and timed in turn with one that had "
        f"just begun. Resident memory: {memory}.",
        f"![tokens a second]({FOLDER}/{chart})",
    ]


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table whose first column is text and the others numbers."""
    align = ["---"] + ["---:"] * (len(head) - 1)
    lines = ([cell.replace("|", "/") for cell in row] for row in [head, align, *rows])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(results: Path = RESULTS, docs: Path = DOCS) -> None:
    """The page and its charts; charts of before that no page shows any more are removed."""
    text, charts = page(results)
    folder = docs / FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.name not in charts:
            old.unlink()
    for name, chart in charts.items():
        (folder / name).write_text(chart)
    (docs / "performance.md").write_text(text)
    print(f"wrote docs/performance.md and {len(charts)} charts")


if __name__ == "__main__":
    write()
