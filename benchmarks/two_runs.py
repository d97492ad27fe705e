"""Two runs at once on the same cores: what both do together, against one alone.

    python -m benchmarks.two_runs

With the environment that the program makes for itself (`engine.machine.short_waits`), and as OpenMP
waits without it. In turn; what a run alone does in either is compared too, in windows of a quarter
of a second: of five seconds each, five rounds told 0.92 and twenty minutes later 0.98.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from benchmarks import quiet
from benchmarks.interleave import MOST, Worker
from benchmarks.program import python
from benchmarks.ratios import Ratio, of_rounds
from engine import machine

SHAPE = "128"
GROUP = "Two runs at once"
SHORT, USUAL = "short waits", "OpenMP's own waits"
ALONE_LIMIT = 0.98
"""Of the rate with OpenMP's own waits: what a run alone has to keep."""
TURNS = 20
"""Windows in which a round's seconds alone are spent, one way in turn with the other."""

Round = dict[str, dict[str, float]]
"""Tokens a second of each way to wait: `alone`, and `together` of both runs."""


def measure(*, rounds: int = 5, seconds: float = 5.0) -> dict[str, Any]:
    """Rates of one run and of two, in both environments, round by round."""
    ways: Mapping[str, Mapping[str, str]] = {SHORT: machine.short_waits(), USUAL: {}}
    command = python("benchmarks.peers.ours", "--shape", SHAPE, "--device", "cpu")
    kept: list[Round] = []
    discarded = 0
    with ExitStack() as stack:
        pairs = {
            way: [
                stack.enter_context(Worker(f"{way} {number}", command, environment))
                for number in (1, 2)
            ]
            for way, environment in ways.items()
        }
        processes = [worker.process for pair in pairs.values() for worker in pair]
        while len(kept) < rounds:
            order = list(ways) if len(kept) % 2 == 0 else list(reversed(ways))
            with quiet.Watch(processes) as watch:
                alone = _alone({way: pairs[way][0] for way in order}, seconds)
                found = {way: _round(alone[way], pairs[way], seconds) for way in order}
            if watch.others > quiet.LIMIT and discarded < (MOST - 1) * rounds:
                discarded += 1
                continue
            kept.append(found)
            print(f"    {found}", flush=True)
    ratios = _ratios(kept, discarded)
    for ratio in ratios:
        print(f"  {ratio}", flush=True)
    return {"shape": SHAPE, "rounds": kept, "ratios": [ratio.to_dict() for ratio in ratios]}


def _alone(workers: Mapping[str, Worker], seconds: float) -> dict[str, float]:
    """Tokens a second of each, one working at a time."""
    done = {way: [0.0, 0.0] for way in workers}
    for turn in range(TURNS):
        for way in list(workers) if turn % 2 == 0 else list(reversed(workers)):
            window = workers[way].window(seconds / TURNS, matmuls=False)
            done[way][0] += window["tokens"]
            done[way][1] += window["seconds"]
    return {way: tokens / taken for way, (tokens, taken) in done.items()}


def _round(alone: float, pair: Sequence[Worker], seconds: float) -> dict[str, float]:
    with ThreadPoolExecutor(len(pair)) as pool:
        together = sum(pool.map(lambda worker: _rate(worker, seconds), pair))
    return {"alone": alone, "together": together}


def _rate(worker: Worker, seconds: float) -> float:
    window = worker.window(seconds, matmuls=False)
    return window["tokens"] / window["seconds"]


def _ratios(rounds: list[Round], discarded: int) -> list[Ratio]:
    def gained(way: str) -> Ratio:
        values = [found[way]["together"] / found[way]["alone"] for found in rounds]
        name = f"both together against one alone, {way}"
        return of_rounds(GROUP, name, values, None, discarded=discarded)

    alone = [found[SHORT]["alone"] / found[USUAL]["alone"] for found in rounds]
    name = f"one alone, {SHORT} against {USUAL}"
    kept = of_rounds(GROUP, name, alone, ALONE_LIMIT, discarded=discarded)
    return [gained(SHORT), gained(USUAL), kept]


if __name__ == "__main__":
    measure()
