"""Where a chain of moves takes every element of its result from, and the loops that say the same.

The map of one sample is an array of places in the source, in the order in which the result is stored. It nearly always
falls apart into one table an axis whose sum it is; a table mostly is a nest of even steps (``stride * i``), however the chain
of reshapes and transpositions looked. Adjacent loops that continue each other become one, so that what moves in long runs
is seen to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, assert_never

import numpy as np

from qcompiler.backend.image import PHYSICAL
from qcompiler.backend.kernel import Move, MoveSpec, physical_channels

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Loop:
    """``extent`` elements, ``y_stride`` apart in the result; in the source ``x_stride`` apart, or where ``table`` says."""

    extent: int
    y_stride: int
    x_stride: int
    table: tuple[int, ...] = ()


@dataclass(frozen=True)
class Nest:
    """Loops from the outermost that write a part of a sample, beginning at ``y_start``.

    After the innermost ``channel_loops`` of them, ``zeros`` padding channels, ``zeros_at`` from the first channel, become 0.
    """

    y_start: int
    loops: tuple[Loop, ...]
    channel_loops: int = 0
    zeros_at: int = 0
    zeros: int = 0


@dataclass(frozen=True)
class IndexMap:
    """A sample's map: what is copied from ``x_start`` on, after what is filled because some of it has no source.

    ``scattered``: the map has no loops; ``copy`` runs over the whole part, whose places stand in a table.
    """

    x_start: int
    copy: Nest | None
    fill: Nest | None = None
    scattered: bool = False


def strides(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """How far apart neighbours along every axis are stored, the batch included."""
    order = memory_order(len(shape), layout)
    found = [0] * len(shape)
    step = 1
    for axis in reversed(order):
        found[axis] = step
        step *= physical_channels(shape[1]) if axis == 1 and layout == PHYSICAL else shape[axis]
    return tuple(found)


def memory_order(rank: int, layout: str) -> tuple[int, ...]:
    """The axes as they are stored, outermost first."""
    return (0, *range(2, rank), 1) if layout == PHYSICAL and rank > 2 else tuple(range(rank))


def stored_array(data: Array, layout: str) -> Array:
    """A tensor as it lies in memory, padding channels 0."""
    missing = _stored_channels(data.shape, layout) - data.shape[1]
    moved = data.transpose(memory_order(data.ndim, layout))
    return np.ascontiguousarray(np.pad(moved, [(0, 0)] * (data.ndim - 1) + [(0, missing)]) if missing else moved)


def moved_shape(shape: tuple[int, ...], moves: tuple[Move, ...]) -> tuple[int, ...]:
    """The shape after a chain of moves."""
    places: Array = np.empty((1, *shape[1:]), dtype=np.bool_)
    for move in moves:
        places = _apply(move, places)
    return (shape[0], *places.shape[1:])


def _apply(move: Move, places: Array) -> Array:
    """One move on an array with a batch of 1; what a pad adds is -1."""
    arguments = move.arguments
    match move.kind:
        case "transpose":
            return places.transpose(arguments[0])
        case "take":
            return places.take(np.array(arguments[1], dtype=np.int64), axis=arguments[0][0])
        case "slice":
            for axis, start, stop, step in zip(*arguments, strict=True):
                places = places.take(np.arange(start, stop, step), axis=axis)
            return places
        case "pad":
            return np.pad(places, list(zip(*arguments, strict=True)), constant_values=-1)
        case "reshape":
            return places.reshape(1, *arguments[0][1:])
        case _:
            assert_never(move.kind)


def source_places(spec: MoveSpec) -> Array:
    """For every element of a sample of the result (or its part), in the order of memory, its place in the source's sample."""
    shape = (1, *spec.in_shape[1:])
    dtype = np.int32 if 16 * prod(spec.in_shape) < 1 << 31 else np.int64  # channels are padded at most that much
    axes = np.meshgrid(*(np.arange(extent, dtype=dtype) for extent in shape), indexing="ij", sparse=True)
    places: Array = np.zeros(shape, dtype=dtype)
    for index, step in zip(axes, strides(shape, spec.in_layout), strict=True):
        places = places + index * step
    for move in spec.moves:
        places = _apply(move, places)
    moved: Array = places.transpose(memory_order(places.ndim, spec.out_layout))[0]
    return moved


def is_unmoved(spec: MoveSpec) -> bool:
    """Whether every element of the result lies where it lay in the source, and both take as much memory."""
    alike = spec.in_layout == spec.out_layout and spec.in_shape[1] == spec.out_shape[1] and spec.offset == 0
    if not alike or prod(spec.in_shape) != prod(spec.out_shape):
        return False
    found = index_map(spec)
    run = prod(spec.in_shape[1:]) // spec.in_shape[1] * _stored_channels(spec.in_shape, spec.in_layout)
    return found.x_start == 0 and found.fill is None and found.copy == Nest(0, (Loop(run, 1, 1),))


def _stored_channels(shape: tuple[int, ...], layout: str) -> int:
    return physical_channels(shape[1]) if layout == PHYSICAL else shape[1]


def index_map(spec: MoveSpec) -> IndexMap:
    """The map of a spec, for one sample."""
    shapes = ((1, *spec.in_shape[1:]), (1, *spec.out_shape[1:]))
    return _index_map(MoveSpec(*shapes, spec.in_layout, spec.out_layout, "", spec.moves, spec.axis, spec.offset))


@lru_cache(maxsize=64)
def _index_map(spec: MoveSpec) -> IndexMap:
    places = source_places(spec)
    order = memory_order(len(spec.out_shape), spec.out_layout)[1:]
    steps = strides(spec.out_shape, spec.out_layout)
    part = dict(zip(order, places.shape, strict=True))
    padded = _stored_channels(spec.out_shape, spec.out_layout)
    ends = spec.axis != 1 or spec.offset + part[1] == spec.out_shape[1]
    zeros = padded - spec.out_shape[1] if ends else 0
    y_start = spec.offset * steps[spec.axis]
    every = {axis: [Loop(extent, steps[axis], 0)] for axis, extent in part.items()}
    whole = _nested(y_start, every, part[1], zeros)
    found = _tables(places)
    if found is None:
        loops = tuple(loop for axis in order for loop in every[axis])
        return IndexMap(0, Nest(y_start, loops, 1 if zeros else 0, part[1], zeros), scattered=True)
    x_start, firsts, tables = found
    if not all(len(table) for table in tables):
        return IndexMap(0, None, whole)
    fill = None if all(len(table) == part[axis] for table, axis in zip(tables, order, strict=True)) else whole
    y_start += sum(first * steps[axis] for first, axis in zip(firsts, order, strict=True))
    nests = {axis: _nest(table, steps[axis]) for axis, table in zip(order, tables, strict=True)}
    alike = spec.in_layout == spec.out_layout == PHYSICAL and spec.in_shape[1] == spec.out_shape[1] == part[1]
    straight = list(joined(tuple(nests[1]))) == list(joined((Loop(part[1], 1, 1),)))
    if zeros and fill is None and alike and straight and x_start % padded == 0:
        nests[1], zeros = [Loop(padded, 1, 1)], 0  # padding channels move along
    return IndexMap(x_start, _nested(y_start, nests, part[1], 0 if fill else zeros), fill)


def _nested(y_start: int, loops: Mapping[int, list[Loop]], zeros_at: int, zeros: int) -> Nest:
    """The nest of the loops of every axis, as few loops as possible."""
    if zeros:
        channels = joined(tuple(loops[1]))
        outer = joined(tuple(loop for axis, some in loops.items() if axis != 1 for loop in some))
        return Nest(y_start, (*outer, *channels), len(channels), zeros_at, zeros)
    return Nest(y_start, joined(tuple(loop for some in loops.values() for loop in some)) or (Loop(1, 1, 1),))


def _tables(places: Array) -> tuple[int, list[int], list[Array]] | None:
    """Where the inside begins in the source, its first index along every axis, and a table an axis; None without such a form."""
    firsts = [0] * places.ndim
    if places.min() < 0:
        inside = np.argwhere(places >= 0)
        if not len(inside):
            return 0, firsts, [np.empty(0, dtype=np.int64)] * places.ndim
        firsts = [int(first) for first in inside.min(axis=0)]
        places = places[tuple(slice(first, int(last) + 1) for first, last in zip(firsts, inside.max(axis=0), strict=True))]
        if places.min() < 0:
            return None
    start = int(places.flat[0])
    total: Array = np.array(start, dtype=places.dtype)
    tables = []
    for axis in range(places.ndim):
        table = np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1)[:, 0] - start
        tables.append(table)
        total = total + table.reshape([-1 if a == axis else 1 for a in range(places.ndim)])
    return (start, firsts, tables) if np.array_equal(total, places) else None


def _nest(table: Array, y_stride: int) -> list[Loop]:
    """The loops that run through a table: even steps within even steps, or the table itself."""
    found: list[Loop] = []
    rest, step = table, y_stride
    while len(rest) > 1:
        changes = np.flatnonzero(np.diff(rest) != rest[1] - rest[0])
        run = int(changes[0]) + 1 if len(changes) else len(rest)
        if run < 2 or len(rest) % run or not (rest.reshape(-1, run) - rest[::run, None] == rest[:run] - rest[0]).all():
            return [Loop(len(table), y_stride, 0, tuple(map(int, table)))]
        found.insert(0, Loop(run, step, int(rest[1] - rest[0])))
        rest, step = rest[::run], step * run
    return found


def joined(loops: tuple[Loop, ...]) -> tuple[Loop, ...]:
    """Loops of one turn left out, and those that continue each other made one."""
    found: list[Loop] = []
    for loop in loops:
        if loop.extent == 1:
            continue
        outer = found[-1] if found else None
        if (
            outer is not None
            and not outer.table
            and not loop.table
            and outer.y_stride == loop.y_stride * loop.extent
            and outer.x_stride == loop.x_stride * loop.extent
        ):
            found[-1] = Loop(outer.extent * loop.extent, loop.y_stride, loop.x_stride)
        else:
            found.append(loop)
    return tuple(found)
