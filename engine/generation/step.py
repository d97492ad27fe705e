"""One more token for each row, as a function of tensors alone: what a compiler can take whole.

The network is the model's own. Whatever changes from token to token (where the new one stands, into
which slot its key goes, how many are filled) arrives as a tensor or as the length of one, so that
one compiled function serves every position of every text. Three parts are written otherwise, since
one position is read at a time:
  - a product of few rows and a matrix, as sums of products: a compiler makes loops of it that read
    every weight once, in the order in which it lies, on all cores. PyTorch's own product of a
    matrix and a vector works on one;
  - a mixture of experts, as such sums over the few matrices that are chosen;
  - attention, as what it is for a single query.

Where nothing but a temperature shapes the distribution, the draw and what is told of it are part of
the function too: a dozen small calls from Python took 8 % of a small network's token.

Knows nothing of compilers or files.

Legend of shape suffixes: B rows, T new positions (1), S keys, H heads of queries, G heads of keys
and values, R query heads that share a key (H / G), D width of a head, I inputs, O outputs, C
width of the residual stream, F hidden width, K chosen ones of E experts, V vocabulary, L rows whose
numbers lie in one register, N such groups of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from engine.config.sections import ModelConfig
from engine.generation.sampling import LIKELIEST, apply_temperature, tell, winners
from engine.model import GPT, KVCache, Routing
from engine.model.attend import Sight
from engine.model.attention import CausalSelfAttention
from engine.model.cache import View
from engine.model.experts import Experts
from engine.model.mlp import bend

MOST_ROWS = 16
"""Beyond it PyTorch's own overhead is small beside the work."""
LANES = 16
"""Numbers in a processor's widest register."""
OUTPUTS, CHAINS, LONG = 4, 8, 256
"""Outputs that a loop over weights sums at most, sums that it carries, and inputs from which it is
worth it. A sum waits for its last addition, so that one alone is slower than caches are, and than
memory at its best; short ones overlap by themselves. Measured on two cores with AVX2 and 32 MB of
cache, one row of 384×6×6 takes 0.85 of the time, in bfloat16 0.81; with 128 inputs 1.07."""
TILED, TILED_OUTPUTS = 16, 6
"""Rows that an AVX2 processor multiplies side by side, and outputs of them that a loop sums. It has
16 registers, too few for 16 sums and a weight: two registers of rows, a weight and twelve sums fill
them. Measured as above, a step takes 0.8 of the time that it does with four, unscheduled."""
AVX2_LANES = 8


@dataclass(frozen=True)
class Form:
    """What a step is made for; all else may differ from text to text."""

    rows: int
    padded: bool
    """Rows begin at different steps: each has places of its own."""
    masked: bool
    """Not all that is read is seen: in padded rows, or where every token reads all slots."""
    stream: bool
    """Keys are kept unturned, and turned by their places inside the cache."""

    @classmethod
    def of(cls, cache: KVCache) -> Form:
        padded = cache.padding_B is not None
        return cls(
            rows=cache.layers[0].k.shape[0],
            padded=padded,
            masked=padded or reads_all(cache),
            stream=cache.stream is not None,
        )


def reads_all(cache: KVCache) -> bool:
    """Whether every token reads all slots, so that no length changes: on CUDA, whose kernels are
    recorded once and replayed. A stream's places do not allow it."""
    return cache.device.type == "cuda" and cache.stream is None


def is_possible(model: nn.Module) -> bool:
    """Whether the step of `model` can be written so: a GPT of one floating-point type, and not
    quantised."""
    if not isinstance(model, GPT):
        return False
    types = {tensor.dtype for tensor in model.state_dict().values()}
    return len(types) == 1 and types <= {torch.float32, torch.bfloat16}


def weights_of(model: GPT) -> list[Tensor]:
    """The weights that `Step.forward` takes, a tied one once; the model's own, no copies."""
    return list(model.state_dict().values())


def inputs_of(
    tokens_B1: Tensor, cache: KVCache, counted: Tensor, form: Form, *, whole: bool = False
) -> list[Tensor]:
    """What `Step.forward` takes for the next token of the texts in `cache`, for which room is made.

    `counted`: 0, 1, 2, … at least as many as the cache has slots. `whole`: of all slots instead of
    the filled ones, if the form has a mask.
    """
    inputs = [tokens_B1]
    if form.masked or form.stream:
        inputs += _sights(cache, counted, form, whole)
    else:  # most texts: nothing but the numbers, for every call from Python is felt
        cache.make_room(1)
        for slots in cache.kinds.values():
            assert isinstance(slots.writes, slice)  # one step alone never wraps
            slot = counted[slots.writes]
            place = slot if slots.writes.start == cache.n else cache.positions(1)
            inputs += [place, slot, counted[: slots.filled]]
    inputs += [layer.k for layer in cache.layers]
    inputs += [layer.v for layer in cache.layers]
    return inputs


def _sights(cache: KVCache, counted: Tensor, form: Form, whole: bool) -> list[Tensor]:
    """Of each window, for texts that do not see all that is kept, or whose places move."""
    inputs = []
    views = cache.begin(1)
    for window, view in views.items():
        slots = cache.kinds[window]
        assert isinstance(slots.writes, slice)  # one step alone never wraps
        seen_S = counted[: slots.total if whole else slots.filled]
        inputs += [view.query_places, counted[slots.writes], seen_S]
        if cache.stream is not None:
            assert view.key_places is not None
            inputs.append(view.key_places)
        elif form.masked:
            mask = (seen_S < slots.filled)[None, None, None]
            if view.sight.mask is not None:
                mask = mask & functional.pad(view.sight.mask, (0, len(seen_S) - slots.filled))
            inputs.append(mask)
    return inputs


class Step(nn.Module):
    """A network of the shape of `model` that reads one more token a row. It has no weights."""

    def __init__(self, model: GPT, form: Form) -> None:
        super().__init__()
        self.form = form
        with torch.device("meta"):
            network = GPT(model.config, model.vocab_size).eval()
        _rewrite(network)
        self._names = list(network.state_dict())
        self._network = (network,)  # no submodule: its parameters are none of ours

    def forward(
        self, weights: Sequence[Tensor], inputs: Sequence[Tensor], draw: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Logits (B, V), their softmax (B, V) and its entropy in nats (B,), all in float32; the
        tokens drawn (B, 1), and what `tell` tells of them.

        `weights` as `weights_of` gives them, `inputs` as `inputs_of` does: the keys and values
        among them are extended in place. `draw`: an exponential race (B, V), and the temperature
        (1,), which is above 0.
        """
        (network,) = self._network
        remaining = iter(inputs)
        tokens_B1 = next(remaining)
        cache = _TracedCache(network.config, self.form, remaining)
        named = dict(zip(self._names, weights, strict=True))
        logits_B1V = functional_call(network, named, (tokens_B1, cache))
        logits_BV = logits_B1V[:, 0].float()
        own_BV = logits_BV.softmax(-1)
        entropy_B = torch.special.entr(own_BV).sum(-1)
        race_BV, temperature = draw
        drawn_B = winners(apply_temperature(logits_BV, temperature).softmax(-1), race_BV)
        told_BX = tell(own_BV, entropy_B, drawn_B, min(LIKELIEST, logits_BV.shape[-1]))
        return logits_BV, own_BV, entropy_B, drawn_B[:, None], told_BX


class _TracedCache:
    """What a model asks of a `KVCache`, answered from tensors."""

    stream = None
    n = 0  # every step fits: the cache that the tensors belong to has seen to it

    def __init__(self, config: ModelConfig, form: Form, inputs: Iterator[Tensor]) -> None:
        self._views: dict[int, View] = {}
        writes: dict[int, tuple[Tensor, int]] = {}
        for window in dict.fromkeys(config.window_of(layer) for layer in range(config.n_layer)):
            places, slot, seen = next(inputs), next(inputs), next(inputs)
            key_places = next(inputs) if form.stream else None
            mask = next(inputs) if form.masked else None
            self._views[window] = View(Sight(causal=False, mask=mask), places, key_places)
            writes[window] = slot, seen.shape[0]
        keys, values = ([next(inputs) for _ in range(config.n_layer)] for _ in range(2))
        self.layers = [
            _TracedLayer(k, v, *writes[config.window_of(layer)])
            for layer, (k, v) in enumerate(zip(keys, values, strict=True))
        ]

    def begin(self, T: int) -> dict[int, View]:
        return self._views

    def positions(self, T: int) -> Tensor:
        return next(iter(self._views.values())).query_places

    def end(self, T: int) -> None:
        """Nothing: who owns the tensors counts."""


class _TracedLayer:
    def __init__(self, k_BGSD: Tensor, v_BGSD: Tensor, slot: Tensor, filled: int) -> None:
        self.k, self.v, self.slot, self.filled = k_BGSD, v_BGSD, slot, filled

    def extend(self, k_BG1D: Tensor, v_BG1D: Tensor) -> tuple[Tensor, Tensor]:
        self.k.index_copy_(2, self.slot, k_BG1D.to(self.k.dtype))
        self.v.index_copy_(2, self.slot, v_BG1D.to(self.v.dtype))
        return self.k[:, :, : self.filled], self.v[:, :, : self.filled]


def _product(linear: nn.Linear, x: Tensor) -> Tensor:
    """W·x + b for few rows, summed in float32."""
    weight_OI = linear.weight.float()
    x_BI = _in_memory(x.flatten(0, -2).float())
    rows = len(x_BI)
    if rows == TILED and torch.backends.cpu.get_cpu_capability() == "AVX2":
        outputs, in_loops = _outputs_at_once(len(weight_OI), TILED_OUTPUTS), _in_tiles
    else:
        most = min(OUTPUTS, max(1, CHAINS // rows)) if weight_OI.shape[1] >= LONG else 1
        outputs, in_loops = _outputs_at_once(len(weight_OI), most), _in_rows
    rest = len(weight_OI) % outputs
    y_BO = in_loops(weight_OI[: len(weight_OI) - rest], x_BI, outputs)
    if rest:
        y_BO = torch.cat((y_BO, _in_rows(weight_OI[-rest:], x_BI, 1)), -1)
    if linear.bias is not None:
        y_BO = y_BO + linear.bias.float()
    return y_BO.to(x.dtype).view(*x.shape[:-1], -1)


def _outputs_at_once(outputs: int, most: int) -> int:
    """How many of them a loop sums: as many as divide them, or `most` where few would."""
    divides = next((n for n in range(most, 1, -1) if outputs % n == 0), 1)
    return divides if 2 * divides >= most or outputs < most else most


def _in_rows(weight_OI: Tensor, x_BI: Tensor, outputs: int) -> Tensor:
    """W·x with as many weights side by side in a register as fit: (B, O).

    One loop sums `outputs` outputs of every row, so that each weight that it loads is multiplied
    with all rows at once.
    """
    parts = weight_OI.view(outputs, len(weight_OI) // outputs, -1).unbind(0)
    sums = [(part_PI * x_I).sum(-1) for x_I in x_BI.unbind(0) for part_PI in parts]
    return torch.stack(sums).view(len(x_BI), -1)


def _in_tiles(weight_OI: Tensor, x_BI: Tensor, outputs: int) -> Tensor:
    """W·x with rows side by side in a register, times one weight: (B, O).

    One loop sums `outputs` outputs for all rows: what it loads is multiplied more than once.
    """
    wide = len(weight_OI)
    x_IB = _in_memory(x_BI.t().contiguous())
    sums = [
        (weight_I1[..., None] * x_IL).sum(-2)
        for x_IL in x_IB.split(AVX2_LANES, -1)
        for weight_I1 in weight_OI.view(outputs, wide // outputs, -1).unbind(0)
    ]
    y_NOL = torch.cat(sums).view(-1, wide, AVX2_LANES)
    return y_NOL.transpose(1, 2).reshape(-1, wide)


def _in_memory(x: Tensor) -> Tensor:
    """The same, which a compiler computes once and keeps. Left to itself it would put what gives
    `x`, a norm most of all, inside the loop that reads the weights, once for every output."""
    return x.as_strided(x.shape, x.stride())


def _mixture(experts: Experts, x: Tensor, routing: Routing | None = None) -> Tensor:
    """`Experts.forward` for few rows: of each chosen expert the weights, read where they lie."""
    x_BC = x.flatten(0, -2)
    weights_BK, chosen_BK = experts.choose(experts.router(x_BC))

    def product(matrix_EOI: Tensor, bias_EO: Tensor | None, x_BKI: Tensor) -> Tensor:
        x_BK1I = _in_memory(x_BKI.float())[:, :, None]
        y_BKO = (matrix_EOI[chosen_BK].float() * x_BK1I).sum(-1)
        return y_BKO if bias_EO is None else y_BKO + bias_EO[chosen_BK].float()

    h_BKF = product(experts.fc_weight, experts.fc_bias, x_BC[:, None])
    y_BKC = product(experts.proj_weight, experts.proj_bias, bend(h_BKF, experts.kind))
    return (y_BKC * weights_BK[..., None]).sum(1).to(x.dtype).view(x.shape)


def _attend(
    q_BH1D: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    sight: Sight,
    sinks_H: Tensor | None,
    dropout: float,
) -> Tensor:
    """`engine.model.attend.reference_attention` for a single query, in float32."""
    B, H, _, D = q_BH1D.shape
    G = k_BGSD.shape[1]
    # Scaled before and not behind the sum, which Inductor takes for a softmax that needs guarding.
    q_BGR1D = _in_memory((q_BH1D.float() / math.sqrt(D)).view(B, G, H // G, 1, D))
    scores_BGRS = (q_BGR1D * k_BGSD.float()[:, :, None]).sum(-1)
    if sight.mask is not None:
        scores_BGRS = scores_BGRS.masked_fill(~sight.mask, float("-inf"))
    most_BGR1 = scores_BGRS.amax(-1, keepdim=True)
    if sinks_H is not None:
        sinks_GR1 = sinks_H.float().view(G, H // G, 1)
        most_BGR1 = torch.maximum(most_BGR1, sinks_GR1)
    weights_BGRS = (scores_BGRS - most_BGR1).exp()
    total_BGR1 = weights_BGRS.sum(-1, keepdim=True)
    if sinks_H is not None:
        total_BGR1 = total_BGR1 + (sinks_GR1 - most_BGR1).exp()
    # A compiler's loop sums one register's width over all keys. Several sums in one loop read the
    # values as they lie, where one loop after the other would go over them again for each.
    y_BGRD = torch.cat(
        [
            (weights_BGRS[..., None] * part_BGSD[:, :, None]).sum(-2)
            for part_BGSD in v_BGSD.float().split(LANES, -1)
        ],
        -1,
    )
    y_BGRD = y_BGRD / total_BGR1
    return y_BGRD.view(B, H, 1, D).to(v_BGSD.dtype)


def _rewrite(model: GPT) -> None:
    """Put what is written otherwise for few rows into `model`, in place."""
    for module in model.modules():
        if isinstance(module, CausalSelfAttention):
            module.attend = _attend
        elif isinstance(module, nn.Linear):
            module.forward = partial(_product, module)  # type: ignore[method-assign]
        elif isinstance(module, Experts):
            module.forward = partial(_mixture, module)  # type: ignore[method-assign]
