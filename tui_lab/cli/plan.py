"""`tui-lab plan`: what a run would take, before it takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.config import Config, resolve
from engine.config.load import parse_assignments
from tui_lab import format
from tui_lab.cli.common import current_lab, say, say_json
from tui_lab.cli.train import DEFAULT_PRESET, SHORTHANDS

if TYPE_CHECKING:
    from engine.planner import Plan


def register(app: typer.Typer) -> None:
    app.command("plan", help="Parameters, memory, FLOPs, time and disk of a run.")(plan)


def plan(
    config: Annotated[
        str, typer.Option("--config", "-c", help="A preset, or a TOML file.")
    ] = DEFAULT_PRESET,
    corpus: Annotated[str | None, typer.Option(help="Name of a registered corpus.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows in a micro-batch.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Length in optimiser steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length in passes over the corpus.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field: section.field=value (repeatable)."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Tokens per second, if known (else from the peak).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Describe a run without starting it: nothing is prepared, downloaded or written."""
    given = {
        "corpus": corpus,
        "batch_size": batch_size,
        "max_steps": max_steps,
        "epochs": epochs,
        "device": device,
    }
    overrides: dict[str, Any] = {
        SHORTHANDS[key]: value for key, value in given.items() if value is not None
    }
    lab = current_lab()
    resolved = resolve(lab, config, overrides | parse_assignments(set_ or []))

    from engine.survey import plan_run

    drawn = plan_run(lab, resolved, tokens_per_second=rate, rate_source="as given")
    if json:
        say_json({"config": config, **drawn.to_dict()})
        return
    if resolved.title:
        say(f"{config} – {resolved.title}")
    for label, text in describe(resolved, drawn):
        say(f"{label:<14}{text}")
    for message in drawn.messages:
        say(f"{message.level}: {message.title}")
        if message.hint:
            say(f"  {message.hint}")


def describe(config: Config, drawn: Plan) -> list[tuple[str, str]]:
    """The plan as lines of (label, text); a label that is indented belongs to the one above."""
    model, train = config.model, config.train
    vocabulary = f"{'' if drawn.vocab_exact else 'about '}{format.thousands(drawn.vocab_size)}"
    tied = "tied" if model.tie_embeddings else "untied"
    memory = f"about {format.size(drawn.memory.total)}"
    if drawn.device.memory_total:
        memory += f" of {format.size(drawn.device.memory_total)}"
    lines = [
        (
            "model",
            f"{model.n_layer} layers, {model.n_head} heads, {model.n_embd} wide, "
            f"context {model.context_length}, vocabulary {vocabulary}, {tied}",
        ),
        (
            "parameters",
            f"{format.thousands(drawn.parameters)}{_active(config, drawn)}; "
            f"{format.count(drawn.flops_per_token)} FLOPs a token",
        ),
        ("corpus", f"{config.data.corpus}: {_corpus(drawn)}"),
        (
            "step",
            f"{format.thousands(drawn.tokens_per_step)} tokens: {train.batch_size} windows of "
            f"{model.context_length}" + (f", {train.accumulate} times" * (train.accumulate > 1)),
        ),
        ("length", _length(drawn)),
        ("device", f"{drawn.device.name}, {drawn.device.precision}"),
        ("time", _time(drawn)),
        ("memory", memory),
    ]
    lines += [(f"  {name}", format.size(size)) for name, size in drawn.memory.parts()]
    cache = f"{format.size(drawn.cache_bytes)} for a text of {model.context_length} tokens"
    return [*lines, ("KV cache", cache), ("disk", _disk(config, drawn))]


def _active(config: Config, drawn: Plan) -> str:
    """Of a mixture of experts, how many parameters a token meets."""
    model = config.model
    if not model.n_expert:
        return ""
    few = f"{model.n_expert_active} of {model.n_expert} experts"
    return f", {format.thousands(drawn.active_parameters)} active ({few})"


def _corpus(drawn: Plan) -> str:
    if drawn.train_tokens is None or drawn.val_tokens is None:
        return "of unknown size"
    about = "" if drawn.tokens_exact else "about "
    train, val = format.count(drawn.train_tokens), format.count(drawn.val_tokens)
    return f"{about}{train} tokens to train on, {val} to validate"


def _length(drawn: Plan) -> str:
    epochs = "" if drawn.epochs is None else f"{drawn.epochs:.3g} epochs"
    if drawn.steps is None or drawn.tokens is None or drawn.flops is None:
        return f"{epochs} of a corpus of unknown size"
    return ", ".join(
        text
        for text in (
            f"{format.thousands(drawn.steps)} steps",
            f"{format.count(drawn.tokens)} tokens",
            epochs,
            f"{drawn.flops:.1e} FLOPs",
        )
        if text
    )


def _time(drawn: Plan) -> str:
    if drawn.seconds is None or drawn.tokens_per_second is None:
        return "not known: no rate was measured here yet (give one with --rate)"
    rate = format.count(drawn.tokens_per_second)
    return f"about {format.duration(drawn.seconds)} at {rate} tokens/s ({drawn.rate_source})"


def _disk(config: Config, drawn: Plan) -> str:
    policy = f"save.policy = {config.save.policy}"
    one = f"{format.size(drawn.checkpoint_bytes)} a checkpoint"
    if drawn.disk_bytes is None:
        return f"{one} ({policy}; how many depends on the length)"
    return f"{one}, at most {format.size(drawn.disk_bytes)} at once ({policy})"
