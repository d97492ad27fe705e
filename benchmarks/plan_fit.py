"""Fits the constants of `engine.step_time` and `engine.heap` to runs measured here, and shows
what is left over.

    python -m benchmarks.plan_fit [--mode eager]
    python -m benchmarks.plan_fit --again

measures the configurations below, each in the median of three runs (an hour and more), and prints
the lines for `engine.step_time.PACES` and `engine.heap.HEAPS`. `--again` fits what was measured
last: after a change of the formulas.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import numpy as np

from benchmarks.report import RESULTS, machine_facts, write_result
from benchmarks.trials import (
    add_options,
    add_rounds,
    chosen,
    configuration,
    facts,
    measure,
    median_run,
    shape,
)
from engine import machine
from engine.footprint import counted
from engine.heap import HEAPS, Heap
from engine.planner import memory_of
from engine.step_time import NAMES, amounts, find_pace, kind_of, work

SHAPES = [
    shape("128×4×4", 64, 12, 65),
    shape("128×4×4", 128, 16, 1024),
    shape("256×4×4", 128, 8, 512),
    shape("256×6×8", 256, 4, 8192),
    shape("384×4×6", 256, 8, 256),
    shape("384×8×6", 128, 16, 2000),
    shape("512×4×8", 256, 4, 16000),
    shape("512×8×8", 512, 2, 4000),
    shape("768×4×12", 256, 4, 50257),
    shape("768×12×12", 256, 2, 20000),
    shape("192×12×3", 128, 8, 100),
    shape("64×2×2", 32, 8, 65),
    shape("256×4×4", 1024, 2, 1000),
    shape("384×4×6", 768, 2, 5000),
    shape("128×4×4", 128, 4, 1024, train__accumulate=4),
    shape("384×4×6", 128, 8, 512, train__accumulate=3),
    shape("1024×3×16", 128, 4, 8000),
    shape("384×4×6", 256, 4, 1000, model__dropout=0.1),
    shape("256×6×8", 256, 4, 4096, modern=True, model__n_kv_head=4),
    shape("384×4×6", 128, 16, 1000, modern=True),
    shape("512×6×8", 512, 2, 16000, modern=True, model__n_kv_head=2, model__qk_norm=True),
    shape("128×4×4", 64, 16, 300, modern=True),
    shape("768×4×12", 256, 4, 32000, modern=True),
    shape("256×4×4", 1024, 2, 1000, modern=True, model__window=256),
    shape("256×4×4", 128, 8, 2000, modern=True, model__n_expert=4),
    shape("128×4×4", 64, 12, 100, train__precision="float32"),
    shape("256×4×4", 256, 4, 4000, train__precision="float32"),
    shape("384×6×6", 128, 8, 600, train__precision="float32"),
    shape("512×4×8", 256, 2, 20000, train__precision="float32"),
    shape("256×4×4", 512, 2, 1000, train__precision="float32", modern=True),
    shape("384×4×6", 128, 4, 8000, train__precision="float32", modern=True),
    shape("192×6×6", 768, 3, 800),
    shape("256×4×8", 640, 4, 400, modern=True),
    shape("512×4×4", 1024, 2, 2000, modern=True),
    shape("384×5×6", 128, 6, 3000, modern=True, train__accumulate=4),
    shape("256×6×4", 128, 8, 5000, train__accumulate=2, model__qk_norm=True),
    shape("256×5×4", 128, 16, 900, model__dropout=0.1, modern=True),
    shape("128×3×4", 128, 24, 128, train__precision="float32"),
    shape("192×4×6", 512, 4, 600, train__precision="float32", modern=True),
]
"""None of these is among the ten that the plan is judged by."""

PRIOR, PEAK_PRIOR = 0.02, 0.002
"""Weight of a constant's distance (in shares of it) from what it was before: what the measurements
do not tell apart stays where it is. Of times, and of peaks."""


def fit(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The paces, none negative, that come nearest to the measured steps, errors in shares of each.

    Coordinate descent on least squares: a dozen unknowns need no more.
    """
    prior = find_pace(
        "cpu",
        rows[0]["compiled"],
        rows[0]["measured"]["precision"],
        has_bfloat16=machine.cpu_has_bfloat16(),
        last_cache=machine.last_cache(),
    )
    start = np.array([getattr(prior, name) for name in NAMES])
    seconds = np.array([row["measured"]["step_seconds"] for row in rows])
    x = np.array([[row["amounts"][name] for name in NAMES] for row in rows]) / seconds[:, None]
    ridge = np.diag(PRIOR / np.maximum(start, 1e-3))
    matrix = np.vstack((x, ridge))
    target = np.concatenate((np.ones(len(rows)), ridge @ start))
    gram, right = matrix.T @ matrix, matrix.T @ target
    paces = start.copy()
    for _ in range(50_000):
        before = paces.copy()
        for column in range(len(NAMES)):
            rest = right[column] - gram[column] @ paces + gram[column, column] * paces[column]
            paces[column] = max(0.0, rest / gram[column, column])
        if np.abs(paces - before).max() < 1e-6:
            break
    return dict(zip(NAMES, paces.tolist(), strict=True))


def fit_heap(rows: list[dict[str, Any]]) -> Heap:
    """The heap whose peaks come nearest to the measured ones, errors in shares of each.

    The greater of two sums has corners: random steps, some thousand from several starts, get round
    them. Experts are left out: what their pieces of changing sizes leave behind is no share.
    """
    rows = [row for row in rows if not configuration(row, row["compiled"]).model.n_expert]
    compiled, precision = rows[0]["compiled"], rows[0]["measured"]["precision"]
    counts = [
        counted(configuration(row, compiled), row["vocabulary"], precision, compiled)
        for row in rows
    ]
    fixed = np.array(
        [sum(row["memory"][part] for part in ("weights", "gradients", "optimizer")) for row in rows]
    )
    peaks = np.array([row["measured"]["peak_memory"] for row in rows])
    prior = np.array(astuple(HEAPS[compiled, precision != "float32"]))

    def badness(values: np.ndarray) -> float:
        heap = Heap(*values)
        moving = [max(sum(count.held(heap)), count.late(heap)) for count in counts]
        errors = (fixed + heap.runtime + np.array(moving)) / peaks - 1
        off = (values - prior) / np.maximum(prior, 0.2)
        return float(errors @ errors + PEAK_PRIOR * off @ off)

    drawn = np.random.default_rng(0)
    best, least = prior, badness(prior)
    for _ in range(6):
        values = prior * drawn.uniform(0.7, 1.3, len(prior))
        now, size = badness(values), 0.2
        for turn in range(4000):
            moved = drawn.random(len(prior)) < 0.4
            step = 1 + size * drawn.normal(size=len(prior)) * moved
            tried = np.maximum(0.0, values * step)
            then = badness(tried)
            if then < now:
                values, now = tried, then
            if turn % 1000 == 999:
                size /= 3
        if now < least:
            best, least = values, now
    return Heap(int(round(best[0], -6)), *(round(float(value), 2) for value in best[1:]))


def measured_so_far(
    wanted: list[tuple[dict[str, Any], bool]], rounds: int
) -> Iterator[list[dict[str, Any]]]:
    """After every run, the rows there are: of each configuration the run of the median so far."""
    runs: dict[int, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for number, (about, compiled) in enumerate(wanted):
            runs.setdefault(number, []).append(measure(about, compiled))
            yield [median_run(of_one) for of_one in runs.values()]


def measured_here() -> list[dict[str, Any]]:
    """What was measured last on a machine of this kind; nothing if none was."""
    for path in sorted(RESULTS.glob("????-??-??-plan-fit.json"), reverse=True):
        result = json.loads(path.read_text())
        if result["machine"] == machine.cpu_name():
            return result["rows"]
    return []


def reckoned(row: dict[str, Any]) -> dict[str, Any]:
    """A measured row with what the formulas of today say of it."""
    config, size = configuration(row, row["compiled"]), row["vocabulary"]
    device = facts(config)
    counted = work(config, size, device.precision, device.kind)
    memory = memory_of(config, size, device, row["compiled"])
    return row | {
        "amounts": amounts(counted, device.peak_flops, device.bandwidth),
        "memory": memory.to_dict(),
    }


def tell(rows: list[dict[str, Any]], paces: dict[str, float]) -> None:
    """What is left over, by configuration."""
    errors, off = [], []
    for row in rows:
        measured = row["measured"]
        parts = {name: row["amounts"][name] * paces[name] for name in NAMES}
        total = sum(parts.values())
        errors.append(total / measured["step_seconds"] - 1)
        off.append(row["memory"]["total"] / measured["peak_memory"] - 1)
        largest = sorted(parts, key=lambda name: -parts[name])[:4]
        shares = " ".join(f"{name} {parts[name] / total:.0%}" for name in largest)
        print(f"{row['name']:<60}{errors[-1]:+7.1%} {off[-1]:+7.1%}  {shares}")
    for what, values in (("time", errors), ("memory", off)):
        sizes = [abs(value) for value in values]
        print(f"  {what}: median {statistics.median(sizes):.1%}, largest {max(sizes):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--again", action="store_true", help="measure nothing, fit what is there")
    add_rounds(parser)
    parser.add_argument("--missing", action="store_true", help="measure what is not there yet")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.again or options.missing:
        rows = measured_here()
    if not options.again:
        there = {(row["name"], row["compiled"]) for row in rows}
        wanted = [one for one in chosen(options, SHAPES) if (one[0]["name"], one[1]) not in there]
        there_already = rows
        for new in measured_so_far(wanted, options.rounds):
            rows = there_already + new
            # Kept at once: it is a long way to the last.
            write_result("plan-fit", machine_facts() | {"rows": rows})
    kinds: dict[tuple[bool, bool], list[dict[str, Any]]] = {}
    for row in rows:
        sixteen_bits = row["measured"]["precision"] != "float32"
        kinds.setdefault((row["compiled"], sixteen_bits), []).append(reckoned(row))
    for (compiled, sixteen_bits), group in kinds.items():
        paces = fit(group)
        numbers = ", ".join(f"{pace:.3g}" for pace in paces.values())
        kind = kind_of(
            "cpu", has_bfloat16=machine.cpu_has_bfloat16(), last_cache=machine.last_cache()
        )
        print(f"\n({kind!r}, {compiled}, {sixteen_bits}): Pace({numbers}),")
        print(f"({compiled}, {sixteen_bits}): {fit_heap(group)},")
        tell(group, paces)


if __name__ == "__main__":
    main()
