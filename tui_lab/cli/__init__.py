"""The command line: one Typer application, one module a command group, nothing heavy at import.

Commands import the engine's heavy parts inside their functions, so that `--help` never waits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from engine import machine
from tui_lab.cli import (
    attach,
    bench,
    checkpoints,
    config,
    corpus,
    doctor,
    evaluate,
    exchange,
    generate,
    init,
    plan,
    runs,
    tokenizer,
    train,
)
from tui_lab.cli.common import choose

app = typer.Typer(
    name="tui-lab",
    help="Pretrain, watch, steer, inspect and talk to a GPT in the terminal.",
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from engine import __version__

        typer.echo(f"tui-lab {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    lab: Annotated[
        Path | None, typer.Option(help="Directory with configs, corpus and checkpoints.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Open the app and start training this preset at once.")
    ] = None,
    slow_link: Annotated[
        bool | None,
        typer.Option(help="Draw rarely and coarsely, or never do (by itself where it is slow)."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Without a command: open the app (in a terminal)."""
    choose(lab)
    if slow_link is not None:
        os.environ["TUI_LAB_SLOW_LINK"] = "always" if slow_link else "never"
    if context.invoked_subcommand != "generate":  # alone for seconds, without a screen
        os.environ.update(machine.short_waits())
    if context.invoked_subcommand is None:
        from tui_lab.launch import launch

        launch(start, lab)


train.register(app)
attach.register(app)
generate.register(app)
runs.register(app)
exchange.register(checkpoints.app)
app.add_typer(
    checkpoints.app, name="checkpoints", help="List, inspect, verify, delete, export, import."
)
app.add_typer(corpus.app, name="corpus", help="List, inspect, fetch, add and prepare corpora.")
app.add_typer(tokenizer.app, name="tokenizer", help="Train and try tokenizers.")
evaluate.register(app)
plan.register(app)
bench.register(app)
app.add_typer(config.app, name="config", help="List, show and check configurations.")
doctor.register(app)
init.register(app)
