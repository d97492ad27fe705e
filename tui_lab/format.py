"""Numbers as people read them; used by the app and the command line alike."""

from __future__ import annotations

import math
import time


def count(value: float) -> str:
    """1234567 as `1.23 M`: three figures and a unit."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            return (
                f"{value / size:.3g} {unit}"
                if value < 999.5 * size
                else f"{value / size:.0f} {unit}"
            )
    return f"{value:.3g}" if isinstance(value, float) and not value.is_integer() else f"{value:.0f}"


def thousands(value: int) -> str:
    """12345 as `12 345` (a thin, unambiguous separator)."""
    return f"{value:,}".replace(",", " ")


def size(value: float) -> str:
    """Bytes in powers of 1000, as disks and downloads are told: `4.2 MB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float) -> str:
    """`42 s`, `2:13`, `1:02:13`, `3 d 4 h`."""
    if not math.isfinite(seconds):
        return "–"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 86400:
        return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def ago(seconds: float) -> str:
    """An age as one short word: `now` (also for what a clock set back shows to come), `42 s`,
    `5 min`, `3 h`, `2 d`."""
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "now"


def moment(seconds: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Seconds since the epoch in the local zone; `?` for a moment that no calendar has: the number
    may come from any file."""
    try:
        return time.strftime(form, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"


def number(value: float | None, digits: int = 4) -> str:
    """A loss or norm with `digits` decimals; a dash for none, the word for NaN and infinity."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf"
    return f"{value:.{digits}f}"


def rate(value: float | None) -> str:
    """A learning rate: `3.0e-04`."""
    return "–" if value is None else f"{value:.2e}"


def percent(share: float | None) -> str:
    return (
        "–" if share is None else f"{share * 100:.0f} %" if share >= 0.1 else f"{share * 100:.1f} %"
    )
