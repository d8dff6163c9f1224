"""The range between two percentiles."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from qcompiler.ir.graph import Array
from qcompiler.observers.octaves import OctaveObserver


class PercentileObserver(OctaveObserver):
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
        tail = (1.0 - self.percentile / 100.0) * float(self.counts.sum() + self.zeros)
        positive, negative = (self._beyond(counts.astype(np.float64), tail) for counts in self.counts)
        return max(low, -negative), min(high, positive)

    def _beyond(self, counts: Array, tail: float) -> float:
        """The distance from zero beyond which ``tail`` of the ``counts`` lie; 0 where there are not so many."""
        kept = counts.sum() - tail
        if kept <= 0.0:
            return 0.0
        total = np.cumsum(counts)
        index = int(np.searchsorted(total, kept))
        inner, outer = self.edges()[index : index + 2]
        return float(outer - (outer - inner) * (total[index] - kept) / max(counts[index], 1.0))
