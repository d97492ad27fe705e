"""Mutated files of every kind that the program reads, each in a process with a memory limit.

A mutation may be accepted, when what it says could have been meant, or refused by an EngineError.
Anything else is a failure: another exception, a process that dies, too long, too much memory.
`python -m tests.campaign.rows.fuzzed_input SEED` shows one of them again, with its traceback.
"""

from __future__ import annotations

import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine import tokenizers
from engine.errors import EngineError
from engine.lab import Lab
from tests.campaign.processes import Forked
from tests.campaign.row import Progress, Result, Row
from tests.conftest import small_text
from tests.tiny_run import make_tiny_run

SECONDS = 5.0
BYTES = 1 << 30
AT_ONCE = 2
TOKENIZERS = ("char", "word", "bpe")
OUT_OF_MEMORY = ("allocate memory", "not enough memory", "out of memory", "memoryerror")


def run(trials: int, folder: Path, progress: Progress) -> Result:
    make_sound(folder / "sound")
    workers = AT_ONCE if trials > 10_000 else 1
    result, counts, worst = Result(trials), Counter(), {"seconds": 0.0, "bytes": 0.0}
    started = time.monotonic()

    def work(number: int) -> None:
        place = folder / f"worker-{number}"
        shutil.copytree(folder / "sound", place, symlinks=True)
        first = number
        while first < trials:
            first = _until_death(place, (first, trials, workers), result, counts, worst)
            progress(counts["done"])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    result.failures.sort()
    result.figures = {
        "files read by": f"{counts['readers']} readers",
        "accepted": counts["accepted"],
        "refused": counts["refused"],
        "crashes": len(result.failures),
        "slowest, seconds": round(worst["seconds"], 2),
        "most memory, MB": round(worst["bytes"] / 1e6),
        "mutations a second": round(trials / (time.monotonic() - started)),
    }
    return result


def make_sound(root: Path) -> None:
    """A lab with one trained run, and a folder of each kind of trained tokenizer."""
    make_tiny_run(root / "lab")
    for kind in TOKENIZERS:
        tokenizers.build(kind, lambda: [small_text()], 280).save(root / "tokenizers" / kind)


def _until_death(
    place: Path,
    trials: tuple[int, int, int],
    result: Result,
    counts: Counter[str],
    worst: dict[str, float],
) -> int:
    """Hear one process out; the first trial that is left to another one."""
    child, last, reason = Forked(fuzz, place, *trials), trials[0], ""
    try:
        for said in child.listen():
            if said.what == "trial":
                last = said.step
                counts["done"] += 1
            elif said.what == "failure":
                result.failures.append(said.text)
            elif said.what == "worst":
                kind, value = said.text.split()
                worst[kind] = max(worst[kind], float(value))
            elif said.what == "end":
                counts.update({"accepted": said.step, "refused": int(said.text)})
            elif said.what == "readers":
                counts["readers"] = said.step
    except TimeoutError:
        reason = "hung"
    code = child.finish()
    if child.last("end"):
        return trials[1]
    if not child.last("trial"):
        raise RuntimeError(f"nothing could be tried: the process ended with {code}")
    result.failures.append(f"seed {last}: {reason or f'the process died with {code}'}")
    return last + trials[2]


def fuzz(say: Callable[..., None], place: Path, first: int, trials: int, stride: int) -> None:
    """In a process of its own: every `stride`-th trial from `first` on."""
    readers = _readers(place)
    say("readers", len(readers))
    before = limit_memory()
    accepted = refused = 0
    longest = 0.0
    for trial in range(first, trials, stride):
        say("trial", trial)
        rng = random.Random(trial)
        reader = rng.choice(readers)
        reader.place(reader.mutate(rng, reader.sound))
        began = time.process_time()  # the processor's: a busy machine is no fault of the reader
        words = ""
        try:
            reader.read()
            accepted += 1
        except EngineError as error:
            refused += 1
            if _wanted_memory(error):
                words = f"wanted too much memory: {error.title}"
        except Exception as error:  # that is what is looked for
            words = f"{type(error).__name__}: {error}"[:300]
        took = time.process_time() - began
        if took > SECONDS:
            words += f" took {took:.1f} s"
        if took > longest:
            longest = took
            say("worst", 0, f"seconds {took}")
        if words:
            say("failure", trial, f"seed {trial}: {reader.name}: {words}")
        reader.mend()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    say("worst", 0, f"bytes {grown}")
    say("end", accepted, str(refused))


def _wanted_memory(error: BaseException | None) -> bool:
    """Whether what was refused had first asked for more memory than there is: the reader met that,
    and made a refusal of it."""
    while error is not None:
        words = str(error).lower()
        if isinstance(error, MemoryError) or any(sign in words for sign in OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _readers(place: Path) -> list:
    from tests.campaign.readers import make_readers

    lab = Lab(place / "lab")
    folders = [place / "tokenizers" / kind for kind in TOKENIZERS]
    return make_readers(lab, lab.checkpoints / "tiny", folders)


def limit_memory() -> int:
    """Let this process's data grow by BYTES and no more; says what it holds now."""
    status = Path("/proc/self/status").read_text()
    data = int(status.partition("VmData:")[2].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (data + BYTES, resource.RLIM_INFINITY))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def again(seed: int) -> None:
    """One mutation in this process, with whatever comes of it."""
    with tempfile.TemporaryDirectory() as folder:
        make_sound(Path(folder))
        readers = _readers(Path(folder))
        rng = random.Random(seed)
        reader = rng.choice(readers)
        data = reader.mutate(rng, reader.sound)
        print(reader.name, data[:2000])  # noqa: T201
        reader.place(data)
        reader.read()


ROW = Row(
    number="7",
    fault="fuzzed headers, manifests, configurations, histories, commands, tokenizers",
    must="each is accepted or refused by a typed error, in under 5 s and 1 GB; none crashes.",
    slice=1_500,
    full=100_000,
    run=run,
)

if __name__ == "__main__":
    again(int(sys.argv[1]))
