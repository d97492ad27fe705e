"""How fast the engine trains: a run like any other, timed from outside by what it says.

The run comes through `engine.session.run_training`, so that whatever makes a user's run fast or
slow is in the figure: data, logging and the run's own files too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from engine import control, events
from engine.bench.shapes import open_lab, timed
from engine.config import Config
from engine.session import run_training

WARM_STEPS = 3
"""The first steps find their memory and compile what is not compiled yet: they do not count."""
WARM_SHARE = 0.25
"""Warming up takes at least this share of the time that is measured."""

Tell = Callable[[str, float], None]
"""Told what is being done, and which share of it, 0 to 1."""


@dataclass(frozen=True)
class TrainingRate:
    """`tokens_per_second` over all `seconds`; `low` and `high` are the deciles of single steps.
    `start_seconds`: from the loop's beginning to the first warm step, compiling included."""

    tokens_per_second: float
    low: float
    high: float
    steps: int
    seconds: float
    start_seconds: float
    precision: str
    threads: int
    parameters: int
    flops_per_token: float

    @property
    def flops(self) -> float:
        """FLOP/s of the network's own mathematics, by PaLM's formula."""
        return self.tokens_per_second * self.flops_per_token


def training_rate(
    config: Config, vocab_size: int, *, seconds: float, tell: Tell = lambda what, share: None
) -> TrainingRate:
    """The rate of a run of `config` over random text of `vocab_size` characters.

    Trains in the calling thread, in a folder that is gone afterwards. Raises what a run raises.
    """
    with open_lab(vocab_size, config.model.context_length) as lab:
        watch = _Stopwatch(seconds, tell)
        run_training(lab, timed(config), emit=watch, inbox=watch.inbox, name="bench")
    return watch.result()


@dataclass
class _Stopwatch:
    """Hears a run, and ends it when it has been timed for `seconds`."""

    seconds: float
    tell: Tell
    inbox: control.Inbox = field(default_factory=control.Inbox)

    def __post_init__(self) -> None:
        self._started: events.RunStarted | None = None
        self._began = self._entered = 0.0  # of the warm steps; of the loop
        self._warm = 0
        self._first_warm: float | None = None
        self._times: list[float] = []
        self._tokens: list[int] = []

    def __call__(self, event: events.Event) -> None:
        now = time.perf_counter()
        if isinstance(event, events.RunStarted):
            self._started, self._entered = event, now
            self.tell("warming up", 0.0)
        elif isinstance(event, events.Phase) and event.phase == "compiling":
            self._warm, self._first_warm = 0, None
            self._times.clear()
            self._tokens.clear()
            self.tell("compiling", 0.0)
        elif isinstance(event, events.StepDone):
            self._step(now, event.tokens)

    def _step(self, now: float, tokens: int) -> None:
        self._warm += 1
        if self._first_warm is None:
            self._first_warm = now
        warmed = now - self._first_warm >= WARM_SHARE * self.seconds and self._warm > WARM_STEPS
        if not self._times and not warmed:
            self.tell("warming up", 0.0)
            return
        if not self._times:
            self._began = now
        self._times.append(now)
        self._tokens.append(tokens)
        if now - self._began >= self.seconds and len(self._times) > 1:
            self.inbox.put(control.Stop(save=False), "bench")
        # Last, since it may fail (a terminal that is gone), and the run has to end all the same.
        self.tell("training", min(1.0, (now - self._began) / self.seconds))

    def result(self) -> TrainingRate:
        started, times, tokens = self._started, self._times, self._tokens
        assert started is not None and len(times) > 1
        steps = [
            (tokens[i + 1] - tokens[i]) / (times[i + 1] - times[i]) for i in range(len(times) - 1)
        ]
        deciles = statistics.quantiles(steps, n=10) if len(steps) > 1 else steps * 2
        return TrainingRate(
            tokens_per_second=(tokens[-1] - tokens[0]) / (times[-1] - times[0]),
            low=deciles[0],
            high=deciles[-1],
            steps=len(steps),
            seconds=times[-1] - times[0],
            start_seconds=times[0] - self._entered,
            precision=started.precision,
            threads=started.threads,
            parameters=started.n_parameters,
            flops_per_token=started.flops_per_token,
        )
