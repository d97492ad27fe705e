"""A long series made ready for a chart: fewer points, a smoother line. Pure functions on numpy.

Smooth first, over every point, then decimate. NaN is a gap: it is shown as one and poisons
nothing.
"""

from __future__ import annotations

import numpy as np


def decimate(x: np.ndarray, y: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """At most two points for each of `columns` equal parts of x's range: its lowest and highest.

    So a chart that many characters wide shows every spike that all the points would have shown.
    `x` ascends and is finite; points that are not finite in `y` are left out where their column
    has a finite one, and a column that has none gives a single NaN, which a chart draws as a gap.
    A series that is short enough is returned as it stands.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if columns < 1:
        raise ValueError("a chart has at least one column")
    if len(x) <= 2 * columns:
        return x, np.where(np.isfinite(y), y, np.nan)
    span = x[-1] - x[0]
    column = np.zeros(len(x), dtype=np.int64)
    if span > 0:
        column = np.minimum(((x - x[0]) / span * columns).astype(np.int64), columns - 1)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    finite = np.isfinite(y)
    lowest = _first_of_each(starts, np.where(finite, y, np.inf), np.minimum)
    highest = _first_of_each(starts, np.where(finite, y, -np.inf), np.maximum)
    kept = np.unique(np.concatenate([lowest, highest]))
    return x[kept], np.where(finite[kept], y[kept], np.nan)


def _first_of_each(starts: np.ndarray, values: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """The index of the first extreme value in each part of `values` that begins at `starts`."""
    lengths = np.diff(np.append(starts, len(values)))
    reached = values == np.repeat(extreme.reduceat(values, starts), lengths)
    candidates = np.flatnonzero(reached)
    parts = np.searchsorted(starts, candidates, side="right")
    return candidates[np.flatnonzero(np.diff(parts, prepend=0))]


def merged(x: np.ndarray, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Each `size` neighbours of some series as two points: their lowest and highest, as they came.

    `x` (N,) ascends and is shared by `rows` (S, N); N is a multiple of `size`, which is at least 4.
    The two points stand at the first and the last x of their neighbours. Where a series has a gap
    among them, a third point between the two is NaN in that series, so that the gap stays.
    """
    if size < 4 or len(x) % size:
        raise ValueError("neighbours are merged in whole groups of at least four")
    parts = rows.reshape(len(rows), -1, size)
    finite = np.isfinite(parts)
    low_at = np.where(finite, parts, np.inf).argmin(axis=2)[..., None]
    high_at = np.where(finite, parts, -np.inf).argmax(axis=2)[..., None]
    ends = np.concatenate([np.minimum(low_at, high_at), np.maximum(low_at, high_at)], axis=2)
    first, last = np.moveaxis(np.take_along_axis(parts, ends, axis=2), 2, 0)
    some = finite.any(axis=2)
    torn = some & ~finite.all(axis=2)
    three = np.stack([first, np.where(torn, np.nan, last), last], axis=2)
    three[~some] = np.nan
    kept = np.ones(three.shape[1:], dtype=bool)
    kept[:, 1] = torn.any(axis=0)
    xs = np.stack([x[::size], x[size // 2 :: size], x[size - 1 :: size]], axis=1)
    return xs[kept], three[:, kept]


def smooth(y: np.ndarray, weight: float = 0.98) -> np.ndarray:
    """The exponential moving average over every point; `weight` (0 ≤ w < 1) is the memory's share.

    Corrected for its start as Adam's moments are (Kingma and Ba 2015), so that the first value is
    the first point and no line has to climb from 0. A point that is not finite stays NaN at its
    place, and the average goes on after it as if the point had not been.
    """
    if not 0.0 <= weight < 1.0:
        raise ValueError("the weight lies between 0 and 1")
    y = np.asarray(y, dtype=np.float64)
    finite = np.isfinite(y)
    values = y[finite]
    result = np.full(len(y), np.nan)
    if len(values):
        sums = _recursive(values * (1.0 - weight), weight)
        result[finite] = sums / -np.expm1(np.arange(1, len(values) + 1) * np.log(weight or 1e-300))
    return result


def _recursive(values: np.ndarray, weight: float) -> np.ndarray:
    """s[i] = weight·s[i−1] + values[i], in blocks: a sum of powers within each, vectorised."""
    block = 64
    whole = -(-len(values) // block) * block
    rows = np.zeros(whole)
    rows[: len(values)] = values
    rows = rows.reshape(-1, block)
    offsets = np.arange(block)
    powers = np.tril(weight ** np.maximum(offsets[:, None] - offsets[None, :], 0.0))
    sums = rows @ powers.T
    fade = weight ** (offsets + 1.0)
    carry = 0.0
    for row in sums:
        row += carry * fade
        carry = row[-1]
    return sums.reshape(-1)[: len(values)]
