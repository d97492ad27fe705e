"""What the Train screen says of a run, as rows and plots: pure functions of the run's state."""

from __future__ import annotations

import functools
import math
from array import array
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config.sections import ScheduleConfig
from engine.text import visible
from tui_lab import format as fmt
from tui_lab.settings import Settings
from tui_lab.state import RunState
from tui_lab.widgets.chart import Curve, Plot, spark
from tui_lab.widgets.lines import Piece, width_of
from tui_lab.widgets.readout import Row, meter

if TYPE_CHECKING:
    from tui_lab.widgets.plot import CalmRange

ZOOMS = ("so far", "plan", "recent")
RECENT_SHARE = 0.2  # of the steps so far, when zoomed in
RECENT_LEAST = 100


def heading(run: RunState, width: int, unicode: bool) -> list[Piece]:
    """The run's name on the left; on the right its phase or its progress."""
    dot = " · " if unicode else " - "
    told = run.corpus in run.name or (run.elsewhere and width < 100)
    names = [run.name] if told else [run.name, run.corpus]
    left: list[Piece] = [(f" {dot.join(name for name in names if name)}", "bright")]
    if run.elsewhere:
        place = f"{dot}{run.started.host}{dot}{run.started.pid}" if run.started else ""
        left.append((f"{dot}attached{place if width >= 100 else ''}", "warning"))
    elif run.started and width >= 100:
        params = f"{fmt.count(run.started.n_parameters)} parameters"
        left.append((f"{dot}{params}{dot}{run.started.device} {run.started.precision}", "muted"))
    right = _phase(run, unicode) if run.live else _ended(run)
    space = width - _length(left) - _length(right) - 1
    return [*left, (" " * max(1, space), ""), *right]


def _phase(run: RunState, unicode: bool) -> list[Piece]:
    if run.status == "preparing":
        pieces: list[Piece] = [(run.what, "text")]
        if run.total:
            pieces += [("  ", ""), *meter(run.done / run.total, 10, unicode)]
            pieces.append((f" {100 * run.done // run.total:3} %", "text"))
        return pieces
    pieces = []
    if run.phase:
        pieces.append((run.phase, "warning"))
        if run.total:
            pieces.append((f" {run.done}/{run.total}", "warning"))
        pieces.append(("   ", ""))
    elif run.status == "paused":
        pieces.append(("paused   ", "warning"))
    if run.asked and not run.phase:
        pieces.append((f"{run.asked} after this step   ", "warning"))
    pieces.append((f"{fmt.thousands(run.step)} / {fmt.thousands(run.max_steps)}  ", "text"))
    pieces += meter(run.progress, 10, unicode)
    pieces.append((f" {fmt.percent(run.progress)}", "text"))
    if (eta := run.eta) is not None:
        pieces.append((f"  {fmt.duration(eta)} left", "text"))
    return pieces


def _ended(run: RunState) -> list[Piece]:
    if run.failed:
        return [("failed", "error")]
    reason = run.finished.reason if run.finished else ""
    part = "good" if reason == "completed" else "text"
    return [(f"{reason} at step {fmt.thousands(run.step)}", part)]


def _length(pieces: list[Piece]) -> int:
    return width_of((visible(text, lines=False), part) for text, part in pieces)


def numbers(
    run: RunState, room: int, width: int, unicode: bool, *, sparks: bool = True
) -> list[Row]:
    """The column of numbers, most important first, in at most `room` lines; the small graph of the
    rate among them only with `sparks`."""
    last, dash = run.last, "–" if unicode else "-"
    loss = fmt.number(run.smooth, 3) if last else dash
    if last and not math.isfinite(last.loss):
        loss = fmt.number(last.loss)
    score = run.evaluation
    validation: tuple[Piece, ...] = ((dash, "muted"),)
    if score:
        best = score.best or run.best is score
        note = (
            "  best" if best else f"  best {fmt.number(run.best.val_loss, 3)}" if run.best else ""
        )
        validation = ((fmt.number(score.val_loss, 3), "bright"), (note, "muted"))
    bits = score.bits_per_byte if score else None
    block_1: list[Row] = [
        ("loss", (loss, "smooth"), *_trend(run, unicode)),
        ("validation", *validation),
        ("perplexity", (f"{score.perplexity:.2f}" if score else dash, "text")),
        ("bits/byte", (fmt.number(bits, 3) if bits is not None else dash, "text")),
        ("grad norm", (fmt.number(last.grad_norm, 2) if last else dash, "text")),
        ("lr", (fmt.rate(last.lr) if last else dash, "text")),
    ]
    block_1 += _experts(run, width)
    rate = f"{fmt.count(last.tokens_per_second)}" if last else dash
    graph = spark(run.series.rate[-400:], max(0, width - 22), unicode) if sparks else ""
    block_2: list[Row] = [("tokens/s", (f"{rate:<8}", "text"), (graph, "raw"))]
    if last and last.mfu is not None:
        block_2.append(("MFU", (fmt.percent(last.mfu), "text")))
    block_2 += _memory(run, width, unicode)
    block_3: list[Row] = [
        ("tokens", (fmt.count(run.tokens), "text"), (_share_of_epoch(run), "muted")),
        ("elapsed", (fmt.duration(run.seconds), "text")),
    ]
    rows = [*block_1, ("-",), *block_2, ("-",), *block_3, ("-",)]
    if len(rows) > room:  # a small screen: no rules, and what the header says already goes first
        rows = [*block_1, *block_2, *block_3][:room]
    return rows


def _experts(run: RunState, width: int) -> list[Row]:
    """How evenly a mixture's experts are used, in the layer where it is worst; none when dense."""
    last = run.last
    if last is None or last.expert_busiest is None or last.expert_idlest is None:
        return []
    busiest = (f"busiest {last.expert_busiest:.2g}x", "text")
    idlest = (f"idlest {last.expert_idlest:.2g}x", "text" if last.expert_idlest else "warning")
    if width >= 40:
        return [("experts", busiest, ("  ", ""), idlest)]
    return [("experts", busiest), ("", idlest)]


def _trend(run: RunState, unicode: bool) -> tuple[Piece, ...]:
    smooth = [value for value in run.series.smooth[-run.span() :] if math.isfinite(value)]
    if len(smooth) < 5 or not smooth[0]:
        return ()
    change = (smooth[-1] - smooth[0]) / abs(smooth[0])
    if abs(change) < 0.002:
        return (("  steady", "muted"),)
    glyph = ("▼" if change < 0 else "▲") if unicode else ("v" if change < 0 else "^")
    return ((f"  {glyph}", "good" if change < 0 else "warning"),)


def _share_of_epoch(run: RunState) -> str:
    return f"  epoch {run.epoch:.2f}" if run.epoch else ""


def _memory(run: RunState, width: int, unicode: bool) -> list[Row]:
    """Device memory with a meter: used against total, and the peak; the host's when it is one."""
    stats = run.device
    if stats is None:
        memory = run.last.memory_bytes if run.last else 0
        return [("memory", (fmt.size(memory) if memory else "", "text"))]
    on_host = run.started is None or run.started.device == "cpu"
    total = fmt.size(stats.total) if stats.total else ""
    used = fmt.size(stats.used)
    if total and used.rpartition(" ")[2] == total.rpartition(" ")[2]:
        used = used.rpartition(" ")[0]
    of = f" / {total}" if total else ""
    rows: list[Row] = [("memory" if on_host else "VRAM", (f"{used}{of}", "text"))]
    share = stats.used / stats.total if stats.total else 0.0
    peak = f" peak {fmt.size(stats.peak)}"
    bar = max(3, min(8, width - 13 - len(peak)))
    rows.append(("", *meter(share, bar, unicode), (peak, "muted")))
    if stats.reserved is not None:
        rows.append(("", (f"reserved {fmt.size(stats.reserved)}", "muted")))
    facts = [
        f"{value:.0f}{unit}"
        for value, unit in (
            (stats.utilization, " %"),
            (stats.temperature, " °C" if unicode else " C"),
            (stats.power, " W"),
        )
        if value is not None
    ]
    if facts:
        rows.append(("CPU" if on_host else "GPU", ("  ".join(facts), "text")))
    return rows


def x_range(run: RunState, zoom: str) -> tuple[float, float]:
    """The steps that the loss chart shows. It grows in jumps, so that few frames redraw it all."""
    series = run.series
    first = series.step[0] if len(series) else 0.0
    now = max(run.step, 1)
    if zoom == "plan":
        return (0.0, float(max(run.max_steps, now)))
    if zoom == "recent":
        width = max(RECENT_LEAST, now * RECENT_SHARE)
        jump = 2.0 ** math.floor(math.log2(width / 8))
        end = math.ceil(now / jump) * jump
        return (max(first, math.floor((end - width) / jump) * jump), end)
    end = 20.0
    while end < now:
        end *= 1.25
    if run.max_steps:
        end = min(end, max(run.max_steps, now))
    return (0.0 if first < end * 0.2 else first, float(math.ceil(end)))


def loss_plot(
    run: RunState, settings: Settings, unicode: bool, heights: CalmRange | None = None
) -> Plot:
    """Raw faint, smoothed bright, validation as points, marks on the axis. `heights` remembers
    the chart's range from one call to the next."""
    from bisect import bisect_left

    from tui_lab.widgets.plot import CalmRange

    series = run.series
    zoom = settings.zoom if settings.zoom in ZOOMS else ZOOMS[0]
    left, right = x_range(run, zoom)
    start = bisect_left(series.step, left) if zoom == "recent" else 0
    points = [(step, loss) for step, loss in run.validation if left <= step <= right]
    raw, smooth = series.loss[start:], series.smooth[start:]
    what = (id(run), zoom, left)
    low, high = (heights or CalmRange()).of(what, raw, smooth, [loss for _, loss in points])
    if settings.log_scale:
        finite = [value for value in raw if math.isfinite(value) and value > 0]
        low, high = (min([low, *finite]), max([high, *finite])) if finite else (low, high)
        low = low if low > 0 else high / 1000
    step = series.step[start:]
    point, line = ("◆", "━") if unicode else ("o", "*")
    view = "" if zoom == ZOOMS[0] else f" · {zoom}" if unicode else f" - {zoom}"
    scale = " log" if settings.log_scale else ""
    return Plot(
        curves=(Curve(step, raw, "raw"), Curve(step, smooth, "smooth")),
        points=points,
        marks=[(mark.step, mark.kind) for mark in run.marks if left <= mark.step <= right],
        x_range=(left, right),
        y_range=(low, high),
        log=settings.log_scale,
        title=((f" loss{scale}{view}", "bright"),),
        legend=(
            (f"{line} smoothed", "smooth"),
            ("  raw", "raw"),
            (f"  {point} validation", "text"),
            ("  • saved" if unicode else "  s saved", "muted"),
        ),
        empty=run.what if run.status == "preparing" else "waiting for the first step",
        y_format=lambda value: f"{value:.4g}",
    )


def coarse(plot: Plot) -> Plot:
    """The plot without its raw curve, most of whose dots are new in every picture."""
    curves = [curve for curve in plot.curves if curve.part != "raw"]
    legend = [piece for piece in plot.legend if piece[1] != "raw"]
    return replace(plot, curves=curves, legend=legend)


@functools.lru_cache(maxsize=4)
def _planned(schedule: ScheduleConfig, lr: float, steps: int) -> tuple[array, array]:
    from engine.schedule import curve

    at, rates = curve(schedule, lr, steps)
    return array("d", at), array("d", rates)


def rate_plot(run: RunState, unicode: bool) -> Plot:
    """The whole plan of the learning rate, what was done of it, and where the run is."""
    if run.config is None or not run.max_steps:
        return Plot(title=((" learning rate", "bright"),))
    from tui_lab.widgets.plot import highest

    steps, rates = _planned(run.config.schedule, run.config.optimizer.lr, run.max_steps)
    scale = run.lr_scale()
    done, curves, ahead = run.series, [Curve(steps, rates, "raw")], []
    if scale != 1.0:
        ahead = [(s, r * scale) for s, r in zip(steps, rates, strict=True) if s >= run.step]
        curves.append(Curve([s for s, _ in ahead], [r for _, r in ahead], "raw"))
    top = max([*rates, *(rate for _, rate in ahead), highest(done.lr)]) or 1.0
    return Plot(
        curves=(*curves, Curve(done.step, done.lr, "smooth")),
        marks=[(run.step, "now")],
        x_range=(0.0, float(run.max_steps)),
        y_range=(0.0, top * 1.05),
        title=((" learning rate", "bright"),),
        legend=((f"{'▲' if unicode else '^'} now ", "primary"),),
        y_format=lambda value: f"{value:.0e}".replace("e-0", "e-") if value else "0",
    )


def norm_plot(run: RunState, unicode: bool, heights: CalmRange) -> Plot:
    """The gradient's norm, with the limit that it is clipped to said in the heading. `heights`
    remembers the chart's range from one call to the next."""
    series = run.series
    _, high = heights.of(id(run), series.grad_norm, series.grad_norm)
    clip = run.config.optimizer.clip if run.config else 0.0
    return Plot(
        curves=(
            Curve(series.step, series.grad_norm, "raw"),
            Curve(series.step, series.norm_smooth, "smooth"),
        ),
        x_range=x_range(run, ZOOMS[0]),
        y_range=(0.0, high),
        title=((" gradient norm", "bright"),),
        legend=((f"clipped at {clip:g} ", "muted"),) if clip else (),
        y_format=lambda value: f"{value:.3g}",
    )


def summary(run: RunState, log_path: str) -> list[Piece]:
    """How the run ended and what one can do next."""
    if run.failed:
        pieces: list[Piece] = [(f"{run.failed.title}\n", "error")]
        if run.failed.hint:
            pieces.append((f"{run.failed.hint}\n", "text"))
        if log_path:
            pieces.append((f"log  {log_path}\n", "muted"))
        pieces += [("\nn", "key"), (" set up a new run", "muted")]
        if run.checkpoint:
            pieces += [("   r", "key"), (f" resume from step {run.checkpoint.step}", "muted")]
        return pieces
    end = run.finished
    if end is None:
        return []
    steps, tokens = fmt.thousands(end.step), fmt.count(end.tokens)
    pieces = [(f"{steps} steps   {tokens} tokens   {fmt.duration(end.seconds)}\n", "text")]
    if end.best_val_loss is not None:
        at = f" at step {fmt.thousands(end.best_step or 0)}\n"
        pieces += [("best validation loss ", "muted"), (fmt.number(end.best_val_loss), "smooth")]
        pieces.append((at, "muted"))
    kept = "/".join(Path(end.checkpoint).parts[-2:]) or "none was kept (save.policy)"
    pieces += [("checkpoint ", "muted"), (f"{kept}\n\n", "text")]
    if end.checkpoint:
        pieces += [("c", "key"), (" talk to it   ", "muted")]
        if end.reason != "completed":
            pieces += [("r", "key"), (" resume   ", "muted")]
    pieces += [("n", "key"), (" new run   ", "muted"), ("2", "key"), (" compare runs", "muted")]
    return pieces
