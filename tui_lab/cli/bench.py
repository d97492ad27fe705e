"""`tui-lab bench`: what this machine can do, and what training and generating make of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.config import resolve
from engine.config.load import parse_assignments
from engine.config.schema import find_field
from engine.machine import check_device_name
from engine.text import visible
from tui_lab import format
from tui_lab.cli.common import current_lab, note, say, say_json

if TYPE_CHECKING:
    from engine.bench.run import Finding, Own


def register(app: typer.Typer) -> None:
    app.command("bench", help="Measure this machine, and training and generation on it.")(bench)


def bench(
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="A preset, or a TOML file, to measure as well."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")] = "auto",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field of what is trained: section.field=value."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few seconds, and rougher.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One object a measurement.")] = False,
) -> None:
    """Matrix products, memory, training and generation: rates, and shares of what is possible.

    Takes about a minute, and longer where compilers have not run before. Networks are fresh ones
    and the text is random: nothing is kept. Shares are of the rates measured at the same time, so
    run it on a quiet machine.
    """
    check_device_name(device)
    assigned = parse_assignments(set_ or [])
    settings = {key: find_field(key).parse(value) for key, value in assigned.items()}
    own = _own(config, assigned)

    from engine.bench.run import QUICK, Effort
    from engine.bench.run import bench as measure

    progress = _Progress()
    try:
        for finding in measure(
            device,
            effort=QUICK if quick else Effort(),
            settings=settings,
            own=own,
            tell=progress.show,
        ):
            progress.clear()
            if json:
                say_json(finding.to_dict())
                continue
            for line in describe(finding):
                say(line)
    except KeyboardInterrupt:
        progress.clear()
        note("interrupted: what was measured stands above")
        raise typer.Exit(130) from None
    finally:
        progress.clear()


def _own(preset: str | None, assigned: dict[str, str]) -> list[Own]:
    """The user's configuration with its vocabulary, as far as that is known beforehand."""
    if preset is None:
        return []
    from engine.survey import survey_corpus

    lab = current_lab()
    config = resolve(lab, preset, assigned)
    vocab_size = survey_corpus(lab, config).vocab_size

    from engine.bench.run import Own

    return [Own(preset, config, vocab_size)]


class _Progress:
    """What is going on, in one line on stderr that is rewritten. Nothing without a terminal: the
    findings themselves come line by line."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._shown = ""

    def show(self, name: str, doing: str, share: float) -> None:
        percent = f" {share:.0%}" if share else ""
        text = visible(f"{name}: {doing}{percent}", lines=False)
        if self._on_terminal and text != self._shown:
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()
            self._shown = text

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = ""


def describe(finding: Finding) -> list[str]:
    """A finding in lines for people."""
    figures = finding.figures
    label = f"{finding.what:<12}"
    match finding.what:
        case "device":
            return [f"{label}{finding.name}; torch {figures['torch']}, {_threads(figures)}"]
        case "matmul":
            return [f"{label}{finding.name:<10}{_rate(figures['flops'], 'FLOP/s')}"]
        case "memory":
            return [
                f"{label}{'read':<10}{_rate(figures['read'], 'B/s')}   ({figures['read_is']})",
                f"{label}{'copy':<10}{_rate(figures['copy'], 'B/s')}   ({figures['copy_is']})",
            ]
        case "training":
            share = "" if figures["mfu"] is None else f", {format.percent(figures['mfu'])} of the "
            peak = f"{share}{figures['precision']} peak" if share else f", {figures['precision']}"
            return [
                f"{label}{finding.name}",
                f"{'':<12}{_tokens(figures)}{peak}; ready after {figures['start_seconds']:.1f} s",
            ]
    share = format.percent(figures["roofline"])
    return [
        f"{label}{finding.name}, {figures['tokens']} tokens, {figures['precision']}",
        f"{'':<12}{_tokens(figures)}, {share} of what reading the weights allows; "
        f"the first text {format.count(figures['first'])}",
    ]


def _threads(figures: dict[str, Any]) -> str:
    return f"{figures['threads']} thread{'s' * (figures['threads'] != 1)}"


def _tokens(figures: dict[str, Any]) -> str:
    low, high = (format.count(figures[edge]) for edge in ("low", "high"))
    return f"{format.count(figures['tokens_per_second'])} tokens/s ({low} to {high})"


def _rate(value: float, unit: str) -> str:
    return f"{format.count(value)}{unit}" if value else "not on this device"
