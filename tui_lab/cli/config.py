"""`tui-lab config list|show|validate`: presets and configuration files, without training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.config import (
    FIELDS,
    SECTIONS,
    Config,
    find_field,
    list_presets,
    load_file,
    resolve,
    to_toml,
)
from engine.config.load import parse_assignments
from engine.errors import ConfigError
from engine.toml import read_toml
from tui_lab import format
from tui_lab.cli.common import console, current_lab, note, on_terminal, say, say_json, table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    pass


@app.command("list")
def list_(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the presets: shape (layers × heads × width), parameters, cost. A lab's own have a *.

    Active parameters are those that a token goes through, where there are experts. Memory is that
    of training on a GPU, in the preset's precision (bfloat16 where it leaves the choice).
    """
    lab = current_lab()
    rows = []
    for preset in list_presets(lab):
        facts: dict[str, Any] = {"name": preset.name, "path": str(preset.path), "own": preset.own}
        try:
            facts |= _describe(load_file(preset.path))
        except ConfigError as error:
            facts |= {"error": str(error)}
        if json:
            say_json(facts)
        rows.append(facts)
    if not json:
        _draw_list(rows, mark_own=len(lab.places("configs")) > 1)


def _describe(config: Config) -> dict[str, Any]:
    from engine.arithmetic import active_parameters, count_parameters, flops_per_token
    from engine.footprint import training_memory
    from engine.survey import VOCABULARY

    model, data = config.model, config.data
    vocab_size = VOCABULARY.get(data.tokenizer, data.vocab_size)
    chosen = config.train.precision
    precision = "bfloat16" if chosen == "auto" else chosen
    memory = training_memory(config, vocab_size, precision, "cuda")
    return {
        "title": config.title,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "context_length": model.context_length,
        "n_kv_head": model.kv_heads,
        "n_hidden": model.hidden_width,
        "n_expert": model.n_expert,
        "n_expert_active": model.n_expert_active if model.n_expert else 0,
        "norm": model.norm,
        "position": model.position,
        "mlp": model.mlp,
        "corpus": data.corpus,
        "tokenizer": data.tokenizer,
        "vocab_size": vocab_size,
        "parameters": count_parameters(model, vocab_size),
        "active_parameters": active_parameters(model, vocab_size),
        "flops_per_token": flops_per_token(model, vocab_size),
        "precision": precision,
        "training_memory": memory.total,
        "training_memory_parts": dict(memory.parts()),
    }


WIDE = 120
"""Columns of a terminal that has room for context, parts and tokenizer too."""


def _draw_list(presets: list[dict[str, Any]], mark_own: bool) -> None:
    """A table that fits 80 columns, with the words below it; wide ones and pipes have more."""
    headers = ["preset", "shape", "parameters", "active", "FLOPs/token", "memory"]
    more, words = ["context", "parts", "tokenizer"], ["corpus", "title"]
    rows = []
    for preset in presets:
        name = preset["name"] + ("*" if preset["own"] and mark_own else "")
        if "error" in preset:
            dashes = ["–"] * (len(headers) + len(more) - 1)
            rows.append([name, *dashes, "", preset["error"]])
            continue
        shape = "×".join(str(preset[key]) for key in ("n_layer", "n_head", "n_embd"))
        active = preset["active_parameters"] if preset["n_expert"] else preset["parameters"]
        costs = [preset["parameters"], active, preset["flops_per_token"]]
        figures = [*map(format.count, costs), format.size(preset["training_memory"])]
        norm = preset["norm"].removesuffix("norm")
        parts = "+".join((norm, preset["position"], preset["mlp"]))
        where = [preset["context_length"], parts, preset["tokenizer"]]
        rows.append([name, shape, *figures, *where, preset["corpus"], preset["title"]])
    if not on_terminal():
        table([*headers, *more, *words], rows)
        return
    shown = [*headers, *more] if console().width >= WIDE else headers
    table(shown, [row[: len(shown)] for row in rows], right=(2, 3, 4, 5, 6))
    width = max(len(row[0]) for row in rows)
    for row in rows:
        say(f"{row[0]:{width}}  {row[-1]}")


@app.command("show")
def show(
    name: Annotated[str | None, typer.Argument(help="A preset, or a TOML file.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="section.field=value (repeatable).")
    ] = None,
    fields: Annotated[
        bool, typer.Option("--fields", help="List every field: default, choices, meaning.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Print a configuration, every field resolved, as TOML that --config takes back."""
    if fields:
        _show_fields(json)
        return
    config = resolve(current_lab(), name or "micro", parse_assignments(set_ or []))
    if json:
        say_json(config.to_dict())
    else:
        say(to_toml(config).rstrip("\n"))


def _show_fields(json: bool) -> None:
    if json:
        for key, spec in FIELDS.items():
            facts = {"kind": spec.kind, "default": spec.default, "unit": spec.unit}
            bounds = {"minimum": spec.minimum, "maximum": spec.maximum}
            say_json({"key": key, **facts, "choices": spec.choices, **bounds, "help": spec.help})
        return
    rows = [
        [key, _as_typed(spec.default), spec.accepts(), spec.unit, spec.help]
        for key, spec in FIELDS.items()
    ]
    if not on_terminal():
        table(["field", "default", "takes", "unit", "meaning"], rows)
        return
    for key, default, takes, unit, meaning in rows:
        say(f"{key} = {default}")
        say(f"    {meaning}")
        say(f"    {takes}" + (f", in {unit}" if unit else ""))


def _as_typed(value: Any) -> str:
    """A default as one would write it after `--set field=`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_as_typed(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace("\n", "\\n") + '"'
    return f"{value:g}" if isinstance(value, float) else str(value)


@app.command("validate")
def validate(
    files: Annotated[list[Path], typer.Argument(help="TOML files.")],
) -> None:
    """Check configuration files; every error is named, and any makes the exit status 2."""
    bad = 0
    for path in files:
        errors = list(problems(path))
        bad += bool(errors)
        if not errors:
            say(f"{path}: ok")
        for error in errors:
            note(f"error: {error.title}")
            if error.hint:
                note(f"hint:  {error.hint}")
    if bad:
        raise typer.Exit(ConfigError.exit_code)


def problems(path: Path) -> Iterator[ConfigError]:
    """Everything that is wrong in the file: each field by itself, then the whole."""
    errors = []
    try:
        values = read_toml(path)
    except (OSError, ValueError):
        values = {}  # load_file says what is wrong with it
    for section, fields in values.items():
        if section not in SECTIONS or not isinstance(fields, dict):
            continue  # load_file says so
        for name, value in fields.items():
            try:
                find_field(f"{section}.{name}").parse(value)
            except ConfigError as error:
                errors.append(ConfigError(f"{path.name}: {error.title}", error.hint))
    yield from errors
    try:
        load_file(path)
    except ConfigError as error:
        if str(error) not in map(str, errors):
            yield error
