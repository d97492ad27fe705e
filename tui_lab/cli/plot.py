"""Loss curves of finished or growing runs as plain text, for terminals and for logs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.text import visible

if TYPE_CHECKING:
    from engine.runs import RunSummary

MOST = 6
"""Curves that can still be told apart on one chart."""

COLOURS = ("blue+", "orange+", "green+", "red+", "magenta+", "cyan+")


def loss_chart(runs: Sequence[RunSummary], width: int, height: int, *, colour: bool) -> str:
    """The smoothed training loss of each run by steps, `width` × `height` characters.

    Without `colour` a curve is drawn with a letter of its own, so that curves stay distinct.
    Empty when no run has logged a step.
    """
    import plotext

    from engine.metrics import read_metrics
    from engine.series import decimate, smooth

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limit_size(False, False)
    plotext.plotsize(width, height)
    plotext.xlabel("step")
    legend: list[str] = []
    for run in runs[:MOST]:
        metrics = read_metrics(run.path)
        if not len(metrics["step"]):
            continue
        steps, losses = decimate(metrics["step"], smooth(metrics["loss"], 0.95), width)
        letter, hue = "ABCDEF"[len(legend)], COLOURS[len(legend)]
        name = visible(run.name, lines=False)
        marker = "braille" if colour else letter
        plotext.plot(list(steps), list(losses), marker=marker, color=hue)
        legend.append(plotext.colorize(f"━ {name}", hue) if colour else f"{letter} {name}")
    if not legend:
        return ""
    # Above the chart: inside it the curves would run over plotext's own legend.
    chart = "training loss, smoothed   " + "   ".join(legend) + "\n" + plotext.build()
    return chart if colour else re.sub(r"\x1b\[[0-9;]*m", "", chart)
