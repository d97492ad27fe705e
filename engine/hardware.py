"""GPUs that a run can be planned for without having one: memory, bandwidth, links, by name.

The figures are the makers' own, from the data sheets and system guides named with each card; peak
rates are in `engine.peaks`. Knows nothing of models, and asks no device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine import peaks
from engine.errors import DeviceError, InputError, did_you_mean

GB = 1e9
NVLINK_3, NVLINK_4, NVLINK_5 = 300 * GB, 450 * GB, 900 * GB
"""One GPU's NVLink in one direction: half of the sum of both that data sheets give."""
INFINITY_FABRIC = 448 * GB
"""Seven links of an MI300 to its neighbours, 64 GB/s each way a link."""
PCIE_3, PCIE_4, PCIE_5 = 16 * GB, 32 * GB, 64 * GB
"""Sixteen lanes in one direction."""


@dataclass(frozen=True)
class Card:
    """One kind of GPU, and the machine that its maker sells it in. Bytes, bytes a second."""

    name: str
    """As it is written after `--device`."""
    title: str
    """As CUDA or ROCm calls it, near enough for `peaks.published_peak`."""
    memory: float
    bandwidth: float
    link: float
    """To the others in the same machine, one direction."""
    per_machine: int
    """GPUs that such links join."""
    network: float
    """From one GPU's share of the machine's network cards to other machines, one direction."""
    source: str

    def peak(self, precision: str) -> float:
        """FLOP/s of dense matrix products."""
        return peaks.published_peak(self.title, precision)


PORT_400, PORT_200, PORT_100 = 50 * GB, 25 * GB, 12.5 * GB
"""A network port a GPU, of 400, 200 or 100 Gbit/s: the first two as in DGX H100 and DGX A100; cards
for workstations get the last, for want of a maker's word."""

_SHEET = "data sheet"
CARDS: tuple[Card, ...] = (
    Card("h100", "NVIDIA H100", 80 * GB, 3350 * GB, NVLINK_4, 8, PORT_400,
         f"NVIDIA H100 {_SHEET} (SXM), DGX H100 user guide"),
    Card("h100-pcie", "NVIDIA H100 PCIe", 80 * GB, 2000 * GB, PCIE_5, 8, PORT_200,
         f"NVIDIA H100 {_SHEET} (PCIe)"),
    Card("h200", "NVIDIA H200", 141 * GB, 4800 * GB, NVLINK_4, 8, PORT_400,
         f"NVIDIA H200 {_SHEET} (SXM), DGX H200 user guide"),
    Card("b200", "NVIDIA B200", 180 * GB, 8000 * GB, NVLINK_5, 8, PORT_400,
         f"NVIDIA DGX B200 {_SHEET}"),
    Card("gb200", "NVIDIA GB200", 186 * GB, 8000 * GB, NVLINK_5, 72, PORT_400,
         f"NVIDIA GB200 NVL72 {_SHEET}"),
    Card("a100-80gb", "NVIDIA A100-SXM4-80GB", 80 * GB, 2039 * GB, NVLINK_3, 8, PORT_200,
         f"NVIDIA A100 {_SHEET} (SXM), DGX A100 user guide"),
    Card("a100-40gb", "NVIDIA A100-SXM4-40GB", 40 * GB, 1555 * GB, NVLINK_3, 8, PORT_200,
         f"NVIDIA A100 {_SHEET} (SXM), DGX A100 user guide"),
    Card("l40s", "NVIDIA L40S", 48 * GB, 864 * GB, PCIE_4, 8, PORT_100,
         f"NVIDIA L40S {_SHEET}"),
    Card("l4", "NVIDIA L4", 24 * GB, 300 * GB, PCIE_4, 8, PORT_100, f"NVIDIA L4 {_SHEET}"),
    Card("a10g", "NVIDIA A10G", 24 * GB, 600 * GB, PCIE_4, 8, PORT_100,
         "AWS EC2 G5 instances' page"),
    Card("a6000", "NVIDIA RTX A6000", 48 * GB, 768 * GB, PCIE_4, 8, PORT_100,
         f"NVIDIA RTX A6000 {_SHEET}"),
    Card("rtx-5090", "NVIDIA GeForce RTX 5090", 32 * GB, 1792 * GB, PCIE_5, 4, PORT_100,
         "NVIDIA RTX Blackwell architecture paper"),
    Card("rtx-4090", "NVIDIA GeForce RTX 4090", 24 * GB, 1008 * GB, PCIE_4, 4, PORT_100,
         "NVIDIA Ada architecture paper"),
    Card("rtx-3090", "NVIDIA GeForce RTX 3090", 24 * GB, 936 * GB, PCIE_4, 4, PORT_100,
         "NVIDIA GA102 architecture paper"),
    Card("v100", "Tesla V100-SXM2-32GB", 32 * GB, 900 * GB, 150 * GB, 8, PORT_100,
         f"NVIDIA V100 {_SHEET} (SXM2)"),
    Card("t4", "Tesla T4", 16 * GB, 320 * GB, PCIE_3, 4, PORT_100, f"NVIDIA T4 {_SHEET}"),
    Card("mi300x", "AMD Instinct MI300X", 192 * GB, 5300 * GB, INFINITY_FABRIC, 8, PORT_400,
         f"AMD Instinct MI300X {_SHEET}"),
    Card("mi325x", "AMD Instinct MI325X", 256 * GB, 6000 * GB, INFINITY_FABRIC, 8, PORT_400,
         f"AMD Instinct MI325X {_SHEET}"),
)  # fmt: skip
BY_NAME = {card.name: card for card in CARDS}

LINK_SHARE = 0.8
"""Of a link's rate, what a ring of large messages reaches (NCCL's own tests: 0.75 to 0.9)."""


def find_card(name: str) -> Card:
    """The card called `name`. Raises DeviceError naming the nearest known one."""
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    if wanted in BY_NAME:
        return BY_NAME[wanted]
    shorter = [known for known in BY_NAME if known.startswith(wanted + "-")]
    hint = did_you_mean(shorter[0] if shorter else wanted, BY_NAME)
    listed = f"GPUs that are known: {', '.join(BY_NAME)}; here: auto, cpu, cuda, cuda:1, mps"
    raise DeviceError(
        f"unknown device '{name}'", listed if hint.startswith("known") else f"{hint} {listed}"
    )


def card_called(title: str) -> Card | None:
    """The card of a CUDA device's name; None where none is known."""
    words = set(title.lower().replace("-", " ").split())
    named = [card for card in CARDS if words.issuperset(card.name.split("-"))]
    return max(named, key=lambda card: len(card.name), default=None)


@dataclass(frozen=True)
class Fleet:
    """Several GPUs of one kind that train one model side by side (data parallelism)."""

    card: Card
    gpus: int

    def __post_init__(self) -> None:
        if not 1 <= self.gpus <= 1_000_000:
            raise InputError(f"--gpus {self.gpus}: not between 1 and 1 000 000")

    @property
    def machines(self) -> int:
        return math.ceil(self.gpus / self.card.per_machine)

    def all_reduce_seconds(self, size: float) -> float:
        """How long `size` bytes take to be summed over all GPUs.

        A ring sends 2·(n - 1)/n of them over each GPU's link (Patarasu & Yuan 2009). Over several
        machines each first sums inside, then every GPU exchanges its own piece with its fellows
        in the other machines over its own network port, and the pieces are collected inside.
        """
        inside = min(self.gpus, self.card.per_machine)
        seconds = 2 * (inside - 1) / inside * size / self.card.link
        if self.machines > 1:
            piece = size / inside
            seconds += 2 * (self.machines - 1) / self.machines * piece / self.card.network
        return seconds / LINK_SHARE
