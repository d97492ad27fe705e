"""Two models side by side: the second one, the colours, and what each makes of the other's text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Static

from engine.errors import InputError
from tui_lab.generations import Generation
from tui_lab.screens.console_columns import Column
from tui_lab.screens.console_sources import LIVE, Source, SourceDialog
from tui_lab.widgets.alternatives import share
from tui_lab.widgets.colouring import MEASURES, Legend

if TYPE_CHECKING:
    from tui_lab.screens.console import ConsoleScreen

ALONE = Source("", "nothing", "one text alone")
ALTERNATIVES = "what else could have come"


class Beside:
    """A part of `ConsoleScreen`."""

    async def action_beside(self: ConsoleScreen) -> None:
        self.run_worker(self._choose_beside())

    async def _choose_beside(self: ConsoleScreen) -> None:
        current = self.beside or ALONE
        dialog = self.lab_app.kept(SourceDialog).show(
            lambda: [ALONE, *self.list_sources()], current, "Answer beside it, from the same seed"
        )
        source = await self.lab_app.ask(dialog)
        if source is not None:
            self.use_beside(None if source == ALONE else source)

    def use_beside(self: ConsoleScreen, source: Source | None) -> None:
        """Put a second model beside the first; None: the first alone."""
        if source is not None and self.source is None:
            self.lab_app.show_error(
                InputError("there is nothing to stand beside", "ctrl+o chooses the first one")
            )
            return
        self.beside, self.columns.both = source, source is not None
        self.set_class(source is not None, "-beside")
        if source is not None:
            self.load(source)
        elif self.measure.name == "difference":
            self.action_colour()  # to the next: there is no other model any more
        self.show_source()
        self.show_status()

    def action_colour(self: ConsoleScreen) -> None:
        """By the next measure; by the difference only while there are two models."""
        names = [name for name in MEASURES if name != "difference" or self.columns.both]
        place = names.index(self.measure.name) if self.measure.name in names else -1
        self.measure = MEASURES[names[(place + 1) % len(names)]]
        self.columns.colour_by(self.measure)
        self.query_one(Legend).measure = self.measure
        self.judge()

    def judge(self: ConsoleScreen) -> None:
        """Ask each model for what it makes of the other's text, as far as that is shown."""
        if self.measure.name != "difference" or not self.columns.both:
            return
        for column in self.columns.all:
            generation = column.transcript.chosen()
            if generation is not None and generation.reason:
                self._judge(generation, self.columns.other(column))

    def _judge(self: ConsoleScreen, generation: Generation, other: Column) -> None:
        source = self.source_of(other)
        if source is None or not generation.sequence or generation.judged == source.label:
            return
        if source == LIVE or source.reference is None:
            generation.judged = source.label
            self.lab_app.notify_safe(
                "the live weights judge no text: save a checkpoint, and put that beside"
            )
        else:
            self.conversation.judge(generation, source.reference, source.label)
            self.wake()

    def show_place(self: ConsoleScreen) -> None:
        """Which token is at the cursor, and what is known of it."""
        here = self.transcript.token_at_cursor()
        if here is None or not 0 <= here[1] < len(here[0].sequence):
            self._show_title(ALTERNATIVES)
            return
        generation, at = here
        words = f"token {at + 1} · entropy {generation.sequence[at].entropy:.2f} nats"
        more = [f"other {share(generation.others[at])}"] if at < len(generation.others) else []
        leaving = [
            str(one.number)
            for one in self.columns.generations()
            if one.fork is not None and (one.fork.number, one.fork.at) == (generation.number, at)
        ]
        if leaving:
            more.append(f"branch {', '.join(leaving)}")
        self._show_title("\n".join([words, " · ".join(more)]))

    def _show_title(self: ConsoleScreen, text: str) -> None:
        widget = self.query_one("#alternatives-title", Static)
        if widget.content != text:
            widget.update(text, layout=False)
