"""Reductions, matrix products and tables equal numpy, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler import arith
from qcompiler.backend.index_map import stored_array
from qcompiler.backend.kernel import LookupSpec, MatmulSpec, ReduceSpec
from qcompiler.schedules import lookup, matmul, reduction
from tests.schedules.harness import prepare
from tests.schedules.test_broadcast import ALL, INSTRUCTION_SETS, check, fills

Array = np.ndarray[Any, Any]
U8, I16 = "uint8", "int16"


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize(
    "spec",
    [
        ReduceSpec("sum", (2, 80, 5, 7), (2, 80, 1, 1), (2, 3), U8, U8),
        ReduceSpec("sum", (2, 40, 5, 7), (2, 5, 7), (1,), U8, I16),
        ReduceSpec("sum", (1, 3, 20, 3, 2), (1, 20, 2), (1, 3), I16, U8),
        ReduceSpec("sum", (3, 37), (3, 1), (1,), "int32", "int32"),
        ReduceSpec("max", (2, 20, 3, 5), (2, 20, 5), (2,), U8, U8),
        ReduceSpec("min", (2, 70, 3), (2, 1), (1, 2), I16, I16),
        ReduceSpec("max", (2, 21, 4), (2, 1, 4), (1,), "int32", "int32"),
    ],
    ids=lambda s: f"{s.kind}-{s.in_shape}-{s.axes}-{s.in_dtype}-{s.out_dtype}",
)
def test_reductions(spec: ReduceSpec, instruction_set: str, tmp_path: Path) -> None:
    run = prepare(reduction.build(spec, instruction_set), instruction_set, tmp_path)
    limits, zero = np.iinfo(spec.out_dtype), 77 if spec.in_dtype == U8 else 0
    tail = {"shift": 36, "y_zero": 40, "lo": int(limits.min), "hi": int(limits.max)}
    for x in fills(spec.in_shape, spec.in_dtype, zero):
        x = x // 64 if spec.in_dtype == "int32" else x  # sums are known to fit
        if spec.kind == "sum":
            total = (x.astype(np.int64) - zero).sum(axis=spec.axes)
            wanted = arith.requantize(total, 2**31 - 1, *tail.values(), arith.NUMPY)
        else:
            wanted = (x.max if spec.kind == "max" else x.min)(axis=spec.axes)
        arrays = {"x": stored_array(x, ALL).ravel()}
        check(spec, run, arrays, {"x_zero": zero, "x_multiplier": 2**31 - 1, **tail}, wanted.reshape(spec.out_shape))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize(
    "spec",
    [
        MatmulSpec((2, 37, 19), (2, 19, 7), U8, U8, U8, 4),
        MatmulSpec((1, 3, 33), (1, 33, 1), U8, I16, I16),
        MatmulSpec((2, 12, 5, 9), (2, 12, 9, 6), U8, U8, U8, 5),
        MatmulSpec((1, 3, 7, 8), (1, 1, 8, 2), I16, U8, U8),
        MatmulSpec((2, 1, 3, 6, 5), (2, 20, 1, 5, 9), U8, U8, "int32"),
    ],
    ids=lambda s: f"{s.a_shape}-{s.b_shape}-{s.a_dtype}-{s.b_dtype}-{s.out_dtype}",
)
def test_matrix_products(spec: MatmulSpec, instruction_set: str, tmp_path: Path) -> None:
    run = prepare(matmul.build(spec, instruction_set), instruction_set, tmp_path)
    limits = np.iinfo(spec.out_dtype)
    zeros = [130 if dtype == U8 else 0 for dtype in (spec.a_dtype, spec.b_dtype)]
    tail = {"shift": 43, "y_zero": 100, "lo": int(limits.min), "hi": int(limits.max)}
    for a in fills(spec.a_shape, spec.a_dtype, zeros[0]):
        for b in fills(spec.b_shape, spec.b_dtype, zeros[1]):
            total = np.matmul(a.astype(np.int64) - zeros[0], b.astype(np.int64) - zeros[1])
            wanted = arith.requantize(total, 2**31 - 1, *tail.values(), arith.NUMPY)
            scalar = {"x_zero": zeros[0], "residual_zero": zeros[1], "x_multiplier": 2**31 - 1, **tail}
            check(spec, run, {"x": stored_array(a, ALL).ravel(), "residual": stored_array(b, ALL).ravel()}, scalar, wanted)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("spec", [LookupSpec(8192 + 84, U8), LookupSpec(148, I16), LookupSpec(20, "int32")], ids=str)
def test_tables(spec: LookupSpec, instruction_set: str, tmp_path: Path) -> None:
    run = prepare(lookup.build(spec, instruction_set), instruction_set, tmp_path)
    table = fills((256,), spec.out_dtype, 0)[0]
    for x in (*fills((spec.elements,), U8, 0), np.arange(spec.elements).astype(np.uint8)):
        np.testing.assert_array_equal(run({"x": x, "table": table, "y": np.zeros(spec.elements, spec.out_dtype)}), table[x])
