"""`tui-lab checkpoints …`: list, describe, prove, compare and delete. Knows no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.errors import CheckpointError
from tui_lab import format
from tui_lab.cli import common

if TYPE_CHECKING:
    from engine.checkpoints import CheckpointInfo
    from engine.lab import Lab

app = typer.Typer(no_args_is_help=True)

REFERENCE = "run (its newest sound one), run@best, run@500, run/step_000500, or a path"


@app.command("list")
def list_(
    run: Annotated[str, typer.Argument(help="Only this run's; without it, every run's.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a checkpoint.")] = False,
) -> None:
    """List checkpoints: step, loss, kind, size, age."""
    found = _checkpoints_of(common.current_lab(), run)
    if as_json:
        for info in found:
            common.say_json(_record(info))
        return
    if not found:
        common.note(f"run '{run}' has no checkpoint" if run else "no checkpoints yet")
        return
    common.table(
        ["checkpoint", "tokens", "val loss", "kind", "size", "age", ""],
        [
            [
                f"{info.run}/{info.path.name}",
                format.count(info.tokens),
                format.number(info.val_loss),
                info.kind,
                format.size(info.bytes),
                format.ago(max(0.0, time.time() - info.time)),
                "not complete" if not info.complete else "★ best" if info.best else "",
            ]
            for info in found
        ],
        right=[1, 2, 4, 5],
    )


@app.command()
def show(
    reference: Annotated[str, typer.Argument(help=REFERENCE)],
    stats: Annotated[
        bool, typer.Option("--stats", help="Read the tensors: norms, ranges, histograms.")
    ] = False,
    tensor: Annotated[str, typer.Option(help="The statistics of this tensor alone.")] = "",
    trust: Annotated[
        bool, typer.Option("--trust", help="List the tensors of a pickle (.pt) that you vouch for.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="With --trust: run the file's code unasked.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Describe a checkpoint from its headers alone: configuration, parameters, training state."""
    from tui_lab.cli import checkpoint_report

    if trust and Path(reference).is_file():
        _show_trusted(Path(reference), yes, as_json)
        return
    info = _find(common.current_lab(), reference)
    if as_json:
        common.say_json(checkpoint_report.as_record(info.path, stats, tensor or None))
    elif tensor:
        checkpoint_report.one_tensor(info.path, tensor)
    else:
        checkpoint_report.describe(info.path, stats)


def _show_trusted(path: Path, yes: bool, as_json: bool) -> None:
    """The tensors of a pickle; its own code runs only when it must, and is told to."""
    from engine.checkpoints.trusted import NeedsCode, read_trusted
    from tui_lab.cli import checkpoint_report

    common.note(f"--trust: reading the pickle '{path}'")
    try:
        found = read_trusted(path)
    except NeedsCode as refused:
        common.note(f"{refused.title} ({refused.hint})")
        if not common.confirm(f"Run the code in '{path}'?", yes=yes):
            raise typer.Exit(1) from None
        common.note(f"--trust: running the code in '{path}'")
        found = read_trusted(path, run_code=True)
    if as_json:
        common.say_json(checkpoint_report.tensors_as_record(path, found))
    else:
        checkpoint_report.tensors(found)


@app.command()
def verify(
    references: Annotated[
        list[str] | None, typer.Argument(help=f"A run (all of its), or: {REFERENCE}")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every checkpoint there is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a checkpoint.")] = False,
) -> None:
    """Read every byte and compare it with the hashes it was saved with. Exit 1: something broke."""
    lab = common.current_lab()
    if not references and not everything:
        raise CheckpointError("nothing to verify", "name a run or a checkpoint, or pass --all")
    found = _checkpoints_of(lab, "") if everything else []
    for reference in references or []:
        found += _run_or_checkpoint(lab, reference)
    broken = 0
    for info, problems in _verified(found):
        broken += bool(problems)
        if as_json:
            common.say_json({**_record(info), "problems": problems})
        else:
            verdict = "BROKEN" if problems else "sound"
            common.say(f"{verdict}\t{info.run}/{info.path.name}\t{format.size(info.bytes)}")
            for problem in problems:
                common.say(f"  {problem}")
    common.note(f"{len(found) - broken} sound, {broken} broken")
    if broken:
        raise typer.Exit(1)


def _verified(found: list[CheckpointInfo]) -> Iterator[tuple[CheckpointInfo, list[str]]]:
    """Each checkpoint with what is wrong with it; what takes long says how far it is."""
    from engine import checkpoints

    total = sum(info.bytes for info in found)
    bar = common.ProgressLine("verifying")
    before = 0
    for info in found:

        def progress(done: int, before: int = before) -> None:
            bar.show(min(before + done, total), total)

        problems = checkpoints.verify(info.path, progress)
        bar.clear()
        before += info.bytes
        yield info, problems


@app.command()
def delete(
    reference: Annotated[str, typer.Argument(help=REFERENCE)],
    whole_run: Annotated[
        bool, typer.Option("--run", help="Delete the whole run: history and all checkpoints.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a checkpoint (or, with --run, a run). Asks first; refuses while the run is running."""
    from engine import checkpoints
    from engine.runs import find_run

    lab = common.current_lab()
    if whole_run:
        run = find_run(lab, reference)
        target, size = run.path, run.bytes
        what = f"run '{run.name}' with {run.n_checkpoints} checkpoint(s) and its history"
    else:
        info = _find(lab, reference)
        target, size = info.path, info.bytes
        what = f"checkpoint {info.run}/{info.path.name}"
        if len(checkpoints.list_checkpoints(info.path.parent)) == 1:
            what += ", the only one of its run"
        elif info.best:
            what += ", the best of its run"
    _refuse_shipped(lab, target)
    if not lab.owns_run(target if whole_run else target.parent):
        raise CheckpointError(
            f"'{target}' is not in this lab: nothing was deleted", "choose its lab: --lab DIR"
        )
    if not common.confirm(f"Delete {what} ({format.size(size)})?", yes=yes):
        raise typer.Exit(1)
    (checkpoints.delete_run if whole_run else checkpoints.delete)(target)
    common.say(f"deleted {what}: {format.size(size)} freed")


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help=REFERENCE)],
    b: Annotated[str, typer.Argument(help=REFERENCE)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """What differs between two checkpoints: figures, configuration, tensors."""
    from tui_lab.cli import checkpoint_report

    lab = common.current_lab()
    first, second = _find(lab, a), _find(lab, b)
    rows = checkpoint_report.differences(first.path, second.path)
    if as_json:
        common.say_json({key: {"a": left, "b": right} for key, left, right in rows})
    elif rows:
        names = [f"{info.run}/{info.path.name}" for info in (first, second)]
        common.table(["", *names], rows)
    else:
        common.say("no difference")


def _find(lab: Lab, reference: str) -> CheckpointInfo:
    """The checkpoint; the broken ones that were passed over are said on stderr."""
    from engine.checkpoints import find_checkpoint

    problems: list[str] = []
    info = find_checkpoint(lab, reference, problems)
    for problem in problems:
        common.note(f"passed over: {problem}")
    return info


def _checkpoints_of(lab: Lab, run: str) -> list[CheckpointInfo]:
    """One run's checkpoints, or with an empty name those of every run."""
    from engine.checkpoints import find_run_folder, list_checkpoints
    from engine.checkpoints.find import run_folders

    paths = [find_run_folder(lab, run)] if run else list(run_folders(lab).values())
    return [info for path in paths for info in list_checkpoints(path)]


def _run_or_checkpoint(lab: Lab, reference: str) -> list[CheckpointInfo]:
    from engine.checkpoints.find import run_folders

    if reference in run_folders(lab):
        return _checkpoints_of(lab, reference)
    return [_find(lab, reference)]


def _refuse_shipped(lab: Lab, path: Path) -> None:
    """What came with the program is not the user's to lose."""
    from engine.lab import builtin_dir

    shipped = builtin_dir("checkpoints").resolve()
    if shipped != lab.checkpoints.resolve() and shipped in path.resolve().parents:
        raise CheckpointError(f"'{path.name}' ships with the program", "nothing was deleted")


def _record(info: CheckpointInfo) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(info) | {"path": str(info.path)}
