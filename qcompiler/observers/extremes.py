"""Ranges from the smallest and the largest value alone: of everything, or averaged over groups of samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from typing_extensions import override

if TYPE_CHECKING:
    import torch

GROUP: Final = 16  # samples whose extremes the moving average takes as one


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


class MovingAverageObserver(MinMaxObserver):
    """The exponential moving average of the extremes of every 16 samples (Jacob et al., arXiv 1712.05877, section 3.1).

    ``constant``, in (0, 1]: the weight of the newest group, 1 keeps it alone. The average starts without a bias to the first
    group (Kingma and Ba, arXiv 1412.6980, section 3). Groups are counted in samples, however callers cut their batches; the
    order of the samples matters.
    """

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant
        self.averages = (0.0, 0.0)
        self.weight = 0.0  # of the groups that are in the averages
        self.pending = 0  # samples of the group that ``low`` and ``high`` describe

    @override
    def see(self, batch: torch.Tensor) -> bool:
        start = 0
        while start < len(batch):
            part = batch[start : start + GROUP - self.pending]
            if not super().see(part):
                return False
            start += len(part)
            self.pending += len(part)
            if self.pending == GROUP:
                self.averages, self.weight = self._with_group()
                self.low, self.high, self.pending = math.inf, -math.inf, 0
        return True

    def _with_group(self) -> tuple[tuple[float, float], float]:
        low, high = (old + self.constant * (new - old) for old, new in zip(self.averages, (self.low, self.high), strict=True))
        return (low, high), self.weight + self.constant * (1.0 - self.weight)

    @override
    def range(self, bits: int) -> tuple[float, float]:
        (low, high), weight = self._with_group() if self.pending else (self.averages, self.weight)
        return min(low / weight, 0.0), max(high / weight, 0.0)
