"""Everything that stands in the way is told, what is behind an unsupported operator as well, and nothing that is not."""

from __future__ import annotations

import re
from collections.abc import Callable

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from qcompiler.importers.load import import_model
from tests.importers.check import problem_of
from tests.importers.onnx_models import ints, model_of, node, normal, ops


def lines_of(text: str) -> list[str]:
    """The lines of the problem."""
    problem = text.partition("  problem: ")[2].partition("\n  remedy:")[0]
    return [line.strip() for line in problem.splitlines()]


def test_what_is_behind_operators_of_unknown_shape_and_of_known_shape() -> None:
    nodes = [
        node("LayerNormalization", "x", "g", output="a", name="norm1"),
        node("Conv", "a", "w", output="b", name="conv"),
        node("Shape", "b", output="s"),
        node("Reshape", "b", "minus", output="c", name="view"),
        node("Softmax", "c", output="d", name="soft"),
        node("LayerNormalization", "d", "g0", output="e", name="norm2"),
        helper.make_node("Fancy", ["e"], ["f"], domain="custom"),
        node("Relu", "f", output="h"),
        node("CumSum", "h", "axis", output="i", name="sums"),
        node("LpPool", "b", output="k", name="lp", kernel_shape=[2, 2]),
        node("GroupNormalization", "k", "g4", "g4", output="l", name="norm3", num_groups=2),
        node("Pad", "l", "pads", output="m", name="edge", mode="reflect"),
        node("GlobalAveragePool", "m", output="n0"),
        node("Flatten", "n0", output="n"),
        node("Concat", "i", "n", axis=1),
    ]
    constants = {
        "g": normal(11),
        "w": normal(4, 3, 1, 1),
        "minus": ints(0, -1),
        "g0": normal(396),
        "axis": ints(1)[0],
        "g4": normal(4),
        "pads": ints(0, 0, 9, 0, 0, 0, 0, 0),
    }
    assert lines_of(problem_of(model_of(nodes, constants=constants, opset=21))) == [
        "7 operators are not supported:",
        "norm1, norm2 (LayerNormalization): not supported: it normalizes by the statistics of its input",
        "soft (Softmax): supported only as the model's last step, or before argmax or topk over the same axis, not the batch",
        "f (custom.Fancy): not supported",
        "sums (CumSum): not supported: only sums over whole axes are",
        "lp (LpPool): not supported: only max and average pooling are",
        "norm3 (GroupNormalization): not supported: it normalizes by the statistics of its input",
        "edge (Pad): it reflects 9 elements of an axis of 8",
    ]


def test_sizes_of_what_nobody_knows() -> None:
    nodes = [
        helper.make_node("Fancy", ["x"], ["f"], domain="custom"),
        node("Shape", "f", output="s"),
        node("Slice", "s", "zero", "one", output="n"),
        node("Concat", "n", "rest", output="target", axis=0),
        node("Reshape", "f", "target"),
    ]
    constants = {"zero": ints(0), "one": ints(1), "rest": ints(-1)}
    assert lines_of(problem_of(model_of(nodes, constants=constants))) == [
        "1 operator is not supported:",
        "f (custom.Fancy): not supported",
    ]


def test_both_kinds_at_once() -> None:
    nodes = [
        node("InstanceNormalization", "x", "g", "g", output="a", name="norm"),
        node("Transpose", "a", output="b", name="turn", perm=[1, 0, 2, 3]),
        node("Relu", "b"),
    ]
    text = problem_of(model_of(nodes, constants={"g": normal(3)}))
    assert lines_of(text) == [
        "1 operator is not supported:",
        "norm (InstanceNormalization): not supported: it normalizes by the statistics of its input",
        "the batch cannot be made symbolic:",
        "turn (Transpose): it moves the batch of f32[N,3,9,11] by (1, 0, 2, 3)",
    ]
    assert text.endswith("; keep the batch as the first dimension and write it as -1 or x.size(0) in reshapes")


def test_nobody_is_blamed_for_what_is_computed_in_another_way() -> None:
    nodes = [
        node("LayerNormalization", "x", "g", output="a", name="norm"),
        node("Relu", "a", output="b"),
        node("Div", "x", "b", name="ratio"),
    ]
    assert lines_of(problem_of(model_of(nodes, constants={"g": normal(11)})))[1:] == [
        "norm (LayerNormalization): not supported: it normalizes by the statistics of its input"
    ]
    assert "ratio (Div): it divides by a tensor" in problem_of(
        model_of([node("ReduceMean", output="b", axes=[1]), node("Div", "x", "b", name="ratio")])
    )


class Behind(nn.Module):
    """Layers that are refused, behind a batch that is moved and behind one another."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function, self.conv, self.norm = function, nn.Conv1d(4, 4, 3, padding=1), nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> object:
        return self.function(self, x)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            lambda m, x: m.norm(x.permute(2, 0, 1).softmax(-1)),
            ["aten.layer_norm.default", "aten.softmax.int", "aten.permute.default"],
        ),
        (lambda m, x: x.permute(2, 0, 1).softmax(-1).argmax(-1), ["aten.permute.default"]),
        (lambda m, x: x.permute(2, 0, 1).contiguous().log_softmax(-1).clone(), ["aten.permute.default"]),
        (lambda m, x: m.attention(x, x, x)[0], ["aten.softmax.int", "aten.transpose.int"]),
        (lambda m, x: m.norm(x) / m.conv(x), ["aten.layer_norm.default", "aten.div.Tensor"]),
        (lambda m, x: m.conv(x) / m.norm(x), ["aten.layer_norm.default"]),
    ],
)
def test_what_is_behind_a_batch_that_moves(function: Callable[..., object], expected: list[str]) -> None:
    text = problem_of(Behind(function), torch.randn(2, 4, 4))
    assert sorted(set(re.findall(r"\((aten\.[\w.]+)\)", text))) == sorted(expected)


def test_results_that_are_missing_are_refused_where_they_are_read() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["p", "indices"], "pool", kernel_shape=[2, 2])
    assert ops(import_model(model_of([pool, node("Relu", "p")]))) == ["max_pool2d", "clip"]
    text = problem_of(model_of([pool, node("Cast", "indices", to=onnx.TensorProto.FLOAT)]))
    assert lines_of(text)[1:] == ["pool (MaxPool): its second output (indices) is not supported"]
