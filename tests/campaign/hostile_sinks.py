"""Every widget through which text from outside reaches a screen, one by one and cheaply.

`Places` mounts them all; `put` gives one text to each and says where it did not arrive as it was
given. Nothing waits for a frame: a widget is asked for its lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from textual.app import App, ComposeResult
from textual.content import Content
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Static
from textual.widgets._toast import Toast

from engine.errors import EngineError
from engine.text import is_safe, visible
from tests.tui_lab import fakes
from tui_lab.screens.console_transcript import Transcript
from tui_lab.screens.dialogs import Dialog, TextDialog
from tui_lab.sinks import Sinks
from tui_lab.state import Line
from tui_lab.widgets.alternatives import Alternatives
from tui_lab.widgets.chart import Chart, Plot
from tui_lab.widgets.colouring import Piece
from tui_lab.widgets.cycle import Cycle
from tui_lab.widgets.filter_line import FilterLine
from tui_lab.widgets.overlay import letters_legend
from tui_lab.widgets.pane import Pane
from tui_lab.widgets.plan import PlanView
from tui_lab.widgets.prompt import PromptArea
from tui_lab.widgets.readout import EventLog, TextPanel
from tui_lab.widgets.table import Column, Row, Table
from tui_lab.widgets.text_field import TextField
from tui_lab.widgets.token_map import TokenMap, TokenPiece
from tui_lab.widgets.topbar import TopBar

SIZE = (400, 60)
RARELY = 100
"""One text in so many is also put where it takes a frame: dialogs, notifications."""


class Places(Sinks, App[None]):
    """`unicode` as LabApp has it."""

    CSS_PATH = Path(__file__).parents[2] / "tui_lab" / "app.tcss"
    CSS = "#all > * { height: 3; width: 1fr; }"
    unicode = True

    def compose(self) -> ComposeResult:
        yield TopBar("train")
        yield Table([Column("text", "text", grow=True, most=300)], id="table")
        yield Pane(id="pane")
        yield TextPanel(id="panel")
        yield EventLog(id="log")
        yield Chart(id="chart")
        yield PlanView(id="plan")
        yield Cycle(["a"], "a", id="cycle")
        yield TextField(id="field")
        yield PromptArea(id="prompt")
        yield Transcript(id="transcript")
        yield TokenMap(id="map")
        yield Alternatives(id="alternatives")
        yield FilterLine(id="filter")

    def on_mount(self) -> None:
        for widget in self.screen.children:
            widget.styles.height = 3
            widget.styles.dock = "none"  # type: ignore[assignment]


def lines_of(widget: Widget) -> str:
    """What the widget draws; a segment that acts or links when clicked is said as such."""
    lines = []
    for y in range(widget.size.height):
        strip = widget.render_line(y)
        for segment in strip:
            style = segment.style
            if style is not None and (style.link or "@click" in (style.meta or {})):
                return f"<{style}>"
        lines.append(strip.text)
    return "\n".join(lines)


def _table(app: Places, text: str) -> Widget:
    table = app.query_one("#table", Table)
    table.set_rows([Row("key", (text,))])
    return table


def _pane(app: Places, text: str) -> Widget:
    pane = app.query_one("#pane", Pane)
    pane.show([((text, ""),)])
    return pane


def _panel(app: Places, text: str) -> Widget:
    panel = app.query_one("#panel", TextPanel)
    panel.show(((text, "bright"),), (text, "text"))
    return panel


def _log(app: Places, text: str) -> Widget:
    log = app.query_one("#log", EventLog)
    log.show([Line(1, fakes.NOON, "error", text)])
    return log


def _chart(app: Places, text: str) -> Widget:
    chart = app.query_one("#chart", Chart)
    chart.show(Plot(title=((text, "bright"),), legend=letters_legend([("A", text)]), empty=text))
    return chart


def _plan(app: Places, text: str) -> Widget:
    plan = app.query_one("#plan", PlanView)
    plan.show(None, EngineError(text, text))
    return plan


def _cycle(app: Places, text: str) -> Widget:
    cycle = app.query_one("#cycle", Cycle)
    cycle.options[:] = [text, "b"]
    cycle.value = text
    cycle.redraw()
    return cycle


def _bar(app: Places, text: str) -> Widget:
    bar = app.query_one(TopBar)
    bar.show((text, "text"))
    return bar


def _field(app: Places, text: str) -> Widget:
    field = app.query_one("#field", TextField)
    field.value = text
    field.cursor_position = 0
    return field


def _prompt(app: Places, text: str) -> Widget:
    prompt = app.query_one("#prompt", PromptArea)
    prompt.text = ""
    prompt.insert(text)
    return prompt


def _transcript(app: Places, text: str) -> Widget:
    transcript = app.query_one("#transcript", Transcript)
    transcript.clear()
    from tui_lab.generation_thread import Token

    transcript.add([Token("r", text, 0.5, ((text, 0.5),), 0.0)])
    return transcript


def _map(app: Places, text: str) -> Widget:
    token_map = app.query_one("#map", TokenMap)
    token_map.show_pieces([TokenPiece(1, text.encode("utf-8", "ignore"))])
    return token_map


def _alternatives(app: Places, text: str) -> Widget:
    alternatives = app.query_one("#alternatives", Alternatives)
    shown = visible(text)
    alternatives.piece = Piece(shown, 0.5, ((shown, 0.5),))
    return alternatives


def _filter(app: Places, text: str) -> Widget:
    line = app.query_one("#filter", FilterLine)
    line.head(Content(visible(text, lines=False)))
    return line.query_one("#heading")


SINKS: dict[str, tuple[Callable[[Places, str], Widget], int]] = {
    "top bar": (_bar, 300),
    "table": (_table, 300),
    "pane": (_pane, 300),
    "text panel": (_panel, 300),
    "event log": (_log, 300),
    "chart": (_chart, 100),
    "plan": (_plan, 300),
    "chooser": (_cycle, 300),
    "text field": (_field, 300),
    "prompt": (_prompt, 300),
    "transcript": (_transcript, 300),
    "token map": (_map, 300),
    "alternatives": (_alternatives, 4),
    "heading": (_filter, 300),
}
"""By name: gives a text to a widget, and how many characters of it must stand there."""

_GONE = str.maketrans("", "", " \t\n\r␉␊␍·↵⇥⏎→")
"""White space, and how the places that make it visible write it."""


def put(app: Places, text: str) -> Iterator[str]:
    """Give the text to every sink; yields what is wrong, by sink."""
    for name, (give, most) in SINKS.items():
        try:
            drawn = lines_of(give(app, text))
        except Exception as error:
            yield f"{name}: {type(error).__name__}: {error}"
            continue
        given = text.encode("utf-8", "ignore").decode() if name == "token map" else text
        wanted = visible(given, lines=False).translate(_GONE)[:most]
        if wanted not in drawn.translate(_GONE):
            yield f"{name}: shows {drawn.strip()[:100]!a}"
        if not all(is_safe(line) for line in drawn.split("\n")):
            yield f"{name}: lets through {drawn.strip()[:100]!a}"


async def put_rarely(app: Places, pilot: Pilot[None], text: str) -> list[str]:
    """The same for a notification and two dialogs, which must be drawn to be seen."""
    wanted = visible(text, lines=False).translate(_GONE)
    faults = []

    def check(name: str, *places: Widget) -> None:
        """As the widget is about to draw it, before it is wrapped."""
        for place in places:
            content = place.render() if isinstance(place, Toast) else place.visual  # type: ignore
            if wanted not in content.plain.translate(_GONE) or any(
                span.style for span in content.spans if isinstance(span.style, str)
            ):
                faults.append(f"{name}: shows {content.plain!a}")
        if not places:
            faults.append(f"{name}: is not there")

    app.show_error(EngineError(text, text))
    await pilot.pause(0.05)
    check("notification", *app.screen.query(Toast))
    for dialog in (Dialog(text, text), TextDialog(text, text, text, lambda value: value)):
        app.push_screen(dialog)
        await pilot.pause()
        check(type(dialog).__name__, *dialog.query("#question, #body").results(Static))
        app.pop_screen()
    app.clear_notifications()
    await pilot.pause()
    return faults
