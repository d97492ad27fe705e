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
    """The shape of the network. The defaults are the classic GPT's; what may be combined with what
    is in `engine.config.architecture`."""

    n_layer: int = setting(6, "transformer blocks", minimum=1, maximum=1000)
    n_head: int = setting(
        6, "attention heads; must divide n_embd unless head_dim is set", minimum=1
    )
    n_kv_head: int = setting(
        0,
        "heads of keys and values, shared by groups of query heads: a cache smaller by as much "
        "(GQA, Ainslie et al. 2023); 1: one for all (MQA); 0: as many as n_head",
        minimum=0,
    )
    head_dim: int = setting(0, "width of a head; 0: n_embd / n_head", minimum=0)
    n_embd: int = setting(384, "width of the residual stream", minimum=1)
    n_hidden: int = setting(
        0,
        "hidden width of the MLP, or of each expert; 0: 4·n_embd, with a gated MLP 8/3·n_embd to "
        "the next 8, which has as many parameters",
        minimum=0,
    )
    context_length: int = setting(256, "positions the model can see", unit="tokens", minimum=1)
    norm: str = setting(
        "layernorm",
        "rmsnorm leaves out the mean and the offset: as good, and cheaper (Zhang & Sennrich 2019)",
        choices=("layernorm", "rmsnorm"),
    )
    norm_eps: float = setting(
        1e-5, "added to the variance before the root", minimum=1e-12, maximum=0.1
    )
    position: str = setting(
        "learned",
        "learned: a vector for each place; rope: queries and keys turned by their place, so that "
        "only distance counts (Su et al. 2021); none: order comes from the causal mask alone",
        choices=("learned", "rope", "none"),
    )
    rope_base: float = setting(
        10_000.0, "rope: larger turns slower, for longer contexts", minimum=1.0
    )
    rope_scaling: str = setting(
        "none",
        "rope beyond the context it was trained at: linear divides positions (Chen et al. 2023); "
        "llama3 and yarn (Peng et al. 2023) divide the slow turns alone",
        choices=("none", "linear", "llama3", "yarn"),
    )
    rope_factor: float = setting(1.0, "how many times longer rope_scaling makes it", minimum=1.0)
    rope_original_context: int = setting(
        0,
        "context before rope_scaling (llama3, yarn); 0: context_length / rope_factor",
        unit="tokens",
        minimum=0,
    )
    rope_truncate: bool = setting(
        True, "yarn: its bounds are rounded outwards to whole pairs; GPT-OSS's are not"
    )
    mlp: str = setting(
        "gelu",
        "gelu: GPT-2's; swiglu: one half gates the other (Shazeer 2020); relu2: squared ReLU (So "
        "et al. 2021); swiglu-clamped: GPT-OSS's, with bounded halves",
        choices=("gelu", "swiglu", "relu2", "swiglu-clamped"),
    )
    qk_norm: bool = setting(
        False,
        "RMSNorm on each head's queries and keys: logits of attention cannot explode (Henry et al. "
        "2020; Qwen3)",
    )
    window: int = setting(
        0,
        "positions that an attention layer looks back, itself included: cost and cache stop "
        "growing there (Beltagy et al. 2020; Mistral); 0: all",
        unit="tokens",
        minimum=0,
    )
    window_layers: str = setting(
        "all",
        "which layers have the window; alternate: the first, third, fifth … (GPT-OSS)",
        choices=("all", "alternate"),
    )
    sink_tokens: int = setting(
        0,
        "first positions that layers with a window go on seeing (StreamingLLM, Xiao et al. 2023)",
        unit="tokens",
        minimum=0,
    )
    learned_sinks: bool = setting(
        False,
        "a learned logit for each head that takes attention which no position deserves (GPT-OSS)",
    )
    n_expert: int = setting(
        0,
        "MLPs of which a router picks a few for each token (mixture of experts); 0: one for all",
        minimum=0,
        maximum=4096,
    )
    n_expert_active: int = setting(2, "experts that a token goes through", minimum=1)
    renormalise: bool = setting(
        True, "weights of the chosen experts add up to one (Mixtral); else as the router gave them"
    )
    balance_loss: float = setting(
        0.01,
        "weight of the load-balancing loss, without which a few experts get every token (Fedus et "
        "al. 2021)",
        minimum=0.0,
    )
    logit_softcap: float = setting(
        0.0, "bounds the logits smoothly: cap·tanh(logits/cap) (Gemma 2); 0: off", minimum=0.0
    )
    dropout: float = setting(0.0, "share of activations dropped in training", minimum=0, maximum=1)
    bias: bool = setting(True, "biases in linear layers and in LayerNorm, as GPT-2 has")
    qkv_bias: bool = setting(
        False, "biases of queries, keys and values alone, where bias gives none (Qwen2)"
    )
    tie_embeddings: bool = setting(True, "one matrix for token embedding and output")
    attention: str = setting(
        "auto",
        "sdpa: the fused kernel; flex: a compiled one that skips what a window hides; reference: "
        "the same written out; auto: the faster one here",
        choices=("auto", "sdpa", "flex", "reference"),
    )

    @property
    def kv_heads(self) -> int:
        return self.n_kv_head or self.n_head

    @property
    def head_width(self) -> int:
        return self.head_dim or self.n_embd // self.n_head

    @property
    def gated(self) -> bool:
        return self.mlp.startswith("swiglu")

    @property
    def hidden_width(self) -> int:
        """Of the MLP, or of each expert."""
        if self.n_hidden:
            return self.n_hidden
        # A gated MLP has three matrices where the plain one has two.
        return -(-self.n_embd // 3) * 8 if self.gated else 4 * self.n_embd

    @property
    def windowed(self) -> bool:
        """Whether every layer has a window and no place is learned: then no text is too long."""
        return bool(self.window) and self.window_layers == "all" and self.position != "learned"

    def window_of(self, layer: int) -> int:
        """Positions that `layer` looks back, itself included; 0: all."""
        return self.window if self.window_layers == "all" or layer % 2 == 0 else 0


@dataclass(frozen=True)
class DataConfig:
    """What is learned from, and how it is cut."""

    corpus: str = setting("python-docs", "name of a registered corpus")
    tokenizer: str = setting(
        "bpe",
        "how text becomes tokens; hf: as an imported model does it, for its own run alone",
        choices=("bytes", "char", "word", "bpe", "gpt2", "hf"),
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

    name: str = setting(
        "adamw",
        "adamw; or muon: the blocks' matrices by momentum made orthogonal (Jordan et al. 2024), in "
        "fewer steps to the same loss, each of which takes longer; the rest by AdamW",
        choices=("adamw", "muon"),
    )
    lr: float = setting(1e-3, "peak learning rate", minimum=0.0)
    muon_lr: float = setting(
        0.0, "muon: peak learning rate of the matrices; 0: the same as lr", minimum=0.0
    )
    momentum: float = setting(
        0.95, "muon: share of the momentum that a step keeps", minimum=0.0, maximum=0.999999
    )
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
    compile: str = setting(
        "auto",
        "compile the step with torch.compile: a wait at the start, then speed; auto: where the run "
        "is long enough to win more than it waits",
        choices=("auto", "on", "off"),
    )
    float8: bool = setting(
        False,
        "multiply in 8 bits inside the blocks, beside bfloat16: faster on cards that can (Ada, "
        "Hopper and newer), for large matrices; weights and sums stay as they are",
    )
    recompute: str = setting(
        "auto",
        "keep no activations of a block and compute them again in the backward pass: a third more "
        "arithmetic, far less memory; auto: where the run would not fit otherwise",
        choices=("auto", "on", "off"),
    )
    loss_chunk: int = setting(
        0,
        "tokens whose logits exist at once, which a large vocabulary makes the largest thing of a "
        "step; 0: all where that is faster and fits",
        unit="tokens",
        minimum=0,
    )
    threads: int = setting(
        0,
        "CPU threads for torch; 0: the fewest that are as fast as any, measured once where there "
        "are more than two cores",
        minimum=0,
    )
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
