"""Copies of codes: layout changes at the network's ends, reshapes, slices and pads.

Within an image, codes lie as *rows* (dense, channel after channel) or as *pixels* (channels innermost, padded). An image
copied whole is a run of vectors where both sides are alike, and a transposition of small square
blocks where they are not (:mod:`transpose`). Slices and pads of pixels go by vectors of channels. All else
goes element by element.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod
from typing import Any, Final

import numpy as np
import tvm.tirx.script.builder.ir as tir

from qcompiler.backend.kernel import SCALARS, CopySpec, Kernel, Scalar, physical_channels
from qcompiler.backend.tir import task_count
from qcompiler.schedules.loops import Buffers, build_function, load, splat, store
from qcompiler.schedules.transpose import pixels_to_rows, rows_to_pixels

VECTOR_BYTES: Final = 64
TASKS: Final = 16


@dataclass(frozen=True)
class Side:
    """How one side of a copy lies in memory. ``shape`` is logical, with the batch."""

    shape: tuple[int, ...]
    layout: str

    @property
    def channels(self) -> int:
        return self.shape[1] if len(self.shape) > 1 else 1

    @property
    def pixels(self) -> int:
        return prod(self.shape[2:])

    @property
    def stored_channels(self) -> int:
        return physical_channels(self.channels) if self.layout == "NHWC" else self.channels

    @property
    def dense(self) -> bool:
        """Whether an image's codes follow each other in logical order."""
        return self.layout == "NCHW" or self.pixels == 1

    @property
    def image(self) -> int:
        """Stored elements of an image."""
        return self.pixels * self.stored_channels

    @property
    def elements(self) -> int:
        return self.shape[0] * self.image

    def place(self, index: list[Any]) -> Any:
        """Where the element at a logical index is stored."""
        last = len(index) > 1 and self.layout == "NHWC"
        order = [0, *range(2, len(index)), 1] if last else list(range(len(index)))
        place: Any = 0
        for axis in order:
            place = place * (self.stored_channels if last and axis == 1 else self.shape[axis]) + index[axis]
        return place


def build(spec: CopySpec, instruction_set: str) -> Kernel:
    """The copy ``spec``, one form for every instruction set; pads alone have ``scalars``."""
    del instruction_set
    source, result = Side(spec.in_shape, spec.in_layout), Side(spec.out_shape, spec.out_layout)
    arguments = {"x": (source.elements, spec.dtype)}
    if _pads(spec):
        arguments["scalars"] = (SCALARS, "int32")
    arguments["y"] = (result.elements, spec.dtype)
    rank = len(spec.out_shape)
    unmoved = all(start == 0 for start in spec.starts) and all(step == 1 for step in spec.steps)
    same = spec.in_shape == spec.out_shape and unmoved
    whole = (same or spec.reshape) and spec.in_shape[0] == spec.out_shape[0]
    lanes = VECTOR_BYTES // np.dtype(spec.dtype).itemsize

    def body(buffers: Buffers) -> None:
        x, y = buffers["x"], buffers["y"]
        if whole and source.dense and result.dense:
            _runs(x, y, spec.in_shape[0], source.image, result.image, prod(spec.in_shape[1:]), lanes)
        elif whole and same and not source.dense and not result.dense:
            _runs(x, y, 1, source.elements, result.elements, result.elements, lanes)
        elif whole and source.dense and result.pixels >= lanes // 4:
            rows_to_pixels(x, y, spec.dtype, result.shape[0], result.channels, result.pixels, source.image, TASKS)
        elif whole and result.dense and source.pixels >= lanes // 4:
            pixels_to_rows(x, y, spec.dtype, source.shape[0], source.channels, source.pixels, result.image, TASKS)
        elif not spec.reshape and rank > 2 and _channels_inside(spec, source, result):
            _moved_pixels(spec, source, result, buffers, lanes)
        else:
            _elements(spec, source, result, buffers)

    function = build_function(arguments, body)
    return Kernel(function=function, arguments=tuple(arguments), tasks=task_count(function), schedule="copy")


def _runs(x: Any, y: Any, images: int, x_image: int, y_image: int, run: int, lanes: int) -> None:
    """Copy the first ``run`` elements of every image; what is behind them in y becomes 0."""
    vectors = run // lanes
    parts = max(1, min(TASKS, vectors // 16))
    per_part = -(-vectors // parts)
    with tir.serial(images * parts) as task:
        image, part = tir.Bind(task // parts), tir.Bind(task % parts)
        with tir.serial(part * per_part, tir.min((part + 1) * per_part, vectors)) as vector:
            store(y, load(x, image * x_image + vector * lanes, lanes), image * y_image + vector * lanes, lanes)
        if run % lanes:
            with tir.If(part == parts - 1), tir.Then():
                first, size = vectors * lanes, lanes
                while first < run:
                    while size > run - first:
                        size //= 2
                    store(y, load(x, image * x_image + first, size), image * y_image + first, size)
                    first += size
        if run < y_image:
            with tir.If(part == parts - 1), tir.Then(), tir.serial(run, y_image) as padding:
                tir.buffer_store(y, tir.cast(0, str(y.dtype)), [image * y_image + padding])


def _origin(spec: CopySpec, axis: int) -> tuple[int, int]:
    """Start and step of an axis."""
    return spec.starts[axis] if spec.starts else 0, spec.steps[axis] if spec.steps else 1


def _reaches_outside(spec: CopySpec, axis: int) -> bool:
    """Whether some elements come from before or behind the source along an axis."""
    start, step = _origin(spec, axis)
    ends = start, start + (spec.out_shape[axis] - 1) * step
    return min(ends) < 0 or max(ends) >= spec.in_shape[axis]


def _pads(spec: CopySpec) -> bool:
    """Whether some elements have no source."""
    return not spec.reshape and any(_reaches_outside(spec, axis) for axis in range(len(spec.out_shape)))


def _inside(spec: CopySpec, axis: int, index: Any) -> Any | None:
    """Whether the source index of an axis is inside; None where it always is."""
    return tir.And(index >= 0, index < spec.in_shape[axis]) if _reaches_outside(spec, axis) else None


def _all(conditions: list[Any | None]) -> Any | None:
    """The conjunction of those that are not None."""
    joined: Any | None = None
    for condition in conditions:
        if condition is not None:
            joined = condition if joined is None else tir.And(joined, condition)
    return joined


def _channels_inside(spec: CopySpec, source: Side, result: Side) -> bool:
    """Whether pixels go to pixels with a run of channels that all exist."""
    start, step = _origin(spec, 1)
    pixels = source.layout == result.layout == "NHWC"
    return pixels and step == 1 and start >= 0 and start + result.channels <= source.channels


def _moved_pixels(spec: CopySpec, source: Side, result: Side, buffers: Buffers, lanes: int) -> None:
    """Slice and pad whole pixels; a task is a row of the output."""
    x, y = buffers["x"], buffers["y"]
    channel_start = _origin(spec, 1)[0]
    last = len(spec.out_shape) - 1
    tasks = prod(spec.out_shape[:1] + spec.out_shape[2:last])
    size = gcd(result.stored_channels, lanes)
    reachable = max(0, source.stored_channels - channel_start) // size * size  # channels that whole vectors may read
    vectors = min(reachable, result.stored_channels) // size
    with tir.serial(tasks) as task:
        outer = _unravel(task, [axis for axis in range(last) if axis != 1], spec.out_shape)
        with tir.serial(spec.out_shape[last]) as column:
            index = {**outer, last: column}
            moved = {axis: tir.Bind(_origin(spec, axis)[0] + _origin(spec, axis)[1] * i) for axis, i in index.items()}
            condition = _all([_inside(spec, axis, i) for axis, i in moved.items()])
            begin = tir.Bind(source.place([channel_start if axis == 1 else moved[axis] for axis in range(last + 1)]))
            place = tir.Bind(result.place([0 if axis == 1 else index[axis] for axis in range(last + 1)]))

            def copy() -> None:
                with tir.serial(vectors) as vector:
                    store(y, load(x, begin + vector * size, size), place + vector * size, size)
                with tir.serial(vectors * size, max(result.channels, vectors * size)) as channel:
                    tir.buffer_store(y, x[begin + channel], [place + channel])

            def pad() -> None:
                zero = tir.cast(buffers["scalars"][Scalar.X_ZERO], spec.dtype)
                with tir.serial(result.stored_channels // size) as vector:
                    store(y, splat(zero, size), place + vector * size, size)

            if condition is None:
                copy()
            else:
                with tir.If(condition):
                    with tir.Then():
                        copy()
                    with tir.Else():
                        pad()


def _unravel(flat: Any, axes: list[int], shape: tuple[int, ...]) -> dict[int, Any]:
    """Indices of ``axes`` from one row-major index over them."""
    indices: dict[int, Any] = {}
    for axis in reversed(axes):
        indices[axis] = tir.Bind(flat % shape[axis])
        flat = tir.Bind(flat // shape[axis])
    return {axis: indices[axis] for axis in axes}


def _elements(spec: CopySpec, source: Side, result: Side, buffers: Buffers) -> None:
    """One element after the other; a task is a run of them along the innermost logical axis."""
    x, y = buffers["x"], buffers["y"]
    rank = len(spec.out_shape)
    tasks = prod(spec.out_shape[:-1])
    with tir.serial(tasks) as task:
        outer = _unravel(task, list(range(rank - 1)), spec.out_shape)
        with tir.serial(spec.out_shape[-1]) as innermost:
            index = [outer[axis] if axis < rank - 1 else innermost for axis in range(rank)]
            place = tir.Bind(result.place(index))
            condition = None
            if spec.reshape:
                flat = tir.Bind(task * spec.out_shape[-1] + innermost)
                moved = list(_unravel(flat, list(range(len(spec.in_shape))), spec.in_shape).values())
            else:
                moved = [tir.Bind(_origin(spec, axis)[0] + _origin(spec, axis)[1] * i) for axis, i in enumerate(index)]
                condition = _all([_inside(spec, axis, i) for axis, i in enumerate(moved)])
            if condition is None:
                tir.buffer_store(y, x[source.place(moved)], [place])
            else:
                with tir.If(condition):
                    with tir.Then():
                        tir.buffer_store(y, x[source.place(moved)], [place])
                    with tir.Else():
                        tir.buffer_store(y, tir.cast(buffers["scalars"][Scalar.X_ZERO], spec.dtype), [place])
            if result.stored_channels > result.channels:
                missing = result.stored_channels - result.channels
                with tir.If(index[1] == result.channels - 1), tir.Then(), tir.serial(1, missing + 1) as padding:
                    tir.buffer_store(y, tir.cast(0, spec.dtype), [place + padding])
