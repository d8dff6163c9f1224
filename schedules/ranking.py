"""Argmax and top-k along one axis: comparisons alone, in the order of the axis.

An argmax along space compares vectors of channels. Along the channels, and for top-k, it is one line after the other;
the k-th best is the best of what comes after the one before it, so that k passes need no memory.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

import tvm.tirx.script.builder.ir as tir
from tvm import tirx

from qcompiler.backend.image import PHYSICAL, Image
from qcompiler.backend.index_map import Loop, joined, memory_order, strides
from qcompiler.backend.kernel import ArgmaxSpec, Kernel, TopkSpec, physical_channels
from qcompiler.schedules.loops import Buffers, build_function, load, scratch, splat, store

LANES: Final = 16


def build(spec: ArgmaxSpec | TopkSpec, instruction_set: str) -> Kernel:
    """The ranking ``spec``, one form for every instruction set."""
    del instruction_set
    body = _Argmax(spec) if isinstance(spec, ArgmaxSpec) else _Topk(spec)
    result = Image(body.out_shape, body.out_dtype, PHYSICAL)
    arguments = {"x": (Image(spec.in_shape, spec.dtype, PHYSICAL).elements, spec.dtype), "y": (result.elements, result.dtype)}
    function = build_function(arguments, body.emit)
    name = "argmax" if isinstance(spec, ArgmaxSpec) else "topk"
    return Kernel(function=function, arguments=tuple(arguments), tasks=body.tasks, schedule=f"{name}, {body.form}")


class _Lines:
    """The loops over the lines along ``axis``; ``kept`` are the axes of x that the result's axes are, -1 for none.

    A task is what all channels of one place of the result need; padding channels become 0.
    """

    def __init__(self, in_shape: tuple[int, ...], axis: int, out_shape: tuple[int, ...], kept: list[int], out_dtype: str) -> None:
        self.out_shape, self.out_dtype = out_shape, out_dtype
        self.size = in_shape[axis]
        x_steps, y_steps = strides(in_shape, PHYSICAL), strides(out_shape, PHYSICAL)
        self.step = x_steps[axis]
        loops = {
            out: Loop(out_shape[out], y_steps[out], x_steps[kept[out]] if kept[out] >= 0 else 0)
            for out in memory_order(len(out_shape), PHYSICAL)
        }
        self.channel = loops.pop(1)
        self.outer = joined(tuple(loops.values())) if len(loops) else ()
        self.tasks = prod(loop.extent for loop in self.outer)
        self.places, self.place_step = 1, 0  # results of a line along space
        self.form = "line after line"

    def emit(self, buffers: Buffers) -> None:
        channels = self.out_shape[1]
        with tir.serial(self.tasks) as task:
            rest, x, y = task, tir.int32(0), tir.int32(0)
            for loop in reversed(self.outer):
                index = tir.Bind(rest % loop.extent)
                rest = tir.Bind(rest // loop.extent)
                x, y = x + index * loop.x_stride, y + index * loop.y_stride
            x, y = tir.Bind(x), tir.Bind(y)
            self.channels(buffers, x, y)
            if physical_channels(channels) > channels:
                with tir.serial(self.places) as place, tir.serial(channels, physical_channels(channels)) as padding:
                    tir.buffer_store(buffers["y"], tir.cast(0, self.out_dtype), [y + place * self.place_step + padding])

    def channels(self, buffers: Buffers, x: Any, y: Any) -> None:
        """Emit the results of all channels at one place."""
        with tir.serial(self.channel.extent) as channel:
            self.line(buffers, tir.Bind(x + channel * self.channel.x_stride), tir.Bind(y + channel))

    def line(self, buffers: Buffers, x: Any, y: Any) -> None:
        """Emit the result of the line that begins at x."""
        raise NotImplementedError


class _Argmax(_Lines):
    """One index a line."""

    def __init__(self, spec: ArgmaxSpec) -> None:
        self.spec = spec
        kept = [axis for axis in range(len(spec.in_shape)) if axis != spec.axis]
        if len(spec.out_shape) == len(spec.in_shape):
            kept.insert(spec.axis, -1)
        kept += [-1] * (len(spec.out_shape) - len(kept))  # [batch] lies as [batch, 1]
        super().__init__(spec.in_shape, spec.axis, spec.out_shape, kept, "int32")
        self.vectors = self.channel.x_stride == 1 and self.channel.extent > 1
        if self.vectors:
            self.form = f"{LANES} channels at once"

    def channels(self, buffers: Buffers, x: Any, y: Any) -> None:
        if not self.vectors:
            super().channels(buffers, x, y)
            return
        whole, rest = divmod(self.channel.extent, LANES)
        if whole:
            with tir.serial(whole) as vector:
                self.compare(buffers, tir.Bind(x + vector * LANES), tir.Bind(y + vector * LANES), LANES)
        first, size = whole * LANES, LANES
        while rest:
            while size > rest:
                size //= 2
            self.compare(buffers, x + first, y + first, size)
            first, rest = first + size, rest - size

    def line(self, buffers: Buffers, x: Any, y: Any) -> None:
        self.compare(buffers, x, y, 1)

    def compare(self, buffers: Buffers, x: Any, y: Any, lanes: int) -> None:
        """The indices of ``lanes`` neighbouring lines."""
        spec = self.spec
        best, place = scratch(lanes, spec.dtype), scratch(lanes, "int32")
        store(best, load(buffers["x"], x, lanes), 0, lanes)
        store(place, splat(tir.int32(0), lanes), 0, lanes)
        with tir.serial(1, max(self.size, 1)) as index:
            code = tir.Bind(load(buffers["x"], x + index * self.step, lanes))
            known = tir.Bind(load(best, 0, lanes))
            if spec.largest:
                better = code >= known if spec.last else code > known
            else:
                better = code <= known if spec.last else code < known
            store(place, tir.Select(better, splat(index, lanes), load(place, 0, lanes)), 0, lanes)
            store(best, tir.max(code, known) if spec.largest else tir.min(code, known), 0, lanes)
        store(buffers["y"], load(place, 0, lanes), y, lanes)


class _Topk(_Lines):
    """The best of a line, then the best of the rest, and so on; the smallest are the largest of the complements."""

    def __init__(self, spec: TopkSpec) -> None:
        self.spec = spec
        out_shape = tuple(spec.k if axis == spec.axis else extent for axis, extent in enumerate(spec.in_shape))
        one = tuple(1 if axis == spec.axis else extent for axis, extent in enumerate(out_shape))
        kept = [-1 if axis == spec.axis else axis for axis in range(len(one))]
        super().__init__(spec.in_shape, spec.axis, out_shape, kept, "int32" if spec.indices else spec.dtype)
        steps = strides(out_shape, PHYSICAL)
        self.places, self.place_step = (1, 1) if spec.axis == 1 else (spec.k, steps[spec.axis])
        self.channel = Loop(one[1], 1, self.channel.x_stride)
        self.outer = tuple(
            Loop(one[axis], steps[axis], strides(spec.in_shape, PHYSICAL)[axis])
            for axis in memory_order(len(one), PHYSICAL)
            if axis not in (1, spec.axis)
        )
        self.tasks = prod(loop.extent for loop in self.outer)

    def line(self, buffers: Buffers, x: Any, y: Any) -> None:
        spec = self.spec
        state = scratch(4, "int32")  # code and index of the one before, then of the best so far
        tir.buffer_store(state, tirx.max_value("int32"), [0])
        tir.buffer_store(state, tir.int32(-1), [1])
        with tir.serial(spec.k) as rank:
            tir.buffer_store(state, tirx.min_value("int32"), [2])
            tir.buffer_store(state, tir.int32(-1), [3])
            with tir.serial(self.size) as index:
                code = tir.cast(buffers["x"][x + index * self.step], "int32")
                code = tir.Bind(code if spec.largest else tir.bitwise_xor(code, tir.int32(-1)))
                after = tir.Or(code < state[0], tir.And(code == state[0], index > state[1]))
                with tir.If(tir.And(after, tir.Or(state[3] < 0, code > state[2]))), tir.Then():
                    tir.buffer_store(state, code, [2])
                    tir.buffer_store(state, index, [3])
            for part in range(2):
                tir.buffer_store(state, state[2 + part], [part])
            found = state[1] if spec.indices else state[0]
            if not spec.indices and not spec.largest:
                found = tir.bitwise_xor(found, tir.int32(-1))
            tir.buffer_store(buffers["y"], tir.cast(found, self.out_dtype), [y + rank * self.place_step])
