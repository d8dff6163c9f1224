"""What a tiling of a direct convolution is, and whether it fits: plain numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qcompiler.schedules.dot_product import DotProduct

STACK_BYTES: Final = 63 << 10
"""What :func:`scratch_bytes` may be: a KiB less than what a kernel may use."""
_SUM_BYTES: Final = 4
_TILE: Final = re.compile(r"(\d+):(\d+)x(\d+)x(\d+)/(\d+)x(\d+)x(\d+)")


@dataclass(frozen=True)
class Problem:
    """A convolution as the tiling sees it: ``blocks`` output vectors, ``steps`` dot products for each."""

    out_height: int
    out_width: int
    blocks: int
    lanes: int  # outputs of a vector
    steps: int
    weight_bytes: int
    copied: bool
    stride: int
    reach: tuple[int, int]  # input rows and columns beyond the first that one output needs
    column_stride: int
    channel_bytes: int  # of one pixel of the copied rows
    row_bytes: int  # after the pixels of a copied row
    group_blocks: int  # vectors that read the same input channels
    uneven: bool = False  # others do not always begin to read as many channels further on
    most_blocks: int = 32  # vectors of a tile, at most
    most_accumulators: int = 32
    together: int = 1  # vectors whose weights lie side by side
    unpacked_bytes: int = 0  # of a vector's weights, that a task keeps unpacked at a time
    by_taps: bool = False  # those of one tap; meanwhile a task keeps the sums of all its pixels

    def copied_bytes(self, rows: int, columns: int) -> int:
        """Bytes of input that a task of so many output rows and columns copies."""
        if not self.copied:
            return 0
        height = (rows - 1) * self.stride + self.reach[0] + 1
        width = (columns - 1) * self.column_stride + self.reach[1] + 1
        return height * (width * self.channel_bytes + self.row_bytes)

    def copies_evenly(self, task_blocks: int) -> bool:
        """Whether all tasks of so many vectors copy equally many channels, if they copy."""
        if not self.copied or task_blocks == self.blocks:
            return True
        return not self.uneven and (task_blocks % self.group_blocks == 0 or self.group_blocks % task_blocks == 0)

    @property
    def block_choices(self) -> list[int]:
        """Vectors that a tile may have: for a single pixel, all whose weights are one stream."""
        if self.together > 1 and self.out_height * self.out_width == 1:
            return [self.together]
        return [value for value in divisors(self.group_blocks) if value <= self.most_blocks]


@dataclass(frozen=True)
class Tile:
    """``pixel_rows x pixel_columns`` pixels by ``blocks`` vectors in registers; tasks of ``rows x columns``, ``task_blocks``.

    It serves ``width`` columns of the output, all of them or a part.
    """

    width: int
    pixel_rows: int
    pixel_columns: int
    blocks: int
    rows: int
    columns: int
    task_blocks: int

    def __str__(self) -> str:
        registers = f"{self.pixel_rows}x{self.pixel_columns}x{self.blocks}"
        return f"{self.width}:{registers}/{self.rows}x{self.columns}x{self.task_blocks}"


Tiling = tuple[Tile, ...]
"""Tiles of the parts of the output's width, from left to right."""


def tiling_text(tiling: Tiling) -> str:
    """``width:pixel_rows x pixel_columns x blocks/rows x columns x task_blocks`` of every part, as in ``28:1x14x2/4x28x8``."""
    return "+".join(map(str, tiling))


def parse_tiling(text: str) -> Tiling:
    """The tiling of a text of :func:`tiling_text`. Raises ValueError where it is none."""
    parts = [_TILE.fullmatch(part) for part in text.split("+")]
    if not all(parts):
        raise ValueError(f"{text!r} is no tiling such as 28:1x14x2/4x28x8")
    return tuple(Tile(*map(int, part.groups())) for part in parts if part)


def scratch_bytes(problem: Problem, tile: Tile) -> int:
    """What a task keeps: rows that it copies, unpacked weights, and sums."""
    pixels = tile.rows * tile.columns if problem.by_taps else tile.pixel_rows * tile.pixel_columns
    vector_bytes = problem.unpacked_bytes + pixels * problem.lanes * _SUM_BYTES
    return problem.copied_bytes(tile.rows, tile.columns) + tile.blocks * vector_bytes


def refusal(problem: Problem, instruction: DotProduct, tiling: Tiling) -> str:
    """Why a convolution cannot be tiled so; "" if it can."""
    if sum(tile.width for tile in tiling) != problem.out_width:
        return f"its parts are not {problem.out_width} columns together"
    for tile in tiling:
        chain = (
            ("rows of pixels", tile.pixel_rows, tile.rows),
            ("rows of a task", tile.rows, problem.out_height),
            ("columns of pixels", tile.pixel_columns, tile.columns),
            ("columns of a task", tile.columns, tile.width),
            ("vectors", tile.blocks, tile.task_blocks),
            ("vectors", tile.blocks, problem.group_blocks),
            ("vectors of a task", tile.task_blocks, problem.blocks),
        )
        for what, part, whole in chain:
            if part < 1 or whole % part:
                return f"{part} {what} do not divide {whole}"
        if not problem.copies_evenly(tile.task_blocks):
            return f"tasks of {tile.task_blocks} vectors read unequal numbers of channels"
        pixels = tile.pixel_rows * tile.pixel_columns
        registers = pixels * tile.blocks + min(pixels, tile.blocks) + 2
        if registers > instruction.registers:
            return f"{tile} needs {registers} registers of {instruction.registers}"
    needed = sum(scratch_bytes(problem, tile) for tile in tiling)
    return f"it needs {needed} bytes of stack of {STACK_BYTES}" if needed > STACK_BYTES else ""


def tasks_of(problem: Problem, tiling: Tiling) -> int:
    """Tasks of the widest part: those that threads share."""
    tile = max(tiling, key=lambda part: part.width)
    return problem.out_height // tile.rows * (tile.width // tile.columns) * (problem.blocks // tile.task_blocks)


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    return [value for value in range(1, number + 1) if number % value == 0]
