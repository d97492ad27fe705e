"""A run before it is run: parameters, memory, FLOPs, length, time, disk, and what looks wrong.

Pure functions of the configuration and of facts about corpus and device, which `engine.survey` (or
a caller) brings. Reads no file, and needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.arithmetic import active_parameters, count_parameters, flops_per_token
from engine.config import Config
from engine.errors import ConfigError
from engine.footprint import (
    FLOAT32,
    Memory,
    cache_bytes,
    checkpoint_bytes,
    disk_bytes,
    training_memory,
)

ASSUMED_SHARE = {"cpu": 0.2, "cuda": 0.35, "mps": 0.2}
"""MFU taken for granted where no rate is known: what an eager GPT of some size reaches."""
ROOM = 0.9
"""Share of free memory that a plan may take before it warns."""
MANY_EPOCHS = 40


@dataclass(frozen=True)
class DeviceFacts:
    """A device as a plan sees it. Bytes; 0 and "" for what is not known."""

    kind: str  # cpu, cuda, mps
    name: str
    precision: str
    memory_total: int = 0
    memory_free: int = 0
    peak_flops: float = 0.0
    peak_source: str = ""


@dataclass(frozen=True)
class CorpusFacts:
    """A corpus as a plan sees it. Tokens are None when not even an estimate can be had."""

    vocab_size: int
    vocab_exact: bool
    train_tokens: int | None
    val_tokens: int | None
    exact: bool
    available: bool


@dataclass(frozen=True)
class Message:
    """`level`: error (the run would fail), warning (it would disappoint), info."""

    level: str
    title: str
    hint: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything of a run that can be told beforehand; None for what cannot."""

    vocab_size: int
    vocab_exact: bool
    parameters: int
    active_parameters: int
    """Those that a token meets: of experts its own few."""
    cache_bytes: int
    """The KV cache of one text as long as the context, in float32 as the weights."""
    flops_per_token: float
    tokens_per_step: int
    steps: int | None
    tokens: int | None
    epochs: float | None
    train_tokens: int | None
    val_tokens: int | None
    tokens_exact: bool
    flops: float | None
    memory: Memory
    device: DeviceFacts
    tokens_per_second: float | None
    rate_source: str
    seconds: float | None
    checkpoint_bytes: int
    disk_bytes: int | None
    messages: tuple[Message, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"memory": self.memory.to_dict()}


def count_windows(n_tokens: int, context: int, stride: int = 0) -> int:
    """Windows of `context` tokens and their successor in `n_tokens`; as `data.Windows` counts."""
    return len(range(0, n_tokens - context, stride or context))


def count_steps(config: Config, n_windows: int | None) -> int | None:
    """The run's length in optimiser steps: the shortest of the lengths that are set.

    None when only `epochs` is set and the number of windows is not known. Raises ConfigError when
    no length is set.
    """
    train = config.train
    windows_per_step = train.batch_size * train.accumulate
    lengths = []
    if train.max_steps:
        lengths.append(train.max_steps)
    if train.epochs and n_windows is not None:
        lengths.append(math.ceil(train.epochs * n_windows / windows_per_step))
    if train.max_tokens:
        tokens_per_step = windows_per_step * config.model.context_length
        lengths.append(math.ceil(train.max_tokens / tokens_per_step))
    if lengths:
        return max(1, min(lengths))
    if train.epochs:
        return None
    raise ConfigError(
        "the run has no length", "set train.max_steps, train.epochs or train.max_tokens"
    )


def plan(
    config: Config,
    corpus: CorpusFacts,
    device: DeviceFacts,
    *,
    tokens_per_second: float | None = None,
    rate_source: str = "",
    disk_free: int | None = None,
) -> Plan:
    """The plan of a run. `tokens_per_second`: a rate known from elsewhere (an earlier run).

    Without one the rate is the device's peak times a usual share, and `rate_source` says so.
    """
    model, train, vocab_size = config.model, config.train, corpus.vocab_size
    parameters = count_parameters(model, vocab_size)
    per_token = flops_per_token(model, vocab_size)
    tokens_per_step = train.batch_size * train.accumulate * model.context_length

    n_windows = None
    if corpus.train_tokens is not None:
        n_windows = count_windows(corpus.train_tokens, model.context_length, config.data.stride)
    steps = count_steps(config, n_windows)
    tokens = None if steps is None else steps * tokens_per_step
    epochs = train.epochs or None
    if steps is not None and n_windows:
        epochs = steps * train.batch_size * train.accumulate / n_windows

    if tokens_per_second is None and device.peak_flops:
        share = ASSUMED_SHARE[device.kind]
        tokens_per_second = device.peak_flops * share / per_token
        rate_source = f"{share:.0%} of the device's peak, {device.peak_source}"
    seconds = tokens / tokens_per_second if tokens and tokens_per_second else None

    drawn = Plan(
        vocab_size=vocab_size,
        vocab_exact=corpus.vocab_exact,
        parameters=parameters,
        active_parameters=active_parameters(model, vocab_size),
        cache_bytes=cache_bytes(model, FLOAT32),
        flops_per_token=per_token,
        tokens_per_step=tokens_per_step,
        steps=steps,
        tokens=tokens,
        epochs=epochs,
        train_tokens=corpus.train_tokens,
        val_tokens=corpus.val_tokens,
        tokens_exact=corpus.exact,
        flops=None if tokens is None else tokens * per_token,
        memory=training_memory(config, vocab_size, device.precision, device.kind),
        device=device,
        tokens_per_second=tokens_per_second,
        rate_source=rate_source if tokens_per_second else "",
        seconds=seconds,
        checkpoint_bytes=checkpoint_bytes(parameters),
        disk_bytes=disk_bytes(config, parameters, steps),
        messages=(),
    )
    messages = [
        *_about_memory(config, drawn),
        *_about_disk(config, drawn, disk_free),
        *_about_data(config, corpus),
        *_about_length(config, drawn),
        *_about_experts(config),
    ]
    order = ("error", "warning", "info")
    return replace(drawn, messages=tuple(sorted(messages, key=lambda m: order.index(m.level))))


def largest_batch(config: Config, vocab_size: int, device: DeviceFacts, room: float) -> int:
    """The largest micro-batch whose training fits in `room` bytes; 0 when not even one window."""

    def total(batch_size: int) -> int:
        smaller = replace(config, train=replace(config.train, batch_size=batch_size))
        return training_memory(smaller, vocab_size, device.precision, device.kind).total

    fixed = 2 * total(1) - total(2)  # memory is a line in the batch: total = fixed + slope · batch
    slope = total(2) - total(1)
    return max(0, math.floor((room - fixed) / slope))


def smaller_batch(config: Config, most: int = 0) -> str:
    """Flags that make the same step of smaller micro-batches, of at most `most` windows (0: half
    of what they are); empty when a micro-batch is one window already."""
    train = config.train
    most = most or train.batch_size // 2
    whole = train.batch_size * train.accumulate
    batch = max((size for size in range(1, most + 1) if whole % size == 0), default=0)
    return f"--batch-size {batch} --set train.accumulate={whole // batch}" if batch else ""


def _about_memory(config: Config, drawn: Plan) -> list[Message]:
    device, needed = drawn.device, drawn.memory.total
    if not device.memory_total or needed <= ROOM * device.memory_total:
        return []
    train = config.train
    fits = largest_batch(config, drawn.vocab_size, device, ROOM * device.memory_total)
    if fits >= train.batch_size:
        hint = ""
    elif fits >= 1:
        hint = f"the same step in less memory: {smaller_batch(config, fits)}"
    else:
        hint = "not even one window fits: a shorter model.context_length, or a smaller model"
    sizes = f"{_gigabytes(needed)} of the {_gigabytes(device.memory_total)} there are"
    if needed > device.memory_total:
        return [Message("error", f"does not fit: training needs about {sizes}", hint)]
    return [Message("warning", f"hardly fits: training needs about {sizes}", hint)]


def _about_disk(config: Config, drawn: Plan, free: int | None) -> list[Message]:
    if free is None or not drawn.disk_bytes or drawn.disk_bytes <= free:
        return []
    need = f"checkpoints take up to {_gigabytes(drawn.disk_bytes)}, {_gigabytes(free)} are free"
    if config.save.policy == "all":
        hint = "keep the newest alone (save.policy = rolling), or save less often (save.every)"
    else:
        hint = "make room, or train without checkpoints (--no-save)"
    return [Message("error" if drawn.checkpoint_bytes > free else "warning", need, hint)]


def _about_data(config: Config, corpus: CorpusFacts) -> list[Message]:
    context, data = config.model.context_length, config.data
    if not corpus.available:
        fetch = f"tui-lab corpus fetch {data.corpus}"
        return [Message("error", f"corpus '{data.corpus}' is not here yet", f"get it: {fetch}")]
    if corpus.train_tokens is None or corpus.val_tokens is None:
        return []
    about = "" if corpus.exact else "about "
    parts = [("training", corpus.train_tokens)]
    if data.val_fraction:
        parts.append(("validation", corpus.val_tokens))
    name, shortest = min(parts, key=lambda part: part[1])
    if shortest <= context:
        title = f"the {name} part has {about}{shortest} tokens: no window of context {context} fits"
        hint = f"model.context_length at most {shortest - 1}" if shortest > 1 else "a larger corpus"
        return [Message("error", title, hint)]
    messages = []
    batch_tokens = config.train.batch_size * context
    if data.val_fraction and corpus.val_tokens < batch_tokens:
        title = (
            f"the validation part has {about}{corpus.val_tokens} tokens, less than one batch of "
            f"{batch_tokens}: its loss will be noisy"
        )
        messages.append(Message("warning", title, "a larger corpus, or a larger data.val_fraction"))
    if data.stride > context:
        skipped = 1 - context / data.stride
        title = f"data.stride = {data.stride} skips {skipped:.0%} of the text in every epoch"
        messages.append(Message("warning", title, f"at most the context length, {context}"))
    return messages


def _about_length(config: Config, drawn: Plan) -> list[Message]:
    schedule, lr, steps = config.schedule, config.optimizer.lr, drawn.steps
    messages = []
    if schedule.min_lr > lr:
        title = f"schedule.min_lr = {schedule.min_lr:g} is above optimizer.lr = {lr:g}"
        messages.append(Message("warning", f"{title}: the rate never falls", "lower min_lr"))
    if steps is None:
        return messages
    if schedule.warmup_steps >= steps:
        reached = lr * steps / (schedule.warmup_steps + 1)
        title = (
            f"the warm-up of {schedule.warmup_steps} steps is not over when the run ends after "
            f"{steps}: the rate gets to {reached:.2g} of {lr:.2g}"
        )
        hint = f"schedule.warmup_steps = {max(1, steps // 10)}, or a longer run"
        messages.append(Message("warning", title, hint))
    if config.save.policy == "all" and config.save.every > steps:
        title = f"save.every = {config.save.every}: the run ends before its first checkpoint is due"
        messages.append(Message("info", title, "the last step is saved in any case"))
    if drawn.epochs and drawn.epochs > MANY_EPOCHS:
        title = f"the training part is seen {drawn.epochs:.0f} times: expect overfitting"
        messages.append(Message("info", title, "watch the validation loss, or use a larger corpus"))
    return messages


def _about_experts(config: Config) -> list[Message]:
    model, messages = config.model, []
    if not model.n_expert:
        return []
    if model.n_expert_active == 1 and model.renormalise:
        title = "one active expert whose weight is renormalised: always 1, whatever the router says"
        hint = "the router learns nothing of the loss: model.renormalise = false"
        messages.append(Message("warning", title, hint))
    if not model.balance_loss:
        title = "model.balance_loss = 0: a few experts may come to get every token"
        messages.append(Message("info", title, "0.01 is usual"))
    return messages


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
