"""onnx.backend.test: what passes may only grow, nothing fails, and every operator of the list passes somewhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.importers.onnx_backend import REASONS, Outcome, cases, run
from tests.wall.many import build_many, mismatches

PASSED = 497  # with the pinned onnx; may only rise

LIST = (
    "Add", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Elu",
    "Erf", "Exp", "Expand", "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish",
    "LRN", "LeakyRelu", "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mish", "Mul", "PRelu", "Pad",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize", "Selu", "Sigmoid", "Slice",
    "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose",
    "Unsqueeze", "Upsample",
)  # fmt: skip
"""Operators that must not have only unsupported cases."""


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [run(case) for case in cases()]


def test_nothing_fails(outcomes: list[Outcome]) -> None:
    assert not [(o.case.name, o.reason, o.detail) for o in outcomes if o.status == "failed"]


def test_what_passes_only_grows(outcomes: list[Outcome]) -> None:
    assert sum(o.status == "passed" for o in outcomes) >= PASSED


def test_every_reason_is_of_the_list(outcomes: list[Outcome]) -> None:
    assert {o.reason for o in outcomes if o.status == "unsupported"} <= set(REASONS)


def test_every_operator_of_the_list_passes_somewhere(outcomes: list[Outcome]) -> None:
    passed = Counter(operator for o in outcomes if o.status == "passed" for operator in o.case.operators)
    seen = {operator for o in outcomes for operator in o.case.operators}
    assert not [operator for operator in LIST if operator in seen and not passed[operator]]


def test_a_sixth_of_them_is_built(outcomes: list[Outcome], tmp_path: Path) -> None:
    """``examples/benchmarks/onnx_backend.py --build`` builds all."""
    graphs = [o.integer for o in outcomes if o.integer is not None][::6]
    found = mismatches(graphs, build_many(graphs, "native", tmp_path / "library"))
    assert not found, found[0]
