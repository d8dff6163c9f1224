"""Pooling over stored channels: maximum of codes, and average with its requantization.

A task is one output row (and a block of channels where the rows are few). The maximum reads no padding: where
every window has a tap inside the input, outside taps are moved to the nearest inside one, which changes
no maximum. The average sums the taps inside and subtracts their zero points at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import gcd
from typing import Any, Final

import numpy as np
import tvm.tirx.script.builder.ir as tir
from tvm import tirx

from qcompiler import arith
from qcompiler.backend.kernel import SCALARS, Kernel, PoolSpec, Scalar, physical_channels
from qcompiler.backend.tir import TIR
from qcompiler.schedules.loops import Buffers, build_function, load, scratch, splat, store

VECTOR_BYTES: Final = 64
TASKS: Final = 8
UNROLLED_TAPS: Final = 25
SHORT_SUM: Final = 257  # as many bytes as always fit in uint16


def build(spec: PoolSpec, instruction_set: str) -> Kernel:
    """The pooling ``spec``; one form serves every instruction set."""
    del instruction_set
    channels = physical_channels(spec.channels)
    arguments: dict[str, tuple[int, str]] = {"x": (spec.batch * spec.height * spec.width * channels, spec.in_dtype)}
    if spec.kind == "average":
        arguments["multiplier"] = (max(spec.counts[0]) * max(spec.counts[1]) + 1, "int32")
        arguments["scalars"] = (SCALARS, "int32")
    arguments["y"] = (spec.batch * spec.out_height * spec.out_width * channels, spec.out_dtype)
    body = _Body(spec)
    return Kernel(
        function=build_function(arguments, body.emit),
        arguments=tuple(arguments),
        tasks=body.tasks,
        schedule=f"{spec.kind} pooling, {body.lanes} channels at once",
    )


@dataclass(frozen=True)
class _Window:
    """Taps of one axis that lie inside the input: ``first <= tap < last``; tap 0 is at ``start``."""

    start: Any
    first: Any
    last: Any


class _Body:
    """Emits the loops of one kernel."""

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec
        self.channels = physical_channels(spec.channels)
        self.lanes = gcd(self.channels, VECTOR_BYTES // np.dtype(spec.in_dtype).itemsize)
        vectors = self.channels // self.lanes
        wanted = -(-TASKS // (spec.batch * spec.out_height))
        self.parts = next(parts for parts in range(min(wanted, vectors), 0, -1) if vectors % parts == 0)
        self.tasks = spec.batch * spec.out_height * self.parts

    def emit(self, buffers: Buffers) -> None:
        spec = self.spec
        vectors = self.channels // self.lanes // self.parts
        with tir.serial(self.tasks) as task:
            part = tir.Bind(task % self.parts)
            row = tir.Bind(task // self.parts % spec.out_height)
            image = tir.Bind(task // (self.parts * spec.out_height))
            rows = self.window(row, 0)
            with tir.serial(spec.out_width) as column:
                columns = self.window(column, 1)
                with tir.serial(vectors) as vector:
                    channel = tir.Bind((part * vectors + vector) * self.lanes)
                    place = tir.Bind(((image * spec.out_height + row) * spec.out_width + column) * self.channels + channel)
                    if spec.kind == "average":
                        self.average(buffers, image, row, column, rows, columns, channel, place)
                    elif self.reaches_inside:
                        self.moved_maximum(buffers, image, rows, columns, channel, place)
                    else:
                        self.maximum(buffers, image, rows, columns, channel, place)

    def window(self, position: Any, axis: int) -> _Window:
        spec = self.spec
        size, dilation = (spec.height, spec.width)[axis], spec.dilation[axis]
        start = tir.Bind(position * spec.strides[axis] - spec.padding[axis])
        first = tir.Bind(tir.max((dilation - 1 - start) // dilation, 0))
        last = tir.Bind(tir.max(tir.min((size - 1 - start) // dilation + 1, spec.kernel[axis]), first))
        return _Window(start, first, last)

    @property
    def reaches_inside(self) -> bool:
        """Whether outside taps may be moved to the border: no dilation, and no window lies wholly in the padding."""
        spec = self.spec
        return (
            spec.dilation == (1, 1)
            and spec.kernel[0] * spec.kernel[1] <= UNROLLED_TAPS
            and all(
                spec.padding[axis] < spec.kernel[axis] and (outputs - 1) * spec.strides[axis] - spec.padding[axis] < size
                for axis, (outputs, size) in enumerate(((spec.out_height, spec.height), (spec.out_width, spec.width)))
            )
        )

    def place(self, image: Any, row: Any, column: Any, channel: Any) -> Any:
        return ((image * self.spec.height + row) * self.spec.width + column) * self.channels + channel

    def moved_maximum(self, buffers: Buffers, image: Any, rows: _Window, columns: _Window, channel: Any, place: Any) -> None:
        spec = self.spec
        result: Any = None
        for i in range(spec.kernel[0]):
            row = tir.max(tir.min(rows.start + i, spec.height - 1), 0)
            for j in range(spec.kernel[1]):
                column = tir.max(tir.min(columns.start + j, spec.width - 1), 0)
                x = load(buffers["x"], self.place(image, row, column, channel), self.lanes)
                result = tir.Bind(x if result is None else tir.max(result, x))
        store(buffers["y"], result, place, self.lanes)

    def maximum(self, buffers: Buffers, image: Any, rows: _Window, columns: _Window, channel: Any, place: Any) -> None:
        spec = self.spec
        largest = scratch(self.lanes, spec.in_dtype)
        store(largest, splat(tirx.min_value(spec.in_dtype), self.lanes), 0, self.lanes)

        def tap(x: Any) -> None:
            store(largest, tir.max(load(largest, 0, self.lanes), x), 0, self.lanes)

        self.over_taps(buffers, image, rows, columns, channel, tap)
        store(buffers["y"], load(largest, 0, self.lanes), place, self.lanes)

    def over_taps(self, buffers: Buffers, image: Any, rows: _Window, columns: _Window, channel: Any, tap: Any) -> None:
        """Emit ``tap`` for the vector of every tap inside the input."""
        spec = self.spec
        with tir.serial(rows.first, rows.last) as i, tir.serial(columns.first, columns.last) as j:
            row, column = rows.start + i * spec.dilation[0], columns.start + j * spec.dilation[1]
            tap(load(buffers["x"], self.place(image, row, column, channel), self.lanes))

    def average(
        self, buffers: Buffers, image: Any, row: Any, column: Any, rows: _Window, columns: _Window, channel: Any, place: Any
    ) -> None:
        spec, lanes = self.spec, self.lanes
        short = spec.in_dtype == "uint8" and spec.kernel[0] * spec.kernel[1] <= SHORT_SUM
        dtype = "uint16" if short else "int32"
        sums = scratch(lanes, dtype)
        store(sums, splat(tir.cast(0, dtype), lanes), 0, lanes)

        def tap(x: Any) -> None:
            store(sums, load(sums, 0, lanes) + tir.cast(x, f"{dtype}x{lanes}" if lanes > 1 else dtype), 0, lanes)

        self.over_taps(buffers, image, rows, columns, channel, tap)
        scalars = buffers["scalars"]
        zeros = tir.Bind((rows.last - rows.first) * (columns.last - columns.first) * scalars[Scalar.X_ZERO])
        count = tir.Bind(_table(spec.counts[0], row) * _table(spec.counts[1], column))
        multiplier = tir.Bind(buffers["multiplier"][count])
        shift, zero, low, high = (scalars[s] for s in (Scalar.SHIFT, Scalar.Y_ZERO, Scalar.LO, Scalar.HI))
        with tir.vectorized(lanes) as lane:
            total = tir.cast(sums[lane], "int32") - zeros
            value = arith.requantize(total, multiplier, shift, zero, low, high, TIR)
            tir.buffer_store(buffers["y"], tir.cast(value, spec.out_dtype), [place + lane])


def _table(values: tuple[int, ...], index: Any) -> Any:
    """``values[index]``: the commonest value, and a choice for every place that differs."""
    common = Counter(values).most_common(1)[0][0]
    found: Any = tir.int32(common)
    for place, value in enumerate(values):
        if value != common:
            found = tir.Select(index == place, tir.int32(value), found)
    return found
