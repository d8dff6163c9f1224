"""Operators of two tensors that broadcast, and others with an operand per channel: nests of loops over stored elements.

Axes that continue each other on all sides are one loop, so operands of one shape are a single run. A task takes a part of
one loop. Where an operand stays the same from row to row (a factor per channel) the rows run inside the vectors of a row,
so that it is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import tvm.tirx.script.builder.ir as tir

from qcompiler import arith
from qcompiler.backend.image import PHYSICAL, Image
from qcompiler.backend.index_map import memory_order, strides
from qcompiler.backend.kernel import SCALARS, BinarySpec, Kernel, PreluSpec, Scalar, physical_channels
from qcompiler.backend.tir import TirArithmetic, arithmetic, converted
from qcompiler.schedules.elementwise import LANES, TASK_ELEMENTS, rest
from qcompiler.schedules.loops import Buffers, build_function, load, store

Places = tuple[Any, Any, Any]  # in the result and in both operands
Formula = Callable[[Buffers, Any, Any], Any]  # of an element of each operand


@dataclass(frozen=True)
class Loop:
    """``extent`` turns; ``steps`` from one to the next in the result and in both operands (0: the operand is reused)."""

    extent: int
    steps: tuple[int, int, int]


def nest(a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> tuple[Loop, ...]:
    """The loops over the stored elements of the broadcast result, outermost first, as few as possible."""
    shape = np.broadcast_shapes(a_shape, b_shape)
    found: list[Loop] = []
    for axis in memory_order(len(shape), PHYSICAL):
        extent = physical_channels(shape[1]) if axis == 1 else shape[axis]
        y, a, b = (strides(each, PHYSICAL)[axis] if each[axis] == shape[axis] else 0 for each in (shape, a_shape, b_shape))
        loop = Loop(extent, (y, a, b))
        outer = found[-1] if found else None
        if outer is not None and all(p == q * extent for p, q in zip(outer.steps, loop.steps, strict=True)):
            found[-1] = Loop(outer.extent * extent, loop.steps)
        elif extent > 1:
            found.append(loop)
    return tuple(found)


def build(spec: BinarySpec | PreluSpec, instruction_set: str) -> Kernel:
    """The operator ``spec``; one form for every instruction set."""
    math_ = arithmetic(instruction_set)
    if isinstance(spec, PreluSpec):
        channels = (1, spec.shape[1], *(1 for _ in spec.shape[2:]))
        shapes, dtypes = (spec.shape, channels), (spec.in_dtype, "int32")
        second, name, formula = "multiplier", "prelu", _prelu(spec, math_)
    else:
        shapes, dtypes = (spec.a_shape, spec.b_shape), (spec.a_dtype, spec.b_dtype)
        second, name, formula = "residual", spec.kind, FORMULAS[spec.kind](spec, math_)
    a, b = (Image(shape, dtype, PHYSICAL) for shape, dtype in zip(shapes, dtypes, strict=True))
    result = Image(tuple(np.broadcast_shapes(*shapes)), spec.out_dtype, PHYSICAL)
    arguments = {
        "x": (a.elements, a.dtype),
        second: (b.elements, b.dtype),
        "scalars": (SCALARS, "int32"),
        "y": (result.elements, result.dtype),
    }
    body = _Body(nest(*shapes), LANES[instruction_set], second, formula, result.dtype)
    return Kernel(
        function=build_function(arguments, body.emit),
        arguments=tuple(arguments),
        tasks=body.tasks,
        schedule=f"{name}, runs of {body.loops[-1].extent}, {body.lanes} elements at once",
    )


class _Body:
    """Emits the loops of one kernel."""

    def __init__(self, loops: Sequence[Loop], lanes: int, second: str, formula: Formula, dtype: str) -> None:
        self.loops, self.second, self.formula, self.dtype = tuple(loops), second, formula, dtype
        self.lanes = min(lanes, 1 << (loops[-1].extent.bit_length() - 1))
        self.cut, inside = len(loops) - 1, 1  # the loop of which a task takes a part, and elements of one turn of it
        while self.cut > 0 and inside * loops[self.cut].extent < TASK_ELEMENTS:
            inside *= loops[self.cut].extent
            self.cut -= 1
        self.part = max(1, TASK_ELEMENTS // inside)
        if self.cut == len(loops) - 1:
            self.part = max(1, self.part // self.lanes) * self.lanes
        self.parts = max(1, -(-loops[self.cut].extent // self.part))
        self.tasks = self.parts * prod(loop.extent for loop in loops[: self.cut])

    def emit(self, buffers: Buffers) -> None:
        with tir.serial(self.tasks) as task:
            index, rest_ = task % self.parts, task // self.parts
            places: Places = (tir.int32(0),) * 3
            for loop in reversed(self.loops[: self.cut]):
                places = _moved(places, loop, rest_ % loop.extent)
                rest_ = rest_ // loop.extent
            y, a, b = (tir.Bind(place) for place in places)
            first = tir.Bind(index * self.part)
            last = tir.Bind(tir.min(first + self.part, self.loops[self.cut].extent))
            if self.cut == len(self.loops) - 1:
                self.run(buffers, (y, a, b), first, last, index)
            elif 0 in self.loops[-1].steps:
                self.rows(buffers, (y, a, b), first, last, lambda row: self.columns(row, lambda p, n: self.piece(buffers, p, n)))
            else:
                self.columns((y, a, b), lambda p, n: self.rows(buffers, p, first, last, lambda row: self.piece(buffers, row, n)))

    def rows(self, buffers: Buffers, places: Places, first: Any, last: Any, each: Callable[[Places], None]) -> None:
        """Emit ``each`` within the loops between the outer ones and the vectors."""

        def inner(places: Places, loops: Sequence[Loop]) -> None:
            if not loops:
                each(places)
                return
            with tir.serial(loops[0].extent) as index:
                inner(_moved(places, loops[0], index), loops[1:])

        with tir.serial(first, last) as index:
            inner(_moved(places, self.loops[self.cut], index), self.loops[self.cut + 1 : -1])

    def columns(self, places: Places, each: Callable[[Places, int], None]) -> None:
        """Emit ``each`` for the vectors of the innermost loop."""
        inner = self.loops[-1]
        whole = inner.extent // self.lanes
        with tir.serial(whole) as vector:
            each(_moved(places, inner, vector * self.lanes), self.lanes)
        rest(whole * self.lanes, inner.extent, self.lanes, lambda place, size: each(_moved(places, inner, place), size))

    def run(self, buffers: Buffers, places: Places, first: Any, last: Any, index: Any) -> None:
        """A part of one long run; the last part has the rest."""
        inner, lanes = self.loops[-1], self.lanes
        whole = inner.extent // lanes

        def piece(place: Any, size: int) -> None:
            self.piece(buffers, _moved(places, inner, place), size)

        with tir.serial(first // lanes, tir.min(last // lanes, whole)) as vector:
            piece(vector * lanes, lanes)
        if whole * lanes < inner.extent:
            with tir.If(index == self.parts - 1), tir.Then():
                rest(whole * lanes, inner.extent, lanes, piece)

    def piece(self, buffers: Buffers, places: Places, size: int) -> None:
        """``size`` neighbouring elements."""
        y, a, b = places
        _, a_step, b_step = self.loops[-1].steps
        left, right = load(buffers["x"], a, size if a_step else 1), load(buffers[self.second], b, size if b_step else 1)
        store(buffers["y"], converted(self.formula(buffers, left, right), self.dtype), y, size)


def _moved(places: Places, loop: Loop, index: Any) -> Places:
    y, a, b = (place + index * step if step else place for place, step in zip(places, loop.steps, strict=True))
    return y, a, b


def _zero_free(buffers: Buffers, a: Any, b: Any) -> tuple[Any, Any]:
    scalars = buffers["scalars"]
    return converted(a, "int32") - scalars[Scalar.X_ZERO], converted(b, "int32") - scalars[Scalar.RESIDUAL_ZERO]


def _tail(buffers: Buffers) -> tuple[Any, Any, Any, Any]:
    shift, zero, low, high = (buffers["scalars"][s] for s in (Scalar.SHIFT, Scalar.Y_ZERO, Scalar.LO, Scalar.HI))
    return shift, zero, low, high


def _factors(buffers: Buffers) -> tuple[Any, Any]:
    return buffers["scalars"][Scalar.X_MULTIPLIER], buffers["scalars"][Scalar.RESIDUAL_MULTIPLIER]


def _add(spec: BinarySpec, math_: TirArithmetic) -> Formula:
    def formula(buffers: Buffers, a: Any, b: Any) -> Any:
        (a, b), (m1, m2) = _zero_free(buffers, a, b), _factors(buffers)
        return arith.add(a, m1, b, m2, *_tail(buffers), math_)

    return formula


def _mul(spec: BinarySpec, math_: TirArithmetic) -> Formula:
    def formula(buffers: Buffers, a: Any, b: Any) -> Any:
        (a, b), (multiplier, _) = _zero_free(buffers, a, b), _factors(buffers)
        if spec.headroom is None:
            return arith.requantize(a * b, multiplier, *_tail(buffers), math_)
        moved = a * (b << spec.headroom)  # before the product: a factor per channel is moved once
        return arith.requantize_high(moved, spec.headroom, multiplier, *_tail(buffers), math_)

    return formula


def _extremum(spec: BinarySpec, math_: TirArithmetic) -> Formula:
    def formula(buffers: Buffers, a: Any, b: Any) -> Any:
        (a, b), (m1, m2) = _zero_free(buffers, a, b), _factors(buffers)
        return arith.extremum(a, m1, b, m2, *_tail(buffers), math_, largest=spec.kind == "maximum")

    return formula


def _prelu(spec: PreluSpec, math_: TirArithmetic) -> Formula:
    def formula(buffers: Buffers, x: Any, negative: Any) -> Any:
        x = converted(x, "int32") - buffers["scalars"][Scalar.X_ZERO]
        multiplier = buffers["scalars"][Scalar.X_MULTIPLIER]
        return arith.prelu(x, multiplier, negative, *_tail(buffers), math_, spec.headroom)

    return formula


FORMULAS: Final = {"add": _add, "mul": _mul, "maximum": _extremum, "minimum": _extremum}
