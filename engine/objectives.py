"""What a step minimises. An objective turns a batch into a loss; the loop around it never changes.

Legend of shape suffixes: B windows in a micro-batch, T positions, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Pretrain:
    """Next-token prediction: cross-entropy of every position against the token that follows."""

    def trained_tokens(self, batch: Tensor) -> int:
        """How many targets of `batch` (B, T + 1) count in the loss."""
        return batch[:, 1:].numel()

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """The *sum* of nats over the trained tokens of `batch` (B, T + 1); the loop divides it by
        the tokens of the whole accumulation window."""
        inputs_BT, targets_BT = batch[:, :-1], batch[:, 1:]
        logits_BTV = model(inputs_BT)
        return functional.cross_entropy(
            logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="sum"
        )
