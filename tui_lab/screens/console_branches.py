"""Branches: a text that leaves another at a token, and the tree of all texts to walk in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.text import visible
from tui_lab.generations import Generation, branch
from tui_lab.screens.base import Modal
from tui_lab.widgets.alternatives import Alternatives, spelled
from tui_lab.widgets.choice_list import ChoiceList

if TYPE_CHECKING:
    from tui_lab.screens.console import ConsoleScreen

SNIPPET = 36
"""Characters of a text that are shown in the tree."""


def tree(generations: Sequence[Generation]) -> Iterator[tuple[int, Generation]]:
    """(depth, text), a branch after the text that it left; alone where that is no longer kept."""
    numbers = {generation.number for generation in generations}
    below: dict[int, list[Generation]] = {}
    for generation in generations:
        origin = generation.fork.number if generation.fork is not None else 0
        below.setdefault(origin if origin in numbers else 0, []).append(generation)
    waiting = [(0, one) for one in reversed(below.get(0, []))]
    while waiting:
        depth, generation = waiting.pop()
        yield depth, generation
        waiting += [(depth + 1, one) for one in reversed(below.get(generation.number, []))]


class TreeDialog(Modal[Generation | None]):
    """All texts, branches below what they left; enter goes to the marked one, escape nowhere."""

    CSS_PATH = "console.tcss"
    BINDINGS = [Binding("escape", "leave", "Cancel")]

    def __init__(self, generations: Sequence[Generation], current: Generation) -> None:
        super().__init__()
        self._rows = list(tree(generations))
        self._current = current

    def compose(self) -> ComposeResult:
        with Vertical(id="sources"):
            yield Static("Go to a text", id="sources-title", markup=False)
            yield ChoiceList(
                *(Option(_row(depth, generation)) for depth, generation in self._rows),
                id="sources-list",
                markup=False,
            )
            yield Static("enter go · esc leave", id="sources-note", markup=False)

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        places = [generation is self._current for _, generation in self._rows]
        options.highlighted = places.index(True) if True in places else 0
        options.focus()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._rows[event.option_index][1])

    def action_leave(self) -> None:
        self.dismiss(None)


def _row(depth: int, generation: Generation) -> Content:
    said = "".join(token.text for token in generation.drawn[:SNIPPET])
    if generation.fork is not None:
        place = f"at token {generation.fork.at + 1}, not {spelled(generation.fork.instead_of)}: "
    else:
        place = f"{generation.label}: "
        said = generation.prompt + said
    return Content.assemble(
        f"{'  ' * depth}{generation.number} ",
        (visible(place, lines=False, most=SNIPPET), "dim"),
        visible(said.replace("\n", "↵"), lines=False, most=SNIPPET),
    )


class Branching:
    """A part of `ConsoleScreen`."""

    def action_branch(self: ConsoleScreen) -> None:
        """Into the list of what else could stand at the cursor."""
        alternatives = self.query_one(Alternatives)
        piece = alternatives.piece
        if piece is None or piece.probability is None:
            self.lab_app.notify_safe(
                "put the cursor on a token first: the arrow keys walk the text"
            )
            self.transcript.focus()
            return
        alternatives.mark_other()
        alternatives.focus()

    # Named, not decorated: Textual looks for decorated handlers in its own classes only.

    def on_alternatives_left(self: ConsoleScreen) -> None:
        self.transcript.focus()

    def on_alternatives_taken(self: ConsoleScreen, event: Alternatives.Taken) -> None:
        here = self.transcript.token_at_cursor()
        if here is None:
            return
        generation, at = here
        token = generation.sequence[at]
        if event.place is None:
            taken = token.token
        elif event.place < len(token.alternative_ids):
            taken = token.alternative_ids[event.place]
        else:
            self.lab_app.notify_safe("the run is older than branches: it told no token numbers")
            return
        new = branch(generation, at, taken, self.next_number, self.new_request(), self.now())
        if generation.reference is None:
            new.label = self.label_of_live()
        self.departure = self.transcript.cursor
        self.begin(new)
        self.transcript.focus()

    def follow_branch(self: ConsoleScreen, generation: Generation) -> None:
        """The cursor goes on along the newest branch, unless it was moved meanwhile."""
        left = None if generation.fork is None else self.departure
        if left is not None and self.transcript.cursor == left:
            # It stays while there is no text: the first tokens may be parts of a character.
            self.transcript.go_to_token(generation, len(generation.shared))

    def action_trunk(self: ConsoleScreen) -> None:
        """From a branch to the place where it left the text before it."""
        chosen = self.chosen()
        if chosen is None:
            return
        if chosen.fork is None:
            self.lab_app.notify_safe(f"text {chosen.number} is no branch")
            return
        number = chosen.fork.number
        found = next((one for one in self.columns.generations() if one.number == number), None)
        if found is None:
            self.lab_app.notify_safe(f"text {number} is so long ago that it is no longer shown")
        else:
            self.transcript.focus()
            self.transcript.go_to_token(found, chosen.fork.at)

    async def action_tree(self: ConsoleScreen) -> None:
        if (chosen := self.chosen()) is not None:
            self.run_worker(self._go_in_tree(chosen))

    async def _go_in_tree(self: ConsoleScreen, chosen: Generation) -> None:
        target = await self.lab_app.ask(TreeDialog(list(self.columns.generations()), chosen))
        if target is not None:
            column = self.columns.of(target)
            column.transcript.focus()
            column.transcript.go_to_token(target, len(target.shared))
