"""Which device a run uses, in which precision, and what its memory holds.

Importing this module does not load torch: each function that needs it does.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from engine import machine, peaks
from engine.errors import ConfigError, DeviceError, did_you_mean
from engine.events import DeviceStats
from engine.machine import check_device_name

if TYPE_CHECKING:
    import psutil
    import torch

PRECISIONS = ("float32", "bfloat16", "float16")


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` takes cuda, then mps, then cpu.

    Raises DeviceError: what was asked for, what is here, and what to do.
    """
    name = check_device_name(name)
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if name == "mps" and not mps:
        raise DeviceError("device 'mps' asked for, but this is no Mac with a GPU", _CPU_HINT)
    if name.startswith("cuda"):
        index = int(name.partition(":")[2] or 0)
        if not cuda:
            raise DeviceError(f"device '{name}' asked for, but {_why_no_cuda()}", _CPU_HINT)
        if index >= cuda:
            here = ", ".join(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(cuda))
            raise DeviceError(f"device '{name}' asked for, but the GPUs here are {here}")
        return torch.device("cuda", index)
    return torch.device(name)


_CPU_HINT = "use --device cpu, or --device auto to take the best that is here"


def _why_no_cuda() -> str:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"this torch ({torch.__version__}) is built for CPUs alone"
    return "torch finds no GPU on this machine (driver missing, or CUDA_VISIBLE_DEVICES hides it)"


def device_name(device: torch.device) -> str:
    """The device's name as people know it, with the number of cores for a processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU ({machine.cpu_name()})"
    return machine.cpu_name()


def choose_precision(device: torch.device, precision: str = "auto") -> str:
    """The precision of matrix products: `float32`, `bfloat16` or `float16`.

    `auto` takes bfloat16 where the hardware multiplies it (GPUs from Ampere on, processors with
    AVX512-BF16 or AMX), else float16 on a GPU and float32 on a processor. Weights, gradients and
    moments are float32 in every case. Raises ConfigError for what the device cannot do.
    """
    if precision not in ("auto", *PRECISIONS):
        hint = did_you_mean(precision, ("auto", *PRECISIONS))
        raise ConfigError(f"unknown precision '{precision}'", hint)
    if device.type == "cuda":
        import torch

        # By the capability (8.0 is Ampere), not by torch.cuda.is_bf16_supported(): that says yes to
        # emulation too, and looks at the current device rather than at this one.
        native = torch.cuda.get_device_capability(device) >= (8, 0) or bool(torch.version.hip)
        if precision == "auto":
            return "bfloat16" if native else "float16"
        if precision == "bfloat16" and not native:
            raise ConfigError(
                f"train.precision = bfloat16: {device_name(device)} has no bfloat16 units",
                "use --set train.precision=float16",
            )
        return precision
    if precision == "auto":
        native = device.type == "cpu" and machine.cpu_has_bfloat16()
        return "bfloat16" if native else "float32"
    if precision == "float16" and device.type == "cpu":
        better = "bfloat16" if machine.cpu_has_bfloat16() else "float32"
        raise ConfigError(
            "train.precision = float16: not trained on a CPU, which has no fast units for it",
            f"use --set train.precision={better}",
        )
    return precision


def needs_scaler(precision: str) -> bool:
    """Whether gradients must be scaled: float16 has 5 bits of exponent, and small ones vanish.

    bfloat16 has float32's exponent and needs nothing (Micikevicius et al. 2018; Kalamkar et al.
    2019).
    """
    return precision == "float16"


def check_float8(device: torch.device, precision: str) -> None:
    """Raises ConfigError where `train.float8` cannot be: it needs units for it (compute capability
    8.9: Ada, Hopper and newer), beside bfloat16."""
    import torch

    capable = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)
    if not capable:
        raise ConfigError(
            f"train.float8 = true: {device_name(device)} has no units for 8-bit products",
            "leave it out; bfloat16 is the fastest here",
        )
    if precision != "bfloat16":
        raise ConfigError(
            f"train.float8 = true: goes with bfloat16, and train.precision is {precision}",
            "use --set train.precision=bfloat16",
        )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """A context in which matrix products run in `precision`, and sums and norms in float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    import torch

    return torch.autocast(device.type, dtype=getattr(torch, precision))


def as_current(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which PyTorch means this device where none is named: by streams and their
    events, random states and memory. Each thread has one of its own, which is the first GPU until
    something else is said."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    import torch

    return torch.cuda.device(device)


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """(FLOP/s, source) of `device` at its best: data sheet, or a measurement of about 0.2 s.

    (0.0, "") where neither can be had.
    """
    import torch

    name = device_name(device)
    if device.type == "cuda" and (flops := peaks.published_peak(name, precision)):
        return flops, peaks.PUBLISHED_SOURCE
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    try:
        return peaks.measured_peak(device, name, precision, threads), peaks.MEASURED_SOURCE
    except RuntimeError:  # the device is full, or lacks this product
        return 0.0, ""


@functools.cache
def _process() -> psutil.Process:
    import psutil

    return psutil.Process()


@functools.cache
def _total_memory() -> int:
    return machine.memory_total()


def memory(device: torch.device) -> DeviceStats:
    """Memory and load of `device` now; cheap enough for once a second, starts no process.

    On a GPU `used` is what tensors hold, `reserved` and `peak` what the allocator took from the
    card; on a CPU they are this process's resident memory. `utilization` of a CPU is this process's
    share of all usable cores since the last call (None the first time).
    """
    process = _process()
    rss = process.memory_info().rss
    if device.type == "cuda":
        import torch

        card = torch.cuda.get_device_properties(device)
        load = machine.gpu_load(str(card.uuid))
        return DeviceStats(
            used=torch.cuda.memory_allocated(device),
            reserved=torch.cuda.memory_reserved(device),
            peak=torch.cuda.max_memory_reserved(device),
            total=card.total_memory,
            host_rss=rss,
            utilization=load.utilization,
            temperature=load.temperature,
            power=load.power,
        )
    if device.type == "mps":
        import torch

        reserved = torch.mps.driver_allocated_memory()
        return DeviceStats(
            used=torch.mps.current_allocated_memory(),
            reserved=reserved,
            peak=reserved,
            total=torch.mps.recommended_max_memory(),
            host_rss=rss,
        )
    busy = process.cpu_percent(None) / machine.cores()
    return DeviceStats(
        used=rss,
        peak=max(rss, _peak_rss()),
        total=_total_memory(),
        host_rss=rss,
        utilization=min(100.0, busy) if busy else None,
    )


def _peak_rss() -> int:
    """The most memory that this process ever had resident, in bytes; 0 where nobody counts it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
