"""Chains of moves as nests of loops (:mod:`qcompiler.backend.index_map`): runs of vectors where codes stay side by side.

A nest whose innermost loop strides through the source, with another loop that does not, turns square blocks (a transposition).
All else, and maps that are no nest, go element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import numpy as np
import tvm.tirx.script.builder.ir as tir

from qcompiler.backend.image import Image
from qcompiler.backend.index_map import IndexMap, Loop, Nest, index_map, source_places
from qcompiler.backend.kernel import SCALARS, Kernel, MoveSpec, Scalar
from qcompiler.schedules.loops import Buffers, build_function, load, span, splat, store
from qcompiler.schedules.transpose import BLOCK_BYTES, interleaved

VECTOR_BYTES: Final = 64
TASKS: Final = 16
LONG_RUN: Final = 4096

Place = tuple[Any, Any]  # in the source and in the result
Leaf = Callable[[Place], None]


def build(spec: MoveSpec, instruction_set: str) -> Kernel:
    """The moves of ``spec``, one form for every instruction set."""
    del instruction_set
    found = index_map(spec)
    body = _Body(spec, found)
    source, result = (
        Image(shape, spec.dtype, layout) for shape, layout in ((spec.in_shape, spec.in_layout), (spec.out_shape, spec.out_layout))
    )
    images = 1 if spec.shared else spec.in_shape[0]
    arguments = {"x": (source.elements // spec.in_shape[0] * images, spec.dtype)}
    constants = {}
    if body.tables.size:
        constants["tables"] = body.tables
        arguments["tables"] = (body.tables.size, "int32")
    if body.fills:
        arguments["scalars"] = (SCALARS, "int32")
    arguments["y"] = (result.elements, spec.dtype)
    body.images = 0 if spec.shared else source.elements // spec.in_shape[0], result.elements // spec.in_shape[0]
    function = build_function(arguments, body.emit)
    return Kernel(
        function=function, arguments=tuple(arguments), tasks=body.tasks, schedule=f"move, {body.form}", constants=constants
    )


@dataclass(frozen=True)
class _Transposition:
    """The innermost loop (``inner``) and the loop that follows the source's memory (``across``), in blocks of ``side``."""

    inner: Loop
    across: Loop
    side: int


class _Body:
    """Emits the loops of one kernel."""

    def __init__(self, spec: MoveSpec, found: IndexMap) -> None:
        self.batch = spec.in_shape[0]
        self.dtype = spec.dtype
        self.item = np.dtype(spec.dtype).itemsize
        self.lanes = VECTOR_BYTES // self.item
        self.images = (0, 0)
        self.x_start = found.x_start
        self.scattered = found.scattered
        self.filled = found.fill
        places = source_places(spec) if found.scattered else np.empty(0, dtype=np.int64)
        self.fills = found.fill is not None or bool((places < 0).any())
        self.nest = found.copy or Nest(0, ())
        self.has_copy = found.copy is not None
        loops = list(self.nest.loops)
        if len(loops) == 1 and _is_run(loops[0]) and loops[0].extent >= 2 * LONG_RUN and not self.scattered:
            parts = next(parts for parts in range(TASKS, 0, -1) if loops[0].extent % parts == 0)
            size = loops[0].extent // parts
            loops = [Loop(parts, size, size), Loop(size, 1, 1)]
        self.table_at: dict[tuple[int, ...], int] = {}
        size = 0
        for loop in loops:
            if loop.table and loop.table not in self.table_at:
                self.table_at[loop.table] = size
                size += len(loop.table)
        content = places.ravel() if found.scattered else [place for table in self.table_at for place in table]
        self.tables = np.array(content, dtype=np.int32)
        channels = self.nest.channel_loops
        self.outer, self.channels = loops[: len(loops) - channels], loops[len(loops) - channels :]
        self.block = None if self.scattered else _transposition(loops, self.item)
        if self.block is not None:
            self.outer = [loop for loop in self.outer if loop not in (self.block.across, self.block.inner)]
            self.channels = [loop for loop in self.channels if loop not in (self.block.across, self.block.inner)]
        self.split = 0
        keep = 0 if self.nest.zeros or self.block else 1  # the innermost loop is no task
        while (
            self.split < len(self.outer) - keep
            and self.batch * prod(loop.extent for loop in self.outer[: self.split]) < TASKS
            and self.filled is None
        ):
            self.split += 1
        self.tasks = self.batch * prod(loop.extent for loop in self.outer[: self.split])

    @property
    def form(self) -> str:
        """How the innermost loop goes."""
        if self.block is not None:
            return f"blocks of {self.block.side}"
        last = self.nest.loops[-1] if self.nest.loops and self.has_copy and not self.scattered else None
        return f"runs of {last.extent}" if last is not None and _is_run(last) else "element by element"

    def emit(self, buffers: Buffers) -> None:
        nest = self.nest
        with tir.serial(self.tasks) as task:
            rest: Any = task
            indices: list[Any] = []
            for loop in reversed(self.outer[: self.split]):
                indices.insert(0, tir.Bind(rest % loop.extent))
                rest = tir.Bind(rest // loop.extent)
            if self.filled is not None:
                filled = replace(self.filled, y_start=0)
                self.fill(buffers, filled, (0, tir.Bind(rest * self.images[1] + self.filled.y_start)))
            place = (rest * self.images[0] + self.x_start, rest * self.images[1] + nest.y_start)
            if self.scattered:
                place = (tir.int32(0), place[1])
                self.image = tir.Bind(rest * self.images[0])
            for loop, index in zip(self.outer[: self.split], indices, strict=True):
                place = self.moved(buffers, place, loop, index)
            if self.has_copy:
                self.copy(buffers, (tir.Bind(place[0]), tir.Bind(place[1])))

    def moved(self, buffers: Buffers, place: Place, loop: Loop, index: Any) -> Place:
        """The places of one turn of a loop."""
        if self.scattered:
            return place[0] * loop.extent + index, place[1] + index * loop.y_stride
        step = buffers["tables"][self.table_at[loop.table] + index] if loop.table else index * loop.x_stride
        return place[0] + step, place[1] + index * loop.y_stride

    def loops(self, buffers: Buffers, loops: Sequence[Loop], place: Place, leaf: Leaf) -> None:
        """The loops around ``leaf``."""
        if not loops:
            leaf(place)
            return
        with tir.serial(loops[0].extent) as index:
            x, y = self.moved(buffers, place, loops[0], index)
            self.loops(buffers, loops[1:], (tir.Bind(x), tir.Bind(y)), leaf)

    def copy(self, buffers: Buffers, place: Place) -> None:
        """What is left of the nest inside of a task."""
        nest, block = self.nest, self.block

        def channels(place: Place) -> None:
            if block is not None:
                self.loops(buffers, self.channels, place, lambda at: self.turn(buffers, at, block))
                rows = block.across if block.across in nest.loops[: len(nest.loops) - nest.channel_loops] else None
                zeros = [Loop(rows.extent, rows.y_stride, 0)] if rows else []
            else:
                zeros = []
                self.inner(buffers, self.channels, place)
            if nest.zeros:
                self.loops(buffers, zeros, place, lambda at: self.run(buffers, at[1] + nest.zeros_at, nest.zeros, None))

        if nest.zeros or block is not None:
            self.loops(buffers, self.outer[self.split :], place, channels)
        else:
            self.inner(buffers, self.outer[self.split :], place)

    def inner(self, buffers: Buffers, loops: Sequence[Loop], place: Place) -> None:
        """Loops down to the elements; the last in vectors where it is a run."""
        if loops and _is_run(loops[-1]) and not self.scattered:
            self.loops(buffers, loops[:-1], place, lambda at: self.run(buffers, at[1], loops[-1].extent, at[0]))
        else:
            self.loops(buffers, loops, place, lambda at: self.element(buffers, at))

    def element(self, buffers: Buffers, place: Place) -> None:
        if not self.scattered:
            tir.buffer_store(buffers["y"], buffers["x"][place[0]], [place[1]])
            return
        source = tir.Bind(buffers["tables"][place[0]])
        if not self.fills:
            tir.buffer_store(buffers["y"], buffers["x"][self.image + source], [place[1]])
            return
        with tir.If(source >= 0):
            with tir.Then():
                tir.buffer_store(buffers["y"], buffers["x"][self.image + source], [place[1]])
            with tir.Else():
                tir.buffer_store(buffers["y"], tir.cast(buffers["scalars"][Scalar.X_ZERO], self.dtype), [place[1]])

    def run(self, buffers: Buffers, y: Any, count: int, x: Any | None, value: Any = None) -> None:
        """``count`` successive elements: a copy, or ``value`` (0) where there is no source."""
        zero = tir.cast(0, self.dtype) if value is None else value

        def piece(first: Any, size: int) -> None:
            store(buffers["y"], splat(zero, size) if x is None else load(buffers["x"], x + first, size), y + first, size)

        vectors = count // self.lanes
        if vectors > 4:
            with tir.serial(vectors) as vector:
                piece(vector * self.lanes, self.lanes)
        else:
            for vector in range(vectors):
                piece(vector * self.lanes, self.lanes)
        first, size = vectors * self.lanes, self.lanes
        while first < count:
            while size > count - first:
                size //= 2
            piece(first, size)
            first += size

    def fill(self, buffers: Buffers, nest: Nest, place: Place) -> None:
        """Everything that a nest covers becomes the code of the padding, its padding channels 0."""
        code = tir.Bind(tir.cast(buffers["scalars"][Scalar.X_ZERO], self.dtype))
        loops = list(nest.loops)
        run = loops.pop() if loops and loops[-1].y_stride == 1 else Loop(1, 1, 0)

        def leaf(at: Place) -> None:
            self.run(buffers, at[1], run.extent, None, code)
            if nest.zeros:
                self.run(buffers, at[1] + nest.zeros_at, nest.zeros, None)

        self.loops(buffers, [Loop(loop.extent, loop.y_stride, 0) for loop in loops], place, leaf)

    def turn(self, buffers: Buffers, place: Place, block: _Transposition) -> None:
        """The square blocks of a transposition; the last ones begin early enough to be whole."""
        side, inner, across = block.side, block.inner, block.across
        with tir.serial(-(-across.extent // side)) as row, tir.serial(-(-inner.extent // side)) as column:
            b = tir.Bind(tir.min(row * side, across.extent - side))
            a = tir.Bind(tir.min(column * side, inner.extent - side))
            x, y = tir.Bind(place[0] + a * inner.x_stride + b), tir.Bind(place[1] + b * across.y_stride + a)
            rows = [tir.Bind(load(buffers["x"], x + lane * inner.x_stride, side)) for lane in range(side)]
            for lane, turned in enumerate(interleaved(rows, side)):
                tir.buffer_store(buffers["y"], turned, [span(y + lane * across.y_stride, side)])


def _is_run(loop: Loop) -> bool:
    """Whether elements lie side by side on both sides."""
    return loop.x_stride == loop.y_stride == 1 and not loop.table


def _transposition(loops: Sequence[Loop], item: int) -> _Transposition | None:
    """The two loops that turn, if there are such."""
    if not loops or loops[-1].y_stride != 1 or loops[-1].x_stride <= 1:
        return None
    inner = loops[-1]
    for across in loops[:-1]:
        for side in (BLOCK_BYTES // item, BLOCK_BYTES // item // 2):
            if across.x_stride == 1 and not across.table and min(across.extent, inner.extent) >= side >= 4:
                return _Transposition(inner, across, side)
    return None
