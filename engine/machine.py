"""What this machine is, found without torch: processor, memory, GPUs as their driver tells them.

Also judges the *names* of devices (`cpu`, `cuda:1`, …), so that a wrong one is refused before torch
loads. Knows nothing of models and runs.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import DeviceError

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def is_device_name(name: str) -> bool:
    """Whether `name` is one that a machine's own devices have."""
    return bool(_DEVICE.fullmatch(name.strip().lower()))


def check_device_name(name: str) -> str:
    """`name` in lower case if it could be a device. Raises DeviceError; loads nothing."""
    lowered = name.strip().lower()
    if not _DEVICE.fullmatch(lowered):
        hint = "one of auto, cpu, cuda, cuda:0, cuda:1, …, mps"
        raise DeviceError(f"unknown device '{name}'", hint)
    return lowered


def cores() -> int:
    """Processor cores that this process may use (a container or taskset may allow fewer)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


FEW_CORES = 2
"""Up to which threads that wait are told to sleep: no more were measured."""
SPINS = 4000
"""Times that a waiting thread looks before it sleeps."""


def short_waits() -> dict[str, str]:
    """Variables of the environment that torch must find when it loads, where the cores are few.

    At the end of every operation a thread waits for the others, and GNU's OpenMP lets it look
    300 000 times before it sleeps: on a core that the screen or a second run could have. Measured
    on two cores: two runs at once make 1.5 times the steps, a key is answered in four fifths of the
    time; a run alone loses 2 to 7 % (128×4×4, 384×6×6), generation by steps that are not compiled
    4 to 10 %, by compiled ones 15 to 20 % (384×6×6): `tui-lab generate` goes without. Longer waits
    gain a run alone nothing before 300 000, and cost two at once much. Empty where a person has
    said how threads wait.
    """
    said = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
    return {} if said or cores() > FEW_CORES else {"GOMP_SPINCOUNT": str(SPINS)}


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def cpu_name() -> str:
    """The processor's model name, its widest instructions, its last cache, the number of usable
    cores: "AMD EPYC (AVX2, 32 MB cache), 2 cores".

    Virtual machines call very different processors by one name: what was measured on one must not
    be taken for the other.
    """
    model = _cpuinfo().get("model name") or platform.processor() or platform.machine() or "CPU"
    flags = _cpu_flags()
    widest = next((title for flag, title in _WIDEST.items() if flag in flags), "")
    cache = f"{last_cache() >> 20} MB cache" if last_cache() >> 20 else ""
    known = ", ".join(filter(None, (widest, cache)))
    model += f" ({known})" if known else ""
    return f"{model}, {cores()} {'core' if cores() == 1 else 'cores'}"


_WIDEST = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 bf16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
"""Flag of /proc/cpuinfo -> how its instructions are called, the widest first."""


def _cpu_flags() -> set[str]:
    return set((_cpuinfo().get("flags") or _cpuinfo().get("features") or "").split())


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware.

    oneDNN also *accepts* bfloat16 where it must emulate it, which is slower than float32; so the
    processor's own flags decide, not the library's answer.
    """
    return not _cpu_flags().isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


def is_apple_silicon() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def memory_total() -> int:
    """Bytes of main memory that this process may use: the machine's, or its container's limit."""
    import psutil

    total = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):  # no such controller, or the word "max"
            continue
    return total


def memory_available() -> int:
    """Bytes of main memory free for new work."""
    import psutil

    return min(psutil.virtual_memory().available, memory_total())


CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux tells of a core's caches."""


def last_cache(caches: Path = CACHES) -> int:
    """Bytes of the last cache before memory, which cores share; 0 where that is not told."""
    sizes = {}
    for folder in caches.glob("index*"):
        try:
            level = int((folder / "level").read_text())
            sizes[level] = int((folder / "size").read_text().strip().removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return sizes[max(sizes)] if sizes else 0


def return_freed_memory() -> None:
    """Give the system back what was freed, where the C library (glibc) keeps it: long work in
    threads, in pieces of many sizes, otherwise leaves ever more holes."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    import ctypes

    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


def cache_dir() -> Path:
    """Where this user's caches lie (`TUI_LAB_CACHE_DIR` overrides). Not made here."""
    if named := os.environ.get("TUI_LAB_CACHE_DIR"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tui-lab"


# GPUs, through NVIDIA's management library ---------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver tells it. Bytes."""

    index: int
    name: str
    memory_total: int
    memory_free: int
    capability: tuple[int, int]


@functools.cache
def nvml() -> Any | None:
    """The initialised `pynvml` module (package nvidia-ml-py), or None without package or driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # ImportError, NVMLError, OSError: all mean that nothing can be read
        return None
    return pynvml


def has_nvidia_driver() -> bool:
    """Whether NVIDIA's driver is loaded, even where nothing can be read from it."""
    return bool(gpus()) or Path("/proc/driver/nvidia/version").exists()


def gpus() -> list[Gpu]:
    """The machine's NVIDIA GPUs, as far as can be told without torch; empty when it cannot."""
    library = nvml()
    if library is None:
        return []
    found = []
    for index in range(library.nvmlDeviceGetCount()):
        handle = library.nvmlDeviceGetHandleByIndex(index)
        name = library.nvmlDeviceGetName(handle)
        memory = library.nvmlDeviceGetMemoryInfo(handle)
        text = name.decode() if isinstance(name, bytes) else name
        capability = tuple(library.nvmlDeviceGetCudaComputeCapability(handle))
        found.append(Gpu(index, text, memory.total, memory.free, capability))
    return found


@dataclass(frozen=True)
class GpuLoad:
    """A GPU's state at this moment; None for what the card does not report."""

    utilization: float | None = None  # 0 to 100
    temperature: float | None = None  # degrees Celsius
    power: float | None = None  # watts


def gpu_load(uuid: str) -> GpuLoad:
    """The load of the GPU with this UUID (not its index: CUDA_VISIBLE_DEVICES renumbers)."""
    library = nvml()
    handle = _gpu_handle(uuid)
    if library is None or handle is None:
        return GpuLoad()

    def read(function: Any, *arguments: Any) -> Any | None:
        try:
            return function(handle, *arguments)
        except library.NVMLError:
            return None

    rates = read(library.nvmlDeviceGetUtilizationRates)
    milliwatts = read(library.nvmlDeviceGetPowerUsage)
    return GpuLoad(
        None if rates is None else float(rates.gpu),
        read(library.nvmlDeviceGetTemperature, library.NVML_TEMPERATURE_GPU),
        None if milliwatts is None else milliwatts / 1000,
    )


@functools.cache
def _gpu_handle(uuid: str) -> Any | None:
    library = nvml()
    if library is None:
        return None
    for spelling in (f"GPU-{uuid}", uuid):
        try:
            return library.nvmlDeviceGetHandleByUUID(spelling)
        except library.NVMLError:
            continue
    return None
