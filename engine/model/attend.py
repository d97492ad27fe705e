"""Scaled dot-product attention, once written out to be read and twice through faster kernels.

All compute the same: softmax(q·k / √D) over what a query may see, applied to the values. What that
is comes as a `Sight`. Knows nothing of weights, positions or layers.

Legend of shape suffixes: B windows, T positions (queries), S positions (keys), H heads of queries,
G heads of keys and values (H / G queries share one), D width of a head.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.arithmetic import SINK_SPARE, writes_attention_out
from engine.errors import ConfigError


@dataclass(frozen=True)
class Sight:
    """Which keys each query may see.

    With `causal`, query t sees keys 0 … t (then T = S), of those the last `window` and the first
    `sink_tokens` where a window is set. Else `mask`, (T, S) or (B, 1, T, S), is true where it sees;
    None: everything. A causal sight with a window has its mask too, for the kernels that need it.
    """

    causal: bool
    mask: Tensor | None = None
    window: int = 0
    sink_tokens: int = 0


Attend = Callable[[Tensor, Tensor, Tensor, Sight, Tensor | None, float], Tensor]
"""(q_BHTD, k_BGSD, v_BGSD, sight, sinks_H, dropout) -> y_BHTD. `sinks_H`: learned logits that share
in the softmax without a value, or None."""


def seen(
    query_times: Tensor, key_times: Tensor, window: int = 0, sink_tokens: Tensor | int = 0
) -> Tensor:
    """Whether a query at one time sees a key at another: (…, T, S) from (…, T) and (…, S)."""
    distance = query_times[..., :, None] - key_times[..., None, :]
    visible = distance >= 0
    if window:
        # The window counts the query's own position: a window of 1 sees itself alone.
        near = distance < window
        kept = key_times[..., None, :] < sink_tokens
        visible = visible & (near | kept)
    return visible


def causal_sight(T: int, window: int, sink_tokens: int, device: torch.device) -> Sight:
    """The sight of T positions that are read at once, from the first on."""
    if not window or window >= T:
        return Sight(causal=True)
    times_T = torch.arange(T, device=device)
    mask_TS = seen(times_T, times_T, window, sink_tokens)
    return Sight(causal=True, mask=mask_TS, window=window, sink_tokens=sink_tokens)


def reference_attention(
    q_BHTD: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    sight: Sight,
    sinks_H: Tensor | None,
    dropout: float,
) -> Tensor:
    """As Vaswani et al. 2017 (section 3.2.1) write it.

    Equal to `functional.scaled_dot_product_attention`, whose kernel computes the same in tiles and
    never stores the (T, S) matrix (FlashAttention, Dao et al. 2022). With dropout the two draw
    different random numbers.
    """
    T, D = q_BHTD.shape[-2:]
    k_BHSD, v_BHSD = _shared(k_BGSD, q_BHTD), _shared(v_BGSD, q_BHTD)
    # A dot product of D independent terms of variance 1 has variance D. Without the division the
    # logits grow with the head's width, softmax saturates, and its gradient vanishes.
    scores_BHTS = q_BHTD @ k_BHSD.transpose(-2, -1) / math.sqrt(D)
    # A position that could see its successor would learn to copy the answer. Minus infinity, not
    # zero after the softmax: so the visible positions still sum to one.
    hidden = _hidden(sight, T, q_BHTD.device)
    if hidden is not None:
        scores_BHTS = scores_BHTS.masked_fill(hidden, float("-inf"))
    # In float32 even under autocast: a sum of many small exponentials loses its tail in 8 bits.
    scores_BHTS = scores_BHTS.float()
    if sinks_H is None:
        weights_BHTS = scores_BHTS.softmax(dim=-1)
    else:
        # One more place to look at, which holds nothing: a head that finds nothing to say may say
        # it, instead of pouring its attention on the first position.
        sink_BHT1 = sinks_H.float()[None, :, None, None].expand(*scores_BHTS.shape[:3], 1)
        weights_BHTS = torch.cat((scores_BHTS, sink_BHT1), dim=-1).softmax(dim=-1)[..., :-1]
    return functional.dropout(weights_BHTS.to(v_BHSD.dtype), dropout) @ v_BHSD


def fused_attention(
    q_BHTD: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    sight: Sight,
    sinks_H: Tensor | None,
    dropout: float,
) -> Tensor:
    """The same by PyTorch's kernel, in memory that grows with T and not with T²."""
    scale = 1 / math.sqrt(q_BHTD.shape[-1])
    mask, causal = sight.mask, sight.causal and sight.mask is None
    if sinks_H is not None:
        q_BHTD, k_BGSD, v_BGSD, mask = _with_sink(
            q_BHTD, k_BGSD, v_BGSD, mask, causal, sinks_H, scale
        )
    y_BHTD = functional.scaled_dot_product_attention(
        q_BHTD,
        k_BGSD,
        v_BGSD,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
        enable_gqa=q_BHTD.shape[1] != k_BGSD.shape[1],
    )
    if sinks_H is None:
        return y_BHTD
    return y_BHTD[:, :, 1 if causal else 0 :, : v_BGSD.shape[-1] - SINK_SPARE]


def _with_sink(
    q_BHTD: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    mask: Tensor | None,
    causal: bool,
    sinks_H: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The sink as a key in front, for a kernel that knows no sinks.

    Every query gets a coordinate more, in which the sink's key alone is not zero: their product is
    the sink's logit, whatever the query. Its value is zero. A causal kernel lets query t see t + 1
    keys; so it gets a query in front too, whose result nobody reads.
    """
    B, H, _, D = q_BHTD.shape
    own_H = (sinks_H / scale).to(q_BHTD.dtype)
    mark_H = functional.pad(
        own_H[:, None], (0, SINK_SPARE - 1)
    )  # on the query: heads may share a key
    q_BHTD = torch.cat(
        (q_BHTD, mark_H[None, :, None].expand(B, H, q_BHTD.shape[2], SINK_SPARE)), -1
    )
    k_BGSD, v_BGSD = (functional.pad(x, (0, SINK_SPARE, 1, 0)) for x in (k_BGSD, v_BGSD))
    first = torch.zeros(k_BGSD.shape[2:], dtype=k_BGSD.dtype, device=k_BGSD.device)
    first[0, D] = 1
    k_BGSD = k_BGSD + first
    if causal:
        q_BHTD = functional.pad(q_BHTD, (0, 0, 1, 0))
    if mask is not None:
        mask = functional.pad(mask, (1, 0), value=True)
    return q_BHTD, k_BGSD, v_BGSD, mask


def flex_attention(
    q_BHTD: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    sight: Sight,
    sinks_H: Tensor | None,
    dropout: float,
) -> Tensor:
    """The same by FlexAttention (He et al. 2024), which leaves out the blocks that a window hides.

    For sights that are causal, of a whole text; others go to the fused kernel. Compiled on CUDA.
    Elsewhere PyTorch has its forward pass alone, slow and not compiled, which serves to compare;
    training there goes to the fused kernel too.
    """
    plain = torch.is_grad_enabled() or torch.compiler.is_compiling()
    if not sight.causal or (plain and q_BHTD.device.type != "cuda"):
        return fused_attention(q_BHTD, k_BGSD, v_BGSD, sight, sinks_H, dropout)
    if dropout:
        raise ConfigError(
            "flex attention cannot drop attention weights", "set model.attention to auto"
        )
    from torch.nn.attention.flex_attention import AuxRequest

    device = q_BHTD.device
    blocks = _block_mask(q_BHTD.shape[2], sight.window, sight.sink_tokens, device)
    result = _flex(device.type)(
        q_BHTD,
        k_BGSD,
        v_BGSD,
        block_mask=blocks,
        enable_gqa=q_BHTD.shape[1] != k_BGSD.shape[1],
        return_aux=AuxRequest(lse=True) if sinks_H is not None else None,
    )
    if sinks_H is None:
        return result
    y_BHTD, aux = result
    # The softmax with one more term z is the softmax without, times e^lse / (e^lse + e^z).
    share_BHT = (aux.lse - sinks_H.float()[None, :, None]).sigmoid()
    return y_BHTD * share_BHT[..., None].to(y_BHTD.dtype)


@functools.cache
def _flex(kind: str) -> Callable[..., Any]:
    from torch.nn.attention import flex_attention as flex

    return torch.compile(flex.flex_attention) if kind == "cuda" else flex.flex_attention


@functools.lru_cache(maxsize=16)
def _block_mask(T: int, window: int, sink_tokens: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(_: Any, __: Any, query: Tensor, key: Tensor) -> Tensor:
        sees = query >= key
        if window:
            sees = sees & ((query - key < window) | (key < sink_tokens))
        return sees

    return create_block_mask(visible, None, None, T, T, device=str(device))


def quickest_attention(
    q_BHTD: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    sight: Sight,
    sinks_H: Tensor | None,
    dropout: float,
) -> Tensor:
    """Whichever is the fastest here; they compute the same."""
    T, on_cpu = q_BHTD.shape[-2], q_BHTD.device.type == "cpu"
    special = sight.mask is not None or sinks_H is not None
    if special and sight.causal and q_BHTD.device.type == "cuda" and not dropout:
        return flex_attention(q_BHTD, k_BGSD, v_BGSD, sight, sinks_H, dropout)
    written_out = writes_attention_out(
        "auto", T, on_cpu=on_cpu, bfloat16=q_BHTD.dtype == torch.bfloat16
    )
    attend = reference_attention if written_out else fused_attention
    return attend(q_BHTD, k_BGSD, v_BGSD, sight, sinks_H, dropout)


ATTENTION: dict[str, Attend] = {
    "auto": quickest_attention,
    "sdpa": fused_attention,
    "flex": flex_attention,
    "reference": reference_attention,
}


def _hidden(sight: Sight, T: int, device: torch.device) -> Tensor | None:
    if sight.mask is not None:
        return ~sight.mask
    if sight.causal and T > 1:
        return torch.ones(T, T, dtype=torch.bool, device=device).triu(diagonal=1)
    return None


def _shared(x_BGSD: Tensor, q_BHTD: Tensor) -> Tensor:
    """(B, H, S, D): every head of keys or values beside each of the queries' heads it serves."""
    times = q_BHTD.shape[1] // x_BGSD.shape[1]
    return x_BGSD if times == 1 else x_BGSD.repeat_interleave(times, dim=1)
