"""Sums and extremes over any axes but the batch.

Where the channels stay they are vectors, and everything reduced is a loop around them. Where they are reduced too, vectors
run along them, and their lanes are combined at the end.
"""

from __future__ import annotations

from math import gcd, prod
from typing import Any, Final

import tvm.tirx.script.builder.ir as tir
from tvm import tirx

from qcompiler import arith
from qcompiler.backend.image import PHYSICAL, Image
from qcompiler.backend.index_map import Loop, joined, memory_order, strides
from qcompiler.backend.kernel import SCALARS, Kernel, ReduceSpec, Scalar, physical_channels
from qcompiler.backend.tir import TIR
from qcompiler.schedules.elementwise import LANES
from qcompiler.schedules.loops import Buffers, build_function, load, scratch, splat, store

TASKS: Final = 8


def build(spec: ReduceSpec, instruction_set: str) -> Kernel:
    """The reduction ``spec``; one form for every instruction set."""
    arguments = {"x": (Image(spec.in_shape, spec.in_dtype, PHYSICAL).elements, spec.in_dtype)}
    if spec.kind == "sum":
        arguments["scalars"] = (SCALARS, "int32")
    arguments["y"] = (Image(spec.out_shape, spec.out_dtype, PHYSICAL).elements, spec.out_dtype)
    body = _Along(spec, LANES[instruction_set]) if 1 in spec.axes else _Across(spec, LANES[instruction_set])
    return Kernel(
        function=build_function(arguments, body.emit),
        arguments=tuple(arguments),
        tasks=body.tasks,
        schedule=f"reduction, {body.form}",
    )


def source_axes(spec: ReduceSpec) -> list[int]:
    """For every axis of the result the axis of x that it is, or -1 where that one was reduced."""
    if len(spec.out_shape) == len(spec.in_shape):
        return [-1 if axis in spec.axes else axis for axis in range(len(spec.in_shape))]
    kept = [axis for axis in range(len(spec.in_shape)) if axis not in spec.axes]
    return kept + [-1] * (len(spec.out_shape) - len(kept))  # [batch] lies as [batch, 1]


class _Body:
    """The loops over the places of the result, which are the tasks, and those over what is reduced to one element.

    A task is what all channels of one place need, or a part of them.
    """

    def __init__(self, spec: ReduceSpec) -> None:
        self.spec = spec
        x_steps, y_steps, source = strides(spec.in_shape, PHYSICAL), strides(spec.out_shape, PHYSICAL), source_axes(spec)
        loops = {
            axis: Loop(spec.out_shape[axis], y_steps[axis], x_steps[source[axis]] if source[axis] >= 0 else 0)
            for axis in memory_order(len(source), PHYSICAL)
        }
        self.channel = loops.pop(1)
        self.outer = joined(tuple(loop for axis, loop in loops.items() if source[axis] >= 0))
        reduced = [axis for axis in memory_order(len(spec.in_shape), PHYSICAL) if axis in spec.axes and axis != 1]
        self.reduced = joined(tuple(Loop(spec.in_shape[axis], 0, x_steps[axis]) for axis in reduced))
        self.count = prod(spec.in_shape[axis] for axis in spec.axes)
        self.dtype = "int32" if spec.kind == "sum" else spec.in_dtype
        self.parts = 1  # tasks at one place
        self.tasks = prod(loop.extent for loop in self.outer)
        self.form = ""

    def emit(self, buffers: Buffers) -> None:
        with tir.serial(self.tasks) as task:
            part, rest, x, y = task % self.parts, task // self.parts, tir.int32(0), tir.int32(0)
            for loop in reversed(self.outer):
                x, y = x + rest % loop.extent * loop.x_stride, y + rest % loop.extent * loop.y_stride
                rest = rest // loop.extent
            self.results(buffers, tir.Bind(part), tir.Bind(x), tir.Bind(y))

    def results(self, buffers: Buffers, part: Any, x: Any, y: Any) -> None:
        """Emit the results of one task."""
        raise NotImplementedError

    def start(self) -> Any:
        """What every reduction begins with."""
        if self.spec.kind == "sum":
            return tir.int32(0)
        return tirx.min_value(self.dtype) if self.spec.kind == "max" else tirx.max_value(self.dtype)

    def combined(self, a: Any, b: Any) -> Any:
        return {"sum": lambda: a + b, "max": lambda: tir.max(a, b), "min": lambda: tir.min(a, b)}[self.spec.kind]()

    def take(self, buffers: Buffers, known: Any, place: Any, lanes: int) -> None:
        """Combine ``lanes`` elements of x into ``known``."""
        x = load(buffers["x"], place, lanes)
        if self.spec.kind == "sum":
            x = tir.cast(x, "int32" if lanes == 1 else f"int32x{lanes}")
        store(known, self.combined(load(known, 0, lanes), x), 0, lanes)

    def over(self, place: Any, each: Any) -> None:
        """Emit ``each`` within the loops over what is reduced, channels left out."""

        def inner(place: Any, loops: tuple[Loop, ...]) -> None:
            if not loops:
                each(place)
                return
            with tir.serial(loops[0].extent) as index:
                inner(place + index * loops[0].x_stride, loops[1:])

        inner(place, self.reduced)

    def result(self, buffers: Buffers, total: Any) -> Any:
        """The code for what was reduced."""
        if self.spec.kind != "sum":
            return total
        scalars = buffers["scalars"]
        shift, zero, low, high = (scalars[s] for s in (Scalar.SHIFT, Scalar.Y_ZERO, Scalar.LO, Scalar.HI))
        centred = total - scalars[Scalar.X_ZERO] * self.count
        return tir.cast(arith.requantize(centred, scalars[Scalar.X_MULTIPLIER], shift, zero, low, high, TIR), self.spec.out_dtype)


class _Across(_Body):
    """The channels stay."""

    def __init__(self, spec: ReduceSpec, lanes: int) -> None:
        super().__init__(spec)
        channels = physical_channels(spec.in_shape[1])
        self.lanes = gcd(channels, lanes)
        self.vectors = channels // self.lanes
        wanted = min(self.vectors, -(-TASKS // max(self.tasks, 1)))
        self.parts = next(parts for parts in range(wanted, 0, -1) if self.vectors % parts == 0)
        self.tasks *= self.parts
        self.form = f"{self.lanes} channels at once"

    def results(self, buffers: Buffers, part: Any, x: Any, y: Any) -> None:
        lanes, vectors = self.lanes, self.vectors // self.parts
        with tir.serial(vectors) as vector:
            channel = tir.Bind((part * vectors + vector) * lanes)
            known = scratch(lanes, self.dtype)
            store(known, splat(self.start(), lanes), 0, lanes)
            self.over(x + channel, lambda place: self.take(buffers, known, place, lanes))
            with tir.vectorized(lanes) as lane:
                tir.buffer_store(buffers["y"], self.result(buffers, known[lane]), [y + channel + lane])


class _Along(_Body):
    """The channels are reduced; padding channels become 0."""

    def __init__(self, spec: ReduceSpec, lanes: int) -> None:
        super().__init__(spec)
        self.lanes = min(lanes, 16)
        self.form = f"{self.lanes} lanes to one"

    def results(self, buffers: Buffers, part: Any, x: Any, y: Any) -> None:
        channels = self.channel.extent
        with tir.serial(channels) as channel:
            total = self.total(buffers, tir.Bind(x + channel * self.channel.x_stride))
            tir.buffer_store(buffers["y"], self.result(buffers, total), [y + channel])
        if physical_channels(channels) > channels:
            with tir.serial(channels, physical_channels(channels)) as padding:
                tir.buffer_store(buffers["y"], tir.cast(0, self.spec.out_dtype), [y + padding])

    def total(self, buffers: Buffers, x: Any) -> Any:
        """Emit the reduction to one element, and give it."""
        lanes, whole = self.lanes, self.spec.in_shape[1] // self.lanes
        known, single = scratch(lanes, self.dtype), scratch(1, self.dtype)
        store(single, self.start(), 0, 1)
        if whole:
            store(known, splat(self.start(), lanes), 0, lanes)

        def channels(place: Any) -> None:
            if whole:
                with tir.serial(whole) as vector:
                    self.take(buffers, known, place + vector * lanes, lanes)
            with tir.serial(whole * lanes, max(self.spec.in_shape[1], whole * lanes)) as channel:
                self.take(buffers, single, place + channel, 1)

        self.over(x, channels)
        while whole and lanes > 1:
            lanes //= 2
            store(known, self.combined(load(known, 0, lanes), load(known, lanes, lanes)), 0, lanes)
        return self.combined(single[0], known[0]) if whole else single[0]
