"""Observers: what calibration remembers of a tensor, in bounded memory, and the range they choose from it.

A histogram has 4,096 bins around zero whose width is a power of two; when a value falls outside, pairs of bins merge and the
width doubles. The result does not depend on the order of the batches.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from typing_extensions import override

from qcompiler.ir.graph import Array

if TYPE_CHECKING:
    import torch

HALF_BINS: Final = 2048
SAMPLED_ELEMENTS: Final = 1 << 13  # of one tensor and batch element that enter the histogram; extremes are taken from all


class Observer(Protocol):
    """Sees batches of one tensor, then gives its range."""

    def see(self, batch: torch.Tensor) -> bool:
        """Take in one batch (float32, the batch in front); False, taking nothing, if it has NaN or infinite values."""

    def range(self, bits: int) -> tuple[float, float]:
        """The range to quantize to ``bits`` bits; contains 0."""


class MinMaxObserver:
    """The smallest and largest value seen."""

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf

    def see(self, batch: torch.Tensor) -> bool:
        low, high = (float(edge) for edge in batch.aminmax())  # NaN propagates
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        self.low, self.high = min(self.low, low), max(self.high, high)
        return True

    def range(self, bits: int) -> tuple[float, float]:
        return min(self.low, 0.0), max(self.high, 0.0)


class MseObserver(MinMaxObserver):
    """The range with the least mean squared quantization error on the histogram (Banner et al., arXiv 1810.05723)."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 0.0
        self.counts: Array = np.zeros(2 * HALF_BINS, dtype=np.int64)

    @override
    def see(self, batch: torch.Tensor) -> bool:
        import torch

        if not super().see(batch):
            return False
        largest = max(-self.low, self.high)
        if largest <= 0.0:
            self.counts[HALF_BINS] += batch.numel()
            return True
        needed = math.ldexp(1.0, math.frexp(largest / HALF_BINS)[1])
        if self.width == 0.0:
            self.width = needed
        while self.width < needed:
            # Bins 2i and 2i+1 become bin i of the middle half.
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(axis=1), HALF_BINS // 2)
            self.width *= 2.0
        flat = batch.reshape(len(batch), -1) if batch.ndim > 1 else batch.reshape(1, -1)
        flat = flat[:, :: max(1, flat.shape[1] // SAMPLED_ELEMENTS)]
        bins = torch.floor(flat.reshape(-1) * (1.0 / self.width)).to(torch.int64).add_(HALF_BINS).clamp_(0, 2 * HALF_BINS - 1)
        self.counts += torch.bincount(bins, minlength=2 * HALF_BINS).numpy()
        return True

    @override
    def range(self, bits: int) -> tuple[float, float]:
        low, high = super().range(bits)
        if self.width == 0.0 or high == low:
            return low, high
        centers = (np.arange(2 * HALF_BINS) - HALF_BINS + 0.5) * self.width
        fractions = np.linspace(0.2, 1.0, 81)
        lows = low * fractions if low < 0.0 else np.zeros(1)
        highs = high * fractions if high > 0.0 else np.zeros(1)
        # Clipping error is separable; rounding error is step^2 / 12 for everything.
        below = np.array([(self.counts * np.minimum(centers - edge, 0.0) ** 2).sum() for edge in lows])
        above = np.array([(self.counts * np.maximum(centers - edge, 0.0) ** 2).sum() for edge in highs])
        step = (highs[None, :] - lows[:, None]) / ((1 << bits) - 1)
        error = below[:, None] + above[None, :] + self.counts.sum() * step**2 / 12.0
        row, column = np.unravel_index(int(np.argmin(error)), error.shape)
        return float(lows[row]), float(highs[column])
