"""`tui-lab generate --all`: one row for every checkpoint of a run and every prompt.

Knows the engine's results and how they are drawn: a table that grows on a terminal, tab-separated
lines in a pipe, JSON lines, or a file that is whole after every row.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from engine.errors import CheckpointError, InputError
from engine.text import to_json, visible
from tui_lab.cli.common import ProgressLine, console, note, on_terminal, say, say_json
from tui_lab.format import number

if TYPE_CHECKING:
    from engine.checkpoints import CheckpointInfo
    from engine.generation.across import Sampled
    from engine.generation.load import Generator
    from engine.generation.params import SamplingParams
    from engine.lab import Lab

SUFFIXES = (".md", ".csv", ".jsonl")
HEADERS = ("step", "val loss", "tokens", "tokens/s", "log p", "prompt", "text")
WIDTHS = (7, 8, 6, 8, 6)
"""Of the columns of figures on a terminal; the text has the rest."""


def check_form(path: Path) -> None:
    """Refuse, before anything is loaded, a file of no form that `--all` writes. Raises
    InputError."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"--output '{path}': the suffix says the form, and '{path.suffix}' says none",
            f"end it in {', '.join(SUFFIXES)}",
        )


def checkpoints_of(lab: Lab, run: str) -> list[CheckpointInfo]:
    """All checkpoints of the run, oldest first; of the newest run when none is named. Raises
    CheckpointError when there are none."""
    from engine.checkpoints import find_run_folder, list_checkpoints
    from engine.generation.default import default_reference

    if "@" in run:
        raise InputError(f"--all takes every checkpoint of a run, '{run}' names one", "leave @ out")
    folder = find_run_folder(lab, run or default_reference(lab))
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError(
            f"run '{folder.name}' has no checkpoint", "it was not saved, or they were deleted"
        )
    if not run:
        note(f"{folder.name}, {len(found)} checkpoints")
    return found


def sample_all(
    checkpoints: Sequence[CheckpointInfo],
    prompts: Sequence[str],
    params: SamplingParams,
    *,
    device: str,
    crop: bool,
    quantise: str,
    json: bool,
    output: Path | None,
    loaded: Callable[[Generator], None],
) -> None:
    """Sample and draw. Exits 1 when a checkpoint was broken, 130 after ctrl-c with the rows that
    were done. One that retention removed meanwhile is named, and no failure."""
    from engine.device import choose_device
    from engine.generation.across import PassedOver, sample_across

    bar = ProgressLine("generating")
    done: list[Sampled] = []
    broken, named = 0, len(prompts) > 1
    results = sample_across(
        checkpoints,
        prompts,
        params,
        device=choose_device(device),
        crop=crop,
        quantise=quantise,
        loaded=loaded,
        progress=bar.show,
    )
    try:
        for result in results:
            bar.clear()
            if isinstance(result, PassedOver):
                broken += not result.gone
                what = "gone meanwhile" if result.gone else "skipped a broken checkpoint"
                note(f"{what}: {result.why}")
                continue
            done.append(result)
            if output is not None:  # after each, so that an interrupt loses no finished one
                _write(output, done)
            else:
                _tell(result, json=json, first=len(done) == 1, named=named)
    except KeyboardInterrupt:
        bar.clear()
        finished = len({one.info.path for one in done})
        note(f"\ninterrupted: {finished} of {len(checkpoints)} checkpoints are done")
        raise typer.Exit(130) from None
    finally:
        bar.clear()
    if output is not None and done:
        note(f"wrote {len(done)} rows to '{output}'")
    if broken:
        raise typer.Exit(1)


def _figures(one: Sampled) -> list[str]:
    return [
        str(one.info.step),
        number(one.info.val_loss),
        str(one.tokens),
        f"{one.tokens_per_second:.0f}",
        number(one.mean_log_probability, 2),
    ]


def _tell(one: Sampled, *, json: bool, first: bool, named: bool) -> None:
    if json:
        say_json(one.to_dict())
    elif on_terminal():
        _draw(one, first, named)
    else:
        if first:
            say("\t".join(HEADERS))
        cells = [*_figures(one), one.prompt, one.text]
        say("\t".join(visible(cell, lines=False) for cell in cells))


def _draw(one: Sampled, first: bool, named: bool) -> None:
    """One row of a table whose columns have fixed widths: the next rows are not there yet. With
    several prompts each text begins with its own, in bold."""
    from rich.table import Table
    from rich.text import Text

    row = Table(box=None, pad_edge=False, show_header=first, header_style="bold", expand=True)
    for header, width in zip(HEADERS, WIDTHS, strict=False):
        row.add_column(header, justify="right", width=width, no_wrap=True)
    row.add_column("text", ratio=1, overflow="fold")
    text = Text(visible(one.prompt), style="bold") if named else Text()
    text.append(visible(one.text), style="not bold")
    row.add_row(*_figures(one), text)
    console().print(row)
    sys.stdout.flush()


def _write(path: Path, done: Sequence[Sampled]) -> None:
    """All rows so far, in the form that the suffix says. Raises InputError."""
    from engine.atomic import write_text

    form = {".md": _markdown, ".csv": _csv, ".jsonl": _jsonl}[path.suffix.lower()]
    try:
        write_text(path, form(done))
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror}") from error


def _jsonl(done: Sequence[Sampled]) -> str:
    return "".join(to_json(one.to_dict()) + "\n" for one in done)


def _csv(done: Sequence[Sampled]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, done[0].to_dict(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(one.to_dict() for one in done)
    return text.getvalue()


def _markdown(done: Sequence[Sampled]) -> str:
    """The figures as a table, then the texts, each in a fence that nothing in it can close."""
    several = len({one.number for one in done}) > 1
    names = [*HEADERS[:5], *(["prompt"] if several else [])]
    rows = [names, ["---:"] * len(names)]
    rows += [[*_figures(one), *([str(one.number + 1)] if several else [])] for one in done]
    lines = [f"# {_plain(done[0].info.run)}", ""]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    for one in done:
        title = f"## step {one.info.step}" + (f", prompt {one.number + 1}" if several else "")
        whole = visible(one.prompt + one.text)
        longest = max(map(len, re.findall("`+", whole)), default=0)
        fence = "`" * max(3, longest + 1)
        lines += ["", title, "", f"{fence}text", whole, fence]
    return "\n".join(lines) + "\n"


def _plain(name: str) -> str:
    """A run's name that no Markdown is read into."""
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", visible(name, lines=False))
