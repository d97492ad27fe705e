"""A short run of a configuration in a process of its own: how fast it was, and how much it took.

The run comes through `engine.session.run_training`, as every run does, over random text of the
given vocabulary, with nothing evaluated, sampled or saved. Of its own process, because the peak of
memory is a process's and never falls. Knows nothing of what was expected. No torch but in the run.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine import atomic, control, events
from engine.bench.shapes import open_lab, timed
from engine.config import Config
from engine.config.schema import from_dict
from engine.errors import EngineError, InputError, in_words
from engine.lab import Lab

STEPS = 20
WARM = 5
"""First steps that are not counted: they find their memory, and compile."""
REQUEST, RESULT = "request.json", "result.json"


class TrialTooLarge(EngineError):
    """Memory did not suffice for the run, or somebody ended its process, as a kernel does then."""


@dataclass(frozen=True)
class Trial:
    """What was measured. Seconds, bytes."""

    step_seconds: float
    """The median of the steps after the warm ones."""
    low: float
    high: float
    """Their quartiles."""
    tokens_per_second: float
    steps: int
    start_seconds: float
    """From the loop's beginning to the end of the first step, with what was compiled in it."""
    peak_memory: int
    """Of the process, or on a GPU what the allocator took and the context beside it."""
    assembled: int
    """Of the process before the first step, its weights, gradients and moments in place; 0 on a
    GPU."""
    device: str
    precision: str
    threads: int
    compiled: bool


def run_trial(
    config: Config,
    vocab_size: int,
    *,
    compiled: bool,
    steps: int = STEPS,
    corpus: Lab | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    python: tuple[str, ...] = (sys.executable, "-m", "engine.trial"),
) -> Trial | None:
    """Train `steps` steps of `config` in a process of its own; None when `should_stop` said so.

    `corpus`: the lab whose prepared corpus `config` names; without one, random text of `vocab_size`
    characters is made. Raises InputError for too few steps, EngineError when the run fails.
    """
    if steps <= WARM + 1:
        raise InputError(f"{steps} steps: of those the first {WARM} do not count", "take 20")
    if corpus is not None:
        return _in_process(corpus, _over(config, corpus, compiled, steps), python, should_stop)
    with open_lab(vocab_size, config.model.context_length) as lab:
        return _in_process(lab, _over(config, None, compiled, steps), python, should_stop)


def _over(config: Config, corpus: Lab | None, compiled: bool, steps: int) -> Config:
    """`config` as the run that is measured."""
    values: dict[str, Any] = {
        "train.max_steps": steps,
        "train.log_every": 1,
        "train.compile": "on" if compiled else "off",
        "train.eval_every": 0,
    }
    if corpus is not None:
        values |= {"data.corpus": config.data.corpus, "data.tokenizer": config.data.tokenizer}
    return timed(config, values)


def _in_process(
    lab: Lab, config: Config, python: tuple[str, ...], should_stop: Callable[[], bool]
) -> Trial | None:
    with tempfile.TemporaryDirectory(prefix="tui-lab-trial-") as name:
        folder = Path(name)
        request = {"lab": str(lab.root), "config": config.to_dict()}
        atomic.write_json(folder / REQUEST, request)
        with (folder / "said.txt").open("wb") as said:
            process = subprocess.Popen(
                [*python, name], stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
            try:
                while process.poll() is None:
                    if should_stop():
                        return None
                    time.sleep(0.1)
            finally:
                process.kill()
                process.wait()
        try:
            result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kind = TrialTooLarge if process.returncode == -signal.SIGKILL else EngineError
            raise kind(
                f"the measured run ended with exit code {process.returncode} and no result",
                _last_line(folder / "said.txt"),
            ) from None
    if "error" in result:
        kind = TrialTooLarge if result.get("out_of_memory") else EngineError
        raise kind(f"the measured run failed: {result['error']}", result["hint"])
    return Trial(**result)


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""


# In the process of the run ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Borrowed(Lab):
    """A lab's corpora, with the runs in a folder of their own."""

    runs: Path

    @property
    def checkpoints(self) -> Path:
        return self.runs


def main(folder: Path, stopwatch: Stopwatch) -> None:
    """Train as `request.json` says, and leave `result.json`."""
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    config = from_dict(request["config"], REQUEST)
    lab = _Borrowed(Path(request["lab"]), runs=folder / "checkpoints")
    result: dict[str, Any]
    try:
        from engine.session import run_training

        run_training(lab, config, emit=stopwatch, inbox=control.Inbox(), name="trial")
        result = asdict(stopwatch.trial())
    except Exception as error:  # the process ends with it: whoever waits must be told
        hint = error.hint if isinstance(error, EngineError) else ""
        title = error.title if isinstance(error, EngineError) else in_words(error)
        result = {"error": title, "hint": hint, "out_of_memory": _is_out_of_memory(error)}
    atomic.write_json(folder / RESULT, result)


def _is_out_of_memory(error: BaseException) -> bool:
    from engine.out_of_memory import OutOfMemory, is_out_of_memory

    return isinstance(error, OutOfMemory) or is_out_of_memory(error)


class Stopwatch:
    """Hears a run, and takes down what it says of its speed and its memory."""

    def __init__(self) -> None:
        self._started: events.RunStarted | None = None
        self._rates: list[float] = []
        self._entered = self._first = 0.0
        self._assembled = self._peak = 0
        self._compiled = False

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.RunStarted):
            self._started, self._entered = event, time.perf_counter()
            self._assembled = 0 if event.device == "cuda" else resident_peak()
        elif isinstance(event, events.Phase):
            self._compiled |= event.phase == "compiling"
        elif isinstance(event, events.StepDone):
            if not self._rates:
                self._first = time.perf_counter()
            self._rates.append(event.tokens_per_second)
        elif isinstance(event, events.Finished):
            assert self._started is not None
            self._peak = _peak_of(self._started.device)

    def trial(self) -> Trial:
        started = self._started
        assert started is not None
        counted = sorted(started.tokens_per_step / rate for rate in self._rates[WARM:])
        low, middle, high = statistics.quantiles(counted, n=4)
        return Trial(
            step_seconds=middle,
            low=low,
            high=high,
            tokens_per_second=started.tokens_per_step / middle,
            steps=len(counted),
            start_seconds=self._first - self._entered,
            peak_memory=self._peak,
            assembled=self._assembled,
            device=started.device,
            precision=started.precision,
            threads=started.threads,
            compiled=self._compiled,
        )


def resident_peak() -> int:
    """The most memory that this program ever had resident, in bytes.

    From /proc where there is one: what `getrusage` tells of a process begins with what its parent
    had when it was forked.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import torch

    from engine.device import memory

    return memory(torch.device("cpu")).peak or 0


def _peak_of(device: str) -> int:
    if device != "cuda":
        return resident_peak()
    import torch

    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    return torch.cuda.max_memory_reserved() + beside


if __name__ == "__main__":
    main(Path(sys.argv[1]), Stopwatch())
