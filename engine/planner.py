"""A run before it is run: parameters, memory, FLOPs, length, time, disk, and what looks wrong.

Pure functions of the configuration and of facts about corpus and device, which `engine.survey` (or
a caller) brings. Reads no file, and needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from engine.advice import ROOM, Message, messages
from engine.arithmetic import active_parameters, count_parameters, flops_per_token
from engine.compiling import compiles
from engine.config import Config
from engine.correction import Correction
from engine.errors import ConfigError
from engine.fitting import Needs
from engine.footprint import (
    FLOAT32,
    Memory,
    cache_bytes,
    checkpoint_bytes,
    disk_bytes,
    training_memory,
)
from engine.hardware import Fleet
from engine.parallel import Parallel, spread
from engine.step_time import EVALUATION, compile_seconds, find_pace, step_seconds, work

BANDWIDTH = 20e9
"""Bytes a second that a processor's memory is taken to give where nobody measured it."""


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
    bandwidth: float = 0.0
    """Bytes a second, read and written together."""
    threads: int = 0
    has_bfloat16: bool = False
    """Whether it multiplies bfloat16 in hardware, chosen or not."""
    last_cache: int = 0
    """Of a processor: the cache before its memory."""
    here: bool = True
    """Whether this machine has it."""


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
    compiled: bool
    """Whether steps are compiled."""
    step_seconds: float | None
    tokens_per_second: float | None
    """While it trains."""
    rate_source: str
    correction: Correction | None
    """What the figures were put right by; None where nothing was measured."""
    seconds: float | None
    """Of training alone, as a run's own clock counts them."""
    compile_seconds: float | None
    evaluation_seconds: float | None
    parallel: Parallel | None
    """Of several GPUs; `memory` is then that of one."""
    gpu_hours: float | None
    checkpoint_bytes: int
    disk_bytes: int | None
    messages: tuple[Message, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"memory": self.memory.to_dict()}

    @property
    def whole_seconds(self) -> float | None:
        """From the first step to the last, with compiling and evaluating."""
        if self.seconds is None:
            return None
        return self.seconds + (self.compile_seconds or 0.0) + (self.evaluation_seconds or 0.0)


def count_windows(n_tokens: int, context: int, stride: int = 0) -> int:
    """Windows of `context` tokens and their successor in `n_tokens`; as `data.Windows` counts."""
    return len(range(0, n_tokens - context, stride or context))


def count_steps(config: Config, n_windows: int | None, gpus: int = 1) -> int | None:
    """The run's length in optimiser steps: the shortest of the lengths that are set.

    On several `gpus` each has its own windows in a step. None when only `epochs` is set and the
    number of windows is not known. Raises ConfigError when no length is set.
    """
    train = config.train
    windows_per_step = train.batch_size * train.accumulate * gpus
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
    correction: Callable[[bool], Correction | None] = lambda compiled: None,
    fleet: Fleet | None = None,
) -> Plan:
    """The plan of a run. `tokens_per_second`: a rate known from elsewhere (an earlier run).

    Without one the rate is modelled from the device's peak and bandwidth. `correction(compiled)` is
    what measured runs on this device have taught. With a `fleet`, `device` is one of its cards.
    """
    model, train, vocab_size = config.model, config.train, corpus.vocab_size
    gpus = fleet.gpus if fleet else 1
    parameters = count_parameters(model, vocab_size)
    per_token = flops_per_token(model, vocab_size)
    tokens_per_step = train.batch_size * train.accumulate * model.context_length * gpus

    n_windows = None
    if corpus.train_tokens is not None:
        n_windows = count_windows(corpus.train_tokens, model.context_length, config.data.stride)
    steps = count_steps(config, n_windows, gpus)
    tokens = None if steps is None else steps * tokens_per_step
    epochs = train.epochs or None
    if steps is not None and n_windows:
        epochs = steps * tokens_per_step / model.context_length / n_windows

    compiled = will_compile(config, vocab_size, steps, device)
    learned = correction(compiled)
    if device.memory_total:
        needs = needs_on(vocab_size, device, compiled, learned)
        config = with_recompute(config, needs, device.memory_total)
    step = _step(config, vocab_size, device, compiled, learned)
    memory = memory_of(config, vocab_size, device, compiled, learned)
    seconds_a_step, parallel = step.seconds, None
    if fleet is not None and gpus > 1 and step.seconds is not None:
        parallel = spread(fleet, memory, step.micro_batch, step.seconds)
        seconds_a_step = step.seconds + parallel.waited_seconds
    if tokens_per_second is not None:
        seconds_a_step = tokens_per_step / tokens_per_second
    elif seconds_a_step is not None:
        tokens_per_second, rate_source = tokens_per_step / seconds_a_step, step.source
    seconds = None
    if steps is not None and seconds_a_step is not None:
        seconds = steps * seconds_a_step

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
        memory=memory,
        device=device,
        compiled=compiled,
        step_seconds=seconds_a_step,
        tokens_per_second=tokens_per_second,
        rate_source=rate_source if tokens_per_second else "",
        correction=learned,
        seconds=seconds,
        compile_seconds=compile_seconds(config, device.kind) if compiled else 0.0,
        evaluation_seconds=_evaluations(config, corpus, steps, seconds_a_step),
        parallel=parallel,
        gpu_hours=seconds * gpus / 3600 if fleet is not None and seconds is not None else None,
        checkpoint_bytes=checkpoint_bytes(config, vocab_size),
        disk_bytes=disk_bytes(config, vocab_size, steps),
        messages=(),
    )
    needs = needs_on(vocab_size, device, compiled, learned)
    return replace(drawn, messages=messages(config, drawn, corpus, needs, disk_free))


def with_recompute(config: Config, needs: Needs, memory: int) -> Config:
    """`config` with `train.recompute = auto` decided: on where that alone makes it fit `memory`."""
    again = replace(config, train=replace(config.train, recompute="on"))
    room = ROOM * memory
    if config.train.recompute == "auto" and needs(config) > room >= needs(again):
        return again
    return config


def will_compile(config: Config, vocab_size: int, steps: int | None, device: DeviceFacts) -> bool:
    """Whether a new run's steps are compiled; a run of unknown length counts as a long one."""
    if steps is None:
        return compiles(config.train.compile, None, math.inf, device.peak_flops, device.kind)
    windows = steps * config.train.batch_size * config.train.accumulate
    flops = windows * config.model.context_length * flops_per_token(config.model, vocab_size)
    return compiles(config.train.compile, None, flops, device.peak_flops, device.kind)


def memory_of(
    config: Config,
    vocab_size: int,
    device: DeviceFacts,
    compiled: bool,
    correction: Correction | None = None,
) -> Memory:
    """The peak memory of training `config` on `device`, by part."""
    precision = config.train.precision if config.train.precision != "auto" else device.precision
    memory = training_memory(config, vocab_size, precision, device.kind, compiled=compiled)
    if correction is None:
        return memory
    return replace(memory, runtime=max(0, memory.runtime + correction.memory))


def needs_on(
    vocab_size: int, device: DeviceFacts, compiled: bool, correction: Correction | None = None
) -> Needs:
    """A function that says how many bytes training a configuration takes on `device`."""
    return lambda config: memory_of(config, vocab_size, device, compiled, correction).total


class _Step(NamedTuple):
    """Seconds of one device's step, and of the last of its micro-batches forward and backward."""

    seconds: float | None
    micro_batch: float
    source: str


def _step(
    config: Config,
    vocab_size: int,
    device: DeviceFacts,
    compiled: bool,
    correction: Correction | None,
) -> _Step:
    """The model's figure, put right by the correction; None where nothing is known of the device's
    rates."""
    if not device.peak_flops:
        return _Step(None, 0.0, "")
    parts = step_seconds(
        work(config, vocab_size, device.precision, device.kind),
        find_pace(
            device.kind,
            compiled,
            device.precision,
            has_bfloat16=device.has_bfloat16,
            last_cache=device.last_cache,
        ),
        device.peak_flops,
        device.bandwidth or BANDWIDTH,
    )
    factor = correction.time if correction else 1.0
    seconds = factor * sum(parts.values())
    once = factor * (parts["update"] + parts["steps"])
    source = f"modelled from {device.peak_flops / 1e12:.3g} TFLOP/s, {device.peak_source}"
    if not device.bandwidth:
        source += f", and {BANDWIDTH / 1e9:.0f} GB/s of memory, assumed"
    if correction is not None:
        source += f"; {correction}"
    return _Step(seconds, (seconds - once) / config.train.accumulate, source)


def _evaluations(
    config: Config, corpus: CorpusFacts, steps: int | None, step_seconds: float | None
) -> float | None:
    """Seconds that the evaluations of a whole run take: forward, and never compiled."""
    if not config.data.val_fraction:
        return 0.0
    if steps is None or step_seconds is None or corpus.val_tokens is None:
        return None
    train = config.train
    short = min(train.eval_tokens or corpus.val_tokens, corpus.val_tokens)
    times = (steps - 1) // train.eval_every if train.eval_every else 0
    tokens = times * short + corpus.val_tokens
    step_tokens = train.batch_size * train.accumulate * config.model.context_length
    return tokens / step_tokens * step_seconds * EVALUATION
