"""Additions and rescalings of whole tensors, element by element over what is stored.

The elements are cut into vectors, tasks take runs of them; the last task also does the rest, in the
largest pieces that are powers of two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import tvm.tirx.script.builder.ir as tir

from qcompiler import arith
from qcompiler.backend.kernel import SCALARS, AddSpec, Kernel, RescaleSpec, Scalar
from qcompiler.backend.tir import TIR, TirArithmetic, arithmetic, converted
from qcompiler.schedules.loops import Buffers, build_function, span, store

LANES: Final = {"avx512vnni": 64, "avxvnni": 32, "avx2": 32, "x86-64": 16, "dotprod": 16, "neon": 16}
TASK_ELEMENTS: Final = 8192


def build(spec: AddSpec | RescaleSpec, instruction_set: str) -> Kernel:
    """The addition of x and residual, or the rescaling of x."""
    lanes = LANES[instruction_set]
    if isinstance(spec, AddSpec):
        arguments = {"x": (spec.elements, spec.a_dtype), "residual": (spec.elements, spec.b_dtype)}
        formula: Callable[[Buffers, Any], Any] = _sum
    else:
        arguments = {"x": (spec.elements, spec.in_dtype)}
        formula = _rescaled(spec.headroom, arithmetic(instruction_set))
    arguments |= {"scalars": (SCALARS, "int32"), "y": (spec.elements, spec.out_dtype)}
    vectors = spec.elements // lanes
    per_task = max(1, TASK_ELEMENTS // lanes)
    tasks = max(1, -(-vectors // per_task))

    def body(buffers: Buffers) -> None:
        def piece(first: Any, size: int) -> None:
            value = formula(buffers, span(first, size))
            store(buffers["y"], converted(value, spec.out_dtype), first, size)

        with tir.serial(tasks) as task:
            with tir.serial(task * per_task, tir.min((task + 1) * per_task, vectors)) as vector:
                piece(vector * lanes, lanes)
            with tir.If(task == tasks - 1), tir.Then():
                tir.evaluate(0)
                rest(vectors * lanes, spec.elements, lanes, piece)

    return Kernel(
        function=build_function(arguments, body),
        arguments=tuple(arguments),
        tasks=tasks,
        schedule=f"elementwise, {lanes} elements at once",
    )


def rest(first: int, end: int, lanes: int, piece: Callable[[Any, int], None]) -> None:
    """Cover ``first`` to ``end`` with pieces of half, a quarter, ... of ``lanes``."""
    while first < end:
        while lanes > end - first:
            lanes //= 2
        piece(first, lanes)
        first += lanes


def _sum(buffers: Buffers, index: Any) -> Any:
    scalars = buffers["scalars"]
    a = converted(buffers["x"][index], "int32") - scalars[Scalar.X_ZERO]
    b = converted(buffers["residual"][index], "int32") - scalars[Scalar.RESIDUAL_ZERO]
    factors = scalars[Scalar.X_MULTIPLIER], scalars[Scalar.RESIDUAL_MULTIPLIER]
    shift, zero, low, high = (scalars[s] for s in (Scalar.SHIFT, Scalar.Y_ZERO, Scalar.LO, Scalar.HI))
    return arith.add(a, factors[0], b, factors[1], shift, zero, low, high, TIR)


def _rescaled(headroom: int | None, math_: TirArithmetic) -> Callable[[Buffers, Any], Any]:
    def formula(buffers: Buffers, index: Any) -> Any:
        scalars = buffers["scalars"]
        x = converted(buffers["x"][index], "int32") - scalars[Scalar.X_ZERO]
        shift, zero, low, high = (scalars[s] for s in (Scalar.SHIFT, Scalar.Y_ZERO, Scalar.LO, Scalar.HI))
        return arith.requantize_within(x, headroom, scalars[Scalar.X_MULTIPLIER], shift, zero, low, high, math_)

    return formula
