"""The arithmetic of a slider: values to places on its track and back, steps, limits.

Pure functions on numbers; knows nothing of Textual, and nothing of what the numbers mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_MANTISSAS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Scale:
    """`low` to `high` may be typed; `track` are the ends of what is drawn (default: the same).

    A linear scale moves by `step` (`coarse` with shift). A logarithmic one (`log`, whole numbers,
    track above zero) moves along round numbers. `off` is a value outside the track that means
    "no limit": it takes the last place on the right.
    """

    low: float
    high: float
    step: float = 1.0
    coarse: float = 10.0
    digits: int = 2
    track: tuple[float, float] | None = None
    log: bool = False
    off: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        return self.track or (self.low, self.high)

    def clamp(self, value: float) -> float:
        """The nearest value that may be had, rounded to the scale's decimals."""
        if not math.isfinite(value):
            return self.low
        value = min(max(value, self.low), self.high)
        return float(round(value)) if self.digits == 0 else round(value, self.digits)

    def fraction(self, value: float) -> float:
        """Where on the track `value` lies, 0 to 1."""
        if self.off is not None and value == self.off:
            return 1.0
        low, high = self.ends
        value = min(max(value, low), high)
        share = (
            math.log(value / low) / math.log(high / low)
            if self.log
            else (value - low) / (high - low)
        )
        return share * self._reach

    def value_at(self, fraction: float) -> float:
        """The value at a place on the track, at the nearest step."""
        fraction = min(max(fraction, 0.0), 1.0)
        if self.off is not None and fraction > (1 + self._reach) / 2:
            return self.off
        share = min(fraction / self._reach, 1.0)
        low, high = self.ends
        if self.log:
            exact = low * (high / low) ** share
            return min(self._stops(), key=lambda stop: abs(math.log(stop / exact)))
        return self.clamp(low + round(share * (high - low) / self.step) * self.step)

    def nudge(self, value: float, direction: int, coarse: bool = False) -> float:
        """The next value to the right (`direction` 1) or to the left (-1)."""
        if not self.log:
            size = self.coarse if coarse else self.step
            # On to the next multiple, so that a typed 0.83 joins the others.
            steps = (value - self.ends[0]) / size
            near = math.floor(steps + 1e-9) if direction > 0 else math.ceil(steps - 1e-9)
            return self._within(value, self.ends[0] + (near + direction) * size)
        stops = self._stops(coarse)
        if self.off is not None and value == self.off:
            return stops[-1] if direction < 0 else value
        if direction > 0:
            above = [stop for stop in stops if stop > value]
            return above[0] if above else self.off if self.off is not None else value
        below = [stop for stop in stops if stop < value]
        return below[-1] if below else value

    def start(self) -> float:
        """The value at the left end."""
        return self.ends[0]

    def end(self) -> float:
        """The value at the right end."""
        return self.off if self.off is not None else self.ends[1]

    @property
    def _reach(self) -> float:
        # The share of the track that numbers take; the rest is the place of `off`.
        return 1.0 if self.off is None else 0.92

    def _within(self, old: float, new: float) -> float:
        low, high = self.ends
        if old > high:  # typed beyond the track: the arrows bring it back, or leave it
            return self.clamp(new if new > old else high)
        return self.clamp(min(max(new, low), high))

    def _stops(self, coarse: bool = False) -> list[float]:
        low, high = self.ends
        mantissas = (1, 2, 5) if coarse else _MANTISSAS
        stops = {low, high}
        for power in range(math.floor(math.log10(high)) + 1):
            for mantissa in mantissas:
                stop = float(round(mantissa * 10**power))
                if low <= stop <= high:
                    stops.add(stop)
        return sorted(stops)
