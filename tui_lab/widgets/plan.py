"""What a run would cost, beside the form: told a plan, draws lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.content import Content
from textual.strip import Strip

from engine.errors import EngineError
from engine.text import visible
from tui_lab import format as fmt
from tui_lab.widgets.lines import LineView
from tui_lab.widgets.readout import shorten

if TYPE_CHECKING:
    from engine.planner import Plan

LABEL = 13


class PlanView(LineView):
    """Parameters, memory by part, length, time; then what looks wrong."""

    DEFAULT_CSS = "PlanView { width: 1fr; height: 1fr; }"

    def __init__(self, unicode: bool = True, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.unicode = unicode
        self.plan: Plan | None = None
        self.trouble: EngineError | None = None
        self.stale = False
        self.doing = ""

    def say(self, doing: str) -> None:
        """What is being done for the plan just now; "" when nothing is."""
        self.doing = doing
        self.redraw()

    def show(self, plan: Plan | None, trouble: EngineError | None = None) -> None:
        """A new plan, or why there is none; the old one stays, faint, while there is trouble."""
        self.plan, self.trouble, self.stale = plan or self.plan, trouble, plan is None
        self.redraw()

    def build(self, width: int, height: int) -> Iterable[Strip]:
        yield self.strip(("plan", "bright"))
        for line in Content(self.doing).wrap(max(1, width)) if self.doing else ():
            yield self.strip((line.plain, "accent"))
        if self.trouble is not None:
            yield from self._wrapped(width, "error", self.trouble.title, self.trouble.hint)
            yield Strip([])
        if self.plan is None:
            if self.trouble is None:
                yield self.strip(("reckoning", "muted"))
            return
        part = "muted" if self.stale else "text"
        tall = height >= 30 or (height >= 24 and not self.plan.messages)
        for label, value, note in plan_rows(self.plan, parts=tall):
            gap = "  " if note and value else ""
            fits = len(gap) + len(note) <= width - LABEL - len(value)
            note = gap + note if fits else "" if value else shorten(note, width - LABEL)
            yield self.strip((f"{label:<{LABEL}}", "muted"), (value, part), (note, "muted"))
        if self.stale and self.trouble is None:
            yield self.strip(("of the last complete form", "warning"))
        yield Strip([])
        for message in self.plan.messages:
            yield from self._wrapped(width, message.level, message.title, message.hint)

    def _wrapped(self, width: int, level: str, title: str, hint: str) -> Iterable[Strip]:
        part = {"error": "error", "warning": "warning"}.get(level, "text")
        for line in Content(visible(title)).wrap(max(1, width)):
            yield self.strip((line.plain, part))
        for way in visible(hint).splitlines():
            for line in Content(way).wrap(max(1, width)):
                yield self.strip((line.plain, "muted"))


def plan_rows(plan: Plan, *, parts: bool) -> Iterable[tuple[str, str, str]]:
    """(label, value, note) of a plan; with `parts` also what its memory is made of."""
    about = "" if plan.tokens_exact else "~"
    yield "parameters", fmt.count(plan.parameters), f"vocabulary {fmt.thousands(plan.vocab_size)}"
    if plan.active_parameters != plan.parameters:
        yield " active", fmt.count(plan.active_parameters), "met by a token"
    if plan.train_tokens is not None:
        yield "text", f"{about}{fmt.count(plan.train_tokens)} tokens", "to train on"
    steps = "–" if plan.steps is None else fmt.thousands(plan.steps)
    yield "steps", steps, f"of {fmt.thousands(plan.tokens_per_step)} tokens"
    if plan.tokens is not None:
        passes = f"{plan.epochs:.2g} epochs" if plan.epochs else ""
        yield "tokens", fmt.count(plan.tokens), passes
    if plan.flops is not None:
        yield "compute", f"{fmt.count(plan.flops)}FLOP", ""
    yield "memory", fmt.size(plan.memory.total), f"of {fmt.size(plan.device.memory_total)}"
    if parts:
        for name, size in plan.memory.parts():
            if size:
                yield f" {name}", fmt.size(size), ""
        yield "KV cache", fmt.size(plan.cache_bytes), "at the full context"
    disk = plan.disk_bytes if plan.disk_bytes is not None else plan.checkpoint_bytes
    yield "disk", fmt.size(disk) if disk else "0 B", ""
    yield "device", plan.device.kind, plan.device.precision
    if plan.tokens_per_second:
        yield "speed", f"{fmt.count(plan.tokens_per_second)} tokens/s", ""
        learned = plan.correction
        source = f"corrected by {learned.time:.2f}, {learned.date}" if learned else plan.rate_source
        yield "", "", source
    if plan.whole_seconds is not None:
        beside = plan.evaluation_seconds or 0.0
        scored = f"{fmt.duration(beside)} of it scoring" if beside >= 1 else ""
        yield "time", f"~{fmt.duration(plan.whole_seconds)}", scored
