"""How long an optimiser step takes, from its shape: a sum of what is computed and what is moved.

A step is counted in a dozen amounts (`work`): floating-point operations, bytes through memory,
calls. Each costs its share of the device's best rates (`Pace`), and the shares were fitted to
measured steps: `python -m benchmarks.plan_fit` measures and fits them again. Small
matrices reach less of the peak because they move more bytes and make more calls for the same
operations, which is how the model knows it. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from engine.arithmetic import GRAM_FROM, count_parameters
from engine.config import Config
from engine.config.sections import ModelConfig
from engine.footprint import (
    FLOAT32,
    activation_bytes,
    attention_is_written_out,
    blocks_matrices,
    multiplied_parameters,
    recomputes,
)


@dataclass(frozen=True)
class Work:
    """What one optimiser step does, all its micro-batches together."""

    products: float
    """FLOPs of the products with weights: 6 a token and weight, 8 where blocks are recomputed."""
    product_bytes: float
    """Read and written by those products, if each operand moves once."""
    written: float
    """FLOPs of attention that is written out as products and a softmax: 12·H·D·T a token."""
    squares: float
    """Bytes of its (T, T) matrices."""
    fused: float
    """FLOPs of attention in one kernel, the hidden half counted too."""
    passes: float
    """Bytes through everything else between the products: norms, bends, sums, turns, masks."""
    bends: float
    """Numbers put through an exponential or a hyperbolic tangent: of the MLP's hidden ones and of
    attention's softmax; and twice those that dropout draws."""
    logits: float
    """Bytes of the output layer's logits and of the loss."""
    weights: float
    """Bytes through weights and gradients in each micro-batch, whatever its size."""
    update: float
    """Bytes through weights, gradients and moments in the update."""
    layers: float
    """Layers run, whatever their size."""
    batches: float
    """Micro-batches run."""
    steps: float = 1.0


@dataclass(frozen=True)
class Pace:
    """Seconds per amount of `Work`: of the FLOPs in units of 1 / the peak rate, of the bytes in
    units of 1 / the bandwidth (1: at the best rate; 0.5: half of it never reaches memory), of the
    bends in nanoseconds, of the calls in microseconds."""

    products: float
    product_bytes: float
    written: float
    squares: float
    fused: float
    passes: float
    bends: float
    logits: float
    weights: float
    update: float
    layers: float
    batches: float
    steps: float


NAMES = tuple(field.name for field in fields(Pace))
FLOPS = ("products", "written", "fused")
CALLS = ("layers", "batches", "steps")

OLDER = "cpu without bfloat16"
ROOMY = "cpu without bfloat16, large cache"
LARGE_CACHE = 16 << 20
"""Bytes of a processor's last cache in which much of a small network's step stays."""
PACES: dict[tuple[str, bool, bool], Pace] = {
    ("cpu", False, True): Pace(
        0.986, 7.48, 1.18, 0, 1.03, 2.47, 2.09, 19.4, 0, 0.946, 0, 214, 3430
    ),
    ("cpu", False, False): Pace(1.16, 1.65, 2, 8, 1.24, 0, 1.96, 10.3, 0, 0.314, 1120, 563, 563),
    ("cpu", True, True): Pace(0.962, 4.02, 0, 0, 0.809, 3.52, 2.72, 1.09, 11.6, 1.86, 818, 97.6, 0),
    ("cpu", True, False): Pace(0.838, 7.25, 2, 3, 0.423, 0, 1.55, 5.05, 0, 1.94, 900, 1150, 1150),
    ("cuda", False, True): Pace(1.95, 0.3, 3.0, 8.0, 1.8, 4.0, 0, 3.8, 1.0, 1.2, 600, 500, 500),
    ("cuda", True, True): Pace(1.95, 0.3, 3.0, 4.0, 1.8, 1.5, 0, 2.7, 1.0, 1.2, 100, 300, 300),
} | {
    (kind, compiled, False): pace
    for compiled in (False, True)
    for kind, pace in (
        (OLDER, Pace(1.3, 4.87, 2, 8, 0.879, 0, 4.09, 0.568, 0, 0.513, 1490, 710, 1060)),
        (ROOMY, Pace(1.42, 1.39, 2, 8, 0.236, 0, 3.99, 1.74, 0, 0.0586, 1270, 0, 4000)),
    )
}
"""By kind of device, whether the step is compiled, and whether products have 16 bits.

Fitted on two cores of an AMD EPYC with AVX512-BF16 (`benchmarks/results/*-plan-fit.json`: 25
networks in bfloat16, 6 in float32; median error 1 to 6 %, largest 4 to 30 %). An older processor,
without it, reaches less of its own rates: 24 networks on two cores of an AMD EPYC with AVX2 (median
error 4 %, largest 15 %), of which 7 were compiled too, and took 0.89 to 1.17 of the time; what was
not measured on it is taken from the newer one. Another, with 32 MB of last cache instead of 8: 39
networks, none of them compiled (median error 7 %, largest 25 %: its own speed changed by a third
meanwhile). Those of GPUs were set by hand so that published rates come out: nanoGPT's 124M,
torchtitan's 8B; trust them to a third, or calibrate.
"""
EVALUATION = 0.35
"""Time of scoring a token over that of training on it: forward alone."""
COMPILING = {"cpu": (2.0, 2.8), "cuda": (20.0, 3.0)}
"""Seconds that the first compiled step takes where nothing is cached: at least, and a layer. On two
cores 10 were measured for 4 layers, 16 for 6, 40 for 12; for a GPU it is a guess."""


def kind_of(device: str, *, has_bfloat16: bool = True, last_cache: int = 0) -> str:
    """The kind of device that a pace belongs to; a processor for kinds that nobody has measured.

    Of a processor: `has_bfloat16`, its own instructions for it, and the bytes of its last cache.
    """
    if device == "cpu" and not has_bfloat16:
        return ROOMY if last_cache >= LARGE_CACHE else OLDER
    return device if device in ("cpu", "cuda") else "cpu"


def find_pace(
    device: str,
    compiled: bool,
    precision: str,
    *,
    has_bfloat16: bool = True,
    last_cache: int = 0,
) -> Pace:
    """The pace of a kind of device: the 16-bit one for GPUs in float32, whose peak rate tells the
    difference; that of a processor with bfloat16 for what was not measured on one without."""
    kind = kind_of(device, has_bfloat16=has_bfloat16, last_cache=last_cache)
    rest = compiled, kind == "cuda" or precision != "float32"
    return PACES[kind if (kind, *rest) in PACES else "cpu", *rest]


def compile_seconds(config: Config, device: str) -> float:
    """What compiling a step takes at the start of a run."""
    least, a_layer = COMPILING.get(device, COMPILING["cpu"])
    return least + a_layer * config.model.n_layer


def work(config: Config, vocab_size: int, precision: str, device: str) -> Work:
    """Count one optimiser step of `config` on a `device` of kind cpu, cuda or mps."""
    model, train = config.model, config.train
    tokens = train.batch_size * model.context_length
    batches = train.accumulate
    a = FLOAT32 if precision == "float32" else 2
    n = count_parameters(model, vocab_size)
    # With recomputation the blocks run forward twice; the output layer does not.
    again = 4 / 3 if recomputes(config) else 1.0
    products = moved = 0.0
    for matrix in matrices(model, vocab_size):
        rounds = again if matrix.in_block else 1.0
        products += rounds * 6 * tokens * matrix.used * matrix.numbers
        rows = tokens * matrix.used * (matrix.inputs + matrix.outputs)
        moved += rounds * 3 * a * (rows + matrix.held * matrix.numbers)
    seen = sum(_looked_at(model, layer, device) for layer in range(model.n_layer))
    attention = again * 12 * tokens * model.n_head * model.head_width * seen
    written_out = attention_is_written_out(config, precision, device)
    squares = FLOAT32 * tokens * model.n_head * model.context_length * model.n_layer
    kept = activation_bytes(config, precision, device, squares=False)
    turned = (model.n_head + model.kv_heads) * model.head_width * model.n_layer
    capped = 2 * FLOAT32 if model.logit_softcap else 0
    muon = config.optimizer.name == "muon"
    by_gram = precision == "float32" and device == "cpu"
    orthogonal = orthogonal_flops(model, vocab_size, by_gram) if muon else 0.0
    return Work(
        products=batches * products + orthogonal,
        product_bytes=batches * moved,
        written=batches * attention * written_out,
        squares=batches * again * squares * written_out,
        fused=batches * attention * (not written_out),
        passes=batches * again * (kept + _TURNING * tokens * turned * (model.position == "rope")),
        bends=batches * again * tokens * model.n_layer * _bent(model),
        logits=batches * (12 + capped) * tokens * vocab_size,
        weights=batches * (FLOAT32 + 2) * multiplied_parameters(model, vocab_size),
        update=28 * n + (12 * blocks_matrices(model, vocab_size) if muon else 0),
        layers=batches * again * model.n_layer * _calls(model),
        batches=batches,
    )


def _bent(model: ModelConfig) -> float:
    """See `Work.bends`, of a token in one layer."""
    scores = model.n_head * model.context_length
    found = float(scores)
    if model.mlp != "relu2":
        found += model.hidden_width * (model.n_expert_active if model.n_expert else 1)
    return found + 2 * (2 * model.n_embd + scores) * (model.dropout > 0)


_TURNING = 24
"""Bytes that RoPE moves for a number of queries or keys, in units of what `passes` counts: kept
bytes, of which each stands for about four moved."""


class Matrix(NamedTuple):
    """Weight matrices of one shape."""

    inputs: int
    outputs: int
    used: int
    """Times that a token is multiplied with one."""
    held: int
    """How many there are."""
    in_block: bool = True

    @property
    def numbers(self) -> int:
        return self.inputs * self.outputs


def matrices(model: ModelConfig, vocab_size: int) -> list[Matrix]:
    """Every weight matrix that tokens are multiplied with, by shape."""
    C, F, D, L = model.n_embd, model.hidden_width, model.head_width, model.n_layer
    wide = 2 * F if model.gated else F
    used, held = (L * model.n_expert_active, L * model.n_expert) if model.n_expert else (L, L)
    found = [
        Matrix(C, (model.n_head + 2 * model.kv_heads) * D, L, L),
        Matrix(model.n_head * D, C, L, L),
        Matrix(C, wide, used, held),
        Matrix(F, C, used, held),
        Matrix(C, vocab_size, 1, 1, in_block=False),
    ]
    return [*found, Matrix(C, model.n_expert, L, L)] if model.n_expert else found


def orthogonal_flops(model: ModelConfig, vocab_size: int, by_gram: bool) -> float:
    """FLOPs of one update by Muon: five times, of R×C matrices with R ≤ C, the products x·xᵀ,
    its square, and theirs with x; `by_gram`, where x is long, with x but twice, and seventeen of
    R×R. Queries, keys and values count as matrices of their own, as do the halves of a gated
    MLP."""
    qkv, proj, widen, narrow, *_ = matrices(model, vocab_size)
    H, G, D, F = model.n_head, model.kv_heads, model.head_width, model.hidden_width
    cut = [(qkv, [H * D, G * D, G * D]), (proj, [proj.outputs]), (narrow, [narrow.outputs])]
    total = 0.0
    for matrix, pieces in [*cut, (widen, [F] * (2 if model.gated else 1))]:
        for rows in pieces:
            short, long = sorted((rows, matrix.inputs))
            if by_gram and long >= GRAM_FROM * short:
                total += matrix.held * (4 * short**2 * long + 17 * 2 * short**3)
            else:
                total += matrix.held * 5 * (4 * short**2 * long + 2 * short**3)
    return total


def _looked_at(model: ModelConfig, layer: int, device: str) -> int:
    """Positions that each query is multiplied with; what a window hides is computed and thrown
    away but by the one kernel that leaves it out."""
    window = model.window_of(layer)
    leaves_out = device == "cuda" and not model.dropout and model.attention in ("auto", "flex")
    return min(window, model.context_length) if window and leaves_out else model.context_length


def _calls(model: ModelConfig) -> float:
    """How many calls a layer makes, a classic one's being 1."""
    turning = 0.3 if model.position == "rope" else 0.0
    norms = 0.1 * (model.norm == "rmsnorm") + 0.2 * model.qk_norm
    return 1.0 + turning + norms + 0.3 * model.n_expert


def amounts(work: Work, peak_flops: float, bandwidth: float) -> dict[str, float]:
    """`work` in seconds at the device's best: what a `Pace` multiplies."""
    units = dict.fromkeys(NAMES, bandwidth)
    units |= dict.fromkeys(FLOPS, peak_flops) | dict.fromkeys(CALLS, 1e6) | {"bends": 1e9}
    return {name: getattr(work, name) / units[name] for name in NAMES}


def step_seconds(work: Work, pace: Pace, peak_flops: float, bandwidth: float) -> dict[str, float]:
    """What each part of a step takes; their sum is the step."""
    return {
        name: amount * getattr(pace, name)
        for name, amount in amounts(work, peak_flops, bandwidth).items()
    }
