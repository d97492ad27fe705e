"""`tui-lab evaluate`: a checkpoint, or every checkpoint of a run, scored on a corpus."""

from __future__ import annotations

import csv
import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import CheckpointError, InputError, did_you_mean
from engine.text import visible
from tui_lab.cli.common import current_lab, note, say, say_json
from tui_lab.format import number, thousands

if TYPE_CHECKING:
    from engine.checkpoints import CheckpointInfo
    from engine.measure import Measured

COLUMNS = (
    "run",
    "step",
    "tokens",
    "loss",
    "perplexity",
    "bits_per_byte",
    "context",
    "stride",
    "corpus",
    "split",
)
"""Of the CSV; `tokens` counts the targets scored."""
SPLITS = ("val", "train", "all")


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="run, run@best, run@500 or a path.")
    ],
    corpus: Annotated[
        str, typer.Option(help="Any corpus (default: the run's own).", show_default=False)
    ] = "",
    split: Annotated[
        str,
        typer.Option(
            help="val, train or all (default: val of the run's own corpus, all of another).",
            show_default=False,
        ),
    ] = "",
    context: Annotated[
        int, typer.Option(min=0, help="Window length in tokens; 0: the model's.")
    ] = 0,
    stride: Annotated[
        int, typer.Option(min=0, help="Distance between windows; 0: the context.")
    ] = 0,
    batch_size: Annotated[
        int, typer.Option(min=0, help="Windows at once; 0: what suits the device.")
    ] = 0,
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all cores.")] = 0,
    every: Annotated[bool, typer.Option("--all", help="Every checkpoint of the run.")] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the results to a CSV file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One object a checkpoint.")] = False,
) -> None:
    """Loss, perplexity and bits per byte of a checkpoint on a corpus.

    Each token is scored once. With a stride below the context the windows overlap and give later
    tokens more context: the figures are better and take longer. Loss is the mean in nats per token;
    bits per byte leaves special tokens out. All figures hold for the context and stride shown.
    """
    if split not in ("", *SPLITS):
        raise InputError(
            f"--split {split}: not one of {', '.join(SPLITS)}", did_you_mean(split, SPLITS)
        )
    lab = current_lab()
    if corpus:
        from engine.corpora import find_corpus

        find_corpus(lab, corpus)
    if csv_file is not None:
        _check_writable(csv_file)
    chosen = _chosen(checkpoint, every)

    import torch

    from engine.device import choose_device
    from engine.measure import Request, measure

    if threads:
        torch.set_num_threads(threads)
    request = Request(corpus, split, stride, context, batch_size, precision)
    torch_device = choose_device(device)
    done: list[Measured] = []
    broken = 0
    try:
        for place, info in enumerate(chosen):
            show = _Progress(f"{info.run}, step {info.step}", len(chosen), place)
            try:
                result = measure(
                    lab,
                    info,
                    request,
                    device=torch_device,
                    preparing=show.preparing,
                    progress=show.windows,
                )
            except CheckpointError as error:
                if not every:
                    raise
                broken += 1
                note(f"skipped a broken checkpoint: {error.title}")
                continue
            finally:
                show.clear()
            assert result is not None  # nothing asked it to stop
            done.append(result)
            _tell(result, json=json, as_row=every)
            if csv_file is not None:  # after each, so that an interrupt loses no finished one
                _write_csv(csv_file, done)
    except KeyboardInterrupt:
        note(f"\ninterrupted: {len(done)} of {len(chosen)} checkpoints are done")
        raise typer.Exit(130) from None
    if csv_file is not None and done:
        note(f"wrote {len(done)} rows to '{csv_file}'")
    if broken:
        raise typer.Exit(1)


def _check_writable(path: Path) -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(
            f"--csv '{path}' cannot be written", "name a file in a directory that is there"
        )


def _chosen(reference: str, every: bool) -> list[CheckpointInfo]:
    """The checkpoint that `reference` names, or all complete ones of its run, by step."""
    from engine.checkpoints import find_checkpoint, find_run_folder, list_checkpoints

    lab = current_lab()
    problems: list[str] = []
    if not every:
        found = [find_checkpoint(lab, reference, problems)]
        for problem in problems:
            note(f"skipped a broken checkpoint: {problem}")
        return found
    run = find_run_folder(lab, reference)
    listed = list_checkpoints(run)
    for info in listed:
        if not info.complete:
            note(f"skipped a broken checkpoint: '{info.path}' is not complete")
    complete = [info for info in listed if info.complete]
    if not complete:
        raise CheckpointError(f"run '{run.name}' has no sound checkpoint", "nothing to evaluate")
    return complete


class _Progress:
    """One line on stderr: rewritten on a terminal; when piped, none for a short evaluation."""

    def __init__(self, label: str, total: int, index: int) -> None:
        self.label = f"{label} ({index + 1} of {total})" if total > 1 else label
        self.on_terminal = sys.stderr.isatty()
        self.next = time.monotonic() + (0.2 if self.on_terminal else 10.0)

    def preparing(self, what: str, done: int, total: int) -> None:
        self._show(what, done, total)

    def windows(self, done: int, total: int) -> None:
        self._show("evaluating", done, total)

    def clear(self) -> None:
        if self.on_terminal:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def _show(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + (0.2 if self.on_terminal else 10.0)
        share = f"{100 * done // total:3} %" if total else ""
        if self.on_terminal:
            self.clear()
            sys.stderr.write(visible(f"{self.label}: {what} {share}", lines=False))
            sys.stderr.flush()
        else:
            note(f"{self.label}: {what} {share}")


def _tell(result: Measured, *, json: bool, as_row: bool) -> None:
    if json:
        say_json(_finite(result.to_dict()))
        return
    figures = (
        f"loss {number(result.loss)}   perplexity {number(result.perplexity, 2)}   "
        f"bits/byte {number(result.bits_per_byte, 4)}"
    )
    if as_row:
        say(f"step {result.step:>9}   {figures}")
        return
    say(f"{result.run}, step {result.step}, on {result.corpus} ({result.split})")
    say(figures)
    say(
        f"{thousands(result.tokens)} tokens in {thousands(result.windows)} windows of context "
        f"{result.context}, stride {result.stride}; {result.precision} on {result.device}, "
        f"{result.seconds:.1f} s"
    )
    if result.split == "val" and not result.same_text:
        note("note: this is not the text of the run's training, so its split is not the run's own")


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: null."""
    infinite = (float("inf"), float("-inf"))
    return {
        key: None if isinstance(value, float) and (value != value or value in infinite) else value
        for key, value in values.items()
    }


def _write_csv(path: Path, done: list[Measured]) -> None:
    from engine.atomic import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in done:
        values = result.to_dict()
        row = [values[name] for name in COLUMNS]
        writer.writerow("" if value is None else value for value in row)
    try:
        write_text(path, text.getvalue())
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror}") from error
