"""`tui-lab plan`: what a run would take, before it takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.config import Config, resolve
from engine.config.load import parse_assignments
from engine.errors import EngineError, InputError
from tui_lab import format
from tui_lab.cli.common import current_lab, note, say, say_json
from tui_lab.cli.train import AUTO, DEFAULT_PRESET, SHORTHANDS

if TYPE_CHECKING:
    from engine.calibration import Calibration
    from engine.lab import Lab
    from engine.planner import DeviceFacts, Plan


def register(app: typer.Typer) -> None:
    app.command("plan", help="Parameters, memory, FLOPs, time and disk of a run.")(plan)


def plan(
    config: Annotated[
        str, typer.Option("--config", "-c", help="A preset, or a TOML file.")
    ] = DEFAULT_PRESET,
    corpus: Annotated[str | None, typer.Option(help="Name of a registered corpus.")] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(help="Windows in a micro-batch; auto: the largest that should fit."),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Length in optimiser steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length in passes over the corpus.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cuda, cuda:1, mps, cpu; or a GPU that is not here, as h100."),
    ] = None,
    gpus: Annotated[
        int, typer.Option(min=0, help="Plan for so many GPUs, each with batches of its own.")
    ] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field: section.field=value (repeatable)."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Tokens per second, if known (else from the peak).")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Train 20 steps here; show and remember the error."),
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Drop what calibrations of this device have taught.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Describe a run without starting it: nothing is prepared, downloaded or written to the lab."""
    given = {
        "corpus": corpus,
        "batch_size": None if batch_size == AUTO else batch_size,
        "max_steps": max_steps,
        "epochs": epochs,
    }
    overrides: dict[str, Any] = {
        SHORTHANDS[key]: value for key, value in given.items() if value is not None
    }
    lab = current_lab()
    resolved = resolve(lab, config, overrides | parse_assignments(set_ or []))

    from engine.survey import measure_device, plan_run, survey_device

    facts = survey_device(resolved, device)
    if forget:
        _forget(facts)
    if rate is None and measure_device(facts):
        note(f"measured once: what {facts.name} can do")
    if batch_size == AUTO:
        from engine.batch_size import expected_batch_size

        resolved = resolved.with_values(expected_batch_size(lab, resolved, device))
    calibration = _calibrate(lab, resolved, device, gpus) if calibrate else None
    drawn = plan_run(
        lab, resolved, device, gpus=gpus, tokens_per_second=rate, rate_source="as given"
    )
    if json:
        found = {"calibration": calibration.to_dict()} if calibration else {}
        say_json({"config": config, **drawn.to_dict(), **found})
        return
    if calibration:
        for label, text in compare(calibration):
            say(f"{label:<14}{text}")
    if resolved.title:
        say(f"{config} – {resolved.title}")
    for label, text in describe(resolved, drawn):
        say(f"{label:<14}{text}")
    for message in drawn.messages:
        say(f"{message.level}: {message.title}")
        for line in message.hint.splitlines():
            say(f"  {line}")


def _forget(facts: DeviceFacts) -> None:
    from engine.correction import forget

    try:
        count = forget(facts)
    except OSError as error:
        raise EngineError(
            f"the calibrations of this user cannot be changed: {error.strerror}",
            "make the cache folder writable (TUI_LAB_CACHE_DIR names another)",
        ) from error
    note(f"forgotten: {count} calibrations of {facts.name}" if count else "nothing to forget")


def _calibrate(lab: Lab, config: Config, device: str | None, gpus: int) -> Calibration | None:
    """Measure here, saying beforehand how long it should take."""
    from engine.calibration import STEPS
    from engine.calibration import calibrate as measure

    if gpus:
        raise InputError("--gpus: several GPUs are planned, and not measured", "leave it out")

    def expecting(drawn: Plan) -> None:
        wait = STEPS * (drawn.step_seconds or 0.0) + (drawn.compile_seconds or 0.0)
        note(f"training {STEPS} steps in a process of its own, about {format.duration(wait + 5)}")

    return measure(lab, config, device, expecting=expecting)


def compare(calibration: Calibration) -> list[tuple[str, str]]:
    """What was predicted and what was measured, as lines of (label, text)."""
    trial, correction = calibration.trial, calibration.correction
    predicted = trial.step_seconds * trial.tokens_per_second / calibration.predicted_step_seconds
    lines = [
        ("calibration", f"{correction.about}: {trial.steps} steps measured"),
        (
            "  rate",
            f"{format.count(predicted)} tokens/s predicted, "
            f"{format.count(trial.tokens_per_second)} measured: a step's time was predicted "
            f"{calibration.time_error:+.1%}",
        ),
        (
            "  memory",
            f"{format.size(calibration.predicted_memory)} predicted, "
            f"{format.size(trial.peak_memory)} measured: {calibration.memory_error:+.1%}",
        ),
    ]
    if not calibration.kept:
        lines.append(("", "not remembered: the cache folder cannot be written"))
    return lines


def describe(config: Config, drawn: Plan) -> list[tuple[str, str]]:
    """The plan as lines of (label, text); a label that is indented belongs to the one above."""
    model, train = config.model, config.train
    vocabulary = f"{'' if drawn.vocab_exact else 'about '}{format.thousands(drawn.vocab_size)}"
    tied = "tied" if model.tie_embeddings else "untied"
    memory = f"about {format.size(drawn.memory.total)}" + " a GPU" * (drawn.parallel is not None)
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
            f"{model.context_length}"
            + (f", {train.accumulate} times" * (train.accumulate > 1))
            + (f", on {drawn.parallel.gpus} GPUs" if drawn.parallel else ""),
        ),
        ("length", _length(drawn)),
        ("device", _device(drawn)),
        ("time", _time(drawn)),
        *_parallel(drawn),
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


def _device(drawn: Plan) -> str:
    words = [drawn.device.name, drawn.device.precision]
    if drawn.compiled:
        words.append("steps compiled")
    if not drawn.device.here:
        words.append("not here")
    return ", ".join(words)


def _time(drawn: Plan) -> str:
    if drawn.tokens_per_second is None:
        return "not known: no rate was measured here yet (give one with --rate)"
    rate = f"{format.count(drawn.tokens_per_second)} tokens/s ({drawn.rate_source})"
    if drawn.seconds is None or drawn.whole_seconds is None:
        return rate
    beside = [
        f"{format.duration(seconds)} {what}"
        for seconds, what in (
            (drawn.compile_seconds, "compiling"),
            (drawn.evaluation_seconds, "evaluating"),
        )
        if seconds and seconds >= 1
    ]
    whole = format.duration(drawn.whole_seconds)
    return f"about {whole}{' with ' * bool(beside)}{' and '.join(beside)}, at {rate}"


def _parallel(drawn: Plan) -> list[tuple[str, str]]:
    parallel = drawn.parallel
    if parallel is None:
        return []
    machines = f"{parallel.gpus} GPUs in {parallel.machines} machines; {parallel.links}"
    hours = "" if drawn.gpu_hours is None else f"; {drawn.gpu_hours:,.1f} GPU-hours"
    return [
        ("GPUs", machines),
        (
            "  exchange",
            f"gradients {format.duration(parallel.exchange_seconds)} a step, of which "
            f"{format.duration(parallel.waited_seconds)} are waited for: "
            f"{format.percent(parallel.efficiency)} of {parallel.gpus} times one GPU{hours}",
        ),
        (
            "  moments",
            f"{format.size(parallel.memory)} on each GPU; shared out (ZeRO-1) "
            f"{format.size(parallel.memory_sharded)}",
        ),
    ]


def _disk(config: Config, drawn: Plan) -> str:
    policy = f"save.policy = {config.save.policy}"
    one = f"{format.size(drawn.checkpoint_bytes)} a checkpoint"
    if drawn.disk_bytes is None:
        return f"{one} ({policy}; how many depends on the length)"
    return f"{one}, at most {format.size(drawn.disk_bytes)} at once ({policy})"
