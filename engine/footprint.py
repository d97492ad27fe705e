"""How much memory and disk a training run takes, estimated from its configuration. No torch.

The formulas count what this project's own loop and network keep (a test compares the activations
with what autograd saves). Allocator overhead and kernels' workspaces are not in them: what must fit
needs about a tenth of room besides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from engine.arithmetic import count_parameters, matmul_parameters, writes_attention_out
from engine.config import Config

FLOAT32 = 4
MOMENTS = 2
RUNTIME = {"cpu": 350_000_000, "cuda": 600_000_000, "mps": 400_000_000}
"""What the process or the GPU's context takes before the first tensor, as seen in practice."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while training, by part. `host_saving` is host memory, not the GPU's."""

    weights: int
    """4·N, and 2 more a multiplied weight for the 16-bit copies that autocast keeps in a step."""
    gradients: int
    """4·N."""
    optimizer: int
    """8·N: AdamW's two moments in float32."""
    activations: int
    """What the backward pass needs of one micro-batch; see `activation_bytes`."""
    logits: int
    """12·B·T·V: logits, log-probabilities and their gradient in float32."""
    runtime: int
    host_saving: int
    """12·N: the snapshot that is written while training goes on."""
    on_host: bool
    """Whether device and host memory are the same (then the snapshot counts too)."""

    @property
    def total(self) -> int:
        return sum(size for _, size in self.parts())

    def parts(self) -> list[tuple[str, int]]:
        """(name, bytes) of what `total` adds up, in the order of a reader's interest."""
        parts = [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("logits", self.logits),
            ("runtime", self.runtime),
        ]
        return parts + ([("snapshot", self.host_saving)] if self.on_host else [])

    def to_dict(self) -> dict[str, int]:
        values = asdict(self)
        del values["on_host"]
        return values | {"total": self.total}


def activation_bytes(config: Config, precision: str, device: str) -> int:
    """Bytes that autograd keeps of one micro-batch between forward and backward, without logits.

    With C the width, a the bytes of a product's numbers (2 or 4) and m those of a dropout mask (a
    on a CPU, 1 on a GPU), a token keeps in each block (8 + 14·a)·C: the stream before both norms in
    float32; both norms' results, queries, keys, values, attention's result and the MLP's two
    fourfold ones. Dropout adds 2·m·C. Attention that stores its matrix adds H·T numbers once or
    more: written out it does, and on a CPU SDPA does as soon as it drops weights (its tiled kernel
    cannot, and the plain one works in float32).
    """
    model, train = config.model, config.train
    width, heads, context = model.n_embd, model.n_head, model.context_length
    a = FLOAT32 if precision == "float32" else 2
    mask = a if device == "cpu" else 1
    dropping = model.dropout > 0

    block = (8 + 14 * a) * width + (2 * mask * width if dropping else 0)
    if writes_attention_out(
        model.attention, context, on_cpu=device == "cpu", bfloat16=precision == "bfloat16"
    ):
        sixteen_bit_or_dropped = a if a == 2 or dropping else 0
        block += (FLOAT32 + sixteen_bit_or_dropped + (mask if dropping else 0)) * heads * context
    elif dropping and device == "cpu":
        block += 3 * FLOAT32 * heads * context + (FLOAT32 - a) * 3 * width
    ends = (FLOAT32 + a) * width + (FLOAT32 if device == "cpu" else 1) * width * dropping
    return train.batch_size * context * (model.n_layer * block + ends)


def training_memory(config: Config, vocab_size: int, precision: str, device: str) -> Memory:
    """The memory of training `config` on a `device` of kind cpu, cuda or mps."""
    n = count_parameters(config.model, vocab_size)
    copies = 0 if precision == "float32" else 2 * matmul_parameters(config.model, vocab_size)
    tokens = config.train.batch_size * config.model.context_length
    return Memory(
        weights=FLOAT32 * n + copies,
        gradients=FLOAT32 * n,
        optimizer=MOMENTS * FLOAT32 * n,
        activations=activation_bytes(config, precision, device),
        logits=3 * FLOAT32 * tokens * vocab_size,
        runtime=RUNTIME[device],
        host_saving=0 if config.save.policy == "none" else checkpoint_bytes(n),
        on_host=device != "cuda",
    )


def checkpoint_bytes(n_parameters: int) -> int:
    """One checkpoint on disk: weights and both moments in float32; the rest is kilobytes."""
    return (1 + MOMENTS) * FLOAT32 * n_parameters


def disk_bytes(config: Config, n_parameters: int, steps: int | None) -> int | None:
    """The most disk that the run's checkpoints take at once, by its save policy.

    rolling: two, since the old one goes only when the new one is durable. all: every periodic one,
    the best and the last. None when that depends on a length that is not known.
    """
    one = checkpoint_bytes(n_parameters)
    if config.save.policy == "none":
        return 0
    if config.save.policy == "rolling":
        return 2 * one
    if not config.save.every:
        return 3 * one
    return None if steps is None else (steps // config.save.every + 2) * one
