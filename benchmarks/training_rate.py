"""Training rates: ours against nanoGPT and `transformers`, interleaved, shape by shape.

    python -m benchmarks.training_rate [--nanogpt DIR] [--shapes 384 128] [--quick]

Ours is what a user gets: default settings through `engine.session.run_training`; beside it the same
in float32, for processors without bfloat16. nanoGPT is measured as its README tells people to run
it on this device, and at each setting that could be its best. MFU is by PaLM's formula
(`engine.arithmetic.flops_per_token`) against the fastest matrix product timed in the same rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.interleave import Rounds, SideFailed, Worker, interleave, our_side, spread
from benchmarks.program import python
from benchmarks.ratios import Ratio, of_rounds
from engine import machine
from engine.bench.shapes import SHAPES

OURS, FLOAT32 = "tui-lab", "tui-lab float32"
NANOGPT = {
    "cpu": {
        "nanoGPT as shipped": ("float32", False),
        "nanoGPT compiled": ("float32", True),
        "nanoGPT bf16": ("bfloat16", False),
        "nanoGPT bf16 compiled": ("bfloat16", True),
    },
    "cuda": {
        "nanoGPT as shipped": ("bfloat16", True),
        "nanoGPT eager": ("bfloat16", False),
    },
}
"""By device: (precision, compiled). On a processor its README has neither bfloat16 nor compiling;
on a GPU its defaults are both."""
TRANSFORMERS = {"transformers bf16": ("bfloat16", False)}
SHIPPED = "nanoGPT as shipped"


@dataclass(frozen=True)
class Contest:
    """How one shape is measured, and what it must show: the least ratio against nanoGPT as shipped
    and at its best, and the least share of the peak. `seconds`: of a window."""

    rounds: int
    seconds: float
    peers: tuple[str, ...]
    float32: bool = False
    shipped: float | None = None
    best: float | None = None
    mfu: float | None = None


EVEN_ROUNDS, EVEN_SECONDS = 60, 0.1
"""Where both are expected to be equally fast: many short windows, of one step where steps are long.
The nearer two windows are in time, the less the machine drifts between them; and what is to be told
is a per cent. Of 384×6×6 in float32 twelve windows of three seconds scattered from 0.73 to 1.20
(median 0.982), seventy of one step by a half of that (half of them from 0.986 to 1.07, median
1.02)."""
EVERY = (*NANOGPT["cpu"], *TRANSFORMERS)
CONTESTS = {
    "cpu": {
        "384": Contest(4, 3.0, EVERY, float32=True, shipped=3.0, best=1.3, mfu=0.55),
        "128": Contest(5, 1.5, EVERY, float32=True, shipped=3.0, best=2.2),
        "124m": Contest(
            3,
            4.0,
            ("nanoGPT as shipped", "nanoGPT bf16", "nanoGPT bf16 compiled"),
            best=1.5,
        ),
        "384-50k": Contest(3, 3.0, ("nanoGPT as shipped", "nanoGPT bf16")),
    },
    "cuda": {
        "medium": Contest(5, 4.0, ("nanoGPT as shipped",), shipped=1.2, mfu=0.50),
        "384": Contest(5, 2.0, ("nanoGPT as shipped", "nanoGPT eager")),
    },
}
QUICK = {
    "cpu": {"128": Contest(2, 0.5, ("nanoGPT as shipped", "nanoGPT bf16"))},
    "cuda": {"medium": Contest(2, 2.0, ("nanoGPT as shipped",))},
}


def measure(
    nanogpt: Path | None, device: str, *, quick: bool = False, only: list[str] | None = None
) -> dict[str, Any]:
    """Every shape of the device, with its ratios. `only`: the shapes to measure."""
    contests = (QUICK if quick else CONTESTS)[device]
    shapes = {
        name: _measure_shape(name, contest, nanogpt, device)
        for name, contest in contests.items()
        if not only or name in only
    }
    ratios = [ratio for shape in shapes.values() for ratio in shape.pop("ratios")]
    return {"shapes": shapes, "ratios": ratios}


def _measure_shape(
    name: str, contest: Contest, nanogpt: Path | None, device: str
) -> dict[str, Any]:
    shape = SHAPES[name]
    print(f"  {shape}", flush=True)
    if not _has_bfloat16(device):
        if contest.float32:
            contest = replace(contest, rounds=EVEN_ROUNDS, seconds=EVEN_SECONDS)
        contest = replace(contest, float32=False, shipped=1.0, best=1.0, mfu=None)
    own = ["--shape", name, "--device", device]
    found: dict[str, Rounds] = {}
    failed: dict[str, str] = {}
    peers = _commands(contest, name, nanogpt, device)
    with ExitStack() as stack:
        ours = {OURS: stack.enter_context(our_side(OURS, *own))}
        if contest.float32:
            side = our_side(FLOAT32, *own, "--set", "train.precision=float32")
            ours[FLOAT32] = stack.enter_context(side)
        if not peers:
            found["nobody"] = interleave(ours, rounds=contest.rounds, seconds=contest.seconds)
        for peer, (command, precision) in peers.items():
            # In float32 we are compared with what nanoGPT does in float32.
            sides = ours if precision == "float32" else {OURS: ours[OURS]}
            try:
                with Worker(peer, command) as worker:
                    found[peer] = interleave(
                        {**sides, peer: worker}, rounds=contest.rounds, seconds=contest.seconds
                    )
            except SideFailed as error:
                failed[peer] = str(error)
                print(f"    {error}", flush=True)
        facts = {side: worker.facts for side, worker in ours.items()}
    return _told(name, contest, found, failed, facts)


def _has_bfloat16(device: str) -> bool:
    """Whether it is computed in hardware. Where it is not, our default is float32, as nanoGPT's is;
    nobody is several times as fast, and the target is to be never slower."""
    return device != "cpu" or machine.cpu_has_bfloat16()


def _commands(
    contest: Contest, shape: str, nanogpt: Path | None, device: str
) -> dict[str, tuple[list[str], str]]:
    """By peer: the command of its process, and its precision. Of those that are here."""
    settings = {**NANOGPT[device], **TRANSFORMERS}
    commands = {}
    for peer in contest.peers:
        precision, compiled = settings[peer]
        arguments = ["--shape", shape, "--device", device, "--precision", precision]
        arguments += ["--compile"] * compiled
        if precision == "bfloat16" and not _has_bfloat16(device):
            continue
        if peer in TRANSFORMERS:
            if importlib.util.find_spec("transformers") is not None:
                command = python("benchmarks.peers.transformers_gpt2", *arguments)
                commands[peer] = (command, precision)
        elif nanogpt is not None:
            command = python("benchmarks.peers.nanogpt", "--checkout", str(nanogpt), *arguments)
            commands[peer] = (command, precision)
    return commands


def _told(
    name: str,
    contest: Contest,
    found: dict[str, Rounds],
    failed: dict[str, str],
    facts: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Rates, shares and ratios of one shape, JSON-ready."""
    size = SHAPES[name].title
    rates: dict[str, list[float]] = {}
    for rounds in found.values():
        for side in rounds.windows[0]:
            rates.setdefault(side, []).extend(rounds.rates(side))
    sides = {}
    for side, of_side in rates.items():
        sides[side] = {"tokens_per_second": spread(of_side), **facts.get(side, {})}
        if side in facts:
            peak = max(rounds.peak(side) for rounds in found.values() if side in rounds.windows[0])
            done = statistics.median(of_side) * facts[side]["flops_per_token"]
            sides[side] |= {"peak_flops": peak, "mfu": done / peak if peak else None}
    against = {peer: rounds.ratios(OURS, peer) for peer, rounds in found.items() if peer in rates}
    group = "Training"
    ratios = []
    for peer, values in against.items():
        target = contest.shipped if peer == SHIPPED else None
        discarded = found[peer].discarded
        ratios.append(
            of_rounds(group, f"{size} against {peer}", values, target, discarded=discarded)
        )
    nanogpt = {peer: values for peer, values in against.items() if peer.startswith("nanoGPT")}
    if contest.best is not None and nanogpt:
        best = min(nanogpt, key=lambda peer: statistics.median(nanogpt[peer]))
        title = f"{size} against the best of nanoGPT's settings"
        note = f"{best.removeprefix('nanoGPT ')}, of {len(nanogpt)} settings"
        discarded = found[best].discarded
        ratios.append(
            of_rounds(group, title, nanogpt[best], contest.best, discarded=discarded, note=note)
        )
    if contest.mfu is not None and (mfu := sides[OURS].get("mfu")) is not None:
        title = f"{size}, share of the measured {facts[OURS]['precision']} matmul peak"
        ratios.append(Ratio(group, title, mfu, contest.mfu, note="MFU by PaLM's formula"))
    for peer in (peer for peer in nanogpt if FLOAT32 in found[peer].windows[0]):
        values = found[peer].ratios(FLOAT32, peer)
        title, discarded = f"{size} in float32 against {peer}", found[peer].discarded
        ratios.append(of_rounds("Float32", title, values, 1.0, discarded=discarded))
    for ratio in ratios:
        print(f"  {ratio}", flush=True)
    return {
        "shape": str(SHAPES[name]),
        "sides": sides,
        "rounds": {peer: rounds.to_dict() for peer, rounds in found.items()},
        "failed": failed,
        "ratios": [ratio.to_dict() for ratio in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--device", default="cpu", choices=CONTESTS)
    parser.add_argument("--shapes", nargs="*", help="of the device's shapes")
    parser.add_argument("--quick", action="store_true", help="one shape, short windows")
    options = parser.parse_args()
    measure(options.nanogpt, options.device, quick=options.quick, only=options.shapes)


if __name__ == "__main__":
    main()
