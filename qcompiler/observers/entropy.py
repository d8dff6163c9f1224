"""The range that keeps most of the distribution's information."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from typing_extensions import override

from qcompiler.ir.graph import Array
from qcompiler.observers.octaves import OctaveObserver

FRACTIONS: Final = np.linspace(0.1, 1.0, 46)  # candidates for the clipping points, as shares of the extremes
ROUNDS: Final = 2  # of choosing the upper end for the lower one and the other way round
UNIFORM: Final = 1e-4  # of the quantized distribution is spread over all bins: none that holds values is impossible
BULK: Final = 0.99  # of the values lie within a sixteenth of what has bins of one width
HALF_BITS: Final = 12  # 4,096 such bins on each side of zero


class EntropyObserver(OctaveObserver):
    """The range with the least Kullback-Leibler divergence of the quantized distribution from the real one.

    The method is TensorRT's (Migacz, "8-bit Inference with TensorRT", GTC 2017), which clips symmetric ranges: values outside
    are counted at the ends of the real distribution; the quantized one spreads each level's values inside of the range
    over those of the level's bins that hold any. Here both ends are searched in turn, codes have a zero point, and exact
    zeros are left out, since a spike that every range represents exactly would hide all else. 8,192 bins: where a level is
    no wider than a bin there is no loss to be seen, and 128 bins for 256 levels give the extremes, whatever the tensor.
    Outliers far beyond the bulk of the values have wider bins and do not coarsen those of the bulk.
    """

    octave_bits = HALF_BITS - 1

    @override
    def range(self, bits: int) -> tuple[float, float]:
        low, high = super().range(bits)
        if self.empty:
            return low, high
        bins = self.distribution()
        steps = decades(max(-low, high), bins.fine)
        starts = [(max(low, -edge), min(high, edge)) for edge in max(-low, high) / 10.0**steps]
        lower, upper = min(starts, key=lambda start: bins.divergence(start[0], start[1], bits))
        for _ in range(ROUNDS if low < 0.0 < high else 1):
            if high > 0.0:
                candidates = clipping_points(high, bins.fine)
                upper = min(candidates, key=lambda edge: bins.divergence(lower, edge, bits))
            if low < 0.0:
                candidates = clipping_points(low, bins.fine)
                lower = min(candidates, key=lambda edge: bins.divergence(edge, upper, bits))
        return lower, upper

    def distribution(self) -> Distribution:
        """The values in bins of one width, as far as the bulk of them reaches many times, and in those of octaves beyond."""
        edges, both = self.edges(), self.counts.sum(axis=0)
        bulk = edges[1 + int(np.searchsorted(np.cumsum(both), BULK * both.sum()))]
        fine = min(math.ldexp(1.0, math.frexp(16.0 * bulk)[1]), math.ldexp(1.0, math.frexp(max(-self.low, self.high))[1]))
        width = fine / (1 << HALF_BITS)
        inside = edges[:-1] < fine
        place = np.floor(edges[:-1][inside] / width).astype(np.int64)
        borders = np.append(np.arange(1 << HALF_BITS) * width, edges[:-1][~inside])
        borders = np.append(borders, max(fine, edges[-1]))
        sides = [np.append(np.bincount(place, side[inside], 1 << HALF_BITS), side[~inside]) for side in self.counts]
        return Distribution(
            np.concatenate([-borders[:0:-1], borders]), np.concatenate([sides[1][::-1], sides[0]]).astype(np.float64), fine
        )


def clipping_points(edge: float, fine: float) -> list[float]:
    """The candidates for one end whose extreme is ``edge``: down to a tenth, and on in decades to where bins are ``fine``."""
    return [float(fraction * edge / 10.0**decade) for decade in decades(abs(edge), fine) for fraction in FRACTIONS]


def decades(edge: float, fine: float) -> Array:
    """By how many powers of ten to go down from ``edge``: 0 alone where it is not above ``fine``."""
    return np.arange(max(1, math.ceil(math.log10(edge / fine)) + 1))


@dataclass(frozen=True)
class Distribution:
    """``edges`` float64[bins + 1] ascending, ``counts`` float64[bins]; ``fine``: up to where all bins have one width."""

    edges: Array
    counts: Array
    fine: float

    def divergence(self, low: float, high: float, bits: int) -> float:
        """Of the values quantized to ``bits`` bits in [low, high] from the values, in nats."""
        first, end = np.searchsorted(self.edges, (low, high), side="right")
        first, end = max(first - 1, 0), min(end, len(self.counts))
        inside, edges = self.counts[first:end], self.edges[first : end + 1]
        real = inside.copy()
        real[0] += self.counts[:first].sum()
        real[-1] += self.counts[end:].sum()
        held = real > 0.0
        step = (high - low) / ((1 << bits) - 1)
        zero = np.floor(-low / step + 0.5)
        centers = 0.5 * (edges[:-1] + edges[1:])[held]
        levels = np.clip(np.floor(centers / step + 0.5) + zero, 0, (1 << bits) - 1).astype(np.int64)
        p, q = real[held] / real.sum(), spread(inside[held], np.diff(edges)[held], levels)
        q = q / max(q.sum(), 1.0)
        q = (1.0 - UNIFORM) * q + UNIFORM / len(q)
        return float((p * np.log(p / q)).sum())


def spread(counts: Array, widths: Array, levels: Array) -> Array:
    """The ``counts`` of each level, evenly over its bins by their ``widths``."""
    totals, room = np.bincount(levels, counts), np.bincount(levels, widths)
    result: Array = totals[levels] * widths / room[levels]
    return result
