"""The console's one plain thread: it loads checkpoints and generates from them.

What it has to say leaves through a deque that the console empties at its own pace; the thread
never calls the app. Torch is imported inside the thread, the first time it has something to do.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.errors import EngineError, in_words
from engine.generation.params import SamplingParams
from engine.lab import Lab

KEPT = 2
"""Loaded checkpoints kept in memory: the one in use and the one before it."""


class Streams(Protocol):
    """What a loaded checkpoint can do (`engine.generation.load.Generator`)."""

    def stream(
        self,
        prompt: str,
        params: SamplingParams,
        should_stop: Callable[[], bool],
        *,
        continued: Sequence[int],
    ) -> Iterator[Any]: ...

    def score(self, prompt: str, tokens: Sequence[int], run: Path) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Loading:
    reference: str


@dataclass(frozen=True)
class Loaded:
    reference: str
    seconds: float


@dataclass(frozen=True)
class LoadFailed:
    reference: str
    error: EngineError


@dataclass(frozen=True)
class Compiling:
    """What becomes of compiling a checkpoint for speed, beside its texts. `state`: compiling,
    compiled, failed; `words`: how long it took, or why it failed."""

    reference: str
    state: str
    words: str


@dataclass(frozen=True)
class Started:
    """The model begins with the prompt; `at` as all times here, in `time.perf_counter` seconds."""

    request: str
    at: float


@dataclass(frozen=True)
class Token:
    request: str
    text: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]
    at: float
    token: int = 0
    entropy: float = 0.0
    """Nats."""
    alternative_ids: tuple[int, ...] = ()
    cache_bytes: int = 0


def token_of(request: str, token: Any, at: float) -> Token:
    """A `GeneratedToken`, or a `TokenGenerated` event, as a report."""
    return Token(
        request=request,
        text=token.text,
        probability=token.probability,
        alternatives=token.alternatives,
        at=at,
        token=token.token,
        entropy=token.entropy,
        alternative_ids=token.alternative_ids,
        cache_bytes=token.cache_bytes,
    )


@dataclass(frozen=True)
class Scored:
    """What another checkpoint makes of a text: a probability for each of its tokens; none, and
    perhaps an `error`, where that could not be had."""

    request: str
    probabilities: tuple[float, ...]
    error: EngineError | None = None


@dataclass(frozen=True)
class Ended:
    """`reason`: length, stop, eot, cancelled, failed (then with `error`)."""

    request: str
    reason: str
    at: float
    error: EngineError | None = None


Report = Loading | Loaded | LoadFailed | Compiling | Started | Token | Scored | Ended


class GenerationThread:
    """One piece of work at a time, in order. `load` stands in for the engine's in tests."""

    def __init__(
        self,
        lab: Lab,
        load: Callable[[Lab, str], Streams] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        may_compile: Callable[[], bool] = lambda: False,
    ) -> None:
        """`may_compile`: whether the machine has a core to spare, asked when a text begins."""
        self.out: deque[Report] = deque()
        self._lab = lab
        self._load = load
        self._clock = clock
        self._may_compile = may_compile
        self._asked = 0  # jobs; counted by the caller's thread
        self._done = 0  # counted by this one
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._loaded: OrderedDict[str, Streams] = OrderedDict()
        self._compiled: list[Any] = []  # engine.generation.compiled.Steps
        self._thread: threading.Thread | None = None

    def load(self, reference: str) -> None:
        """Load a checkpoint, so that the first prompt need not wait for it."""
        self._put(lambda: self._get(reference))

    def generate(
        self,
        request: str,
        reference: str,
        prompt: str,
        params: SamplingParams,
        continued: Sequence[int] = (),
    ) -> None:
        """Continue `prompt`, which the tokens `continued` follow already (the last of them is the
        first that comes); every report about it carries `request`."""
        self._put(lambda: self._generate(request, reference, prompt, params, continued))

    def score(
        self, request: str, reference: str, prompt: str, tokens: Sequence[int], run: Path
    ) -> None:
        """Have a checkpoint judge what one of the run in the folder `run` made of `prompt`."""
        self._put(lambda: self._score(request, reference, prompt, tokens, run))

    def cancel(self, request: str) -> None:
        """End a request before its next token, or before it began."""
        self._cancelled.add(request)

    def close(self) -> None:
        """Let the thread end when what it does is done; nobody waits for it. What is being compiled
        is given up."""
        for steps in list(self._compiled):
            steps.close()
        self._jobs.put(None)

    @property
    def busy(self) -> bool:
        """Whether something was asked for that is not done yet."""
        return self._asked != self._done

    def _put(self, job: Callable[[], None]) -> None:
        self._asked += 1
        self._jobs.put(job)
        if self._thread is None:
            # A daemon: leaving the app never waits for a token.
            self._thread = threading.Thread(target=self._work, name="generation", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self._done += 1

    def _get(self, reference: str) -> Streams | EngineError:
        if reference in self._loaded:
            self._loaded.move_to_end(reference)
            return self._loaded[reference]
        self.out.append(Loading(reference))
        started = self._clock()
        while len(self._loaded) >= KEPT:
            self._loaded.popitem(last=False)
        try:
            self._loaded[reference] = self._loader()(self._lab, reference)
        except BaseException as error:
            # Also MemoryError and SystemExit: a thread that dies silently looks like a hang.
            readable = explained(error)
            self.out.append(LoadFailed(reference, readable))
            return readable
        self.out.append(Loaded(reference, self._clock() - started))
        return self._loaded[reference]

    def _loader(self) -> Callable[[Lab, str], Streams]:
        return self._load or self._load_and_compile

    def _load_and_compile(self, lab: Lab, reference: str) -> Streams:
        from engine.generation.load import load_generator

        generator = load_generator(lab, reference)
        generator.compile(
            "behind",
            allowed=self._may_compile,
            told=lambda state, words: self.out.append(Compiling(reference, state, words)),
        )
        self._compiled.append(generator.steps)
        return generator

    def _score(
        self, request: str, reference: str, prompt: str, tokens: Sequence[int], run: Path
    ) -> None:
        generator = self._get(reference)
        if isinstance(generator, EngineError):
            self.out.append(Scored(request, ()))  # the error is told as that of loading
            return
        try:
            scored = generator.score(prompt, tokens, run)
        except BaseException as error:
            self.out.append(Scored(request, (), explained(error)))
        else:
            self.out.append(Scored(request, tuple(one.probability for one in scored)))

    def _generate(
        self,
        request: str,
        reference: str,
        prompt: str,
        params: SamplingParams,
        continued: Sequence[int],
    ) -> None:
        generator = self._get(reference)
        now = self._clock
        if isinstance(generator, EngineError):
            self.out.append(Ended(request, "failed", now(), generator))
            return
        reason = "cancelled"
        self.out.append(Started(request, now()))
        try:
            if request not in self._cancelled:
                stream = generator.stream(
                    prompt, params, lambda: request in self._cancelled, continued=continued
                )
                for token in stream:
                    reason = token.reason or reason
                    self.out.append(token_of(request, token, now()))
        except BaseException as error:
            self.out.append(Ended(request, "failed", now(), explained(error)))
        else:
            self.out.append(Ended(request, reason, now()))
        finally:
            self._cancelled.discard(request)


def explained(error: BaseException) -> EngineError:
    """`error` itself where it explains itself, else its kind and first line as an EngineError."""
    if isinstance(error, EngineError):
        return error
    return EngineError(in_words(error))
