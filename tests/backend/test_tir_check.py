"""Floats and divisions in lowered TIR are found; divisions of addresses by constants are not complained about."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tvm.script import tirx as T  # noqa: N812

from qcompiler.backend.tir import lower_kernel
from qcompiler.backend.tir_check import TirError, verify_tir
from qcompiler.targets.target import load_target


def lower(function: Any) -> Any:
    return lower_kernel(function, "kernel", load_target("x86-baseline").tvm_target)


@T.prim_func(s_tir=True)
def with_float(x: T.Buffer((8,), "uint8"), y: T.Buffer((8,), "int32")):
    for i in range(8):
        with T.sblock("b"):
            vi = T.axis.remap("S", [i])
            y[vi] = T.cast(T.cast(x[vi], "float32") * T.float32(0.5), "int32")


@T.prim_func(s_tir=True)
def with_float_buffer(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("b"):
            vi = T.axis.remap("S", [i])
            y[vi] = x[vi]


@T.prim_func(s_tir=True)
def value_by_constant(x: T.Buffer((8,), "int32"), y: T.Buffer((8,), "int32")):
    for i in range(8):
        with T.sblock("b"):
            vi = T.axis.remap("S", [i])
            y[vi] = T.truncdiv(x[vi], 3)


@T.prim_func(s_tir=True)
def bound_value(x: T.Buffer((8,), "int32"), y: T.Buffer((8,), "int32")):
    for i in range(8):
        with T.sblock("b"):
            vi = T.axis.remap("S", [i])
            a: T.let[T.int32] = x[vi] * 3 + x[vi]
            y[vi] = T.floormod(a, 5) + a


@T.prim_func(s_tir=True)
def by_value(x: T.Buffer((8,), "int32"), y: T.Buffer((8,), "int32")):
    for i in range(8):
        with T.sblock("b"):
            vi = T.axis.remap("S", [i])
            y[vi] = T.truncdiv(vi, x[vi])


@T.prim_func(s_tir=True)
def addresses(x: T.Buffer((8, 16), "int32"), y: T.Buffer((128,), "int32")):
    for i in range(128):
        with T.sblock("b"):
            vi = T.axis.remap("S", [i])
            y[vi] = x[vi // 16, vi % 16] + x[vi % 3, vi // 7 % 16]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (with_float, "float32 in "),
        (with_float_buffer, "parameter x_pointer is float32"),
        (value_by_constant, "division of a value: "),
        (bound_value, "division of a value: "),
        (by_value, "division by something that is not constant: "),
    ],
)
def test_found(function: Any, problem: str) -> None:
    with pytest.raises(TirError, match=f"^kernel kernel:\n(.*\n)*?{re.escape(problem)}"):
        verify_tir([lower(function)])


def test_addresses_may_be_divided_by_constants() -> None:
    verify_tir([lower(addresses)])
