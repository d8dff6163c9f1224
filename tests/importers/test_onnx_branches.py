"""If: the branch that constants and shapes choose is part of the model; anything else is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcompiler.importers.load import import_model
from tests.importers.check import problem_of
from tests.importers.onnx_models import check, ints, model_of, node, normal, ops


def branch(nodes: list[onnx.NodeProto], output: str, **constants: np.ndarray) -> onnx.GraphProto:
    given = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], given)


def choice(condition: str, then: onnx.GraphProto, otherwise: onnx.GraphProto, output: str = "y") -> onnx.NodeProto:
    return helper.make_node("If", [condition], [output], "choice", then_branch=then, else_branch=otherwise)


def squeeze_if(condition: str) -> onnx.NodeProto:
    """What torch's exporter makes of squeeze: branches of different rank."""
    taken_away = branch([node("Squeeze", "g", "axis", output="t")], "t", axis=ints(3))
    return choice(condition, taken_away, branch([node("Identity", "g", output="e")], "e"))


@pytest.mark.parametrize("size", [1, 2])
def test_a_branch_that_a_shape_chooses(size: int) -> None:
    nodes = [
        node("AveragePool", output="g", kernel_shape=[9, 11 if size == 1 else 10]),
        node("Shape", "g", output="s"),
        node("Gather", "s", "three", output="d"),
        node("Equal", "d", "one", output="condition"),
        squeeze_if("condition"),
    ]
    model = model_of(nodes, constants={"three": np.array(3), "one": np.array(1)})
    graph = check(model) if size == 1 else import_model(model)  # ONNX Runtime looks at both branches, and refuses the other
    assert graph.nodes[-1].output.type.shape == (("N", 3, 1) if size == 1 else ("N", 3, 1, 2))


@pytest.mark.parametrize("chosen", [True, False])
def test_nested_branches_with_constants_and_captures_of_their_own(chosen: bool) -> None:
    inner = choice(
        "other",
        branch([node("Mul", "x", "factor", output="product")], "product", factor=normal(3, 1, 1)),
        branch([node("Sqrt", "negative", output="root")], "root"),
        output="inner",
    )
    then = branch([node("Not", "condition", output="other0"), node("Not", "other0", output="other"), inner], "inner")
    otherwise = branch([node("Conv", "relu", "w", output="c")], "c", w=normal(2, 3, 1, 1))
    nodes = [node("Relu", output="relu"), node("Neg", "relu", output="negative"), choice("condition", then, otherwise)]
    model = model_of(nodes, constants={"condition": np.array(chosen)})
    assert ops(check(model)) == (["mul"] if chosen else ["clip", "conv2d"])


def test_conditions_that_nobody_knows() -> None:
    same = [branch([node("Identity", output=name)], name) for name in "te"]
    by_value = [node("Greater", "x", "zero", output="g"), node("Relu", "g", output="unused"), choice("g", *same)]
    text = problem_of(model_of([by_value[0], by_value[2]], constants={"zero": np.float32(0)}))
    assert "choice (If): its condition depends on the model's input\n" in text
    by_batch = [
        node("Shape", output="s"),
        node("ReduceProd", "s", output="n", keepdims=0),
        node("Equal", "n", "four", output="condition"),
        choice("condition", *same),
        node("Relu", "y", output="z"),
    ]
    text = problem_of(model_of(by_batch, constants={"four": np.array(4)}, output="z"))
    assert "choice (If): its condition depends on the batch\n" in text
