"""The console: a prompt, its settings, and the text that a checkpoint or the live weights give.

While something comes, the conversation is emptied ten times a second, not once a token. Knows
nothing of torch.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import Static

from engine.atomic import write_text
from engine.errors import EngineError, InputError
from engine.generation.params import PARAM_NAMES, SamplingParams
from engine.text import visible
from tui_lab.conversation import Conversation
from tui_lab.generation_thread import GenerationThread, Streams
from tui_lab.generations import Generation, again
from tui_lab.keys import bindings
from tui_lab.screens.base import LabScreen
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
from tui_lab.screens.dialogs import TextDialog
from tui_lab.widgets.alternatives import Alternatives
from tui_lab.widgets.prompt import PromptArea
from tui_lab.widgets.token_text import Legend, TokenText

if TYPE_CHECKING:
    from tui_lab.app import LabApp

LOOKS = 10
"""Times a second that the conversation is emptied while text comes."""
SEEDS = 1_000_000
"""A drawn seed is below this: short enough to be read out and typed again."""


class ConsoleScreen(LabScreen):
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
        self._count = 0
        self._wanted: list[str | None] = []  # asked for before the screen was there

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="console-body"):
            with Vertical(id="console-left"):
                yield Static("", id="source", markup=False)
                yield Transcript(id="transcript")
                with Horizontal(id="prompt-row"):
                    yield Static("❯ " if self.lab_app.unicode else "> ", id="prompt-mark")
                    yield PromptArea(placeholder="a text to go on with", id="prompt")
            with Vertical(id="console-right"):
                yield ConsoleSettings()
                yield Static("what else could have come", id="alternatives-title", markup=False)
                yield Alternatives(id="alternatives")
                yield Legend(id="legend")

    def on_mount(self) -> None:
        thread = GenerationThread(self.lab_app.lab, self._load, self._clock)
        self.conversation = Conversation(thread, self.lab_app, self._clock)
        self._timer: Timer = self.set_interval(1 / LOOKS, self._drain, pause=True)
        self._recall()
        self.prompt.focus()
        self._show_source()
        if self._wanted:
            self.open_reference(self._wanted[-1])
        else:
            self.run_worker(self._find_first, thread=True)

    def on_unmount(self) -> None:
        self.conversation.close()

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

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
        remembered = self._memory.get("source", "")
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
        self._show_source()
        if source.reference is not None:
            self._memory["source"] = source.reference
            self.conversation.load(source.reference)
            self._timer.resume()

    def _show_source(self) -> None:
        if self.source is None:
            text = "nothing to talk to yet: train a run, or choose a checkpoint (ctrl+o)"
        elif self.source == LIVE:
            run = self.lab_app.run_state
            state = "" if self.lab_app.trainer.active else " · no run is training"
            text = f"live weights{f' of {run.name}' if run is not None and run.name else ''}{state}"
        else:
            text = f"{self.source.label} · {self.source.detail}"
        self._set("#source", visible(text, lines=False, most=1000))

    async def action_choose(self) -> None:
        self.run_worker(self._choose())

    async def _choose(self) -> None:
        def listing() -> list[Source]:
            live = [LIVE] if self.lab_app.trainer.active else []
            return live + self._list(self.lab_app.lab)

        source = await self.lab_app.ask(SourceDialog(listing, self.source))
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
        self._remember()
        self._begin(self._new(self.source, prompt, params))

    def action_repeat(self) -> None:
        """Once more what stands at the cursor: same checkpoint, settings and seed."""
        chosen = self._chosen()
        if chosen is not None:
            self._begin(again(chosen, self._count + 1, self._request(), self._clock()))

    def _request(self) -> str:
        return f"console-{secrets.token_hex(8)}"  # other processes may ask the same run

    def _new(self, source: Source, prompt: str, params: SamplingParams) -> Generation:
        return Generation(
            number=self._count + 1,
            request=self._request(),
            reference=source.reference,
            label=self._label(source),
            prompt=prompt,
            params=params,
            asked=self._clock(),
        )

    def _label(self, source: Source) -> str:
        run = self.lab_app.run_state
        live = source == LIVE and run is not None
        return f"{source.label} @ {run.step}" if live else source.label

    def _begin(self, generation: Generation) -> None:
        try:
            self.conversation.begin(generation)
        except EngineError as error:
            self.lab_app.show_error(error)
            return
        self._count += 1
        self.transcript.begin(generation)
        self.settings.used(generation.params.seed or 0)
        self._timer.resume()
        self._show_status()

    def action_newline(self) -> None:
        self.prompt.focus()
        self.prompt.action_newline()

    def action_cancel(self) -> None:
        """Cancel what is coming; with nothing coming, leave the field, so that letters are keys."""
        if (generation := self.conversation.cancel()) is not None:
            self.transcript.end(generation)
            self._show_status()
        else:
            self.transcript.focus()

    def action_write(self) -> None:
        self.prompt.focus()

    def _drain(self) -> None:
        news = self.conversation.drain()
        if news.tokens:
            self.transcript.add(news.tokens)
        for error in news.errors:
            self.lab_app.show_error(error)
        if news.ended is not None:
            self.transcript.end(news.ended, news.errors[-1].title if news.errors else "")
        if self.conversation.idle:
            self._timer.pause()
        self._show_status()

    def _show_status(self) -> None:
        current = self.conversation.current
        last = self.transcript.generations[-1:]
        figures = last[0].figures() if last and last[0].tokens else ""
        row = self.query_one("#prompt-row")
        title = f" {self.conversation.doing() or figures} "
        if row.border_title != title:
            row.border_title = title
        self.keybar.show(cancel="cancel" if current is not None else "leave field")

    def _set(self, selector: str, text: str) -> None:
        widget = self.query_one(selector, Static)
        if getattr(widget, "said", None) != text:
            widget.said = text  # type: ignore[attr-defined]
            widget.update(text, layout=False)

    def tick(self, app: LabApp) -> None:
        if self.source == LIVE:
            self._show_source()

    # What has come

    @on(TokenText.CursorMoved)
    def _moved(self, event: TokenText.CursorMoved) -> None:
        view = event.view
        self.query_one(Alternatives).piece = (
            None if event.piece is None else view.pieces[event.piece]
        )

    def _chosen(self) -> Generation | None:
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
        chosen = self._chosen()
        if chosen is not None:
            self.prompt.text = chosen.prompt
            self.prompt.move_cursor(self.prompt.document.end)
            self.settings.show(chosen.params)
            self.prompt.focus()

    def action_copy(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.app.copy_to_clipboard(visible(chosen.whole))
            self.lab_app.notify_safe(f"copied {len(chosen.whole)} characters to the clipboard")

    def action_save(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.run_worker(self._save(chosen))

    async def _save(self, generation: Generation) -> None:
        def check(name: str) -> Path:
            path = self.lab_app.lab.root / Path(name.strip() or "?").expanduser()
            if path.exists():
                raise InputError(f"{path} exists already", "choose another name")
            if not path.parent.is_dir():
                raise InputError(f"{path.parent} is not a directory", "make it first")
            return path

        path = await self.lab_app.ask(
            TextDialog(
                "Save this text",
                generation.heading(),
                f"generation-{generation.number}.txt",
                check,
                ok="Save",
            )
        )
        if path is not None:
            try:
                write_text(path, generation.whole)
            except OSError as error:
                self.lab_app.show_error(EngineError(f"{path}: {error.strerror or error}"))
            else:
                self.lab_app.notify_safe(f"saved {path}")

    def action_clear(self) -> None:
        if self.conversation.current is None:
            self.transcript.forget()
            self._show_status()

    # What is remembered between starts

    @property
    def _memory(self) -> dict[str, Any]:
        return self.lab_app.settings.of(self.NAME)

    def _recall(self) -> None:
        memory = self._memory
        prompts = memory.get("prompts")
        if isinstance(prompts, list):
            self.prompt.prompts = [text for text in prompts if isinstance(text, str)]
        values = {name: memory[name] for name in PARAM_NAMES if name in memory}
        if isinstance(values.get("stop"), list):
            values["stop"] = tuple(values["stop"])
        # A file that somebody edited: what cannot be used is the default.
        with suppress(EngineError, TypeError, ValueError):
            self.settings.show(SamplingParams(**values))

    def _remember(self) -> None:
        params = self.settings.params
        values = {name: getattr(params, name) for name in PARAM_NAMES}
        values["stop"] = list(params.stop)
        self._memory.pop("seed", None)
        self._memory.update({name: value for name, value in values.items() if value is not None})
        self._memory["prompts"] = self.prompt.prompts
        self.lab_app.settings.save()
