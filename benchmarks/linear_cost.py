"""Whether a step costs as much late in a long run as early: tokens a second, and memory.

    python -m benchmarks.linear_cost [--steps 100000]

One run of a tiny network is taken to `--steps` and held there; then it is timed in turn with a run
that has only just begun, since a machine drifts by more than the 2 % that are allowed. Memory is
the long run's own, early and late.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

from benchmarks.interleave import interleave, our_side, spread
from benchmarks.ratios import Ratio, of_rounds

SHAPE = "tiny"
ONE_THREAD = ("--set", "train.threads=1")
"""Steps of a fraction of a millisecond gain nothing by a second thread, and wait for it."""
LIMIT = 0.02
PIECES = 20
STEPS, QUICK_STEPS = 100_000, 1_000
LONG, FRESH = "late", "early"


def measure(steps: int, device: str, *, rounds: int = 5, seconds: float = 1.5) -> dict[str, Any]:
    """The long run's course, and late against early. Steps of the fresh run pass too while it is
    timed, a small part of `steps`."""
    given = ("--shape", SHAPE, "--device", device, *ONE_THREAD)
    course: list[list[float]] = []
    with ExitStack() as stack:
        late = stack.enter_context(our_side(LONG, *given))
        piece = max(10, steps // PIECES)
        while not course or course[-1][0] < steps:
            # Its memory alone: no products beside, whose memory a process keeps.
            window = late.window(0.0, piece, limit=600.0, matmuls=False)
            rate = window["tokens"] / window["seconds"]
            course.append([window["step"], rate, window["memory_bytes"]])
            print(f"    step {window['step']:,}: {rate:,.0f} tokens/s", flush=True)
        early = stack.enter_context(our_side(FRESH, *given))
        found = interleave({LONG: late, FRESH: early}, rounds=rounds, seconds=seconds)
        begun = found.windows[-1][FRESH]["step"]
    grown = course[-1][2] / course[0][2]
    what = f"step {steps:,} against the first {begun:,}"
    ratios = [
        of_rounds(
            "Linear cost",
            f"tokens/s, {what}",
            found.ratios(LONG, FRESH),
            1 - LIMIT,
            discarded=found.discarded,
        ),
        Ratio(
            "Linear cost",
            f"memory, step {course[-1][0]:,.0f} against step {course[0][0]:,.0f}",
            grown,
            1 + LIMIT,
            at_least=False,
        ),
    ]
    for ratio in ratios:
        print(f"  {ratio}", flush=True)
    return {
        "steps": steps,
        "course": course,
        "rounds": found.to_dict(),
        "rates": {side: spread(found.rates(side)) for side in (LONG, FRESH)},
        "ratios": [ratio.to_dict() for ratio in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    measure(options.steps, options.device)


if __name__ == "__main__":
    main()
