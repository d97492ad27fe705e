"""What the Runs screen draws and writes of the chosen runs. No widgets, no files.

One run alone is described; several are compared: their curves by letter, and the configuration
fields that differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from engine.status import ACTIVE
from tui_lab.comparison import Curve, differences
from tui_lab.format import ago, count, duration, number, size, thousands
from tui_lab.widgets.overlay import Line, OverlayPlot, letters_legend, plot_of
from tui_lab.widgets.pane import Line as TextLine
from tui_lab.widgets.pane import fact, title
from tui_lab.widgets.plot import loss_range
from tui_lab.widgets.table import clip

if TYPE_CHECKING:
    from engine.runs import RunSummary

Chosen = Sequence[tuple[str, "RunSummary"]]
"""Letter ("" for a run that is merely under the cursor) and run."""


def overlay(
    chosen: Chosen, curves: Mapping[str, Curve], quantity: str, axis: str, point: str = "◆"
) -> OverlayPlot:
    """The chosen runs' curves of one quantity against one axis; `point` as the chart draws it."""
    lines = []
    for letter, run in chosen:
        curve = curves.get(run.name)
        if curve is None or not len(curve):
            continue
        points = curve.xy("validation", axis) if quantity == "loss" else ((), ())
        lines.append(Line(letter, *curve.xy(quantity, axis), *points))
    known = all(run.name in curves for _, run in chosen)
    legend = letters_legend([(letter, clip_name(run.name, 24)) for letter, run in chosen])
    what = f"{quantity} by {axis}"
    if quantity == "loss" and any(len(line.points_x) for line in lines):
        alone = len(chosen) == 1 and not chosen[0][0]
        what += f", {point} validation" if alone else ", small letters validation"
    return plot_of(
        lines,
        x_range=(0.0, max((float(line.x[-1]) for line in lines if len(line.x)), default=1.0)),
        y_range=_range(lines, quantity),
        title=((f" {what}", "muted"),),
        legend=legend,
        empty=f"no {quantity} yet" if known else "reading …",
        y_format=(lambda value: f"{value:.1e}") if quantity == "learning rate" else _plain,
        x_format=_seconds if axis == "time" else count,
    )


def _plain(value: float) -> str:
    return f"{value:.3g}"


def _seconds(value: float) -> str:
    return duration(value) if value else "0 s"


def clip_name(name: str, width: int) -> str:
    return clip(name, width).rstrip() if cell_len(name) > width else name


def _range(lines: Sequence[Line], quantity: str) -> tuple[float, float]:
    ranges = [loss_range(line.y, line.y, line.points_y) for line in lines if len(line.y)]
    if not ranges:
        return 0.0, 1.0
    low = 0.0 if quantity in ("learning rate", "gradient norm") else min(r[0] for r in ranges)
    return low, max(high for _, high in ranges)


def details(
    chosen: Chosen, values: Mapping[str, Mapping[str, Any]], now: float, width: int
) -> list[TextLine]:
    """Text beside the chart: the differences of several runs, or what is known of one."""
    if len(chosen) == 1:
        return describe(chosen[0][1], now)
    return _compared(chosen, values, width) if chosen else []


def _compared(
    chosen: Chosen, values: Mapping[str, Mapping[str, Any]], width: int
) -> list[TextLine]:
    lines: list[TextLine] = [title("What differs")]
    for letter, run in chosen:
        lines.append(((f"{letter} ", "strong"), (run.name, "")))
    rows = [
        ("best val", [number(run.best_val_loss, 4) for _, run in chosen]),
        ("step", [thousands(run.step) for _, run in chosen]),
        ("trained", [duration(run.seconds) for _, run in chosen]),
    ]
    fields = differences([values.get(run.name, {}) for _, run in chosen])
    first = max([len(name) for name, _ in (*rows, *fields)], default=8) + 2
    room = max(6, (width - first - 1) // len(chosen))
    longest = max(cell_len(text) for _, texts in (*rows, *fields) for text in texts)
    wide = min(room, longest + 2)
    heads = "".join(clip(letter, wide - 1, True) + " " for letter, _ in chosen)
    lines += [(), ((" " * first, ""), (heads, "strong"))]
    lines += [_aligned(name, texts, first, wide) for name, texts in rows]
    lines.append(())
    lines += [_aligned(name, texts, first, wide) for name, texts in fields]
    if not fields:
        lines.append((("The configurations are the same.", "muted"),))
    return lines


def _aligned(name: str, texts: Sequence[str], first: int, wide: int) -> TextLine:
    cells = "".join(clip(text, wide - 1, True) + " " for text in texts)
    return ((f"{name:<{first}}", "muted"), (cells, ""))


def describe(run: RunSummary, now: float) -> list[TextLine]:
    """One run in a dozen lines."""
    best = number(run.best_val_loss)
    if run.best_val_loss is not None and run.best_step:
        best += f"  at step {thousands(run.best_step)}"
    lines = [
        title(run.name),
        fact("status", run.status),
        fact("step", f"{thousands(run.step)} of {thousands(run.max_steps)}"),
        fact("loss", number(run.loss)),
        fact("best val", best),
        fact("tokens", count(run.tokens)),
        fact("trained", duration(run.seconds)),
        fact("parameters", count(run.n_parameters)),
        fact("preset", run.preset or "–"),
        fact("corpus", run.corpus or "–"),
        fact("device", run.device or "–"),
        fact("created", f"{ago(max(0.0, now - run.created))} ago"),
        fact("on disk", f"{size(run.bytes)}, {run.n_checkpoints} checkpoints"),
        fact("folder", f"checkpoints/{run.name}" if run.own else str(run.path)),
    ]
    if run.status in ACTIVE and run.pid:
        lines.insert(2, fact("process", f"{run.pid} on {run.host}"))
    if run.error:
        lines.insert(2, fact("error", (run.error, "bad")))
    if not run.own:
        lines += [(), (("It ships with tui-lab and cannot be deleted.", "muted"),)]
    lines += [(), (("Mark two or more runs with space to compare them.", "muted"),)]
    return lines
