"""What a process on a CPU takes beyond what is counted of it: its allocator's share. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heap:
    """What a process on a CPU takes of what is counted, in shares: its allocator leaves holes and
    keeps what was freed, and kernels need room. The peak is at the loss, or late in the backward
    pass, when the gradients lie beside the heap that held the activations.

    Fitted to the peaks of some thirty networks (`python -m benchmarks.plan_fit`).
    """

    runtime: int
    """Bytes before the first tensor."""
    activations: float
    roots: float
    """Of what a compiled RMSNorm keeps over its root, on top of being counted among the
    activations."""
    squares: float
    logits: float
    late: float
    """Of activations and squares, late in the backward pass."""
    gradients: float
    """Of the gradients, then: on their way to where they are added up."""


HEAPS = {
    (False, True): Heap(387_000_000, 1.82, 0.0, 1.25, 1.15, 0.0, 1.5),
    (False, False): Heap(355_000_000, 1.48, 0.0, 1.76, 1.26, 0.0, 1.5),
    (True, True): Heap(490_000_000, 0.67, 1.0, 0.0, 0.81, 0.88, 1.13),
    (True, False): Heap(488_000_000, 0.90, 0.85, 0.0, 0.88, 0.79, 1.71),
}
"""By (compiled, products in 16 bits). The runtime of eager float32 lies between those of two kinds
of processor, 371 and 343 MB."""


@dataclass(frozen=True)
class Counted:
    """What a `Heap` takes its shares of, in bytes."""

    activations: int
    """Without the (T, T) matrices."""
    roots: int
    squares: int
    logits: int
    gradients: int

    def held(self, heap: Heap) -> tuple[float, float]:
        """Activations and logits at the loss."""
        kept = heap.activations * self.activations
        kept += heap.roots * self.roots + heap.squares * self.squares
        return kept, heap.logits * self.logits

    def late(self, heap: Heap) -> float:
        """Activations and gradients late in the backward pass."""
        kept = heap.late * (self.activations - self.roots + self.squares)
        return kept + heap.gradients * self.gradients
