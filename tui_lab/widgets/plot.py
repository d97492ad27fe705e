"""Curves as Braille dots: numbers in, cells out. Knows nothing of Textual, colours or runs.

A cell holds 2×4 dots. A curve with more points than dot columns is drawn from each column's
minimum and maximum, so that no spike is lost; a value that is not a number is a gap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BITS = np.array([[1, 8], [2, 16], [4, 32], [64, 128]], dtype=np.uint16)


@dataclass(frozen=True)
class View:
    """What part of the plane is seen, and how many cells it has. `log`: logarithmic in y."""

    x0: float
    x1: float
    y0: float
    y1: float
    width: int
    height: int
    log: bool = False

    def columns(self, x: np.ndarray, count: int) -> np.ndarray:
        """The column (of `count`) of each x; outside the view it is negative or too large."""
        share = (x - self.x0) / ((self.x1 - self.x0) or 1.0)
        return np.floor(share * (count - 1) + 0.5).astype(np.int64)

    def rows(self, y: np.ndarray, count: int) -> np.ndarray:
        """The row (of `count`, from the top) of each y; values outside are put on the edge."""
        low, high = self.y0, self.y1
        if self.log:
            low, high = math.log(low), math.log(high)
            y = np.log(np.maximum(y, self.y0))
        share = np.minimum(np.maximum((y - low) / ((high - low) or 1.0), 0.0), 1.0)
        return ((1.0 - share) * (count - 1) + 0.5).astype(np.int64)


def curve_cells(x: Sequence[float], y: Sequence[float], view: View, start: int = 0) -> np.ndarray:
    """Braille bits (uint8, height × width) of the curve through (x, y); x must not decrease.

    `start`: only the cell columns from this one on, which is as much less work as there are fewer.
    """
    n_columns, n_rows = view.width * 2, view.height * 4
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    first, last = np.searchsorted(x, [view.x0, view.x1 + 1e-9])
    if start:
        # From the last point before the column on the left of `start`: a line comes from there.
        edge = view.x0 + (view.x1 - view.x0) * (2 * start - 1.5) / (n_columns - 1)
        first = max(first, int(np.searchsorted(x, edge)) - 1)
    x, y = x[first:last], y[first:last]
    column = view.columns(x, n_columns)
    skipped = min(int(column[0]), 2 * start) if start and len(x) else 2 * start
    low, high = _column_ranges(column - skipped, y, n_columns - skipped)
    low, high = low[2 * start - skipped :], high[2 * start - skipped :]
    drawn = np.isfinite(low)
    top, bottom = view.rows(np.where(drawn, np.array([high, low]), 0.0), n_rows)
    row = np.arange(n_rows)[:, None]
    return pack((row >= top) & (row <= bottom) & drawn)


def _column_ranges(column: np.ndarray, y: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest y of each column, joined to its left neighbour; NaN where none is."""
    low, high = np.full(count, np.nan), np.full(count, np.nan)
    good = np.isfinite(y)
    breaks = np.cumsum(~good)[good]  # points with different counts have a gap between them
    column, y = column[good], y[good]
    if not len(y):
        return low, high
    first = np.concatenate([[0], np.flatnonzero(column[1:] != column[:-1]) + 1])
    last = np.concatenate([first[1:], [len(y)]]) - 1
    at = column[first]
    low[at], high[at] = np.minimum.reduceat(y, first), np.maximum.reduceat(y, first)
    joined = breaks[first[1:]] == breaks[last[:-1]]
    # Columns without a point lie on the line between their neighbours, unless a gap is there.
    ends = np.full(count, np.nan)
    ends[at] = y[last]
    for left, right in zip(at[:-1][joined], at[1:][joined], strict=True):
        if right - left > 1:
            between = np.linspace(ends[left], low[right], right - left + 1)[1:-1]
            low[left + 1 : right] = high[left + 1 : right] = ends[left + 1 : right] = between
    before, here = ends[:-1], slice(1, None)
    linked = np.zeros(count - 1, dtype=bool)
    linked[:] = np.isfinite(before) & np.isfinite(low[here])
    gaps = at[1:][~joined] - 1  # the link into a column that stands behind a gap is cut
    linked[gaps[gaps >= 0]] = False
    low[here] = np.where(linked, np.minimum(low[here], before), low[here])
    high[here] = np.where(linked, np.maximum(high[here], before), high[here])
    return low, high


def pack(dots: np.ndarray) -> np.ndarray:
    """Bits of Braille cells from booleans, 4 rows and 2 columns a cell."""
    height, width = dots.shape[0] // 4, dots.shape[1] // 2
    cells = dots.reshape(height, 4, width, 2).astype(np.uint16)
    return np.einsum("hawb,ab->hw", cells, _BITS).astype(np.uint8)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values between `low` and `high`, inclusive."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low or count < 1:
        return []
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Round values for a logarithmic axis; linear ones where it spans less than a factor of 3."""
    if low <= 0 or high / low < 3:
        return ticks(low, high, count)
    found = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digit in (1, 2, 3, 5)
        if low <= digit * 10.0**power <= high
    ]
    return found[:: max(1, -(-len(found) // max(1, count)))]


def loss_range(
    losses: Sequence[float], smooth: Sequence[float], others: Sequence[float] = ()
) -> tuple[float, float]:
    """A y-range in which the learning is seen, not the first steps' fall.

    The top lets out the highest 3 % of the points (they are drawn at the edge) once there are
    enough of them; the bottom always has everything.
    """
    raw = np.asarray(losses, dtype=np.float64)
    raw = raw[np.isfinite(raw)]
    rest = [value for value in others if math.isfinite(value)]
    if not len(raw):
        return (min(rest), max(rest)) if rest else (0.0, 1.0)
    low = min([float(raw.min()), *rest])
    if len(raw) < 60:
        high = float(raw.max())
    else:
        kept = np.asarray(smooth, dtype=np.float64)[len(smooth) // 20 :]
        kept = kept[np.isfinite(kept)]
        high = max(float(np.quantile(raw, 0.97)), float(kept.max()) if len(kept) else low)
    return settled(low, high)


def highest(values: Sequence[float]) -> float:
    """The highest value that is a number; 0 where none is above."""
    return float(np.fmax.reduce(np.asarray(values, dtype=np.float64), initial=0.0))


class CalmRange:
    """`loss_range` of a curve that grows, worked out again for every sixteenth more points: in
    between, what lies outside is drawn at the edge."""

    def __init__(self) -> None:
        self._known: tuple[object, ...] = ()
        self._range = (0.0, 1.0)

    def of(
        self,
        what: object,
        losses: Sequence[float],
        smooth: Sequence[float],
        others: Sequence[float] = (),
    ) -> tuple[float, float]:
        """The range of these points; `what` names them, another name is another range."""
        known = (what, int(16 * math.log(len(losses) + 1)), len(others))
        if known != self._known:
            self._known, self._range = known, loss_range(losses, smooth, others)
        return self._range


def settled(low: float, high: float) -> tuple[float, float]:
    """A little more than `low` to `high`, in coarse units: a range that stays as points come.

    An axis that moves at every step would have the whole chart drawn again, and nobody can read it.
    """
    span = high - low or max(abs(high) * 0.1, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / 8))
    unit = next(m * power for m in (1, 2, 5, 10) if m * power >= span / 8)
    bottom = math.floor((low - span * 0.01) / unit) * unit
    return (max(0.0, bottom) if low >= 0 else bottom), math.ceil((high + span * 0.01) / unit) * unit
