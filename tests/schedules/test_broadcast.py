"""Binary operators with broadcasting, and prelu, equal numpy, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler import arith
from qcompiler.backend.index_map import stored_array
from qcompiler.backend.kernel import BinarySpec, PreluSpec
from qcompiler.schedules.broadcast import build, nest
from tests.schedules.harness import instruction_sets, prepare, scalars

Array = np.ndarray[Any, Any]
INSTRUCTION_SETS = instruction_sets(leave_out={"dotprod"})  # these kernels are those of neon
ALL = "NHWC"


def fills(shape: tuple[int, ...], dtype: str, zero: int) -> list[Array]:
    """Random codes, all the smallest, all the largest, all one past the zero point."""
    limits = np.iinfo(dtype)
    random = np.random.default_rng(4).integers(limits.min, limits.max, shape, endpoint=True)
    return [x.astype(dtype) for x in (random, np.full(shape, limits.min), np.full(shape, limits.max), np.full(shape, zero + 1))]


def check(spec: BinarySpec | PreluSpec, run: Any, arrays: dict[str, Array], scalar: dict[str, int], wanted: Array) -> None:
    stored = stored_array(wanted.astype(spec.out_dtype), ALL)
    y, again = (
        run({**arrays, "scalars": scalars(**scalar), "y": np.full(stored.size, left, stored.dtype)}).reshape(stored.shape)
        for left in (0, 85)
    )
    channels = wanted.shape[1]
    np.testing.assert_array_equal(y[..., :channels], stored[..., :channels])
    np.testing.assert_array_equal(y, again)  # padding channels are written, too


U8, I16 = "uint8", "int16"
SPECS = [
    BinarySpec("mul", (2, 80, 5, 7), (2, 80, 1, 1), U8, U8, U8, 15),
    BinarySpec("mul", (1, 64, 23, 23), (1, 1, 23, 23), U8, U8, I16, 15),
    BinarySpec("mul", (1, 1, 1, 1), (2, 20, 3, 5), U8, I16, U8, 8),
    BinarySpec("mul", (2, 21, 9), (1, 21, 9), I16, I16, I16, None),
    BinarySpec("mul", (1, 33, 17, 17), (1, 33, 17, 17), U8, U8, U8, 15),
    BinarySpec("add", (2, 24, 1, 6), (1, 24, 4, 1), I16, U8, "int32"),
    BinarySpec("add", (3, 3, 40, 1), (1, 1, 1, 9), U8, I16, U8),
    BinarySpec("maximum", (2, 16), (1, 1), U8, I16, U8),
    BinarySpec("minimum", (1, 40, 2, 3, 4, 2), (1, 40, 2, 1, 4, 1), U8, U8, U8),
]


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.kind}-{s.a_shape}-{s.b_shape}-{s.a_dtype}-{s.b_dtype}")
def test_equals_numpy(spec: BinarySpec, instruction_set: str, tmp_path: Path) -> None:
    run = prepare(build(spec, instruction_set), instruction_set, tmp_path)
    limits = np.iinfo(spec.out_dtype)
    zeros = [17 if dtype == U8 else 0 for dtype in (spec.a_dtype, spec.b_dtype)]
    tail = {"y_zero": 9, "lo": int(limits.min), "hi": int(limits.max) - 3}
    for a in fills(spec.a_shape, spec.a_dtype, zeros[0]):
        for b in fills(spec.b_shape, spec.b_dtype, zeros[1]):
            p, q = a.astype(np.int64) - zeros[0], b.astype(np.int64) - zeros[1]
            shift = 38 if spec.kind == "mul" else 15
            rest = (shift, *tail.values(), arith.NUMPY)
            if spec.kind == "mul":
                factors = (2**31 - 1, 0)
                wanted = arith.requantize(p * q, factors[0], *rest)
            elif spec.kind == "add":
                factors = (12345, -31000)
                wanted = arith.add(p, factors[0], q, factors[1], *rest)
            else:
                factors = (30001, 16384)
                wanted = arith.extremum(p, factors[0], q, factors[1], *rest, largest=spec.kind == "maximum")
            scalar = {
                "x_zero": zeros[0], "residual_zero": zeros[1], "x_multiplier": factors[0], "residual_multiplier": factors[1],
                "shift": shift, **tail,
            }  # fmt: skip
            arrays = {"x": stored_array(a, ALL).ravel(), "residual": stored_array(b, ALL).ravel()}
            check(spec, run, arrays, scalar, wanted)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize(
    "spec",
    [
        PreluSpec((2, 80, 5, 7), U8, U8, 22),
        PreluSpec((1, 3, 50, 50), U8, I16, None),
        PreluSpec((3, 40), I16, U8, 15),
        PreluSpec((2, 1), I16, I16, 15),
    ],
    ids=str,
)
def test_prelu(spec: PreluSpec, instruction_set: str, tmp_path: Path) -> None:
    run = prepare(build(spec, instruction_set), instruction_set, tmp_path)
    limits, channels = np.iinfo(spec.out_dtype), spec.shape[1]
    zero = 100 if spec.in_dtype == U8 else 0
    negative = np.random.default_rng(5).integers(-(2**31), 2**31, (1, channels, *(1 for _ in spec.shape[2:]))).astype(np.int32)
    negative[0, 0] = -(2**31) + 1
    for x in fills(spec.shape, spec.in_dtype, zero):
        for multiplier, shift in ((2**31 - 1, 31), (3, 20)):
            tail = {"shift": shift, "y_zero": 5, "lo": int(limits.min), "hi": int(limits.max)}
            wanted = arith.prelu(x.astype(np.int64) - zero, multiplier, negative, *tail.values(), arith.NUMPY)
            arrays = {"x": stored_array(x, ALL).ravel(), "multiplier": stored_array(negative, ALL).ravel()}
            check(spec, run, arrays, {"x_zero": zero, "x_multiplier": multiplier, **tail}, wanted)


@pytest.mark.parametrize("shift", [19, 25, 33, 40, 47, 55])
@pytest.mark.parametrize("largest", [255, 255 * 255, 32767 * 255, 2**30])
def test_the_upper_half_rounds_as_the_whole_product(largest: int, shift: int) -> None:
    bits = arith.headroom(largest, shift)
    if bits is None:
        assert 33 - shift > 31 - largest.bit_length() or shift > 62
        return
    values = np.concatenate([np.arange(-3, 4), np.random.default_rng(1).integers(-largest, largest, 500, endpoint=True)])
    for multiplier in (1, 1 << 30, 2**31 - 1, 1431655765):
        ties = (((1 << shift - 1) * np.arange(-2, 3)) // multiplier).clip(-largest, largest)
        tied = np.concatenate([values, ties, ties + 1, ties - 1]).clip(-largest, largest)
        tail = (shift, 3, -(2**31), 2**31 - 1, arith.NUMPY)
        moved = tied << bits
        assert np.abs(moved).max() < 1 << 31
        np.testing.assert_array_equal(
            arith.requantize_high(moved, bits, multiplier, *tail), arith.requantize(tied, multiplier, *tail)
        )


def test_operands_of_one_shape_are_one_run() -> None:
    assert len(nest((2, 20, 5, 5), (2, 20, 5, 5))) == 1
    assert len(nest((2, 20, 5, 5), (2, 20, 1, 1))) == 3
    assert len(nest((1, 20, 5, 5), (1, 20, 1, 1))) == 2
