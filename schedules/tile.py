"""Choosing the register tile and the tasks of a direct convolution: plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from qcompiler.schedules.dot_product import DEPTH, DotProduct

SCRATCH_BYTES: Final = 32 * 1024
"""Padded rows that a task copies, at most."""
LARGE_SCRATCH_BYTES: Final = 48 * 1024
"""The same where all rows in one task save walking large weights again."""
_SHORT_STEPS: Final = 12
_SHORT_ACCUMULATORS: Final = 16
RESIDENT_BYTES: Final = 1 << 20
"""Weights above this are walked once, with all pixels inside; below it pixels are walked once."""
_EPILOGUE_CYCLES: Final = 12.0
_FIRST_LEVEL_BYTES: Final = 32 * 1024
_SECOND_LEVEL_RATE: Final = 32.0
"""Bytes per cycle of weights that the first-level cache cannot hold."""
_TASKS: Final = 8


@dataclass(frozen=True)
class Problem:
    """A convolution as the tiling sees it: ``blocks`` output vectors, ``steps`` dot products for each."""

    out_height: int
    out_width: int
    blocks: int
    steps: int
    weight_bytes: int
    copied: bool
    stride: int
    reach: tuple[int, int]  # input rows and columns beyond the first that one output needs
    column_stride: int
    channel_bytes: int  # of one pixel of the copied rows
    row_bytes: int  # after the pixels of a copied row
    group_blocks: int  # vectors that read the same input channels
    most_blocks: int = 32  # vectors of a tile, at most
    most_accumulators: int = 32
    together: int = 1  # vectors whose weights lie side by side

    def scratch_bytes(self, rows: int, columns: int) -> int:
        """Bytes of input that a task of so many output rows and columns copies."""
        if not self.copied:
            return 0
        height = (rows - 1) * self.stride + self.reach[0] + 1
        width = (columns - 1) * self.column_stride + self.reach[1] + 1
        return height * (width * self.channel_bytes + self.row_bytes)

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


Tiling = tuple[Tile, ...]
"""Tiles of the parts of the output's width, from left to right."""


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    return [value for value in range(1, number + 1) if number % value == 0]


@dataclass(frozen=True)
class _RegisterTile:
    """Pixels and vectors in registers, with the estimated ``cycles`` of the whole layer."""

    cycles: float
    pixel_rows: int
    pixel_columns: int
    blocks: int


def _register_tiles(problem: Problem, instruction: DotProduct) -> Iterator[_RegisterTile]:
    """Every tile that registers hold."""
    width = problem.out_width
    # Few steps are unrolled whole, and then LLVM wants registers for the weights of all of them.
    allowed = min(instruction.accumulators, problem.most_accumulators)
    if problem.steps <= _SHORT_STEPS:
        allowed = min(allowed, _SHORT_ACCUMULATORS)
    for blocks in problem.block_choices:
        for columns in [value for value in range(1, min(width, instruction.registers) + 1) if width % value == 0]:
            for rows in (1, 2, 4) if columns == width else (1,):
                pixels = rows * columns
                dots = pixels * blocks
                registers = dots + min(pixels, blocks) + 2
                if problem.out_height % rows or dots > allowed or registers > instruction.registers:
                    continue
                issue = (dots * instruction.operations + pixels + blocks + 2) / 5.5
                word_bytes = blocks * instruction.lanes * DEPTH
                second_level = word_bytes / _SECOND_LEVEL_RATE if problem.steps * word_bytes > _FIRST_LEVEL_BYTES else 0.0
                cycles = max(dots / instruction.rate, (pixels + blocks) / 1.7, instruction.latency, issue, second_level)
                tiles = problem.out_height // rows * (width // columns) * (problem.blocks // blocks)
                total = tiles * (cycles * problem.steps + _EPILOGUE_CYCLES + 4.0 * dots)
                yield _RegisterTile(total, rows, columns, blocks)


def _best_register_tile(problem: Problem, instruction: DotProduct) -> _RegisterTile:
    """The cheapest; of nearly equal ones the first."""
    best = _RegisterTile(math.inf, 1, 1, 1)
    for tile in _register_tiles(problem, instruction):
        if tile.cycles < best.cycles * 0.999:
            best = tile
    return best


def split_width(problem: Problem, instruction: DotProduct) -> tuple[int, ...]:
    """Output widths that get a tile of their own: all of it, or a main part and what is left where no tile divides well."""
    width = problem.out_width
    best = _best_register_tile(problem, instruction).cycles
    parts: tuple[int, ...] = (width,)
    for tile in range(4, min(width // 2, instruction.accumulators) + 1):
        for multiple in (1, 4, 16):
            rest = width % (tile * multiple)
            main = width - rest
            if not rest or not main:
                continue
            cycles = sum(_best_register_tile(replace(problem, out_width=part), instruction).cycles for part in (main, rest))
            if cycles < best * 0.9:
                best, parts = cycles / 0.9, (main, rest)
    return parts


def choose_tile(problem: Problem, instruction: DotProduct) -> Tile | None:
    """The tile, or None where not even one tile's rows fit the scratch."""
    best = _best_register_tile(problem, instruction)
    pixel_rows, pixel_columns, blocks = best.pixel_rows, best.pixel_columns, best.blocks
    row_choices = [value for value in divisors(problem.out_height) if value % pixel_rows == 0]
    column_choices = [value * pixel_columns for value in divisors(problem.out_width // pixel_columns)][::-1]
    fitting = [
        (rows, columns)
        for columns in column_choices
        for rows in row_choices
        if problem.scratch_bytes(rows, columns) <= SCRATCH_BYTES
    ]
    whole = (problem.out_height, problem.out_width)
    if problem.weight_bytes > RESIDENT_BYTES and problem.scratch_bytes(*whole) <= LARGE_SCRATCH_BYTES:
        return Tile(problem.out_width, pixel_rows, pixel_columns, blocks, *whole, blocks)
    if not fitting:
        return None

    def tiles(choice: tuple[int, int]) -> int:
        return choice[0] // pixel_rows * (choice[1] // pixel_columns)

    def rank(choice: tuple[int, int]) -> tuple[float, ...]:
        tasks = problem.out_height * problem.out_width // (choice[0] * choice[1])
        halo = problem.scratch_bytes(*choice) / (choice[0] * choice[1]) if problem.copied else 0.0
        return (min(tiles(choice), 4) * -1.0, min(tasks, _TASKS) * -1.0, halo, tiles(choice))

    rows, columns = min(fitting, key=rank)
    tasks = problem.out_height * problem.out_width // (rows * columns)
    task_blocks = problem.blocks
    groups = problem.blocks // blocks
    if tasks < _TASKS and not problem.copied:
        split = min((value for value in divisors(groups) if value * tasks >= _TASKS), default=groups)
        task_blocks = groups // split * blocks
    elif tasks < _TASKS and tasks % 2:  # halves for two threads; the rows are copied twice
        split = min((value for value in divisors(groups) if value >= 2), default=1)
        task_blocks = groups // split * blocks
    return Tile(problem.out_width, pixel_rows, pixel_columns, blocks, rows, columns, task_blocks)


def choose_tiling(problem: Problem, instruction: DotProduct) -> Tiling:
    """The tiles of all parts of the width; empty where one part has none."""
    chosen = [choose_tile(replace(problem, out_width=width), instruction) for width in split_width(problem, instruction)]
    found = tuple(tile for tile in chosen if tile is not None)
    return found if len(found) == len(chosen) else ()
