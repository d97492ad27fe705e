"""The sections of the configuration: every field with its default, its bounds and its help.

Frozen dataclasses of plain values. Knows nothing of files, flags or checks across fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A field with its help; `minimum` and `maximum` are inclusive."""
    metadata = {
        "help": help,
        "unit": unit,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network."""

    n_layer: int = setting(6, "transformer blocks", minimum=1, maximum=1000)
    n_head: int = setting(6, "attention heads; must divide n_embd", minimum=1)
    n_embd: int = setting(384, "width of the residual stream", minimum=1)
    context_length: int = setting(256, "positions the model can see", unit="tokens", minimum=1)
    dropout: float = setting(0.0, "share of activations dropped in training", minimum=0, maximum=1)
    bias: bool = setting(True, "biases in linear layers and norms, as GPT-2 has")
    tie_embeddings: bool = setting(True, "one matrix for token embedding and output")
    attention: str = setting(
        "auto",
        "sdpa: the fused kernel; reference: the same written out; auto: the faster one here",
        choices=("auto", "sdpa", "reference"),
    )


@dataclass(frozen=True)
class DataConfig:
    """What is learned from, and how it is cut."""

    corpus: str = setting("python-docs", "name of a registered corpus")
    tokenizer: str = setting(
        "bpe", "how text becomes tokens", choices=("bytes", "char", "word", "bpe", "gpt2")
    )
    vocab_size: int = setting(
        1024, "entries of a trained vocabulary (bpe, word)", unit="tokens", minimum=2
    )
    stride: int = setting(
        0, "distance between window starts; 0: the context length", unit="tokens", minimum=0
    )
    val_fraction: float = setting(
        0.1, "share of the corpus, at its end, kept for validation", minimum=0.0, maximum=0.9
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    name: str = setting("adamw", "the optimiser", choices=("adamw",))
    lr: float = setting(1e-3, "peak learning rate", minimum=0.0)
    weight_decay: float = setting(
        0.1, "decoupled decay of matrices (never of biases, norms, positions)", minimum=0.0
    )
    betas: tuple[float, float] = setting(
        (0.9, 0.95), "decay of the first and second moment", minimum=0.0, maximum=0.999999
    )
    clip: float = setting(1.0, "largest gradient norm; 0: no clipping", minimum=0.0)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run."""

    kind: str = setting(
        "cosine",
        "cosine and linear fall to min_lr; wsd holds, then falls at the end",
        choices=("cosine", "linear", "constant", "wsd"),
    )
    warmup_steps: int = setting(100, "steps of linear rise from 0", unit="steps", minimum=0)
    min_lr: float = setting(1e-4, "the floor that the rate falls to (never above lr)", minimum=0.0)
    decay_fraction: float = setting(
        0.2, "wsd: share of the run, at its end, that falls", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class TrainConfig:
    """The loop. It ends at the first of max_steps, epochs and max_tokens that is set."""

    batch_size: int = setting(16, "windows in one micro-batch", minimum=1)
    accumulate: int = setting(1, "micro-batches summed into one step", minimum=1)
    max_steps: int = setting(0, "length in optimiser steps; 0: not set", unit="steps", minimum=0)
    epochs: float = setting(
        0.0, "length in passes over the training split; 0: not set", minimum=0.0
    )
    max_tokens: int = setting(0, "length in tokens; 0: not set", unit="tokens", minimum=0)
    eval_every: int = setting(
        250, "steps between evaluations; 0: only at the end", unit="steps", minimum=0
    )
    eval_tokens: int = setting(
        0, "tokens scored in a periodic evaluation; 0: the whole split", unit="tokens", minimum=0
    )
    log_every: int = setting(1, "steps between logged steps", unit="steps", minimum=1)
    seed: int = setting(1337, "of weights, data order and dropout", minimum=0)
    device: str = setting("auto", "auto takes cuda, then mps, then cpu (also cuda:1, …)")
    precision: str = setting(
        "auto",
        "of the matrix products; auto takes bfloat16 where the device has it",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    compile: bool = setting(False, "compile the model with torch.compile (a wait, then speed)")
    threads: int = setting(0, "CPU threads for torch; 0: all cores", minimum=0)
    on_nan: str = setting(
        "pause",
        "after nan_patience skipped updates in a row: pause, stop (both saved), go on skipping, or "
        "rollback to the newest checkpoint and on with the data that follows",
        choices=("pause", "stop", "skip", "rollback"),
    )
    nan_patience: int = setting(
        3,
        "updates in a row with a loss or gradient that is not finite (each is skipped) before "
        "on_nan is done",
        unit="steps",
        minimum=1,
    )
    spike_factor: float = setting(
        10.0,
        "a gradient norm this many times the median of the last 128 is a spike; 0: never",
        minimum=0.0,
    )
    on_spike: str = setting(
        "warn",
        "warn and make the update; or do not make it and skip, pause or rollback (as on_nan)",
        choices=("warn", "skip", "pause", "rollback"),
    )


@dataclass(frozen=True)
class SaveConfig:
    """Which checkpoints a run keeps."""

    policy: str = setting(
        "rolling",
        "rolling keeps the newest, the best, what the run resumed from and what was saved by hand; "
        "all keeps periodic ones as well; none keeps nothing",
        choices=("rolling", "all", "none"),
    )
    every: int = setting(
        500, "steps between checkpoints; 0: only at the end", unit="steps", minimum=0
    )


@dataclass(frozen=True)
class SampleConfig:
    """Samples drawn during training from pinned prompts; they never change the training."""

    prompts: tuple[str, ...] = setting(("\n",), "texts to continue")
    every: int = setting(250, "steps between samples; 0: never", unit="steps", minimum=0)
    max_tokens: int = setting(100, "length of a sample", unit="tokens", minimum=1)
    temperature: float = setting(0.8, "of the sampling; 0 is greedy", minimum=0.0, maximum=5.0)
    top_k: int = setting(50, "keeps the k likeliest tokens; 0: off", minimum=0)
    top_p: float = setting(1.0, "keeps this mass of likeliest tokens; 1: off", minimum=0, maximum=1)
    seed: int = setting(1337, "of the sampler's own generator", minimum=0)
