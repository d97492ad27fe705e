"""`tui-lab checkpoints export` and `import`: models to and from other programs' formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from engine.errors import InputError
from tui_lab import format
from tui_lab.cli import common

FORMATS = ("hf", "gguf")
DTYPES = ("float32", "bfloat16", "float16")
Exported = TypeVar("Exported")


def register(app: typer.Typer) -> None:
    """Add the two commands to `tui-lab checkpoints`."""
    app.command("export", help="Write a checkpoint as a Hugging Face folder, or as a GGUF file.")(
        export
    )
    app.command("import", help="Make a run of a Hugging Face folder.")(import_)


def export(
    reference: Annotated[
        str, typer.Argument(help="run, run@best, run@500, run/step_000500, or a path")
    ],
    target: Annotated[Path, typer.Argument(help="The folder (hf) or file (gguf) to write.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="hf: config.json, safetensors, tokenizer.json; gguf: one file for llama.cpp.",
        ),
    ] = "hf",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16 (hf: float32, gguf: float16).")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export at that place.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write a checkpoint for other programs."""
    if format_ not in FORMATS:
        raise InputError(f"--format {format_}: not one of {', '.join(FORMATS)}")
    if dtype and dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: not one of {', '.join(DTYPES)}")
    if format_ == "gguf":
        _export_gguf(reference, target, dtype or "float16", overwrite, as_json)
    else:
        _export_hf(reference, target, dtype or "float32", overwrite, as_json)


def _with_progress(
    export: Callable[..., Exported], reference: str, target: Path, **options: Any
) -> Exported:
    """What `export` returns; broken checkpoints that it passed over are named."""
    problems: list[str] = []
    bar = common.ProgressLine("exporting")
    try:
        done = export(
            common.current_lab(),
            reference,
            target,
            progress=bar.show,
            problems=problems,
            **options,
        )
    finally:
        bar.clear()
    for problem in problems:
        common.note(f"passed over: {problem}")
    return done


def _export_hf(reference: str, target: Path, dtype: str, overwrite: bool, as_json: bool) -> None:
    from engine.exchange.export import export_hf

    done = _with_progress(export_hf, reference, target, dtype=dtype, overwrite=overwrite)
    if as_json:
        common.say_json(
            {
                "path": str(done.path),
                "format": "hf",
                "class": done.class_name,
                "dtype": done.dtype,
                "files": list(done.files),
                "bytes": done.bytes,
            }
        )
        return
    common.say(f"{done.path}\t{done.class_name}, {done.dtype}, {format.size(done.bytes)}")
    common.note(f"load it: AutoModelForCausalLM.from_pretrained('{done.path}')")


def _export_gguf(reference: str, target: Path, dtype: str, overwrite: bool, as_json: bool) -> None:
    from engine.exchange.gguf import export_gguf

    if target.exists() and not target.is_dir() and not overwrite:
        raise InputError(
            f"'{target}' is there already: nothing was written",
            "name another file, or replace it: --overwrite",
        )
    done = _with_progress(export_gguf, reference, target, dtype=dtype)
    if as_json:
        common.say_json(
            {
                "path": str(done.path),
                "format": "gguf",
                "architecture": done.architecture,
                "pre_tokenizer": done.pre_tokenizer,
                "dtype": done.dtype,
                "bytes": done.bytes,
            }
        )
        return
    common.say(f"{done.path}\t{done.architecture}, {done.dtype}, {format.size(done.bytes)}")
    common.note(f"run it: llama-cli -m '{done.path}'")


def import_(
    directory: Annotated[
        Path, typer.Argument(help="A folder with config.json, model.safetensors, tokenizer.json.")
    ],
    name: Annotated[str, typer.Option(help="Name of the run; without it, the folder's.")] = "",
    corpus: Annotated[
        str, typer.Option(help="Corpus that the run is trained and evaluated on.")
    ] = "",
    context: Annotated[
        int,
        typer.Option(min=0, help="A shorter context than the model's, to train on such windows."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make a run of a model from elsewhere: its checkpoint is step 0."""
    from engine.checkpoints import check_name
    from engine.corpora import find_corpus

    lab = common.current_lab()
    if name:
        check_name(name)
    if corpus:
        find_corpus(lab, corpus)

    from engine.exchange.importing import import_hf

    bar = common.ProgressLine("importing")
    try:
        done = import_hf(
            lab,
            directory,
            name=name,
            corpus=corpus,
            context_length=context,
            progress=bar.show,
        )
    finally:
        bar.clear()
    if as_json:
        common.say_json(
            {
                "run": done.run,
                "path": str(done.path),
                "checkpoint": str(done.checkpoint),
                "class": done.class_name,
                "parameters": done.n_parameters,
                "bytes": done.bytes,
            }
        )
        return
    common.say(
        f"{done.run}\t{done.class_name}, {format.count(done.n_parameters)} parameters, "
        f"{format.size(done.bytes)}"
    )
    named = f"'{done.run}'" if " " in done.run else done.run
    common.note(f'talk to it:   tui-lab generate {named} -p "…"')
    common.note(f"measure it:   tui-lab evaluate {named} --corpus CORPUS")
    common.note(f"train it on:  tui-lab train --resume {named} --corpus CORPUS --max-steps 100")
