"""Truth values of ONNX: compared, joined, moved, chosen by, and as the numbers 0 and 1."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.importers.onnx_models import check, ints, model_of, node, normal, ops

CONSTANTS = {
    "limit": np.float32(0.25),
    "low": np.float32(-1),
    "other": normal(3, 1, 1),
    "axis": ints(1),
    "mask": np.array([True, False, True]).reshape(3, 1, 1),
}


def cast(x: str, output: str = "y", to: int = TensorProto.FLOAT) -> onnx.NodeProto:
    return node("Cast", x, output=output, to=to)


CASES: dict[str, tuple[list[onnx.NodeProto], list[str]]] = {
    "numbers": ([node("Greater", "x", "limit", output="g"), cast("g")], ["function"]),
    "two tensors": ([node("Less", "x", "other", output="g"), cast("g")], ["sub", "function"]),
    "joined": (
        [
            node("Less", "x", "limit", output="a"),
            node("Not", "a", output="b"),
            node("GreaterOrEqual", "x", "low", output="c"),
            node("Xor", "b", "c", output="d"),
            cast("d"),
        ],
        ["function"],
    ),
    "with a constant": (
        [node("Greater", "x", "limit", output="a"), node("And", "a", "mask", output="b"), cast("b")],
        ["function", "mul"],
    ),
    "moved": (
        [
            node("Greater", "x", "limit", output="a"),
            node("Transpose", "a", output="b", perm=[0, 1, 3, 2]),
            node("Transpose", "b", output="c", perm=[0, 1, 3, 2]),
            node("Where", "c", "x", "low"),
        ],
        ["function", "transpose", "transpose", "function", "mul", "mul", "add"],
    ),
    "of a number": (
        [node("Relu", output="r"), cast("r", "t", TensorProto.BOOL), node("Not", "t", output="n"), cast("n")],
        ["clip", "function"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_truth_values(name: str) -> None:
    nodes, expected = CASES[name]
    read = {x for n in nodes for x in n.input}
    assert ops(check(model_of(nodes, constants={k: v for k, v in CONSTANTS.items() if k in read}))) == expected
