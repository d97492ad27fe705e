"""How much memory and disk a training run takes, estimated from its configuration. No torch.

The formulas count what this project's own loop and network keep (a test compares the activations
with what autograd saves, a benchmark the whole with the peak of real runs). What a compiled step
keeps is a measured share of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from engine.arithmetic import (
    SINK_SPARE,
    count_parameters,
    matmul_parameters,
    writes_attention_out,
)
from engine.config import Config
from engine.config.sections import ModelConfig
from engine.heap import HEAPS, Counted

FLOAT32 = 4
MOMENTS = 2
RUNTIME = {"cuda": 600_000_000, "mps": 400_000_000}
"""What the process and the GPU's context take before the first tensor, as seen in practice."""
MUON_COPIES = 20
"""Bytes for each number of the blocks' matrices: 8 for two copies in float32, and 12 for what is
stacked, lowered and multiplied."""
PADDED = 0.05
"""Rows of zeros among those of experts on a CPU: see `engine.model.experts`."""
COMPILER = {"cuda": 0, "mps": 200_000_000}
"""What torch.compile takes on top: its modules, and what it remembers of the graphs."""
COMPILED_SHARE, COMPILED_LOGITS = 0.8, 0.7
"""Of activations and of logits, what a compiled step holds on a GPU: it computes cheap ones again,
and fuses the loss with its gradient."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while training, by part. `host_saving` is host memory, not the GPU's."""

    weights: int
    """4·N, and 2 more a multiplied weight for the 16-bit copies that autocast keeps in a step; of
    experts all are copied, busy or not."""
    gradients: int
    """4·N."""
    optimizer: int
    """8·N: AdamW's two moments in float32; Muon has 4 of its matrices."""
    activations: int
    """What the backward pass needs of one micro-batch; see `activation_bytes`."""
    logits: int
    """12·B·T·V: logits, log-probabilities and their gradient in float32; with a soft-cap
    2 or 4 more, for what it bent."""
    update: int
    """What the gradients on their way and the update's own copies (Muon's) take beyond the room
    that activations and logits leave them."""
    runtime: int
    host_saving: int
    """12·N: the snapshot of weights and moments that is written while training goes on."""
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
            *([("update", self.update)] if self.update else []),
            ("runtime", self.runtime),
        ]
        return parts + ([("snapshot", self.host_saving)] if self.on_host else [])

    def to_dict(self) -> dict[str, int]:
        values = asdict(self)
        del values["on_host"]
        return values | {"total": self.total}


def activation_bytes(config: Config, precision: str, device: str, *, squares: bool = True) -> int:
    """Bytes that autograd keeps of one micro-batch between forward and backward, without logits.

    With C the width, Q and K those of all heads of queries and of keys, F the MLP's, and a the
    bytes of a product's numbers (2 or 4), a token keeps in each block: the stream before both norms
    in float32 and both norms' results (8·C + 2·a·C); queries, keys, values and attention's result
    (a·(2·Q + 2·K)); the MLP's two hidden ones (2·a·F). So the classic block has (8 + 14·a)·C. What
    the options add stands beside them below; dropout adds two masks of C. Without `squares` the
    (T, T) matrices of attention are left out.

    Norms' statistics, positions' cosines and token ids are left out: some numbers a token.
    """
    return round(sum(_kept(config, precision, device, squares)))


def recomputed_bytes(config: Config, precision: str, device: str) -> int:
    """The same where each block is run again in the backward pass (Chen et al. 2016): the stream
    before each block, and the insides of one at a time."""
    *layers, ends = _kept(config, precision, device, squares=True)
    model = config.model
    stream = FLOAT32 * config.train.batch_size * model.context_length * model.n_embd
    return round(model.n_layer * stream + max(layers) + ends)


def _kept(config: Config, precision: str, device: str, squares: bool) -> list[float]:
    """What each layer keeps, and last what is kept before and after all of them."""
    model, train = config.model, config.train
    kinds = _Kinds(config, precision, device)
    tokens = train.batch_size * model.context_length
    block = 2 * kinds.norm(model.n_embd) + kinds.mlp() + 2 * kinds.mask * model.n_embd
    layers = []
    for layer in range(model.n_layer):
        kept = tokens * (block + kinds.attention(layer))
        if squares:
            kept += tokens * kinds.squares() + kinds.hidden_places(layer)
        layers.append(kept)
    return [*layers, tokens * (kinds.norm(model.n_embd) + model.n_embd * kinds.mask_of_embeddings)]


class _Kinds:
    """What each kind of layer keeps, in bytes a token."""

    def __init__(self, config: Config, precision: str, device: str) -> None:
        self.model = model = config.model
        self.on_cpu = device == "cpu"
        self.a = a = FLOAT32 if precision == "float32" else 2
        self.dropping = model.dropout > 0
        # On a CPU a mask of dropout has the type of what it is laid over, on a GPU it is a byte.
        self.mask = (a if self.on_cpu else 1) * self.dropping
        self.mask_of_embeddings = (FLOAT32 if self.on_cpu else 1) * self.dropping
        self.written_out = attention_is_written_out(config, precision, device)
        self.flex = device == "cuda" and not self.dropping and model.attention in ("auto", "flex")

    def norm(self, width: int) -> int:
        """Its input in float32, and its result."""
        return (FLOAT32 + self.a) * width

    def mlp(self) -> float:
        """Between the second norm's result and the stream."""
        model, a = self.model, self.a
        F = model.hidden_width
        # gelu: before and after; relu2: after ReLU and squared; swiglu: both halves, the gate after
        # SiLU, their product; clamped: four steps on the way instead of one.
        hidden = {"gelu": 2, "relu2": 2, "swiglu": 4, "swiglu-clamped": 7}[model.mlp] * a * F
        if not model.n_expert:
            return hidden
        # Each token as often as it has experts: sent out, come back, and back in order; and the
        # router's choice: probabilities, for the loss once more; numbers, their order and weights.
        E, K = model.n_expert, model.n_expert_active
        rows = K * (1 + PADDED * self.on_cpu)
        return rows * (hidden + 3 * a * model.n_embd) + 2 * FLOAT32 * E + 32 * K

    def attention(self, layer: int) -> float:
        """From the qkv product to attention's result, without (T, T) matrices."""
        model, a = self.model, self.a
        H, G, D = model.n_head, model.kv_heads, model.head_width
        Q, K = H * D, G * D
        normed = 0
        if model.qk_norm:
            # Its input in float32; in float32 that is the qkv product itself.
            normed = FLOAT32 * (Q + K) if a == 2 else FLOAT32 * (Q + 2 * K)
        if self.written_out:
            # Queries, keys and values beside each query that they serve, and the result.
            return normed + 4 * a * Q
        plain = self.dropping and self.on_cpu  # its tiled kernel cannot drop weights
        special = model.learned_sinks or self._hides(layer)
        if model.learned_sinks and not (self.flex and special):
            # Heads are padded, and so copies; a sink more in front of the keys, and without a mask
            # of the queries.
            wide, T = D + SINK_SPARE, model.context_length
            front = (T + 1) / T
            own = 1.0 if self._hides(layer) else front
            kept = normed + a * (2 * own * H + 2 * front * G) * wide + a * Q + FLOAT32 * H
        else:
            # The values lie in the qkv product, which is kept whole: queries and keys are copies
            # beside it once they were turned or normed.
            kept = normed + a * (2 * Q + 2 * K) + FLOAT32 * H
            if model.position == "rope" or model.qk_norm:
                kept += a * (Q + K)
            if model.qk_norm and a == FLOAT32 and (H == G or not plain):
                kept -= FLOAT32 * (Q + 2 * K)  # the norms' input is that same product
        if plain:
            # Every key and value beside each query that it serves, in float32.
            kept += (FLOAT32 - a) * 3 * Q
        return kept

    def squares(self) -> int:
        """A token's rows of the (T, T) matrices: softmax's result, its copy in the products' type,
        and what dropout has drawn."""
        rows = self.model.n_head * self.model.context_length
        if self.written_out:
            copied = self.a if self.a == 2 or self.dropping else 0
            return (FLOAT32 + copied + self.mask) * rows
        return 3 * FLOAT32 * rows if self.dropping and self.on_cpu else 0

    def _hides(self, layer: int) -> bool:
        return 0 < self.model.window_of(layer) < self.model.context_length

    def hidden_places(self, layer: int) -> int:
        """Of all windows together: the (T, T) mask of a layer with a window, where a kernel needs
        it. Written out, attention always has one, of a byte."""
        square = self.model.context_length**2
        if self.written_out:
            return square
        return square * self.a if self._hides(layer) and not self.flex else 0


def training_memory(
    config: Config, vocab_size: int, precision: str, device: str, *, compiled: bool = False
) -> Memory:
    """The memory of training `config` on a `device` of kind cpu, cuda or mps.

    `compiled`: with the step compiled, which keeps less between forward and backward.
    """
    model = config.model
    n = count_parameters(model, vocab_size)
    copies = 0 if precision == "float32" else 2 * multiplied_parameters(model, vocab_size)
    if device == "cpu":
        heap = HEAPS[compiled, precision != "float32"]
        count = counted(config, vocab_size, precision, compiled)
        runtime, late = heap.runtime, round(count.late(heap))
        activations, logits = (round(size) for size in count.held(heap))
    else:
        kept = recomputed_bytes if recomputes(config) else activation_bytes
        activations = kept(config, precision, device)
        logits = logit_bytes(config, vocab_size, precision)
        runtime, late = RUNTIME[device], 0
        if compiled:
            activations = round(COMPILED_SHARE * activations)
            logits = round(COMPILED_LOGITS * logits)
            runtime += COMPILER[device]
    return Memory(
        weights=FLOAT32 * n + copies,
        gradients=FLOAT32 * n,
        optimizer=moment_bytes(config, vocab_size),
        activations=activations,
        logits=logits,
        update=max(0, max(late, _update_bytes(config, vocab_size)) - activations - logits),
        runtime=runtime,
        host_saving=(0 if config.save.policy == "none" else checkpoint_bytes(config, vocab_size)),
        on_host=device != "cuda",
    )


def counted(config: Config, vocab_size: int, precision: str, compiled: bool) -> Counted:
    """What training `config` on a CPU keeps, before its allocator's share."""
    logits = logit_bytes(config, vocab_size, precision)
    gradients = FLOAT32 * count_parameters(config.model, vocab_size)
    if recomputes(config):
        return Counted(recomputed_bytes(config, precision, "cpu"), 0, 0, logits, gradients)
    plain = activation_bytes(config, precision, "cpu", squares=False)
    squares = activation_bytes(config, precision, "cpu") - plain
    roots = root_bytes(config) if compiled else 0
    return Counted(plain + roots, roots, squares, logits, gradients)


def root_bytes(config: Config) -> int:
    """What a compiled RMSNorm keeps beside its input and its result: its input over its root."""
    model, tokens = config.model, config.train.batch_size * config.model.context_length
    stream = (2 * model.n_layer + 1) * model.n_embd if model.norm == "rmsnorm" else 0
    heads = (model.n_head + model.kv_heads) * model.head_width if model.qk_norm else 0
    return FLOAT32 * (stream + model.n_layer * heads) * tokens


def logit_bytes(config: Config, vocab_size: int, precision: str) -> int:
    """What the output layer and the loss hold at once of one micro-batch: see `Memory.logits`."""
    tokens = config.train.batch_size * config.model.context_length
    bent = 0 if not config.model.logit_softcap else FLOAT32 if precision == "float32" else 2
    return (3 * FLOAT32 + bent) * tokens * vocab_size


def moment_bytes(config: Config, vocab_size: int) -> int:
    """AdamW's two moments of every parameter in float32; Muon has one of its matrices."""
    n = count_parameters(config.model, vocab_size)
    once = blocks_matrices(config.model, vocab_size) if config.optimizer.name == "muon" else 0
    return FLOAT32 * (MOMENTS * n - once)


def blocks_matrices(model: ModelConfig, vocab_size: int) -> int:
    """Numbers in the matrices of the blocks, those of all experts and without the routers'."""
    routers = model.n_layer * model.n_embd * model.n_expert
    return multiplied_parameters(model, vocab_size) - vocab_size * model.n_embd - routers


def _update_bytes(config: Config, vocab_size: int) -> int:
    """Muon's clipped gradient and its Nesterov step in float32, and the matrices of one shape at a
    time (at most all) stacked, lowered to 16 bits and multiplied. AdamW makes no copies."""
    if config.optimizer.name != "muon":
        return 0
    return MUON_COPIES * blocks_matrices(config.model, vocab_size)


def recomputes(config: Config) -> bool:
    """Whether blocks are run again in the backward pass, as far as the configuration says; under
    `auto` that is known once it is known that the run would not fit otherwise."""
    return config.train.recompute == "on"


def attention_is_written_out(config: Config, precision: str, device: str) -> bool:
    """Whether training computes attention with its (T, T) matrices stored."""
    return writes_attention_out(
        config.model.attention,
        config.model.context_length,
        on_cpu=device == "cpu",
        bfloat16=precision == "bfloat16",
    )


def multiplied_parameters(model: ModelConfig, vocab_size: int) -> int:
    """Weights that some token is multiplied with: of experts all, not the active ones alone."""
    everyone = replace(model, n_expert_active=max(1, model.n_expert))
    return matmul_parameters(everyone, vocab_size)


def cache_bytes(model: ModelConfig, bytes_a_number: int) -> int:
    """The KV cache of one text as long as the context: 2·G·D numbers a place in each layer.

    A layer with a window keeps its window and the first `sink_tokens`, the others all places.
    """
    places = 0
    for layer in range(model.n_layer):
        window = model.window_of(layer)
        kept = window + model.sink_tokens if window else model.context_length
        places += min(kept, model.context_length)
    return 2 * model.kv_heads * model.head_width * places * bytes_a_number


def checkpoint_bytes(config: Config, vocab_size: int) -> int:
    """One checkpoint on disk: weights and moments in float32; the rest is kilobytes."""
    n = count_parameters(config.model, vocab_size)
    return FLOAT32 * n + moment_bytes(config, vocab_size)


def disk_bytes(config: Config, vocab_size: int, steps: int | None) -> int | None:
    """The most disk that the run's checkpoints take at once, by its save policy.

    rolling: two, since the old one goes only when the new one is durable. all: every periodic one,
    the best and the last. None when that depends on a length that is not known.
    """
    one = checkpoint_bytes(config, vocab_size)
    if config.save.policy == "none":
        return 0
    if config.save.policy == "rolling":
        return 2 * one
    if not config.save.every:
        return 3 * one
    return None if steps is None else (steps // config.save.every + 2) * one
