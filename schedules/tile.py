"""The model that chooses the register tile and the tasks of a direct convolution: plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from qcompiler.schedules.dot_product import DEPTH, DotProduct
from qcompiler.schedules.tiling import STACK_BYTES, Problem, Tile, Tiling, divisors, scratch_bytes

SCRATCH_BYTES: Final = 32 * 1024
"""Padded rows that a task copies, at most."""
LARGE_SCRATCH_BYTES: Final = 48 * 1024
"""The same where all rows in one task save walking large weights again, and where not even a row of a tile fits."""
_SHORT_STEPS: Final = 12
_SHORT_ACCUMULATORS: Final = 16
RESIDENT_BYTES: Final = 1 << 20
"""Weights above this are walked once, with all pixels inside; below it pixels are walked once."""
_EPILOGUE_CYCLES: Final = 12.0
_FIRST_LEVEL_BYTES: Final = 32 * 1024
_SECOND_LEVEL_RATE: Final = 32.0
"""Bytes per cycle of weights that the first-level cache cannot hold."""
MOST_TASKS: Final = 8
"""More than threads will be: from here on it does not matter how many."""


@dataclass(frozen=True)
class RegisterTile:
    """Pixels and vectors in registers, with the estimated ``cycles`` of the whole layer."""

    cycles: float
    pixel_rows: int
    pixel_columns: int
    blocks: int


def register_tiles(problem: Problem, instruction: DotProduct) -> Iterator[RegisterTile]:
    """Every tile that registers hold, and whose input fits the scratch where it is copied."""
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
                if problem.copied_bytes(rows, columns) > LARGE_SCRATCH_BYTES:
                    continue
                issue = (dots * instruction.operations + pixels + blocks + 2) / 5.5
                word_bytes = blocks * instruction.lanes * DEPTH
                second_level = word_bytes / _SECOND_LEVEL_RATE if problem.steps * word_bytes > _FIRST_LEVEL_BYTES else 0.0
                cycles = max(dots / instruction.rate, (pixels + blocks) / 1.7, instruction.latency, issue, second_level)
                tiles = problem.out_height // rows * (width // columns) * (problem.blocks // blocks)
                total = tiles * (cycles * problem.steps + _EPILOGUE_CYCLES + 4.0 * dots)
                yield RegisterTile(total, rows, columns, blocks)


def best_register_tile(problem: Problem, instruction: DotProduct) -> RegisterTile:
    """The cheapest; of nearly equal ones the first."""
    best = RegisterTile(math.inf, 1, 1, 1)
    for tile in register_tiles(problem, instruction):
        if tile.cycles < best.cycles * 0.999:
            best = tile
    return best


def split_width(problem: Problem, instruction: DotProduct) -> tuple[int, ...]:
    """Output widths that get a tile of their own: all of it, or a main part and what is left where no tile divides well."""
    width = problem.out_width
    best = best_register_tile(problem, instruction).cycles
    parts: tuple[int, ...] = (width,)
    for tile in range(4, min(width // 2, instruction.accumulators) + 1):
        for multiple in (1, 4, 16):
            rest = width % (tile * multiple)
            main = width - rest
            if not rest or not main:
                continue
            cycles = sum(best_register_tile(replace(problem, out_width=part), instruction).cycles for part in (main, rest))
            if cycles < best * 0.9:
                best, parts = cycles / 0.9, (main, rest)
    return parts


def choose_tile(problem: Problem, instruction: DotProduct) -> Tile | None:
    """The tile, or None where not even one tile's rows fit the scratch."""
    registers = best_register_tile(problem, instruction)
    shape = task_shape(problem, registers)
    return None if shape is None else tile_of(problem, registers, shape)


def tile_of(problem: Problem, registers: RegisterTile, shape: tuple[int, int, int]) -> Tile:
    """The tile of a register tile and the rows, columns and vectors of a task."""
    return Tile(problem.out_width, registers.pixel_rows, registers.pixel_columns, registers.blocks, *shape)


def pixel_choices(problem: Problem, registers: RegisterTile) -> list[tuple[int, int]]:
    """Rows and columns that a task may have, if its copied rows are to fit the scratch; the widest first."""
    rows = [value for value in divisors(problem.out_height) if value % registers.pixel_rows == 0]
    tiles = divisors(problem.out_width // registers.pixel_columns)[::-1]
    choices = [(height, value * registers.pixel_columns) for value in tiles for height in rows]
    if problem.by_taps:
        shapes = {choice: tile_of(problem, registers, (*choice, registers.blocks)) for choice in choices}
        choices = [choice for choice, tile in shapes.items() if scratch_bytes(problem, tile) <= STACK_BYTES]
    most = LARGE_SCRATCH_BYTES if problem.by_taps else SCRATCH_BYTES
    fitting = [choice for choice in choices if problem.copied_bytes(*choice) <= most]
    return fitting or [choice for choice in choices if problem.copied_bytes(*choice) <= LARGE_SCRATCH_BYTES]


def task_shape(problem: Problem, registers: RegisterTile) -> tuple[int, int, int] | None:
    """Rows, columns and vectors of a task."""
    whole = (problem.out_height, problem.out_width)
    if problem.weight_bytes > RESIDENT_BYTES and problem.copied_bytes(*whole) <= LARGE_SCRATCH_BYTES:
        return (*whole, registers.blocks if problem.copies_evenly(registers.blocks) else problem.blocks)
    fitting = pixel_choices(problem, registers)
    if not fitting:
        return None

    def tiles(choice: tuple[int, int]) -> int:
        return choice[0] // registers.pixel_rows * (choice[1] // registers.pixel_columns)

    def rank(choice: tuple[int, int]) -> tuple[float, ...]:
        if problem.by_taps:  # weights are unpacked once for all pixels of a task
            return (-choice[0] * choice[1],)
        tasks = problem.out_height * problem.out_width // (choice[0] * choice[1])
        halo = problem.copied_bytes(*choice) / (choice[0] * choice[1]) if problem.copied else 0.0
        return (min(tiles(choice), 4) * -1.0, min(tasks, MOST_TASKS) * -1.0, halo, tiles(choice))

    rows, columns = min(fitting, key=rank)
    tasks = problem.out_height * problem.out_width // (rows * columns)
    task_blocks = problem.blocks
    groups = problem.blocks // registers.blocks
    if tasks < MOST_TASKS and (problem.by_taps or not problem.copied):
        split = min((value for value in divisors(groups) if value * tasks >= MOST_TASKS), default=groups)
        task_blocks = groups // split * registers.blocks
    elif tasks < MOST_TASKS and tasks % 2:  # halves for two threads; the rows are copied twice
        splits = (value for value in divisors(groups)[1:] if problem.copies_evenly(groups // value * registers.blocks))
        split = next(splits, 1)
        task_blocks = groups // split * registers.blocks
    return rows, columns, task_blocks


def choose_tiling(problem: Problem, instruction: DotProduct) -> Tiling:
    """The tiles of all parts of the width, as the model chooses; empty where one part has none."""
    chosen = [choose_tile(replace(problem, out_width=width), instruction) for width in split_width(problem, instruction)]
    found = tuple(tile for tile in chosen if tile is not None)
    return found if len(found) == len(chosen) else ()
