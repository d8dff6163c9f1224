"""Codes of real numbers and back."""

from __future__ import annotations

import numpy as np

from qcompiler.codes import dequantize, quantize


def test_half_rounds_up_and_values_saturate() -> None:
    x = np.array([-np.inf, -0.75, -0.25, 0.0, 0.25, 0.75, 1e30, np.inf], dtype=np.float32)
    codes = quantize(x, 0.5, 10, 0, 20, "uint8")
    assert codes.dtype == np.uint8
    assert codes.tolist() == [0, 9, 10, 10, 11, 12, 20, 20]
    assert dequantize(codes, 0.5, 10).tolist() == [-5.0, -0.5, 0.0, 0.0, 0.5, 1.0, 5.0, 5.0]
    assert dequantize(codes, 0.5, 10).dtype == np.float32


def test_the_division_is_done_in_double_precision() -> None:
    x = np.random.default_rng(0).normal(0, 4, 10_000).astype(np.float32)
    scale = 0.02345678901234
    wanted = np.clip(np.floor(np.asarray(x, dtype=np.float64) / scale + 0.5) - 7, -(2**15), 2**15 - 1).astype(np.int16)
    assert np.array_equal(quantize(x, scale, -7, -(2**15), 2**15 - 1, "int16"), wanted)


def test_what_float32_cannot_hold_is_its_largest_number() -> None:
    largest = np.finfo(np.float32).max
    with np.errstate(all="raise"):
        found = dequantize(np.int8([-128, 0, 127]), float(largest) / 127, 0)
    assert found.tolist() == [-largest, 0.0, largest]
