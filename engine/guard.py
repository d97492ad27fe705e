"""Whether an update may be made: loss and gradient finite, and the gradient no spike.

A spike is a gradient norm far above the median of those before it. Norms that are not finite never
enter the window; finite ones always do, spikes too, so that a lasting change becomes the new normal
instead of being skipped for ever.

Where looking at a number costs nothing (a CPU) the judge is plain Python; on a GPU it works on the
device and is never waited for: the verdict is a tensor, and what is to be told of it comes over
with the next logged numbers. Both judge alike and keep the same memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

WINDOW = 128
"""Gradient norms that the median is taken of."""
UNKNOWN = -1.0
"""In a saved window: no norm yet. Not NaN, which is not equal to itself."""
FEWEST = 32
"""Norms that must be known before anything is called a spike."""


class Verdicts(NamedTuple):
    """What the guard has seen so far, on the host."""

    in_a_row: int  # updates skipped without one made in between
    skipped: int  # updates not made, in all
    spikes: int  # in all, whether their updates were made or not


class Guard(ABC):
    """One run's judge. `spike_factor` 0 calls nothing a spike; `skip_spikes` skips their updates.

    `scaled`: gradients are scaled (float16), where an infinite norm is the scaler's daily work.
    """

    def __init__(
        self, spike_factor: float = 0.0, *, skip_spikes: bool = False, scaled: bool = False
    ) -> None:
        self.factor, self.skip_spikes, self.scaled = spike_factor, skip_spikes, scaled

    @abstractmethod
    def allows(self, loss: Tensor, grad_norm: Tensor) -> Tensor | bool:
        """Whether this step's update may reach the weights; both () on the run's device, and the
        answer there too, or on the host where that costs nothing."""

    @property
    @abstractmethod
    def counts(self) -> Tensor:
        """(3,) float32 where the losses are: what `Verdicts` holds."""

    @abstractmethod
    def forgive(self) -> None:
        """Begin to count skipped updates in a row anew: somebody has looked at them."""

    @abstractmethod
    def memory(self) -> Any:
        """All that a resumed run must know, as it is now; later steps do not change it. Cheap
        enough for every step; `tensors` makes something of it that can be saved."""

    @abstractmethod
    def tensors(self, memory: Any) -> dict[str, Tensor]:
        """`memory` as named tensors."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave; what an older checkpoint lacks stays as it is new."""

    def verdicts(self) -> Verdicts:
        """Waits for the device."""
        return Verdicts(*(int(count) for count in self.counts.tolist()))


def build_guard(device: torch.device, factor: float, *, skip_spikes: bool, scaled: bool) -> Guard:
    """The judge for a run on `device`."""
    kind = DeviceGuard if device.type == "cuda" else HostGuard
    guard = kind(factor, skip_spikes=skip_spikes, scaled=scaled)
    return guard.to(device) if isinstance(guard, DeviceGuard) else guard


class HostGuard(Guard):
    """In plain Python: for devices whose numbers are at hand."""

    _window: deque[float]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._window = deque(maxlen=WINDOW)
        self._verdicts = Verdicts(0, 0, 0)

    def allows(self, loss: Tensor, grad_norm: Tensor) -> bool:
        norm = float(grad_norm)
        known = math.isfinite(norm)
        finite = math.isfinite(loss) and (known or self.scaled)
        spike = finite and known and self._is_spike(norm)
        if known and self.factor:
            self._window.append(norm)
        allowed = finite and not (spike and self.skip_spikes)
        in_a_row, skipped, spikes = self._verdicts
        self._verdicts = Verdicts(
            0 if allowed else in_a_row + 1, skipped + (not allowed), spikes + spike
        )
        return allowed

    def _is_spike(self, norm: float) -> bool:
        window = self._window
        if not self.factor or len(window) < FEWEST:
            return False
        return norm > self.factor * sorted(window)[(len(window) - 1) // 2]

    @property
    def counts(self) -> Tensor:
        return torch.tensor(self._verdicts, dtype=torch.float32)

    def forgive(self) -> None:
        self._verdicts = self._verdicts._replace(in_a_row=0)

    def memory(self) -> tuple[tuple[float, ...], Verdicts]:
        return tuple(self._window), self._verdicts

    def tensors(self, memory: tuple[tuple[float, ...], Verdicts]) -> dict[str, Tensor]:
        window, verdicts = memory
        unknown = (UNKNOWN,) * (WINDOW - len(window))
        return {
            "window": torch.tensor(unknown + window, dtype=torch.float32),
            "counts": torch.tensor(verdicts, dtype=torch.float32),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        if _fits(tensors, "window", WINDOW):
            norms = (norm for norm in tensors["window"].tolist() if norm >= 0)
            self._window = deque(norms, WINDOW)
        if _fits(tensors, "counts", 3):
            self._verdicts = Verdicts(*(int(count) for count in tensors["counts"].tolist()))


class DeviceGuard(Guard):
    """In tensors, nothing waited for. float32 counts to 16 million."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._window, self._counts = torch.full((WINDOW,), UNKNOWN), torch.zeros(3)

    def to(self, device: torch.device) -> DeviceGuard:
        self._window, self._counts = self._window.to(device), self._counts.to(device)
        return self

    def allows(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        finite = torch.isfinite(loss)
        if not self.scaled:
            finite = finite & torch.isfinite(grad_norm)
        spike = self._is_spike(grad_norm) & finite if self.factor else torch.zeros_like(finite)
        allowed = finite & ~spike if self.skip_spikes else finite
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
        spike = known & (window[-FEWEST] != UNKNOWN) & (norm > self.factor * usual)
        self._window = torch.where(known, torch.cat((window[1:], norm.reshape(1))), window)
        return spike

    @property
    def counts(self) -> Tensor:
        return self._counts

    def forgive(self) -> None:
        self._counts = self._counts * torch.tensor((0.0, 1.0, 1.0), device=self._counts.device)

    def memory(self) -> tuple[Tensor, Tensor]:
        return self._window, self._counts  # replaced by later steps, never changed

    def tensors(self, memory: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {"window": memory[0], "counts": memory[1]}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        device = self._counts.device
        if _fits(tensors, "window", WINDOW):
            self._window = tensors["window"].to(device, torch.float32)
        if _fits(tensors, "counts", 3):
            self._counts = tensors["counts"].to(device, torch.float32)


def _fits(tensors: Mapping[str, Tensor], name: str, length: int) -> bool:
    return name in tensors and tensors[name].shape == (length,)
