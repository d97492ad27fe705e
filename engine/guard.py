"""Whether an update may be made: loss and gradient finite, and the gradient no spike.

Judged on the device and never waited for: the verdict is a tensor, and what is to be told of it
comes over with the next logged numbers. A spike is a gradient norm far above the median of those
before it. Norms that are not finite never enter the window; finite ones always do, spikes too, so
that a lasting change becomes the new normal instead of being skipped for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

WINDOW = 128
"""Gradient norms that the median is taken of."""
UNKNOWN = -1.0
"""In the window: no norm yet. Not NaN, which is not equal to itself."""
FEWEST = 32
"""Norms that must be known before anything is called a spike."""


class Verdicts(NamedTuple):
    """What the guard has seen so far, on the host."""

    in_a_row: int  # updates skipped without one made in between
    skipped: int  # updates not made, in all
    spikes: int  # in all, whether their updates were made or not


class Guard:
    """One run's judge. `spike_factor` 0 calls nothing a spike; `skip_spikes` skips their updates.

    `scaled`: gradients are scaled (float16), where an infinite norm is the scaler's daily work.
    """

    def __init__(
        self,
        device: torch.device,
        spike_factor: float = 0.0,
        *,
        skip_spikes: bool = False,
        scaled: bool = False,
    ) -> None:
        self._factor, self._skip_spikes, self._scaled = spike_factor, skip_spikes, scaled
        self._window = torch.full((WINDOW,), UNKNOWN, device=device)
        self._counts = torch.zeros(3, device=device)  # as Verdicts; float32 counts to 16 million

    def allows(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """() bool on the device: whether this step's update may reach the weights."""
        finite = torch.isfinite(loss)
        if not self._scaled:
            finite = finite & torch.isfinite(grad_norm)
        spike = self._is_spike(grad_norm) & finite if self._factor else torch.zeros_like(finite)
        allowed = finite & ~spike if self._skip_spikes else finite
        in_a_row, skipped, spikes = self._counts
        refused = (~allowed).float()
        self._counts = torch.stack(
            ((in_a_row + 1) * refused, skipped + refused, spikes + spike.float())
        )
        return allowed

    def _is_spike(self, grad_norm: Tensor) -> Tensor:
        window, norm = self._window, grad_norm.detach().float()
        known = torch.isfinite(norm)
        usual = torch.where(window == UNKNOWN, torch.nan, window).nanmedian()
        spike = known & (window[-FEWEST] != UNKNOWN) & (norm > self._factor * usual)
        self._window = torch.where(known, torch.cat((window[1:], norm.reshape(1))), window)
        return spike

    @property
    def counts(self) -> Tensor:
        """(3,) on the device: what `Verdicts` holds, to be brought over with other numbers."""
        return self._counts

    def forgive(self) -> None:
        """Begin to count skipped updates in a row anew: somebody has looked at them."""
        self._counts = self._counts * torch.tensor((0.0, 1.0, 1.0), device=self._counts.device)

    def tensors(self) -> dict[str, Tensor]:
        """All that a resumed run must know. They are replaced by later steps, never changed."""
        return {"window": self._window, "counts": self._counts}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave; what an older checkpoint lacks stays as it is new."""
        if "window" in tensors and tensors["window"].shape == (WINDOW,):
            self._window = tensors["window"].to(self._window.device, torch.float32)
        if "counts" in tensors and tensors["counts"].shape == (3,):
            self._counts = tensors["counts"].to(self._counts.device, torch.float32)
