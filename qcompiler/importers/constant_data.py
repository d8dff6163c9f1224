"""Data for a constant, which nobody else may write to: as it is where nobody can, copied otherwise.

Weights of a large model are most of the memory that an import takes. Those that are mapped from a file are copied block by
block, and the pages that were read are given back, so that a transposed weight is not in memory twice.
"""

from __future__ import annotations

import mmap
from typing import Any, Final

import numpy as np

from qcompiler.ir.graph import Array

BLOCK: Final = 1 << 24
"""Bytes of a mapped file that are in memory at once while they are copied."""


def owned_data(data: Array, dtype: np.dtype[Any]) -> Array:
    """``data`` in C order with elements ``dtype``, in memory that nothing else can write to."""
    source: object = data
    frozen = True
    while isinstance(source, np.ndarray | memoryview):
        frozen = frozen and (source.readonly if isinstance(source, memoryview) else not source.flags.writeable)
        source = source.obj if isinstance(source, memoryview) else source.base
    if isinstance(source, mmap.mmap):
        return _copied_by_blocks(data, dtype, source)
    if frozen and isinstance(source, bytes | None) and data.dtype == dtype and data.flags.c_contiguous and data.flags.aligned:
        return data
    return np.array(data, dtype=dtype, order="C")


def _copied_by_blocks(data: Array, dtype: np.dtype[Any], source: mmap.mmap) -> Array:
    result = np.empty(data.shape, dtype)
    if not data.ndim or not data.size:
        result[...] = data
        return result
    outermost = int(np.argmax(np.abs(data.strides)))  # a block of this axis lies together in the file
    rows = max(BLOCK * data.shape[outermost] // max(data.nbytes, 1), 1)
    for start in range(0, data.shape[outermost], rows):
        block = (slice(None),) * outermost + (slice(start, start + rows),)
        result[block] = data[block]
        if hasattr(mmap, "MADV_DONTNEED"):
            source.madvise(mmap.MADV_DONTNEED)
    return result
