"""Pickles that would run, names that would lead out of the lab, and links planted inside it.

Each case is tried in a process of its own place, in which reading, resuming, the command line and
deleting are all done to the lab; whether a canary was made, and whether anybody was outside, is
asked afterwards of the file system and of the kernel.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from engine.lab import Lab
from tests.campaign.processes import Forked
from tests.campaign.row import Progress, Result, Row
from tests.tiny_run import make_tiny_run


def run(trials: int, folder: Path, progress: Progress) -> Result:
    make_tiny_run(folder / "sound")
    result, figures = Result(trials), Counter()
    number = done = 0
    while number < trials:
        child, last, reason = Forked(attack, folder, number, trials), number, ""
        try:
            for said in child.listen():
                if said.what == "trial":
                    last, done = said.step, done + 1
                    progress(done)
                elif said.what == "failure":
                    result.failures.append(said.text)
                elif said.what == "count":
                    figures[said.text] += said.step
        except TimeoutError:
            reason = "blocked"
        code = child.finish()
        if child.last("end"):
            break
        if not child.last("trial"):
            raise RuntimeError(f"nothing could be tried: the process ended with {code}")
        result.failures.append(f"trial {last}: {reason or f'the process died with {code}'}")
        number = last + 1
    for name in ("payloads executed", "written outside", "read outside", "refused", "accepted"):
        result.figures[name] = figures.pop(name, 0)
    result.figures["cases"] = ", ".join(f"{count} {kind}" for kind, count in figures.items())
    return result


def attack(say: Callable[..., None], folder: Path, first: int, trials: int) -> None:
    """In a process of its own: the trials from `first` on."""
    from tests.campaign.attacks import all_cases
    from tests.campaign.bench import Bench

    os.umask(0)  # so that every mode that is not asked for would show
    bench = Bench(Lab(folder / "sound"), folder)
    cases = all_cases()
    for number in range(first, trials):
        say("trial", number)
        # A slice takes cases from all over the list.
        case = cases[number * len(cases) // trials if trials < len(cases) else number % len(cases)]
        say("count", 1, case.kind)
        try:
            wrong = case.do(bench, random.Random(number))
        except Exception as error:  # that is what is looked for
            wrong = [f"{type(error).__name__}: {error}"]
        wrong += bench.traces(say)
        for words in wrong:
            say("failure", number, f"trial {number}: {case.kind}: {case.name}: {words}"[:500])
        bench.mend()
    say("count", bench.refused, "refused")
    say("count", bench.accepted, "accepted")
    say("end")


ROW = Row(
    number="8",
    fault="pickle payloads, hostile names and references, planted links, pipes and devices",
    must="nothing of them is executed, read or written outside the lab, and nothing blocks.",
    slice=20,
    full=400,
    run=run,
)
