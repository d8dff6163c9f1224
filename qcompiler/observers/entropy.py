"""The range that keeps most of the distribution's information."""

from __future__ import annotations

from typing import Final

import numpy as np
from typing_extensions import override

from qcompiler.ir.graph import Array
from qcompiler.observers.histogram import HistogramObserver

FRACTIONS: Final = np.linspace(0.1, 1.0, 46)  # candidates for the clipping points, as shares of the extremes
ROUNDS: Final = 2  # of choosing the upper end for the lower one and the other way round
UNIFORM: Final = 1e-4  # of the quantized distribution is spread over all bins: none that holds values is impossible


class EntropyObserver(HistogramObserver):
    """The range with the least Kullback-Leibler divergence of the quantized distribution from the real one.

    The method is TensorRT's (Migacz, "8-bit Inference with TensorRT", GTC 2017), which clips symmetric ranges: values outside
    are counted at the ends of the real distribution; the quantized one spreads each level's values inside of the range
    over those of the level's bins that hold any. Here both ends are searched in turn, codes have a zero point, and exact
    zeros are left out, since a spike that every range represents exactly would hide all else. 8,192 bins: where a level is
    no wider than a bin there is no loss to be seen, and 128 bins for 256 levels give the extremes, whatever the tensor.
    """

    half_bins = 4096

    @override
    def range(self, bits: int) -> tuple[float, float]:
        low, high = super().range(bits)
        if self.empty:
            return low, high
        lower, upper = low, high
        for _ in range(ROUNDS if low < 0.0 < high else 1):
            if high > 0.0:
                divergences = [self.divergence(lower, fraction * high, bits) for fraction in FRACTIONS]
                upper = float(FRACTIONS[np.argmin(divergences)] * high)
            if low < 0.0:
                divergences = [self.divergence(fraction * low, upper, bits) for fraction in FRACTIONS]
                lower = float(FRACTIONS[np.argmin(divergences)] * low)
        return lower, upper

    def divergence(self, low: float, high: float, bits: int) -> float:
        """Of the values quantized to ``bits`` bits in [low, high] from the values, in nats."""
        first = self.half_bins + int(np.floor(low / self.width))
        end = min(self.half_bins + int(np.floor(high / self.width)) + 1, 2 * self.half_bins)
        inside = self.counts[first:end].astype(np.float64)
        real = inside.copy()
        real[0] += self.counts[:first].sum()
        real[-1] += self.counts[end:].sum()
        step = (high - low) / ((1 << bits) - 1)
        zero = np.floor(-low / step + 0.5)
        centers = (np.arange(first, end) - self.half_bins + 0.5) * self.width
        levels = np.clip(np.floor(centers / step + 0.5) + zero, 0, (1 << bits) - 1).astype(np.int64)
        quantized = spread(inside, real > 0.0, levels)
        held = real > 0.0
        p, q = real[held] / real.sum(), quantized[held] / max(quantized.sum(), 1.0)
        q = (1.0 - UNIFORM) * q + UNIFORM / len(q)
        return float((p * np.log(p / q)).sum())


def spread(counts: Array, held: Array, levels: Array) -> Array:
    """The ``counts`` of each level, evenly over the bins of that level that are ``held``."""
    totals = np.bincount(levels, counts)
    bins = np.bincount(levels, held.astype(np.float64))
    result: Array = np.where(held, totals[levels] / np.maximum(bins[levels], 1.0), 0.0)
    return result
