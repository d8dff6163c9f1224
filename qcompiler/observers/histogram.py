"""A histogram of one tensor that grows with its values, in constant memory.

It has an even number of bins around zero whose width is a power of two; when a value falls outside, pairs of bins merge and
the width doubles. So the result depends neither on the order of the samples nor on how they are cut into batches.
Exact zeros are counted apart: a code stands for them whatever the range is, and after a ReLU they are most of a tensor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from qcompiler.ir.graph import Array
from qcompiler.observers.extremes import MinMaxObserver

if TYPE_CHECKING:
    import torch

SAMPLED_ELEMENTS: Final = 1 << 13  # of one tensor and sample that enter the histogram; extremes are taken from all


def sampled(batch: torch.Tensor) -> torch.Tensor:
    """The elements of a batch that enter a histogram, in one dimension."""
    flat = batch.reshape(len(batch), -1) if batch.ndim > 1 else batch.reshape(1, -1)
    return flat[:, :: max(1, flat.shape[1] // SAMPLED_ELEMENTS)].reshape(-1)


class HistogramObserver(MinMaxObserver):
    """Extremes, and ``2 * half_bins`` counts of the values that are not zero; what chooses a range from them derives from it."""

    half_bins: int = 2048

    def __init__(self) -> None:
        super().__init__()
        self.width = 0.0
        self.zeros = 0
        self.counts: Array = np.zeros(2 * self.half_bins, dtype=np.int64)

    @override
    def see(self, batch: torch.Tensor) -> bool:
        import torch

        if not super().see(batch):
            return False
        values = sampled(batch)
        largest = max(-self.low, self.high)
        if largest > 0.0:
            self._widen(math.ldexp(1.0, math.frexp(largest / self.half_bins)[1]))
            bins = torch.floor(values * (1.0 / self.width)).to(torch.int64).add_(self.half_bins)
            self.counts += torch.bincount(bins.clamp_(0, 2 * self.half_bins - 1), minlength=2 * self.half_bins).numpy()
            zeros = int((values == 0.0).sum())
            self.counts[self.half_bins] -= zeros
        else:
            zeros = len(values)
        self.zeros += zeros
        return True

    def _widen(self, width: float) -> None:
        if self.width == 0.0:
            self.width = width
        while self.width < width:
            # Bins 2i and 2i+1 become bin i of the middle half.
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(axis=1), self.half_bins // 2)
            self.width *= 2.0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to choose from: only zeros, or one value."""
        low, high = super().range(8)
        return self.width == 0.0 or high == low

    def centers(self) -> Array:
        """The middles of the bins, float64[2 * half_bins]."""
        centers: Array = (np.arange(2 * self.half_bins) - self.half_bins + 0.5) * self.width
        return centers
