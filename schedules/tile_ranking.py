"""Which tilings of a direct convolution are worth a measurement beside the model's choice."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from qcompiler.schedules.dot_product import DotProduct
from qcompiler.schedules.tile import (
    LARGE_SCRATCH_BYTES,
    MOST_TASKS,
    RegisterTile,
    best_register_tile,
    choose_tile,
    pixel_choices,
    register_tiles,
    task_shape,
    tile_of,
)
from qcompiler.schedules.tiling import Problem, Tiling, tasks_of

REGISTER_TILES: Final = 6
"""So many of the register tiles that seem cheapest are worth a measurement,"""
SHAPED_TILES: Final = 2
"""and so many of these also with other tasks than the model's,"""
_SHAPE_COUNT: Final = 4
MOST_TILINGS: Final = 9
"""but not more than so many in all."""
WORTH_TRYING: Final = 1.5
"""A tile that seems to take longer than the cheapest by this factor is not worth a measurement."""


def rank_tilings(problem: Problem, instruction: DotProduct, chosen: Tiling) -> tuple[Tiling, ...]:
    """Other tilings than the ``chosen`` one that are worth a measurement, the most promising first.

    They have as many tasks as the chosen one, or enough: what is fastest on one thread must not be slow on several.
    """
    most = min(MOST_TASKS, tasks_of(problem, chosen))
    ranked = _ranked_parts(problem, instruction)
    found: dict[Tiling, None] = {}
    for turn in range(_SHAPE_COUNT):
        for main, registers, rest in ranked[: REGISTER_TILES if turn == 0 else SHAPED_TILES]:
            shapes = _task_shapes(main, registers)
            if turn < len(shapes):
                found[tile_of(main, registers, shapes[turn]), *rest] = None
    return tuple(tiling for tiling in found if tiling != chosen and tasks_of(problem, tiling) >= most)[:MOST_TILINGS]


def _ranked_parts(problem: Problem, instruction: DotProduct) -> list[tuple[Problem, RegisterTile, Tiling]]:
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
            rest, rest_cycles = (tile,), best_register_tile(left, instruction).cycles
        found += [(registers.cycles + rest_cycles, main, registers, rest) for registers in register_tiles(main, instruction)]
    found.sort(key=lambda entry: entry[0])
    first: dict[tuple[int, ...], tuple[Problem, RegisterTile, Tiling]] = {}
    for cycles, main, registers, rest in found:
        if cycles <= found[0][0] * WORTH_TRYING:
            shape = (registers.pixel_rows, registers.pixel_columns, registers.blocks)
            first.setdefault(shape, (main, registers, rest))
    return list(first.values())


def _task_shapes(problem: Problem, registers: RegisterTile) -> list[tuple[int, int, int]]:
    """The model's tasks; all pixels with few vectors, so that weights are walked once; few pixels with all vectors."""
    chosen = task_shape(problem, registers)
    if chosen is None:
        return []
    shapes = [chosen]
    whole = (problem.out_height, problem.out_width)
    if problem.copied_bytes(*whole) <= LARGE_SCRATCH_BYTES:
        shapes.append((*whole, registers.blocks))
    choices = pixel_choices(problem, registers)
    if choices:
        shapes.append((*min(choices, key=lambda choice: (choice[0] * choice[1], -choice[1])), problem.blocks))
        shapes.append((*max(choices, key=lambda choice: (choice[0] * choice[1], choice[1])), problem.blocks))
    return list(dict.fromkeys(shapes))
