"""Inputs that are codes in the model: whole numbers are taken as they are, and the library's codes are as many."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

import qcompiler as qc
from tests.importers.onnx_models import model_of, node, normal


def test_whole_numbers_are_codes() -> None:
    constants = {"s": np.float32(0.02), "t": np.float32(0.05), "z": np.int8(5), "w": normal(3, 4, 3, 3)}
    nodes = [
        node("DequantizeLinear", "x", "s", "z", output="d"),
        node("Conv", "d", "w", output="c", pads=[1, 1, 1, 1]),
        node("QuantizeLinear", "c", "t", "z", output="q"),
        node("DequantizeLinear", "q", "t", "z"),
    ]
    model = model_of(nodes, ("batch", 4, 5, 5), constants, type=TensorProto.INT8)  # type: ignore[arg-type]
    library = qc.compile(model, progress=False)
    codes = np.random.default_rng(4).integers(-128, 128, (3, 4, 5, 5))
    expected = library(codes.astype(np.float32))
    assert np.array_equal(library(codes), expected)
    assert np.array_equal(library.run_int((codes + 128).astype(np.uint8)), library.run_int(codes_of(library, codes)))
    assert expected.max() <= 122 * 0.05


def codes_of(library: qc.Library, numbers: np.ndarray) -> np.ndarray:
    port = library.inputs[0]
    assert (port.scale, port.zero, port.dtype) == (1.0, 128, "uint8")
    return (numbers / port.scale + port.zero).astype(port.dtype)
