"""Cross-entropy of an output layer whose logits never exist all at once.

Of a vocabulary of 50 000 the logits of one micro-batch, their log-probabilities and their gradient
are the largest tensors of a step, and the largest of them last for a moment. Here they are made for
some tokens at a time, and the gradients with them, in the forward pass already: what is kept for
the backward pass is as large as the features and the output matrix are (as Hsu et al. 2024, Liger
Kernel, section 3.2, do in one kernel).

Legend of shape suffixes: N tokens, n of them at a time, C width of the residual stream, V
vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def chunked_cross_entropy(
    features_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, chunk: int, softcap: float = 0.0
) -> Tensor:
    """The sum over the tokens of -log softmax(cap(features · weightᵀ))[target], in float32: ().

    At most `chunk` tokens' logits exist at once. `softcap`: bends logits to cap·tanh(logits/cap);
    0: not. The products run in the dtype of autocast, if it is on, as a linear layer's do.
    """
    device = features_NC.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        features_NC, weight_VC = features_NC.to(dtype), weight_VC.to(dtype)
    with torch.autocast(device, enabled=False):
        return _ChunkedCrossEntropy.apply(features_NC, weight_VC, targets_N, chunk, softcap)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, chunk: int, cap: float
    ) -> Tensor:
        nats = torch.zeros((), dtype=torch.float32, device=features_NC.device)
        learns = any(ctx.needs_input_grad)
        if learns:
            to_features_NC = torch.empty_like(features_NC)
            # Summed over the chunks: in 16 bits the later ones would be lost in the earlier.
            to_weight_VC = torch.zeros_like(weight_VC, dtype=torch.float32)
        for first in range(0, len(targets_N), chunk):
            part_nC = features_NC[first : first + chunk]
            target_n1 = targets_N[first : first + chunk, None]
            logits_nV = (part_nC @ weight_VC.T).float()
            if cap:
                bent_nV = (logits_nV / cap).tanh_()
                logits_nV = cap * bent_nV
            total_n1 = logits_nV.logsumexp(-1, keepdim=True)
            nats += (total_n1 - logits_nV.gather(1, target_n1)).sum()
            if not learns:
                continue
            # The gradient of -log p is p, less one at the target.
            slope_nV = logits_nV.sub_(total_n1).exp_()
            slope_nV.scatter_add_(1, target_n1, torch.full_like(total_n1, -1.0))
            if cap:
                slope_nV *= 1 - bent_nV.square_()
            slope_nV = slope_nV.to(features_NC.dtype)
            to_features_NC[first : first + chunk] = slope_nV @ weight_VC
            to_weight_VC += slope_nV.T @ part_nC
        if learns:
            ctx.save_for_backward(to_features_NC, to_weight_VC.to(weight_VC.dtype))
        return nats

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        to_features_NC, to_weight_VC = ctx.saved_tensors
        return (
            to_features_NC * scale.to(to_features_NC.dtype),
            to_weight_VC * scale.to(to_weight_VC.dtype),
            None,
            None,
            None,
        )
