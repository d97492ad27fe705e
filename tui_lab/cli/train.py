"""`tui-lab train`: start or resume a run without the app, here or in the background."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.config.load import parse_assignments
from engine.errors import InputError
from tui_lab.cli.common import current_lab

if TYPE_CHECKING:
    from engine.config import Config
    from engine.lab import Lab
    from engine.resuming import Resumption

DEFAULT_PRESET = "micro"

SHORTHANDS = {
    "corpus": "data.corpus",
    "tokenizer": "data.tokenizer",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "lr": "optimizer.lr",
    "max_steps": "train.max_steps",
    "eval_every": "train.eval_every",
    "device": "train.device",
    "seed": "train.seed",
    "on_nan": "train.on_nan",
}
"""Flags that are short for a configuration field."""

AUTO = "auto"


def register(app: typer.Typer) -> None:
    app.command("train", help="Train a model headless, or resume a run.")(train)


def train(
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="A preset, or a TOML file (micro).")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Name of a registered corpus.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="bytes, char, word, bpe or gpt2.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length in passes over the corpus.")] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(help="Windows in a micro-batch; auto: the largest, found by a short run."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Length in optimiser steps.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations.")] = None,
    save: Annotated[
        bool | None,
        typer.Option(
            "--save/--no-save",
            help="Keep periodic checkpoints and the best; or none (default: one, rolling).",
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a run (its newest sound checkpoint).")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, data order, dropout.")] = None,
    on_nan: Annotated[
        str | None,
        typer.Option(help="After updates that are not finite: pause, stop, skip or rollback."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field: section.field=value (repeatable)."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Resume a changed configuration without asking.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Train in the background, and return once it runs.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    sample: Annotated[
        bool, typer.Option("--sample/--no-sample", help="Show the samples drawn on the way.")
    ] = True,
) -> None:
    """Train. The options override the preset; see `config list` and `config show --fields`."""
    given = {
        "corpus": corpus,
        "tokenizer": tokenizer,
        "epochs": epochs,
        "batch_size": None if batch_size == AUTO else batch_size,
        "lr": lr,
        "max_steps": max_steps,
        "eval_every": eval_every,
        "device": device,
        "seed": seed,
        "on_nan": on_nan,
    }
    overrides: dict[str, Any] = {
        SHORTHANDS[key]: value for key, value in given.items() if value is not None
    }
    if save is not None:
        overrides["save.policy"] = "all" if save else "none"
    overrides |= parse_assignments(set_ or [])
    lab = current_lab()

    from tui_lab.cli import detach as background
    from tui_lab.headless import make_listener, run_headless

    taken: Resumption | None = None
    if resume is not None:
        if config is not None or name is not None:
            raise InputError(
                "--resume goes on with a run's own configuration and name",
                "leave out --config and --name; change single fields with --set",
            )
        if batch_size == AUTO:
            raise InputError(
                "--batch-size auto is for new runs: a resumed one goes on with the step it had",
                "to change it all the same, give a number",
            )

        resumption = taken = _take(lab, resume, overrides, yes=yes)

        def work(emit: Any, inbox: Any) -> Any:
            from engine.session import resume_training

            return resume_training(lab, resumption, emit=emit, inbox=inbox)

    else:
        from engine.config import resolve
        from engine.session import check_request

        preset = config or DEFAULT_PRESET
        resolved = resolve(lab, preset, overrides)
        check_request(lab, resolved, name)
        if batch_size == AUTO:
            resolved = with_found_batch(lab, resolved)

        def work(emit: Any, inbox: Any) -> Any:
            from engine.session import run_training

            return run_training(lab, resolved, name=name, preset=preset, emit=emit, inbox=inbox)

    if detach:
        # All that can be refused here has been, and a difference has been confirmed.
        arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
        if batch_size == AUTO:
            arguments = _with_numbers(arguments, resolved)
        if taken is not None:
            taken.folder.close()  # for the process that is to train in it
            arguments.append("--yes")
        background.start(arguments, as_json=json)
        return
    if background.wanted():
        with background.reporting() as reporter:
            raise typer.Exit(run_headless(work, reporter))
    listener = make_listener(as_json=json, show_samples=sample)
    raise typer.Exit(run_headless(work, listener))


def with_found_batch(lab: Lab, config: Config) -> Config:
    """`config` with the largest batch that its device takes, telling how it was found."""
    from engine.batch_size import STEPS, find_batch_size
    from tui_lab import format
    from tui_lab.cli.common import note

    def trying(size: int, seconds: float) -> None:
        wait = format.duration(seconds + 5)
        note(f"trying a batch of {size:,}: {STEPS} steps in a process of its own, about {wait}")

    found = find_batch_size(lab, config, trying=trying)
    assert found is not None  # nobody stops it but by an interrupt
    for attempt in found.attempts:
        if attempt.fits:
            expected, taken = format.size(attempt.expected), format.size(attempt.taken)
            told = f"{taken} taken, {expected} expected, {attempt.step_seconds:.3g} s a step"
        else:
            told = "does not fit"
        note(f"  {attempt.batch_size:,} windows: {told}")
    times = f" × {found.accumulate}" if found.accumulate > 1 else ""
    note(f"batch size {found.batch_size:,}{times}, limited by: {found.limit}")
    return config.with_values(found.values())


def _with_numbers(arguments: list[str], config: Config) -> list[str]:
    """The arguments for the process in the background, with the batch that was found in them."""
    number = str(config.train.batch_size)
    kept = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before == "--batch-size" and argument == AUTO:
            argument = number
        kept.append(f"--batch-size={number}" if argument == f"--batch-size={AUTO}" else argument)
    return [*kept, "--set", f"train.accumulate={config.train.accumulate}"]


def _take(lab: Lab, reference: str, overrides: dict[str, Any], *, yes: bool) -> Resumption:
    """The run to go on with. What is different from its checkpoint is shown and confirmed: asked
    on a terminal; without one, this command's own flags are confirmation enough, and an edited
    config.toml needs `--yes`. Raises InputError when the answer is no.
    """
    from engine.resuming import describe, open_resumption
    from tui_lab.cli.common import confirm, note

    taken = open_resumption(lab, reference, overrides)
    if taken.differences:
        note(f"run '{taken.info.run}' goes on from step {taken.info.step:,} with another setting:")
        for line in describe(taken.differences):
            note(f"  {line}")
        edited = [key for key, _, _ in taken.differences if key not in overrides]
        asked = edited or sys.stdin.isatty()
        if asked and not confirm("Go on with it?", yes=yes):
            taken.folder.close()
            raise InputError(
                "not resumed: its configuration is not the checkpoint's",
                f"put config.toml back ({', '.join(edited)})" if edited else "",
            )
    return taken
