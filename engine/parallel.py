"""One model trained on several GPUs, each with a copy and batches of its own (data parallelism).

Each GPU makes the gradients of its windows, the GPUs add them up, and each makes the same update
(PyTorch's DDP, Li et al. 2020). This program trains on one device: here such a run is planned, from
what is published of the GPUs. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.footprint import Memory
from engine.hardware import Fleet

BACKWARD = 2 / 3
"""Share of a step in which gradients come, and are sent while others are computed."""
TAIL = 0.1
"""Share of the exchange that nothing hides: the last gradients to come."""


@dataclass(frozen=True)
class Parallel:
    """What the others add to one GPU's step, and take off its memory. Seconds, bytes."""

    gpus: int
    machines: int
    exchange_seconds: float
    """What adding up the gradients takes by itself."""
    waited_seconds: float
    """What of it the step waits for, the rest going on beside the backward pass."""
    efficiency: float
    """The fleet's rate over that of as many GPUs that need not wait."""
    memory: int
    """Of each GPU, every one of them holding all moments."""
    memory_sharded: int
    """Of each GPU with the moments shared out among them (ZeRO-1, Rajbhandari et al. 2020), for
    the same bytes sent: gradients are added up at the moments' owner, who sends the weights."""
    links: str


def spread(fleet: Fleet, memory: Memory, batch_seconds: float, step_seconds: float) -> Parallel:
    """`memory` and the seconds of one GPU alone, as the step of one of `fleet`.

    `batch_seconds`: of the last micro-batch, forward and backward, after which gradients are sent.
    """
    exchange = fleet.all_reduce_seconds(memory.gradients)
    waited = max(TAIL * exchange, exchange - BACKWARD * batch_seconds)
    link, network = fleet.card.link / 1e9, fleet.card.network / 1e9
    links = f"{link:g} GB/s each way inside a machine of {fleet.card.per_machine}"
    if fleet.machines > 1:
        links += f", {network:g} GB/s a GPU between machines"
    return Parallel(
        gpus=fleet.gpus,
        machines=fleet.machines,
        exchange_seconds=exchange,
        waited_seconds=waited,
        efficiency=step_seconds / (step_seconds + waited),
        memory=memory.total,
        memory_sharded=memory.total - memory.optimizer + memory.optimizer // fleet.gpus,
        links=links,
    )
