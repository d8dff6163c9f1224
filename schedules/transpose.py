"""Rows to pixels and back: square blocks of 16 bytes a side, turned by rounds of pairwise interleaving.

Rows are ``[channels, pixels]`` dense, pixels are ``[pixels, stored channels]``. The last block of pixels begins
early enough to be whole, so it writes some codes a second time, with the same value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import tvm.tirx.script.builder.ir as tir

from qcompiler.backend.kernel import physical_channels
from qcompiler.schedules.loops import load, splat, store

BLOCK_BYTES: Final = 16


def rows_to_pixels(x: Any, y: Any, dtype: str, images: int, channels: int, pixels: int, x_image: int, tasks: int) -> None:
    """Emit ``x[image, channel, pixel]`` to ``y[image, pixel, channel]``. Padding channels become 0."""
    side = BLOCK_BYTES // np.dtype(dtype).itemsize
    stored = physical_channels(channels)
    nothing = splat(tir.cast(0, dtype), side)

    def block(image: Any, pixel: Any) -> None:
        width = min(side, stored)
        base, place = tir.Bind(image * x_image + pixel), tir.Bind((image * pixels + pixel) * stored)
        for first in range(0, stored, width):
            rows = [
                tir.Bind(load(x, base + channel * pixels, side)) if channel < channels else nothing
                for channel in range(first, first + width)
            ]
            if width == stored:  # all channels of successive pixels follow each other
                for vector, turned in enumerate(interleaved(rows, side)):
                    store(y, turned, place + vector * side, side)
            else:
                for offset, turned in enumerate(interleaved(rows, side)):
                    store(y, turned, place + offset * stored + first, side)

    _over_blocks(images, pixels, side, tasks, block)


def pixels_to_rows(x: Any, y: Any, dtype: str, images: int, channels: int, pixels: int, y_image: int, tasks: int) -> None:
    """Emit ``x[image, pixel, channel]`` to ``y[image, channel, pixel]``."""
    side = BLOCK_BYTES // np.dtype(dtype).itemsize
    stored = physical_channels(channels)

    def block(image: Any, pixel: Any) -> None:
        base, place = tir.Bind((image * pixels + pixel) * stored), tir.Bind(image * y_image + pixel)
        if stored < side:
            vectors = [tir.Bind(load(x, base + vector * side, side)) for vector in range(stored)]
            for channel in range(channels):
                picked = range(channel, side * stored, stored)
                store(y, tir.Shuffle(vectors, list(picked)), place + channel * pixels, side)
            return
        for first in range(0, stored, side):
            taken = [tir.Bind(load(x, base + offset * stored + first, side)) for offset in range(side)]
            for offset, turned in enumerate(interleaved(taken, side)):
                if first + offset < channels:
                    store(y, turned, place + (first + offset) * pixels, side)

    _over_blocks(images, pixels, side, tasks, block)


def _over_blocks(images: int, pixels: int, side: int, tasks: int, block: Callable[[Any, Any], None]) -> None:
    """Loops over images and blocks of ``side`` pixels."""
    blocks = -(-pixels // side)
    parts = min(tasks, blocks)
    per_part = -(-blocks // parts)
    with tir.serial(images * parts) as task:
        image, part = tir.Bind(task // parts), tir.Bind(task % parts)
        with tir.serial(part * per_part, tir.min((part + 1) * per_part, blocks)) as place:
            block(image, tir.Bind(tir.min(place * side, pixels - side)))


def interleaved(rows: list[Any], side: int) -> list[Any]:
    """``rows[r][lane]`` as the sequence ``[lane][r]``, again in vectors of ``side`` lanes; rows are a power of two."""
    count = len(rows)
    low = [lane // 2 + lane % 2 * side for lane in range(side)]
    high = [place + side // 2 for place in low]
    while count > 1:
        # one round joins row r with row r + count / 2; a joined row is a run of several vectors
        half = len(rows) // 2
        joined: list[Any] = []
        for a, b in zip(rows[:half], rows[half:], strict=True):
            joined += [tir.Bind(tir.Shuffle([a, b], low)), tir.Bind(tir.Shuffle([a, b], high))]
        rows = joined
        count //= 2
    return rows
