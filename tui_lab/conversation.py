"""One generation at a time, from a checkpoint or from the live weights, as one stream of reports.

Checkpoints answer through the console's own thread; live weights through the trainer, which
samples between two steps. Several may be asked for at once: they come one after the other, so that
the rate of each is its own. No Textual and no torch: whoever draws calls `drain` at its own pace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.control import CancelSample, Sample
from engine.errors import EngineError, InputError
from engine.events import Event, SampleDone, TokenGenerated
from engine.events import now as time_now
from tui_lab.generation_thread import (
    Compiling,
    Ended,
    GenerationThread,
    Loaded,
    LoadFailed,
    Loading,
    Report,
    Scored,
    Started,
    Token,
    token_of,
)
from tui_lab.generations import Generation


class LivePort(Protocol):
    """What the app offers for live weights: its trainer's thread and the trainer's events."""

    trainer: Any  # tui_lab.trainer_thread.TrainerThread

    def subscribe(self, request: str, callback: Callable[[Event], None]) -> None: ...

    def unsubscribe(self, request: str) -> None: ...


@dataclass
class News:
    """What has come since the last look."""

    tokens: list[tuple[Generation, Token]] = field(default_factory=list)
    ended: list[Generation] = field(default_factory=list)
    scored: list[Generation] = field(default_factory=list)
    errors: list[EngineError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Conversation:
    """`current` is the generation that is coming; it is filled in by `drain`. After it come those
    that wait."""

    def __init__(
        self, thread: GenerationThread, port: LivePort, clock: Callable[[], float]
    ) -> None:
        self.current: Generation | None = None
        self._waiting: deque[Generation] = deque()
        self._judging: dict[str, Generation] = {}
        self._thread = thread
        self._port = port
        self._clock = clock
        self._live: deque[Report] = deque()
        self._loading_since: float | None = None
        self.speed = ""
        """What becomes of compiling the model that is talked to, in words."""
        self._compiling = 0

    @property
    def idle(self) -> bool:
        """Whether nothing can come until something is asked for."""
        busy = self._thread.busy or self._thread.out or self._compiling
        return self.current is None and not busy

    def load(self, reference: str) -> None:
        """Have a checkpoint ready before the first prompt."""
        self._thread.load(reference)

    def begin(self, *generations: Generation) -> None:
        """Ask for generations, one after the other. Raises InputError when that cannot be."""
        if self.current is not None:
            raise InputError("one text at a time", "escape cancels the one that is coming")
        if not self._port.trainer.active and any(each.reference is None for each in generations):
            raise InputError("no run is training or attached to", "ctrl+o chooses a checkpoint")
        self._waiting.extend(generations)
        self._next()

    def _next(self) -> None:
        if not self._waiting:
            return
        self.current = generation = self._waiting.popleft()
        if not self._compiling:
            self.speed = ""
        generation.asked = self._clock()
        if generation.reference is not None:
            self._thread.generate(
                generation.request,
                generation.reference,
                generation.prompt,
                generation.params,
                generation.continued,
            )
        else:
            self._port.subscribe(generation.request, self._live_event)
            self._port.trainer.put(
                Sample(
                    generation.prompt, generation.params, generation.request, generation.continued
                )
            )

    def judge(self, generation: Generation, reference: str, who: str) -> None:
        """Have the checkpoint `reference`, called `who`, say how likely each of its tokens is."""
        generation.judged, generation.others = who, ()
        self._judging[generation.request] = generation
        tokens = [token.token for token in generation.sequence]
        self._thread.score(
            generation.request, reference, generation.prompt, tokens, generation.run_folder
        )

    def cancel(self) -> list[Generation]:
        """End the current generation, and those that wait, at once; what still comes for it is not
        heard."""
        generation = self.current
        if generation is None:
            return []
        if generation.reference is not None:
            self._thread.cancel(generation.request)
        else:
            self._port.trainer.put(CancelSample(generation.request))
        waiting = list(self._waiting)
        self._waiting.clear()
        for other in waiting:
            other.reason = "cancelled"
        return [self._end("cancelled"), *waiting]

    def close(self) -> None:
        self.cancel()
        self._thread.close()

    def drain(self) -> News:
        """Everything that came since the last call, counted into `current`."""
        news = News()
        for reports in (self._thread.out, self._live):
            for _ in range(len(reports)):
                self._take(reports.popleft(), news)
        if self._orphaned():
            self._fail(EngineError("the run ended before the text did"), news)
        if self.current is None:
            self._next()
        return news

    def doing(self) -> str:
        """What is waited for, in words; empty when tokens come or nothing is asked for."""
        if self._loading_since is not None:
            return f"loading … {self._clock() - self._loading_since:.0f} s"
        if self.current is None or self.current.tokens:
            return ""
        return "reading …" if self.current.reference is not None else "at the next step …"

    def _take(self, report: Report, news: News) -> None:
        if isinstance(report, Loading):
            self._loading_since = self._clock()
        elif isinstance(report, Loaded):
            self._loading_since = None
        elif isinstance(report, LoadFailed):
            self._loading_since = None
            if self.current is None or self.current.reference != report.reference:
                news.errors.append(report.error)  # else it ends the generation, and is told there
        elif isinstance(report, Compiling):
            self._take_speed(report, news)
        elif isinstance(report, Scored):
            self._take_scores(report, news)
        elif self.current is None or report.request != self.current.request:
            return
        elif isinstance(report, Started):
            self.current.started = report.at
        elif isinstance(report, Token):
            self.current.add(report)
            news.tokens.append((self.current, report))
        elif report.error is not None:
            self._fail(report.error, news)
        else:
            news.ended.append(self._end(report.reason))

    def _take_speed(self, report: Compiling, news: News) -> None:
        if report.state == "compiling":
            self._compiling += 1
            self.speed = "compiling for speed …"
            return
        self._compiling = max(0, self._compiling - 1)
        self.speed = f"compiled {report.words}" if report.state == "compiled" else ""
        if report.state == "failed":
            news.warnings.append(f"texts come as fast as they can uncompiled: {report.words}")

    def _take_scores(self, report: Scored, news: News) -> None:
        generation = self._judging.pop(report.request, None)
        if generation is None:
            return
        generation.others = report.probabilities
        if report.error is not None:
            news.errors.append(report.error)
        news.scored.append(generation)

    def _fail(self, error: EngineError, news: News) -> None:
        generation = self._end("failed")
        generation.error = error.title
        news.errors.append(error)
        news.ended.append(generation)

    def _end(self, reason: str) -> Generation:
        generation = self.current
        assert generation is not None
        generation.reason = reason
        self.current = None
        if generation.reference is None:
            self._port.unsubscribe(generation.request)
        return generation

    def _live_event(self, event: Event) -> None:
        """An event of a live sample, kept for the next look.

        It was said before it is heard, and several are heard at once: their rate is that at which
        they were said.
        """
        now = self._clock() - max(0.0, time_now() - event.time)
        if isinstance(event, TokenGenerated):
            self._live.append(token_of(event.request, event, now))
        elif isinstance(event, SampleDone):
            error = EngineError(event.error) if event.error else None
            self._live.append(Ended(event.request, "failed" if error else event.reason, now, error))

    def _orphaned(self) -> bool:
        """Whether the run is gone that the current generation waits for."""
        return (
            self.current is not None
            and self.current.reference is None
            and not self._port.trainer.active
            and not self._port.trainer.events
        )
