"""What a step minimises. An objective turns a batch into a loss; the loop around it never changes.

Legend of shape suffixes: B windows in a micro-batch, T positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from engine.chunked_loss import chunked_cross_entropy
from engine.config.sections import ModelConfig
from engine.model import GPT, Routing


class Reported(NamedTuple):
    """What is told of a loss: no graph hangs on it."""

    nats: Tensor
    statistics: Tensor | None


@dataclass(frozen=True)
class Loss:
    """Sums over the trained tokens of a micro-batch, for the loop to divide by all tokens."""

    minimised: Tensor
    """What the gradient is of."""
    nats: Tensor
    """What is reported: the prediction's part alone, comparable between networks."""
    statistics: Tensor | None = None
    """(4,) what the routers did (`Routing.statistics`), times the tokens; None without experts."""

    def reported(self) -> Reported:
        return Reported(self.nats.detach(), self.statistics)


def mean(losses: list[Reported], count: int) -> Reported:
    """Per token of a step of `count` tokens, from its micro-batches' sums."""
    nats = torch.stack([loss.nats for loss in losses]).sum() / count
    statistics = [loss.statistics for loss in losses if loss.statistics is not None]
    return Reported(nats, torch.stack(statistics).sum(0) / count if statistics else None)


class Pretrain:
    """Next-token prediction: cross-entropy of every position against the token that follows."""

    def __init__(self, model: ModelConfig, chunk: int = 0, multiple: int = 1) -> None:
        """`chunk`: tokens whose logits exist at once; 0: all. `multiple`: see `GPT.logits`."""
        self.balance = model.balance_loss
        self.routed = model.n_expert > 0
        self.softcap, self.chunk, self.multiple = model.logit_softcap, chunk, multiple

    def trained_tokens(self, batch: Tensor) -> int:
        """How many targets of `batch` (B, T + 1) count in the loss."""
        return batch[:, 1:].numel()

    def loss(self, model: GPT, batch: Tensor) -> Loss:
        """The *sum* over the trained tokens of `batch` (B, T + 1); the loop divides it by the
        tokens of the whole accumulation window."""
        inputs_BT, targets_BT = batch[:, :-1], batch[:, 1:]
        routing = Routing() if self.routed else None
        features_NC = model.features(inputs_BT, routing=routing).flatten(0, 1)
        targets_N = targets_BT.flatten()
        if self.chunk:
            weight_VC = model.lm_head.weight
            nats = chunked_cross_entropy(
                features_NC, weight_VC, targets_N, self.chunk, self.softcap
            )
        else:
            logits_NV = model.logits(features_NC, self.multiple)
            nats = functional.cross_entropy(logits_NV.float(), targets_N, reduction="sum")
        if routing is None:
            return Loss(nats, nats)
        count = targets_BT.numel()
        penalty = self.balance * count * routing.balance_loss()
        return Loss(nats + penalty, nats, routing.statistics() * count)
