"""What a short measured run taught about this device: by how much the plan's figures are off.

One correction for each device, torch, precision and mode, kept in the user's cache; the newest
counts. Knows nothing of how it was come by (`engine.calibration`). No torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from engine import user_cache

if TYPE_CHECKING:
    from engine.planner import DeviceFacts

CACHE = "calibrations"


@dataclass(frozen=True)
class Correction:
    """What later plans are put right by."""

    time: float
    """Seconds measured over seconds predicted."""
    memory: int
    """Bytes of peak memory measured beyond those predicted, or below them. A difference and no
    ratio: tensors are counted, and what differs between machines is what the runtime takes."""
    date: str
    """YYYY-MM-DD."""
    about: str
    """The configuration that was measured, in a few words."""

    def __str__(self) -> str:
        return f"corrected by {self.time:.2f} from a calibration of {self.date}"


def mode(compiled: bool) -> str:
    return "compiled" if compiled else "eager"


def _device_key(device: DeviceFacts) -> str:
    return f"{device.name} | {device.threads} threads"


def _key(device: DeviceFacts, compiled: bool) -> str:
    version = metadata.version("torch")
    return f"{_device_key(device)} | torch {version} | {device.precision} | {mode(compiled)}"


def remembered(device: DeviceFacts, compiled: bool) -> Correction | None:
    """The correction for this device as it would train now; None where there is none."""
    values: Any = user_cache.read(CACHE).get(_key(device, compiled))
    try:
        found = Correction(
            float(values["time"]),
            int(values["memory"]),
            str(values["date"])[:10],
            str(values["about"])[:200],
        )
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    sound = math.isfinite(found.time) and 0 < found.time < 1e6 and abs(found.memory) < 1 << 50
    return found if sound else None


def remember(device: DeviceFacts, compiled: bool, correction: Correction) -> bool:
    """Keep `correction` for later plans; False where the cache cannot be written."""
    return user_cache.keep(CACHE, _key(device, compiled), asdict(correction))


def forget(device: DeviceFacts) -> int:
    """Drop every correction for this device, whatever its precision and mode; how many there were.

    Raises OSError where the cache cannot be written.
    """
    prefix = f"{_device_key(device)} | "
    mine = [key for key in user_cache.read(CACHE) if key.startswith(prefix)]
    user_cache.drop(CACHE, mine)
    return len(mine)
