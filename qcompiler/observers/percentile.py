"""The range between two percentiles."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from qcompiler.observers.histogram import HistogramObserver


class PercentileObserver(HistogramObserver):
    """From the (100 - p)-th to the p-th percentile of all values, interpolated within a bin (McKinstry et al., arXiv 1809.04191).

    ``percentile``: p, in (50, 100]; at 100 the extremes.
    """

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile = percentile

    @override
    def range(self, bits: int) -> tuple[float, float]:
        low, high = super().range(bits)
        if self.empty:
            return low, high
        counts = self.counts.astype(np.float64)
        negative, positive = counts[: self.half_bins][::-1], counts[self.half_bins :]
        tail = (1.0 - self.percentile / 100.0) * (counts.sum() + self.zeros)
        return max(low, -self._beyond(negative, tail)), min(high, self._beyond(positive, tail))

    def _beyond(self, counts: np.ndarray[tuple[int], np.dtype[np.float64]], tail: float) -> float:
        """The distance from zero beyond which ``tail`` of the ``counts`` lie; 0 where there are not so many."""
        kept = counts.sum() - tail
        if kept <= 0.0:
            return 0.0
        total = np.cumsum(counts)
        index = int(np.searchsorted(total, kept))
        return float(self.width * (index + 1.0 - (total[index] - kept) / max(counts[index], 1.0)))
