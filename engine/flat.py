"""A network's parameters side by side in one tensor, and their gradients in another.

A norm, a clipping, an update, a check for numbers that are not finite are then one pass over memory
each, whatever the network is cut into: for a small one the calls alone, one for each parameter,
would cost more than the arithmetic. The parameters themselves stay what they were, views into it.

Knows nothing of what the groups mean. Needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNED = 16
"""Numbers: a parameter begins at 64 bytes, a cache line and the widest vector register."""


@dataclass(frozen=True)
class Place:
    """Where a parameter lies in its group's tensors."""

    group: str
    start: int
    stop: int
    shape: torch.Size

    def view(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors[self.group][self.start : self.stop].view(self.shape)


class Flat:
    """All parameters of `model`, group by group. From here on their memory is this one's.

    `groups`: names of parameters, each in one group. The network must be on its device already.
    Gaps between parameters are zeros, as are their gradients, and stay so under every update that
    leaves a zero with a zero gradient alone.
    """

    def __init__(self, model: nn.Module, groups: Mapping[str, Sequence[str]]) -> None:
        named = dict(model.named_parameters())
        self.places: dict[str, Place] = {}
        sizes: dict[str, int] = {}
        for group, names in groups.items():
            end = 0
            for name in names:
                count = named[name].numel()
                self.places[name] = Place(group, end, end + count, named[name].shape)
                end += -(-count // ALIGNED) * ALIGNED
            sizes[group] = end
        sample = next(iter(named.values()))
        total = sum(sizes.values())
        self.value = torch.zeros(total, dtype=sample.dtype, device=sample.device)
        self.gradient = torch.zeros_like(self.value)
        bounds = list(sizes.values())
        self.values = dict(zip(sizes, self.value.split(bounds), strict=True))
        self.gradients = dict(zip(sizes, self.gradient.split(bounds), strict=True))
        with torch.no_grad():
            for name, place in self.places.items():
                view = place.view(self.values)
                view.copy_(named[name])
                named[name].data = view
                # Autograd adds to a gradient that is there, in place: so it is always there.
                named[name].grad = place.view(self.gradients)

    def named(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Views into `tensors`, one a group, laid out as the parameters are: by parameter."""
        return {
            name: place.view(tensors)
            for name, place in self.places.items()
            if place.group in tensors
        }
