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
    def stored(self) -> tuple[str, str, tuple[int, ...]]:
        """Element type, order and extents in memory: images with equal ``stored`` are the same bytes."""
        n, *extents = self.shape
        order = "CHW"
        if self.layout == PHYSICAL:
            extents[0] = physical_channels(extents[0])
        if self.layout in (PHYSICAL, CHANNELS_LAST) and len(extents) == 3:
            extents = [*extents[1:], extents[0]]
            order = "HWC"
        if sum(extent != 1 for extent in extents) <= 1:
            return self.dtype, "row", (n, int(np.prod(extents)))
        return self.dtype, order, (n, *extents)
