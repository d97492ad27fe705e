"""The largest micro-batch that a run can have here: expected by the plan, proved by a short run.

The plan knows what memory should suffice for; a run of some steps in a process of its own
(`engine.trial`) shows what it takes. The answer is the largest that both allow. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.advice import ROOM
from engine.config import Config
from engine.correction import remembered
from engine.errors import DeviceError, EngineError
from engine.fitting import largest_batch
from engine.lab import Lab
from engine.planner import CorpusFacts, DeviceFacts, Plan, count_windows, needs_on, plan
from engine.survey import measure_device, survey_corpus, survey_device
from engine.trial import WARM, Trial, TrialTooLarge, run_trial

STEPS = WARM + 3
PROBES = 5
"""Runs at most: nearly always one or two."""
LONGEST_STEP = 2.0
"""Seconds. On a processor far more fits than is of use: its rate stops growing at some thousand
tokens, and a step is what a pause, a stop and a look at the loss wait for."""
WORTH = 1.1
"""A batch larger by less than this is not tried."""
SHARE_OF_EPOCH = 16
"""No step takes more than the sixteenth part of the training windows."""


@dataclass(frozen=True)
class Attempt:
    """A batch that was tried. Bytes; 0 seconds where it did not fit."""

    batch_size: int
    expected: int
    taken: int
    step_seconds: float
    fits: bool


@dataclass(frozen=True)
class Found:
    """A micro-batch, with the steps' micro-batches, and how it was found."""

    batch_size: int
    accumulate: int
    limit: str
    """What kept it from being larger, in words."""
    attempts: tuple[Attempt, ...]

    def values(self) -> dict[str, int]:
        """For the configuration."""
        return {"train.batch_size": self.batch_size, "train.accumulate": self.accumulate}


def find_batch_size(
    lab: Lab,
    config: Config,
    *,
    trying: Callable[[int, float], None] = lambda size, seconds: None,
    should_stop: Callable[[], bool] = lambda: False,
    run: Callable[..., Trial | None] = run_trial,
) -> Found | None:
    """The largest micro-batch of `config` on its device; None when `should_stop` said so.

    Where `config` accumulates, its step stays: the same windows in as few micro-batches as fit.
    Else the batch is the step. `trying(batch, seconds)` is told each run before it starts, and
    about how long it takes. Raises DeviceError for a device that is not here or whose memory
    nobody tells, EngineError when not even one window fits, and what planning and running raise.
    """
    facts = survey_device(config)
    if not facts.here:
        raise DeviceError(
            f"'{facts.name}' is not here to try a batch on", "give --batch-size a number"
        )
    if measure_device(facts):
        facts = survey_device(config)
    search = _Search.on(facts, lab, config)
    size = search.expected()
    attempts: list[Attempt] = []
    while size and len(attempts) < PROBES and size not in (a.batch_size for a in attempts):
        drawn = search.plan(size)
        trying(size, STEPS * (drawn.step_seconds or 0.0) + (drawn.compile_seconds or 0.0))
        try:
            trial = run(
                search.config(size),
                search.corpus.vocab_size,
                compiled=drawn.compiled,
                steps=STEPS,
                should_stop=should_stop,
            )
        except TrialTooLarge:
            attempts.append(Attempt(size, drawn.memory.total, 0, 0.0, fits=False))
            size = search.below(size, size * 3 // 4)
            continue
        if trial is None:
            return None
        # What is measured saves nothing; the run itself will, from a snapshot.
        snapshot = drawn.memory.host_saving if drawn.memory.on_host else 0
        taken = trial.peak_memory + snapshot
        fits = taken <= search.room
        attempts.append(Attempt(size, drawn.memory.total, taken, trial.step_seconds, fits))
        size = search.after(attempts, drawn)
    proved = [attempt for attempt in attempts if attempt.fits]
    if not proved:
        raise search.nothing_fits()
    best = max(proved, key=lambda attempt: attempt.batch_size)
    return Found(
        best.batch_size,
        search.accumulate(best.batch_size),
        search.limit_of(best.batch_size),
        tuple(attempts),
    )


def expected_batch_size(lab: Lab, config: Config, device: str | None = None) -> dict[str, int]:
    """What the search begins with, as values for the configuration: by the plan alone, and so also
    for a GPU that is not here. Raises DeviceError where nothing is known of the memory, EngineError
    when not even one window fits."""
    search = _Search.on(survey_device(config, device), lab, config)
    size = search.expected()
    if not size:
        raise search.nothing_fits()
    return {"train.batch_size": size, "train.accumulate": search.accumulate(size)}


class _Search:
    """What bounds the batch: memory, the length of a step, and what there is to train on."""

    def __init__(
        self, config: Config, corpus: CorpusFacts, facts: DeviceFacts, room: float
    ) -> None:
        self.corpus, self.room = corpus, room
        self._config, self._facts = config, facts
        train = config.train
        self._whole = train.batch_size * train.accumulate if train.accumulate > 1 else 0
        self._most = self._whole
        if not self._whole and corpus.train_tokens:
            windows = count_windows(
                corpus.train_tokens, config.model.context_length, config.data.stride
            )
            self._most = max(1, windows // SHARE_OF_EPOCH)

    @classmethod
    def on(cls, facts: DeviceFacts, lab: Lab, config: Config) -> _Search:
        """Raises DeviceError where nothing is known of the device's memory."""
        free = facts.memory_free or facts.memory_total
        if not free:
            raise DeviceError(
                f"nothing is known of the memory of '{facts.name}'", "give --batch-size a number"
            )
        return cls(config, survey_corpus(lab, config), facts, ROOM * free)

    def config(self, size: int) -> Config:
        values = {"batch_size": size, "accumulate": self.accumulate(size)}
        return replace(self._config, train=replace(self._config.train, **values))

    def accumulate(self, size: int) -> int:
        return self._whole // size if self._whole else 1

    def plan(self, size: int) -> Plan:
        facts = self._facts
        return plan(
            self.config(size),
            self.corpus,
            facts,
            correction=lambda compiled: remembered(facts, compiled),
        )

    def expected(self) -> int:
        """Where to begin: the largest that the plan lets."""
        compiled = self.plan(1).compiled
        correction = remembered(self._facts, compiled)
        needs = needs_on(self.corpus.vocab_size, self._facts, compiled, correction)
        return self._allowed(largest_batch(self.config(1), needs, self.room))

    def after(self, attempts: list[Attempt], drawn: Plan) -> int:
        """The next to try after the last attempt, by what it took; 0 for none."""
        last = attempts[-1]
        # What does not grow with the batch is known exactly; what does, grows as it was seen to.
        fixed = drawn.memory.total - drawn.memory.activations - drawn.memory.logits
        a_window = max(1.0, (last.taken - fixed) / last.batch_size)
        size = self._allowed(int((self.room - fixed) / a_window))
        if not last.fits:
            return self.below(last.batch_size, size)
        too_large = [a.batch_size for a in attempts if not a.fits]
        if too_large:
            size = self._allowed(min(size, min(too_large) - 1))
        return size if size >= WORTH * last.batch_size else 0

    def below(self, size: int, wanted: int) -> int:
        """The largest that is allowed and smaller than `size`, near `wanted`; 0 for none."""
        return self._allowed(min(size - 1, max(wanted, 1))) if size > 1 else 0

    def _allowed(self, size: int) -> int:
        """`size`, or less where the step would last too long, take too much of an epoch, or be
        another step; 0 for none."""
        if self._most:
            size = min(size, self._most)
        if size > 1 and not self._whole:
            seconds = self._seconds(size)
            if seconds > LONGEST_STEP:
                # Not quite proportional: a small batch's step has its fixed costs as well.
                low, high = 1, size
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (
                        (middle, high) if self._seconds(middle) <= LONGEST_STEP else (low, middle)
                    )
                size = low
        if self._whole:
            return max((n for n in range(1, size + 1) if self._whole % n == 0), default=0)
        # Tensors of round sizes fit the kernels better than of any.
        return size if size < 16 else size - size % 8

    def _seconds(self, size: int) -> float:
        return self.plan(size).step_seconds or 0.0

    def nothing_fits(self) -> EngineError:
        return EngineError(
            f"not even a batch of one window fits the {self.room / 1e9:.1f} GB that are free",
            "tui-lab plan says what to change",
        )

    def limit_of(self, size: int) -> str:
        if self._whole and size == self._whole:
            return "the whole step"
        if self._whole:
            return f"{size} windows and not more divide the step's {self._whole} and fit memory"
        larger = size + 8 if size >= 16 else size + 1
        if self._most and larger > self._most:
            return f"a step takes a {SHARE_OF_EPOCH}th of the training text"
        if self._seconds(larger) > LONGEST_STEP:
            return f"a larger one makes steps longer than {LONGEST_STEP:g} s and hardly faster"
        return f"memory: {self.room / 1e9:.1f} GB are free for it"
