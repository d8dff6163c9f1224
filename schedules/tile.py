"""Choosing the register tile and the tasks of a direct convolution: plain numbers in, plain numbers out."""

from __future__ import annotations

import math
import re
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
_TILE: Final = re.compile(r"(\d+):(\d+)x(\d+)x(\d+)/(\d+)x(\d+)x(\d+)")
REGISTER_TILES: Final = 6
"""So many of the register tiles that seem cheapest are worth a measurement,"""
SHAPED_TILES: Final = 2
"""and so many of these also with other tasks than the model's,"""
_SHAPES: Final = 4
MOST_TILINGS: Final = 9
"""but not more than so many in all."""
WORTH_TRYING: Final = 1.5
"""A tile that seems to take longer than the cheapest by this factor is not worth a measurement."""


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

    def __str__(self) -> str:
        registers = f"{self.pixel_rows}x{self.pixel_columns}x{self.blocks}"
        return f"{self.width}:{registers}/{self.rows}x{self.columns}x{self.task_blocks}"


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
    registers = _best_register_tile(problem, instruction)
    shape = _task_shape(problem, registers)
    return None if shape is None else _tile(problem, registers, shape)


def _tile(problem: Problem, registers: _RegisterTile, shape: tuple[int, int, int]) -> Tile:
    return Tile(problem.out_width, registers.pixel_rows, registers.pixel_columns, registers.blocks, *shape)


def _pixel_choices(problem: Problem, registers: _RegisterTile) -> list[tuple[int, int]]:
    """Rows and columns that a task may have, if its copied rows are to fit the scratch; the widest first."""
    rows = [value for value in divisors(problem.out_height) if value % registers.pixel_rows == 0]
    tiles = divisors(problem.out_width // registers.pixel_columns)[::-1]
    choices = [(height, value * registers.pixel_columns) for value in tiles for height in rows]
    return [choice for choice in choices if problem.scratch_bytes(*choice) <= SCRATCH_BYTES]


def _task_shape(problem: Problem, registers: _RegisterTile) -> tuple[int, int, int] | None:
    """Rows, columns and vectors of a task."""
    whole = (problem.out_height, problem.out_width)
    if problem.weight_bytes > RESIDENT_BYTES and problem.scratch_bytes(*whole) <= LARGE_SCRATCH_BYTES:
        return (*whole, registers.blocks)
    fitting = _pixel_choices(problem, registers)
    if not fitting:
        return None

    def tiles(choice: tuple[int, int]) -> int:
        return choice[0] // registers.pixel_rows * (choice[1] // registers.pixel_columns)

    def rank(choice: tuple[int, int]) -> tuple[float, ...]:
        tasks = problem.out_height * problem.out_width // (choice[0] * choice[1])
        halo = problem.scratch_bytes(*choice) / (choice[0] * choice[1]) if problem.copied else 0.0
        return (min(tiles(choice), 4) * -1.0, min(tasks, _TASKS) * -1.0, halo, tiles(choice))

    rows, columns = min(fitting, key=rank)
    tasks = problem.out_height * problem.out_width // (rows * columns)
    task_blocks = problem.blocks
    groups = problem.blocks // registers.blocks
    if tasks < _TASKS and not problem.copied:
        split = min((value for value in divisors(groups) if value * tasks >= _TASKS), default=groups)
        task_blocks = groups // split * registers.blocks
    elif tasks < _TASKS and tasks % 2:  # halves for two threads; the rows are copied twice
        split = min((value for value in divisors(groups) if value >= 2), default=1)
        task_blocks = groups // split * registers.blocks
    return rows, columns, task_blocks


def choose_tiling(problem: Problem, instruction: DotProduct) -> Tiling:
    """The tiles of all parts of the width, as the model chooses; empty where one part has none."""
    chosen = [choose_tile(replace(problem, out_width=width), instruction) for width in split_width(problem, instruction)]
    found = tuple(tile for tile in chosen if tile is not None)
    return found if len(found) == len(chosen) else ()


def tiling_text(tiling: Tiling) -> str:
    """``width:pixel_rows x pixel_columns x blocks/rows x columns x task_blocks`` of every part, as in ``28:1x14x2/4x28x8``."""
    return "+".join(map(str, tiling))


def parse_tiling(text: str) -> Tiling:
    """The tiling of a text of :func:`tiling_text`. Raises ValueError where it is none."""
    parts = [_TILE.fullmatch(part) for part in text.split("+")]
    if not all(parts):
        raise ValueError(f"{text!r} is no tiling such as 28:1x14x2/4x28x8")
    return tuple(Tile(*map(int, part.groups())) for part in parts if part)


def scratch_bytes(problem: Problem, tile: Tile, unpacked_bytes: int) -> int:
    """Of a task: rows that it copies, and ``unpacked_bytes`` for the weights of every vector of a tile."""
    return problem.scratch_bytes(tile.rows, tile.columns) + tile.blocks * unpacked_bytes


def refusal(problem: Problem, instruction: DotProduct, tiling: Tiling, unpacked_bytes: int, stack_bytes: int) -> str:
    """Why a convolution cannot be tiled so; "" if it can. ``unpacked_bytes``: see :func:`scratch_bytes`."""
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
        pixels = tile.pixel_rows * tile.pixel_columns
        registers = pixels * tile.blocks + min(pixels, tile.blocks) + 2
        if registers > instruction.registers:
            return f"{tile} needs {registers} registers of {instruction.registers}"
    needed = sum(scratch_bytes(problem, tile, unpacked_bytes) for tile in tiling)
    return f"it needs {needed} bytes of stack of {stack_bytes}" if needed > stack_bytes else ""


def rank_tilings(problem: Problem, instruction: DotProduct, chosen: Tiling) -> tuple[Tiling, ...]:
    """Other tilings than the ``chosen`` one that are worth a measurement, the most promising first.

    They have as many tasks as the chosen one, or enough: what is fastest on one thread must not be slow on several.
    """
    most = min(_TASKS, tasks_of(problem, chosen))
    ranked = _ranked_parts(problem, instruction)
    found: dict[Tiling, None] = {}
    for turn in range(_SHAPES):
        for main, registers, rest in ranked[: REGISTER_TILES if turn == 0 else SHAPED_TILES]:
            shapes = _task_shapes(main, registers)
            if turn < len(shapes):
                found[_tile(main, registers, shapes[turn]), *rest] = None
    return tuple(tiling for tiling in found if tiling != chosen and tasks_of(problem, tiling) >= most)[:MOST_TILINGS]


def tasks_of(problem: Problem, tiling: Tiling) -> int:
    """Tasks of one sample, of which threads take as many as they can."""
    return sum(
        problem.out_height // tile.rows * (tile.width // tile.columns) * (problem.blocks // tile.task_blocks) for tile in tiling
    )


def _ranked_parts(problem: Problem, instruction: DotProduct) -> list[tuple[Problem, _RegisterTile, Tiling]]:
    """Main part of the width, its register tile, and the model's tile of what is left; the cheapest first.

    Of several widths for one register tile there is the cheapest.
    """
    width = problem.out_width
    tiles = range(4, instruction.accumulators + 1)
    mains = {width, *(width - width % (tile * multiple) for tile in tiles for multiple in (1, 4))}
    found = []
    for part in sorted(mains - {0}, reverse=True):
        main = replace(problem, out_width=part)
        rest: Tiling = ()
        rest_cycles = 0.0
        if part < width:
            left = replace(problem, out_width=width - part)
            tile = choose_tile(left, instruction)
            if tile is None:
                continue
            rest, rest_cycles = (tile,), _best_register_tile(left, instruction).cycles
        found += [(registers.cycles + rest_cycles, main, registers, rest) for registers in _register_tiles(main, instruction)]
    found.sort(key=lambda entry: entry[0])
    first: dict[tuple[int, ...], tuple[Problem, _RegisterTile, Tiling]] = {}
    for cycles, main, registers, rest in found:
        if cycles <= found[0][0] * WORTH_TRYING:
            shape = (registers.pixel_rows, registers.pixel_columns, registers.blocks)
            first.setdefault(shape, (main, registers, rest))
    return list(first.values())


def _task_shapes(problem: Problem, registers: _RegisterTile) -> list[tuple[int, int, int]]:
    """The model's tasks; all pixels with few vectors, so that weights are walked once; few pixels with all vectors."""
    chosen = _task_shape(problem, registers)
    if chosen is None:
        return []
    shapes = [chosen]
    whole = (problem.out_height, problem.out_width)
    if problem.scratch_bytes(*whole) <= LARGE_SCRATCH_BYTES:
        shapes.append((*whole, registers.blocks))
    choices = _pixel_choices(problem, registers)
    if choices:
        shapes.append((*min(choices, key=lambda choice: (choice[0] * choice[1], -choice[1])), problem.blocks))
        shapes.append((*max(choices, key=lambda choice: (choice[0] * choice[1], choice[1])), problem.blocks))
    return list(dict.fromkeys(shapes))
