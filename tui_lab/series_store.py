"""The logged steps of a run in bounded memory, however long it trains.

The newest points stay as they were logged. Older ones are merged in equal groups of neighbours
that keep each metric's lowest and highest value and its gaps; once there are too many groups, two
become one, so that the whole run is always shown equally fine. Averages are taken over every point
before anything is merged. Knows nothing of charts or files.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left

MOST = 16_384
"""Points kept: more than any screen has columns, twice over."""
RAW = 4_096
"""The newest points that are never merged: a chart of the last part shows each of them."""
GROUP = 4
"""The least number of neighbours that are merged, into two points."""
METRICS = ("loss", "smooth", "lr", "grad_norm", "norm_smooth", "rate")


class Series:
    """One array a metric, oldest first, NaN where a value is missing; `step` ascends.

    `average` is the newest smoothed loss, None before the first one that is finite.
    """

    def __init__(self) -> None:
        self.step, self.loss, self.smooth = array("d"), array("d"), array("d")
        self.lr, self.rate = array("d"), array("d")
        self.grad_norm, self.norm_smooth = array("d"), array("d")
        self.average: float | None = None
        self.count = 0  # points that were added: the averages reach further as there are more
        self._norm: float | None = None
        self._merged = 0  # points at the front that stand for several
        self._size = GROUP  # logged points in one group

    def __len__(self) -> int:
        return len(self.step)

    def add(
        self, step: float, loss: float, lr: float, grad_norm: float, rate: float, span: int
    ) -> None:
        """One logged step; `span`: points that the averages reach back at most.

        A step that is not beyond the last one replaces everything from itself on: the run went
        back to a checkpoint.
        """
        if self.step and step <= self.step[-1]:
            self.drop_from(step)
        self.average = self._averaged(self.average, loss, span)
        self._norm = self._averaged(self._norm, grad_norm, span)
        self.count += 1
        self.step.append(step)
        self.loss.append(loss)
        self.smooth.append(self.average if math.isfinite(loss) else math.nan)  # type: ignore
        self.lr.append(lr)
        self.grad_norm.append(grad_norm)
        self.norm_smooth.append(self._norm if math.isfinite(grad_norm) else math.nan)  # type: ignore
        self.rate.append(rate)
        if len(self.step) >= MOST:
            self._shrink()

    def drop_from(self, step: float) -> None:
        """Forget `step` and everything after it."""
        at = bisect_left(self.step, step)
        self.count -= max(0, len(self.step) - max(at, self._merged))
        self._merged = min(self._merged, at)
        for column in (self.step, *map(self._column, METRICS)):
            del column[at:]
        self.average, self._norm = _newest(self.smooth), _newest(self.norm_smooth)

    def _column(self, name: str) -> array:
        return getattr(self, name)

    def _averaged(self, before: float | None, value: float, span: int) -> float | None:
        """An exponential mean over an eighth of the points so far, up to `span`; NaN is left out.

        Early on the loss falls by the step, and a longer mean would only show the past.
        """
        if not math.isfinite(value):
            return before
        weight = max(1.0 / (1.0 + self.count / 8), 2.0 / (span + 1))
        return value if before is None else before + weight * (value - before)

    def _shrink(self) -> None:
        """Merge all but the newest points, and the merged ones once more if they are too many."""
        raw = len(self.step) - RAW - self._merged
        self._merge(self._merged, raw, min(self._size, raw))
        while self._merged > MOST // 2:
            whole, self._merged = self._merged, 0
            self._merge(0, whole, GROUP)  # four points, two groups, become one group's two
            self._merged += whole % GROUP
            self._size *= 2

    def _merge(self, start: int, count: int, size: int) -> None:
        """Points `start` to `start + count`, in groups of `size`, become merged ones."""
        # With the first merge: the app's first paint must not wait for numpy.
        import numpy as np

        from engine.series import merged

        part = slice(start, start + count // size * size)
        rows = np.array([self._column(name)[part] for name in METRICS])
        steps, values = merged(np.array(self.step[part]), rows, size)
        self.step[part] = array("d", steps)
        for name, row in zip(METRICS, values, strict=True):
            self._column(name)[part] = array("d", row)
        self._merged = start + len(steps)


def _newest(column: array) -> float | None:
    return next((value for value in reversed(column) if math.isfinite(value)), None)
