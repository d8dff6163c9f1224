"""Additions and rescalings equal numpy, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler import arith
from qcompiler.backend.kernel import AddSpec, RescaleSpec
from qcompiler.schedules.elementwise import build
from tests.schedules.harness import instruction_sets, prepare, scalars

Array = np.ndarray[Any, Any]
INSTRUCTION_SETS = instruction_sets(leave_out={"dotprod"})  # these kernels are those of neon


def fills(dtype: str, elements: int, generator: np.random.Generator) -> list[Array]:
    """Random codes, all the smallest, all the largest."""
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if dtype == "int32":
        low, high = -(1 << 20), 1 << 20
    return [
        generator.integers(low, high + 1, elements).astype(dtype),
        np.full(elements, low, dtype),
        np.full(elements, high, dtype),
    ]


def rounded(total: Array, scalar: dict[str, int]) -> Array:
    shifted = (total + (1 << (scalar["shift"] - 1))) >> scalar["shift"]
    return np.clip(shifted + scalar["y_zero"], scalar["lo"], scalar["hi"])


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize(
    "spec",
    [
        AddSpec(9000, "uint8", "uint8", "uint8"),
        AddSpec(16, "uint8", "int16", "int16"),
        AddSpec(20 * 64 + 36, "int16", "uint8", "uint8"),
    ],
    ids=str,
)
def test_addition(spec: AddSpec, instruction_set: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    run = prepare(build(spec, instruction_set), instruction_set, tmp_path)
    limits = np.iinfo(spec.out_dtype)
    scalar = {
        "x_zero": 17, "residual_zero": 200, "x_multiplier": 12345, "residual_multiplier": 31000, "shift": 16,
        "y_zero": 90, "lo": int(limits.min), "hi": int(limits.max) - 3,
    }  # fmt: skip
    for a in fills(spec.a_dtype, spec.elements, generator):
        for b in fills(spec.b_dtype, spec.elements, generator):
            y = run({"x": a, "residual": b, "scalars": scalars(**scalar), "y": np.zeros(spec.elements, spec.out_dtype)})
            total = (a.astype(np.int64) - 17) * 12345 + (b.astype(np.int64) - 200) * 31000
            np.testing.assert_array_equal(y, rounded(total, scalar))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize(
    "spec",
    [
        RescaleSpec(8192 + 52, "uint8", "uint8"),
        RescaleSpec(300, "int32", "int16"),
        RescaleSpec(16, "int16", "int32"),
        RescaleSpec(8192 + 52, "uint8", "uint8", 23),
        RescaleSpec(300, "int16", "int16", 15),
    ],
    ids=str,
)
def test_rescaling(spec: RescaleSpec, instruction_set: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    run = prepare(build(spec, instruction_set), instruction_set, tmp_path)
    limits = np.iinfo(spec.out_dtype)
    for multiplier, shift in ((2**31 - 1, 31), (1 << 30, 33), (3, 1)):
        if spec.headroom is not None and (arith.headroom(1, shift) or 0) < spec.headroom:
            continue
        scalar = {
            "x_zero": 3, "x_multiplier": multiplier, "shift": shift,
            "y_zero": 5, "lo": int(limits.min), "hi": int(limits.max),
        }  # fmt: skip
        for x in fills(spec.in_dtype, spec.elements, generator):
            y = run({"x": x, "scalars": scalars(**scalar), "y": np.zeros(spec.elements, spec.out_dtype)})
            np.testing.assert_array_equal(y, rounded((x.astype(np.int64) - 3) * multiplier, scalar))


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_a_half_rounds_up(instruction_set: str, tmp_path: Path) -> None:
    spec = RescaleSpec(256, "int16", "int16")
    run = prepare(build(spec, instruction_set), instruction_set, tmp_path)
    x = np.arange(-128, 128).astype(np.int16)
    scalar = {"x_multiplier": 1, "shift": 2, "lo": -100, "hi": 100}
    y = run({"x": x, "scalars": scalars(**scalar), "y": np.zeros(256, np.int16)})
    np.testing.assert_array_equal(y, np.floor(x / 4 + 0.5))
