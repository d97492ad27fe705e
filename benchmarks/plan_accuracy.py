"""Is the plan right? Ten configurations it was not fitted to, predicted and measured.

    python -m benchmarks.plan_accuracy [--mode eager]

Time is that of a step, of which a run has as many as it is told, in the median of three runs;
memory is the peak that this run's process had resident. The plan knows this machine's peak and
bandwidth, and no calibration.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.report import machine_facts, write_result
from benchmarks.trials import add_options, add_rounds, measure_all, shape

SHAPES = [
    shape("160×5×5", 96, 10, 90),
    shape("320×6×5", 192, 12, 700),
    shape("448×6×7", 256, 6, 12000),
    shape("640×8×10", 384, 2, 30000),
    shape("768×12×12", 512, 2, 50257),
    shape("96×3×3", 128, 32, 256, train__precision="float32"),
    shape("320×6×5", 256, 8, 3000, modern=True),
    shape("512×8×8", 512, 2, 24000, modern=True, model__n_kv_head=2),
    shape("192×8×6", 640, 4, 1500, modern=True),
    shape("384×6×6", 128, 4, 6000, modern=True, model__qk_norm=True, train__accumulate=3),
]
TIME, MEMORY = 0.15, 0.10
"""The errors that the plan may make."""


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many are within the limits, and by how much the plan is off."""
    found: dict[str, Any] = {}
    for what, limit in (("time", TIME), ("memory", MEMORY)):
        errors = [abs(row[f"{what}_error"]) for row in rows]
        found[what] = {
            "limit": limit,
            "within": sum(error <= limit for error in errors),
            "of": len(errors),
            "median": statistics.median(errors),
            "largest": max(errors),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    add_rounds(parser)
    options = parser.parse_args()
    rows = measure_all(options, SHAPES, options.rounds)
    told = summary(rows)
    for what, about in told.items():
        print(
            f"{what}: {about['within']} of {about['of']} within {about['limit']:.0%}, median "
            f"{about['median']:.1%}, largest {about['largest']:.1%}"
        )
    write_result("plan-accuracy", machine_facts() | {"summary": told, "rows": rows})


if __name__ == "__main__":
    main()
