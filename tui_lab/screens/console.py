"""The console: a prompt, its settings, and the texts that checkpoints or the live weights give.

While something comes, the conversation is emptied ten times a second, not once a token. Knows
nothing of torch.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import Static

from engine.errors import EngineError, InputError
from engine.generation.params import SamplingParams
from tui_lab.conversation import Conversation
from tui_lab.generation_thread import GenerationThread, Streams, Token
from tui_lab.generations import Generation, again
from tui_lab.keys import bindings
from tui_lab.screens.base import LabScreen
from tui_lab.screens.console_beside import ALTERNATIVES, Beside
from tui_lab.screens.console_branches import Branching
from tui_lab.screens.console_columns import Column, Columns
from tui_lab.screens.console_keeping import Keeping
from tui_lab.screens.console_settings import ConsoleSettings, with_seed
from tui_lab.screens.console_sources import (
    LIVE,
    Source,
    SourceDialog,
    broken_beside,
    find_source,
    list_sources,
)
from tui_lab.screens.console_transcript import Transcript
from tui_lab.widgets.alternatives import Alternatives
from tui_lab.widgets.colouring import MEASURES, Legend, Measure
from tui_lab.widgets.prompt import PromptArea
from tui_lab.widgets.token_text import TokenText

if TYPE_CHECKING:
    from tui_lab.app import LabApp

LOOKS = 10
"""Times a second that the conversation is emptied while text comes."""
SEEDS = 1_000_000
"""A drawn seed is below this: short enough to be read out and typed again."""


class ConsoleScreen(Keeping, Branching, Beside, LabScreen):
    """`load` and `sources` stand in for the engine, `clock` for the time, in tests."""

    NAME = "console"
    CSS_PATH = "console.tcss"
    BINDINGS = bindings("console")
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (28, "-tall")]

    def __init__(
        self,
        load: Callable[..., Streams] | None = None,
        sources: Callable[..., list[Source]] = list_sources,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        self._load, self._list, self._clock = load, sources, clock
        self.source: Source | None = None
        self.beside: Source | None = None
        """What stands in the second column."""
        self.measure: Measure = MEASURES["probability"]
        self.departure: int | None = None
        """The piece at which the newest branch was taken, until the cursor leaves it."""
        self._count = 0
        self._wanted: list[str | None] = []  # asked for before the screen was there

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="console-body"):
            with Vertical(id="console-left"):
                yield Columns()
                with Horizontal(id="prompt-row"):
                    yield Static("❯ " if self.lab_app.unicode else "> ", id="prompt-mark")
                    yield PromptArea(placeholder="a text to go on with", id="prompt")
            with Vertical(id="console-right"):
                yield ConsoleSettings()
                yield Static(ALTERNATIVES, id="alternatives-title", markup=False)
                yield Alternatives(id="alternatives")
                yield Legend(id="legend")

    def on_mount(self) -> None:
        thread = GenerationThread(self.lab_app.lab, self._load, self._clock, self._may_compile)
        self.conversation = Conversation(thread, self.lab_app, self._clock)
        self._timer: Timer = self.set_interval(1 / LOOKS, self._drain, pause=True)
        self.recall()
        self.prompt.focus()
        self.show_source()
        if self._wanted:
            self.open_reference(self._wanted[-1])
        else:
            self.run_worker(self._find_first, thread=True)

    def _may_compile(self) -> bool:
        return self.lab_app.settings.compile and not self.lab_app.trainer.active

    def on_unmount(self) -> None:
        self.conversation.close()

    @property
    def columns(self) -> Columns:
        return self.query_one(Columns)

    @property
    def transcript(self) -> Transcript:
        """The text that the keys act on."""
        return self.columns.active.transcript

    def source_of(self, column: Column) -> Source | None:
        return self.beside if column.number else self.source

    @property
    def prompt(self) -> PromptArea:
        return self.query_one(PromptArea)

    @property
    def settings(self) -> ConsoleSettings:
        return self.query_one(ConsoleSettings)

    # What to talk to

    def open_reference(self, reference: str | None) -> None:
        """Talk to a checkpoint, or (None) to the weights in training."""
        if not self.is_mounted:
            self._wanted.append(reference)
            return
        self.prompt.focus()  # who comes to talk types at once
        if reference is None:
            self._use(LIVE)
        else:
            self.run_worker(lambda: self._find(reference), thread=True)

    def _find(self, reference: str) -> None:
        skipped: list[str] = []
        try:
            source = find_source(self.lab_app.lab, reference, skipped)
        except EngineError as error:
            self.app.call_from_thread(self.lab_app.show_error, error)
        else:
            self.app.call_from_thread(self._tell_skipped, skipped)
            self.app.call_from_thread(self._use, source)

    def _tell_skipped(self, problems: list[str]) -> None:
        """Nobody should talk to an older checkpoint without knowing that a newer one is broken."""
        for problem in problems[:3]:
            text = f"skipped a broken checkpoint: {problem}"
            self.lab_app.notify_safe(text, severity="warning")

    def _find_first(self) -> None:
        """The one used last, else the newest; a newcomer has the run that ships."""
        remembered = self.memory.get("source", "")
        try:
            sources = self._list(self.lab_app.lab)
        except EngineError as error:
            self.app.call_from_thread(self.lab_app.show_error, error)
            return
        chosen = next((s for s in sources if s.reference == remembered), None)
        chosen = chosen or (sources[0] if sources else None)
        if chosen is not None:
            self.app.call_from_thread(self._tell_skipped, broken_beside(chosen))
        self.app.call_from_thread(self._use_first, chosen)

    def _use_first(self, chosen: Source | None) -> None:
        if self.source is None:
            if self.lab_app.trainer.active:
                self._use(LIVE)
            elif chosen is not None:
                self._use(chosen)

    def _use(self, source: Source) -> None:
        self.source = source
        self.show_source()
        if source.reference is not None:
            self.memory["source"] = source.reference
            self.load(source)

    def load(self, source: Source) -> None:
        """Have it ready before it is asked."""
        if source.reference is not None:
            self.conversation.load(source.reference)
            self.wake()

    def show_source(self) -> None:
        for column in self.columns.all:
            column.show_source(self._described(column))

    def _described(self, column: Column) -> str:
        source = self.source_of(column)
        if source is None:
            return "nothing to talk to yet: train a run, or choose a checkpoint (ctrl+o)"
        if source == LIVE:
            run = self.lab_app.run_state
            state = "" if self.lab_app.trainer.active else " · no run is training"
            return f"live weights{f' of {run.name}' if run is not None and run.name else ''}{state}"
        return f"{source.label} · {source.detail}"

    def list_sources(self) -> list[Source]:
        live = [LIVE] if self.lab_app.trainer.active else []
        return live + self._list(self.lab_app.lab)

    async def action_choose(self) -> None:
        self.run_worker(self._choose())

    async def _choose(self) -> None:
        dialog = self.lab_app.kept(SourceDialog).show(self.list_sources, self.source)
        source = await self.lab_app.ask(dialog)
        if source is not None:
            self._use(source)

    # Generating

    @on(PromptArea.Submitted)
    def _submitted(self, event: PromptArea.Submitted) -> None:
        self.action_generate()

    def action_generate(self) -> None:
        if self.source is None:
            self.lab_app.show_error(InputError("no checkpoint is chosen", "ctrl+o chooses one"))
            return
        try:
            params = self.settings.params
        except EngineError as error:
            self.lab_app.show_error(error)
            return
        params = with_seed(params, secrets.randbelow(SEEDS))
        prompt = self.prompt.text
        self.prompt.remember(prompt)
        self.remember()
        columns = self.columns.shown
        new = [self._new(column, prompt, params, number) for number, column in enumerate(columns)]
        self.begin(*new)

    def action_repeat(self) -> None:
        """Once more what stands at the cursor: same checkpoint, settings and seed."""
        chosen = self.chosen()
        if chosen is not None:
            self.begin(again(chosen, self.next_number, self.new_request(), self.now()))

    @property
    def next_number(self) -> int:
        return self._count + 1

    def new_request(self) -> str:
        return f"console-{secrets.token_hex(8)}"  # other processes may ask the same run

    def now(self) -> float:
        return self._clock()

    def _new(self, column: Column, prompt: str, params: SamplingParams, after: int) -> Generation:
        source, run = self.source_of(column), self.lab_app.run_state
        assert source is not None
        return Generation(
            number=self.next_number + after,
            request=self.new_request(),
            reference=source.reference,
            label=self.label_of_live() if source == LIVE else source.label,
            prompt=prompt,
            params=params,
            asked=self.now(),
            run=run.path if source == LIVE and run is not None else "",
            column=column.number,
        )

    def label_of_live(self) -> str:
        run = self.lab_app.run_state
        return f"{LIVE.label} @ {run.step}" if run is not None else LIVE.label

    def begin(self, *generations: Generation) -> None:
        """Ask for texts, each in its column, one after the other."""
        try:
            self.conversation.begin(*generations)
        except EngineError as error:
            self.lab_app.show_error(error)
            return
        self._count += len(generations)
        for generation in generations:
            self.columns.of(generation).transcript.begin(generation)
        self.settings.used(generations[0].params.seed or 0)
        self.wake()
        self.show_status()

    def wake(self) -> None:
        """Look for what comes, until nothing can."""
        self._timer.resume()

    def action_newline(self) -> None:
        self.prompt.focus()
        self.prompt.action_newline()

    def action_cancel(self) -> None:
        """Cancel what is coming; with nothing coming, leave the field, so that letters are keys."""
        cancelled = self.conversation.cancel()
        for generation in cancelled:
            self.columns.of(generation).transcript.end(generation)
        if cancelled:
            self.show_status()
        else:
            self.transcript.focus()

    def action_write(self) -> None:
        self.prompt.focus()

    def _drain(self) -> None:
        news = self.conversation.drain()
        for generation, group in groupby(news.tokens, lambda pair: pair[0]):
            self._add(generation, [token for _, token in group])
        for error in news.errors:
            self.lab_app.show_error(error)
        for warning in news.warnings:
            self.lab_app.notify_safe(warning, severity="warning")
        for generation in news.ended:
            self.columns.of(generation).transcript.end(generation)
        for generation in news.scored:
            self.columns.of(generation).transcript.judge(generation)
        if news.ended:
            self.judge()
        if news.scored:
            self.show_place()
        if self.conversation.idle:
            self._timer.pause()
        self.show_status()

    def _add(self, generation: Generation, tokens: list[Token]) -> None:
        self.columns.of(generation).transcript.add(tokens)
        self.follow_branch(generation)

    def show_status(self) -> None:
        """What is waited for, and the figures of each text."""
        for column in self.columns.all:
            last = column.transcript.generations[-1:]
            waits = last and not last[0].reason and last[0] is not self.conversation.current
            column.show_figures("waits" if waits else last[0].costs() if last else "")
        last = self.columns.all[0].transcript.generations[-1:]
        alone = last and last[0].tokens and not self.columns.both
        row = self.query_one("#prompt-row")
        told = self.conversation.doing() or (last[0].figures() if alone else "")
        title = f" {' · '.join(filter(None, (told, self.conversation.speed)))} "
        if row.border_title != title:
            row.border_title = title
        waiting = self.conversation.current is not None
        self.keybar.show(cancel="cancel" if waiting else "leave field")

    def tick(self, app: LabApp) -> None:
        if LIVE in (self.source, self.beside):
            self.show_source()

    # What has come

    @on(TokenText.CursorMoved)
    def _moved(self, event: TokenText.CursorMoved) -> None:
        view = event.view
        if view is not self.transcript:
            return  # the text beside, emptied or shortened
        if view.cursor != self.departure:
            self.departure = None
        self.query_one(Alternatives).piece = (
            None if event.piece is None else view.pieces[event.piece]
        )
        self.show_place()
        self.judge()

    def chosen(self) -> Generation | None:
        """The generation at the cursor, or the last one."""
        chosen = self.transcript.chosen()
        if chosen is None:
            self.lab_app.notify_safe("nothing has been generated yet")
        return chosen

    def action_other(self, direction: int) -> None:
        """The cursor to the first token of the generation before or after."""
        self.transcript.focus()
        self.transcript.go_to_other(direction)

    def action_reuse(self) -> None:
        """Put the prompt and the settings of the generation at the cursor back."""
        chosen = self.chosen()
        if chosen is not None:
            self.prompt.text = chosen.prompt
            self.prompt.move_cursor(self.prompt.document.end)
            self.settings.show(chosen.params)
            self.prompt.focus()

    def action_clear(self) -> None:
        if self.conversation.current is None:
            for column in self.columns.all:
                column.transcript.forget()
            self.show_status()
