"""The range that loses least in the mean square."""

from __future__ import annotations

from typing import Final

import numpy as np
from typing_extensions import override

from qcompiler.observers.histogram import HistogramObserver

FRACTIONS: Final = np.linspace(0.2, 1.0, 81)  # candidates for the clipping points, as shares of the extremes


class MseObserver(HistogramObserver):
    """The range with the least mean squared quantization error on the histogram (Banner et al., arXiv 1810.05723).

    Exact zeros have no error, so they do not speak for a finer step.
    """

    @override
    def range(self, bits: int) -> tuple[float, float]:
        low, high = super().range(bits)
        if self.empty:
            return low, high
        centers = self.centers()
        lows = low * FRACTIONS if low < 0.0 else np.zeros(1)
        highs = high * FRACTIONS if high > 0.0 else np.zeros(1)
        # Clipping error is separable; rounding error is step^2 / 12 for everything.
        below = np.array([(self.counts * np.minimum(centers - edge, 0.0) ** 2).sum() for edge in lows])
        above = np.array([(self.counts * np.maximum(centers - edge, 0.0) ** 2).sum() for edge in highs])
        step = (highs[None, :] - lows[:, None]) / ((1 << bits) - 1)
        error = below[:, None] + above[None, :] + self.counts.sum() * step**2 / 12.0
        row, column = np.unravel_index(int(np.argmin(error)), error.shape)
        return float(lows[row]), float(highs[column])
