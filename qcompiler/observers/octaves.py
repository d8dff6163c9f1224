"""A histogram whose bins are as fine as the numbers they hold are small, in constant memory.

Every octave, from one power of two to the next, has equally many bins: numbers whose float32 has the same first bits share one.
So a single value of ten thousand times all others costs them no resolution. What lies more than ``OCTAVES`` octaves below the
largest value is one bin beside zero; when a larger value comes, octaves at the lower end join it. So the result depends neither
on the order of the samples nor on how they are cut into batches. Exact zeros are counted apart, as in ``histogram``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from qcompiler.ir.graph import Array
from qcompiler.observers.extremes import MinMaxObserver
from qcompiler.observers.histogram import sampled

if TYPE_CHECKING:
    import torch

OCTAVES: Final = 32  # a factor of four billion
FRACTION_BITS: Final = 23  # of float32


class OctaveObserver(MinMaxObserver):
    """Extremes, and counts of what is not zero: int64 ``[2, 1 + bins]`` of positive and of negative numbers, by magnitude."""

    octave_bits: int = 8
    """Each octave has 2^octave_bits bins."""

    def __init__(self) -> None:
        super().__init__()
        self.zeros = 0
        self.top = 0  # exponent of the uppermost octave, as float32 has it
        self.counts: Array = np.zeros((2, 1 + (OCTAVES << self.octave_bits)), dtype=np.int64)

    @override
    def see(self, batch: torch.Tensor) -> bool:
        import torch

        if not super().see(batch):
            return False
        values = sampled(batch).to(torch.float32)
        self._reach(int(np.float32(max(-self.low, self.high)).view(np.int32)) >> FRACTION_BITS)
        patterns = values[values != 0.0].view(torch.int32)
        bins = ((patterns & 0x7FFFFFFF) >> (FRACTION_BITS - self.octave_bits)).sub_(self._first - 1).clamp_(min=0)
        bins += (patterns < 0) * self.counts.shape[1]
        np.add.at(self.counts.reshape(-1), bins.numpy(), 1)  # far fewer values than bins where samples come one by one
        self.zeros += values.numel() - patterns.numel()
        return True

    @property
    def _first(self) -> int:
        """The first bits of the smallest number that has a bin of its own octave."""
        return (self.top - OCTAVES + 1) << self.octave_bits

    def _reach(self, top: int) -> None:
        """Make ``top`` the uppermost octave, if it is higher."""
        moved = max(top - self.top, 0) << self.octave_bits
        if moved:
            low, kept = self.counts[:, : 1 + moved].sum(axis=1, keepdims=True), self.counts[:, 1 + moved :]
            self.counts = np.concatenate([low, kept, np.zeros((2, self.counts.shape[1] - 1 - kept.shape[1]), np.int64)], axis=1)
            self.top = top

    @property
    def empty(self) -> bool:
        """Whether there is nothing to choose from: only zeros, or one value."""
        low, high = super().range(8)
        return high == low or not self.counts.any()

    def edges(self) -> Array:
        """The borders of the bins by magnitude, float64[2 + bins], from 0 on."""
        patterns = np.clip(self._first + np.arange(self.counts.shape[1]), 0, (0xFF << self.octave_bits) - 1)
        borders = (patterns << (FRACTION_BITS - self.octave_bits)).astype(np.int32).view(np.float32)
        return np.concatenate([[0.0], borders.astype(np.float64)])
