"""How a tensor lies in memory: its logical shape, its element type and its layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from qcompiler.backend.kernel import physical_channels

PHYSICAL: Final = "NHWC"
DENSE: Final = "NCHW"
CHANNELS_LAST: Final = "NHWC_DENSE"


@dataclass(frozen=True)
class Image:
    """A tensor in memory: logical shape with the batch's size, element type, layout (physical, dense or channels last)."""

    shape: tuple[int, ...]
    dtype: str
    layout: str

    @property
    def elements(self) -> int:
        """Stored elements, padding channels included."""
        if self.layout != PHYSICAL:
            return int(np.prod(self.shape, dtype=np.int64))
        n, channels, *space = self.shape
        return int(n * physical_channels(channels) * np.prod(space, dtype=np.int64))

    @property
    def size(self) -> int:
        """Bytes."""
        return self.elements * np.dtype(self.dtype).itemsize

    @property
    def stored(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Element type, and axes with their extents in memory order: images of one shape with equal ``stored`` are the same
        bytes. Extents of 1 do not count."""
        order = list(range(len(self.shape)))
        if self.layout != DENSE and len(order) > 2:
            order.append(order.pop(1))
        extents = list(self.shape)
        if self.layout == PHYSICAL:
            extents[1] = physical_channels(extents[1])
        return self.dtype, tuple((axis, extents[axis]) for axis in order if extents[axis] != 1)
