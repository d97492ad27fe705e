"""Small questions on top of a screen: a choice, a text. All texts are shown as they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Input, Static

from engine.errors import EngineError
from engine.text import visible
from tui_lab.screens.base import Modal
from tui_lab.widgets.text_field import TextField

LONGEST = 2000
"""Characters of a question or an explanation that are shown."""


@dataclass(frozen=True)
class Choice:
    """One answer: the key that gives it, its label, the value, and how it looks."""

    key: str
    label: str
    value: Any
    variant: str = "default"  # default, primary, warning, error


class Dialog(Modal[Any]):
    """A question with choices. Escape gives `escape` (False by default).

    Without `choices` it is a yes-or-no question whose result is a bool; `danger` makes No the
    answer that Enter gives.
    """

    CSS_PATH = "dialogs.tcss"
    BINDINGS = [
        Binding("escape", "leave", "Cancel"),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]

    def __init__(
        self,
        title: str,
        body: str = "",
        *,
        yes: str = "Yes",
        no: str = "No",
        danger: bool = False,
        choices: tuple[Choice, ...] = (),
        escape: Any = False,
    ) -> None:
        super().__init__()
        self.question = visible(title, lines=False, most=LONGEST)
        self.body = visible(body, most=LONGEST)
        self.choices = choices or (
            Choice("y", yes, True, "error" if danger else "primary"),
            Choice("n", no, False),
        )
        self.first = 1 if danger and not choices else 0
        self._escape = escape

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self.question, id="question", markup=False)
            if self.body:
                yield Static(self.body, id="body", markup=False)
            yield from self.compose_extra()
            with Horizontal(id="choices"):
                for index, choice in enumerate(self.choices):
                    yield Button(
                        Content(f"{choice.label} ({choice.key})"),
                        id=f"choice-{index}",
                        variant=choice.variant,  # type: ignore[arg-type]
                    )

    def compose_extra(self) -> ComposeResult:
        """Widgets between the text and the answers."""
        yield from ()

    def focus_first(self) -> None:
        """Where the keys go at first: the answer that Enter gives."""
        self.query_one(f"#choice-{self.first}").focus()

    def on_mount(self) -> None:
        self.focus_first()

    def on_key(self, event) -> None:
        if isinstance(self.focused, Input):
            return  # letters belong to its text, not to the answers
        for choice in self.choices:
            if event.key == choice.key:
                event.stop()
                self.give(choice.value)
                return

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        index = int((event.button.id or "choice-0").rpartition("-")[2])
        self.give(self.choices[index].value)

    def give(self, value: Any) -> None:
        """Close with this answer."""
        self.dismiss(value)

    def action_leave(self) -> None:
        self.dismiss(self._escape)


class TextDialog(Dialog):
    """A question answered by a text; `check` turns it into the result or raises EngineError."""

    def __init__(
        self, title: str, body: str, value: str, check: Callable[[str], Any], *, ok: str = "Apply"
    ) -> None:
        super().__init__(
            title,
            body,
            choices=(Choice("enter", ok, True, "primary"), Choice("escape", "Cancel", False)),
            escape=None,
        )
        self.value = value
        self.check = check

    def compose_extra(self) -> ComposeResult:
        yield TextField(self.value, id="answer")
        yield Static("", id="refusal", markup=False)

    def focus_first(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.give(True)

    def give(self, value: Any) -> None:
        if not value:
            self.dismiss(None)
            return
        try:
            self.dismiss(self.check(self.query_one(Input).value))
        except EngineError as error:
            text = f"{error.title}\n{error.hint}" if error.hint else error.title
            self.query_one("#refusal", Static).update(visible(text, most=LONGEST))
