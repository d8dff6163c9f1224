"""Integer graphs of the digits network, without building libraries, and ONNX Runtime beside the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from qcompiler.api import parse_bits
from qcompiler.importers.load import load_model
from qcompiler.interpret import quantize_input, run_integer
from qcompiler.ir.graph import Array, Graph
from qcompiler.pipeline import Settings, to_integer
from tests.end_to_end.conftest import Digits, digits

__all__ = ["Digits", "digits"]  # a fixture is found by its name here


def integer_graph(model: object, calibration: Array, bits: str = "w8a8", output_bits: int = 16) -> Graph:
    """The integer graph of a model with one input."""
    import torch

    graph = load_model(model, torch.from_numpy(calibration[:1])).graph
    return to_integer(graph, Settings(calibration, pins=parse_bits(bits), output_bits=output_bits))


def run_onnx(model: onnx.ModelProto | Path, *arrays: Array, optimized: bool = True) -> list[Array]:
    """All outputs in ONNX Runtime."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: x for i, x in zip(session.get_inputs(), arrays, strict=True)})


@dataclass(frozen=True)
class Comparison:
    """Codes of the first output: the reference's, and what ONNX Runtime's real numbers are in the same units."""

    expected: Array
    found: Array

    def agreement(self) -> float:
        """How often both have the same class."""
        first, second = (x.reshape(len(x), -1).argmax(1) for x in (self.expected, self.found))
        return float((first == second).mean())

    def within(self, codes: float) -> float:
        """The share of codes that differ by at most this many."""
        return float((np.abs(self.expected - self.found) <= codes).mean())


def compare(graph: Graph, model: onnx.ModelProto | Path, *arrays: Array, optimized: bool = True) -> Comparison:
    """Reference and ONNX Runtime on the same real inputs."""
    codes = [quantize_input(value, x) for value, x in zip(graph.inputs, arrays, strict=True)]
    expected = run_integer(graph, codes)[0].astype(np.int64)
    value = graph.values[graph.outputs[0]]
    assert value.scale is not None
    return Comparison(expected, run_onnx(model, *arrays, optimized=optimized)[0] / value.scale + (value.zero or 0))


@pytest.fixture(scope="session")
def digits_graph(digits: Digits) -> Callable[[str, int], Graph]:
    """The integer graph of the digits network for some bits and output bits, made once for each."""
    made: dict[tuple[str, int], Graph] = {}

    def get(bits: str, output_bits: int = 16) -> Graph:
        key = (bits, output_bits)
        if key not in made:
            made[key] = integer_graph(digits.model, digits.x_train[:128], bits, output_bits)
        return made[key]

    return get
