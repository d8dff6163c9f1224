"""Every ONNX operator in its forms, against ONNX Runtime; the oldest ones stand in test_onnx.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, version_converter
from onnx.reference import ReferenceEvaluator

from qcompiler.importers.load import import_model
from tests.importers.check import check_graph, positive_numbers, problem_of, whole_numbers
from tests.importers.onnx_models import check, ints, model_of, node, normal, ops, shaped

IMAGE = ("batch", 3, 9, 11)
EVEN = ("batch", 4, 6, 8)
FUNCTIONS: dict[str, tuple[str, dict[str, Any], int]] = {
    "sigmoid": ("Sigmoid", {}, 17),
    "tanh": ("Tanh", {}, 17),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 0.25}, 17),
    "hard_swish": ("HardSwish", {}, 17),
    "elu": ("Elu", {"alpha": 0.7}, 17),
    "selu": ("Selu", {}, 17),
    "celu": ("Celu", {"alpha": 2.0}, 17),
    "softplus": ("Softplus", {}, 17),
    "softsign": ("Softsign", {}, 17),
    "mish": ("Mish", {}, 18),
    "gelu": ("Gelu", {}, 20),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}, 20),
    "exp": ("Exp", {}, 17),
    "erf": ("Erf", {}, 17),
    "abs": ("Abs", {}, 17),
    "neg": ("Neg", {}, 17),
    "sin": ("Sin", {}, 17),
    "cos": ("Cos", {}, 17),
    "floor": ("Floor", {}, 17),
    "ceil": ("Ceil", {}, 17),
    "round": ("Round", {}, 17),
    "sign": ("Sign", {}, 17),
    "thresholded": ("ThresholdedRelu", {"alpha": 0.3}, 17),
    "shrink": ("Shrink", {"lambd": 0.5, "bias": 0.2}, 17),
    "soft_shrink": ("Shrink", {"lambd": 0.5, "bias": 0.5}, 17),
    "sinh": ("Sinh", {}, 17),
    "cosh": ("Cosh", {}, 17),
    "asinh": ("Asinh", {}, 17),
    "atan": ("Atan", {}, 17),
    "sigmoid_6": ("Sigmoid", {}, 6),
    "elu_6": ("Elu", {}, 6),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    operator, attributes, opset = FUNCTIONS[name]
    assert ops(check(model_of([node(operator, **attributes)], opset=opset))) == ["function"]


@pytest.mark.parametrize("operator", ["Log", "Sqrt", "Reciprocal"])
def test_function_of_positive_numbers(operator: str) -> None:
    assert ops(check(model_of([node(operator)]), draw=positive_numbers)) == ["function"]


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, 3.0, -1.0, 1.7])
def test_power(exponent: float) -> None:
    model = model_of([node("Pow", "x", "p")], constants={"p": np.float32(exponent)})
    assert ops(check(model, draw=positive_numbers)) == ["function"]


def test_power_of_a_number_and_by_a_list() -> None:
    check(model_of([node("Pow", "p", "x")], constants={"p": np.float32(1.5)}))
    check(model_of([node("Pow", "x", "p")], constants={"p": np.full(11, 2, np.float32)}))


PER_CHANNEL = normal(3, 1, 1)
C: dict[str, np.ndarray] = {"c": PER_CHANNEL, "d": np.abs(PER_CHANNEL) + 0.5, "s": np.float32(0.3), "r": normal(11)}  # type: ignore[dict-item]
ELEMENTWISE: dict[str, tuple[list[onnx.NodeProto], list[str]]] = {
    "sub": ([node("Sub", "x", "c")], ["sub"]),
    "sub_from": ([node("Sub", "c", "x")], ["sub"]),
    "mul": ([node("Mul", "r", "x")], ["mul"]),
    "square": ([node("Mul", "x", "x")], ["function"]),
    "mul_values": ([node("Relu", output="z"), node("Mul", "x", "z")], ["clip", "mul"]),
    "div": ([node("Div", "x", "d")], ["mul"]),
    "div_number": ([node("Exp", output="e"), node("Div", "s", "e")], ["function", "function"]),
    "div_constant": ([node("Exp", output="e"), node("Div", "d", "e")], ["function", "function", "mul"]),
    "div_function": (
        [node("ReduceMean", output="m", axes=[1]), node("Exp", "m", output="e"), node("Div", "x", "e")],
        ["mean", "function", "mul"],
    ),
    "div_common": ([node("Relu", output="z"), node("Exp", output="e"), node("Div", "z", "e")], ["function"]),
    "softsign": (
        [node("Abs", output="a"), node("Add", "a", "one", output="b"), node("Div", "x", "b")],
        ["function"],
    ),
    "max": ([node("Neg", output="n"), node("Max", "x", "n", "c")], ["function", "maximum", "maximum"]),
    "max_number": ([node("Max", "x", "s")], ["clip"]),
    "min": ([node("Neg", output="n"), node("Min", "s", "x", "n")], ["function", "minimum", "clip"]),
    "max_one": ([node("Max", "x")], ["identity"]),
    "sum": ([node("Relu", output="z"), node("Sum", "x", "z", "c")], ["clip", "add", "add"]),
    "mean": ([node("Relu", output="z"), node("Mean", "x", "z", "c")], ["clip", "add", "add", "mul"]),
    "where": ([node("Exp", output="e"), node("LessOrEqual", "x", "s", output="g"), node("Where", "g", "s", "e")], ["function"]),
    "where_of_two": (
        [node("Greater", "c", "x", output="g"), node("Neg", output="n"), node("Where", "g", "x", "n")],
        ["sub", "function", "function", "function", "mul", "mul", "add"],
    ),
    "truth_values": (
        [
            node("Greater", "x", "s", output="g"),
            node("Equal", "x", "s", output="e"),
            node("Not", "g", output="n"),
            node("Or", "e", "n", output="o"),
            node("Cast", "o", to=1),
        ],
        ["function"],
    ),
    "where_prelu": (
        [node("Mul", "x", "c", output="m"), node("Less", "s0", "x", output="g"), node("Where", "g", "x", "m")],
        ["prelu"],
    ),
    "leaky": ([node("LeakyRelu", alpha=0.2)], ["prelu"]),
    "prelu": ([node("PRelu", "x", "c")], ["prelu"]),
    "prelu_one": ([node("PRelu", "x", "s1")], ["prelu"]),
    "prelu_wide": ([node("PRelu", "x", "r")], ["clip", "clip", "mul", "add"]),
    "expanded": (
        [
            node("ReduceMean", output="m", axes=[2, 3]),
            node("Shape", output="q"),
            node("Expand", "m", "q", output="e"),
            node("Mul", "x", "e"),
        ],
        ["mean", "mul"],
    ),
    "cast": (
        [
            node("Cast", output="z", to=TensorProto.FLOAT16),
            node("Cast", "z", output="w", to=TensorProto.FLOAT),
            node("Relu", "w"),
        ],
        ["clip"],
    ),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str) -> None:
    nodes, expected = ELEMENTWISE[name]
    if name == "cast":
        assert ops(import_model(model_of(nodes))) == expected
        return
    more = {"one": np.float32(1), "s0": np.float32(0), "s1": normal(1)}
    assert ops(check(model_of(nodes, constants={**C, **more}))) == expected  # type: ignore[dict-item]


def test_broadcasting_of_operator_set_6() -> None:
    model = model_of([node("Mul", "x", "c", broadcast=1, axis=1)], constants={"c": normal(3)}, opset=6)
    assert check(model, dynamic=model_of([node("Mul", "x", "c")], constants={"c": _initializer(model)})).constants[
        0
    ].type.shape == (3, 1, 1)
    slope = normal(3)
    model = model_of([node("PRelu", "x", "c")], constants={"c": slope}, opset=6)
    check(model, dynamic=model_of([node("PRelu", "x", "c")], constants={"c": slope.reshape(3, 1, 1)}))


def _initializer(model: onnx.ModelProto) -> np.ndarray:
    return onnx.numpy_helper.to_array(model.graph.initializer[0]).reshape(3, 1, 1)


MOVEMENT: dict[str, tuple[onnx.ModelProto, list[str]]] = {
    "concat": (model_of([node("Relu", output="z"), node("Concat", "x", "z", "x", axis=-1)]), ["clip", "concat"]),
    "concat_constant": (
        model_of(
            [node("Shape", output="q"), node("Expand", "k", "q", output="e"), node("Concat", "x", "e", axis=1)],
            constants={"k": normal(1, 3, 1, 1)},
        ),
        ["concat"],
    ),
    "concat_zeros": (
        model_of([node("Shape", output="q"), node("ConstantOfShape", "q", output="e"), node("Concat", "e", "x", axis=1)]),
        ["concat"],
    ),
    "slice_back": (
        model_of(
            [node("Slice", "x", "s", "e", "a", "t")],
            constants={"s": ints(-1, 8), "e": ints(-(2**63) + 1, 1), "a": ints(3, 2), "t": ints(-1, -3)},
        ),
        ["slice"],
    ),
    "transpose": (model_of([node("Transpose", perm=[0, 2, 3, 1])]), ["transpose"]),
    "pad_reflect": (
        model_of([node("Pad", "x", "p", mode="reflect")], constants={"p": ints(0, 0, 2, 1, 0, 0, 1, 3)}),
        ["take", "take"],
    ),
    "pad_edge": (model_of([node("Pad", "x", "p", mode="edge")], constants={"p": ints(0, 1, 2, 1, 0, 0, 1, 0)}), ["take"] * 3),
    "pad_wrap": (
        model_of([node("Pad", "x", "p", mode="wrap")], constants={"p": ints(0, 0, 2, 1, 0, 0, 1, 0)}, opset=19),
        ["take", "take"],
    ),
    "depth_to_space": (model_of([node("DepthToSpace", blocksize=2)], EVEN), ["reshape", "transpose", "reshape"]),
    "depth_to_space_crd": (
        model_of([node("DepthToSpace", blocksize=2, mode="CRD")], ("batch", 8, 3, 2)),
        ["reshape", "transpose", "reshape"],
    ),
    "space_to_depth": (model_of([node("SpaceToDepth", blocksize=2)], EVEN), ["reshape", "transpose", "reshape"]),
    "gather": (model_of([node("Gather", "x", "i", axis=2)], constants={"i": ints(3, -1, 3)}), ["take"]),
    "gather_range": (model_of([node("Gather", "x", "i", axis=2)], constants={"i": ints(1, 3, 5)}), ["slice"]),
    "gather_scalar": (model_of([node("Gather", "x", "i", axis=3)], constants={"i": np.array(4)}), ["slice", "reshape"]),
    "gather_grid": (
        model_of([node("Gather", "x", "i", axis=1)], constants={"i": np.array([[2, 0], [1, 1]])}),
        ["take", "reshape"],
    ),
    "tile": (model_of([node("Tile", "x", "r")], constants={"r": ints(1, 2, 1, 3)}), ["take", "take"]),
    "expand": (model_of([node("Expand", "x", "s")], ("batch", 3, 1), {"s": ints(1, 1, 5)}), ["take"]),
    "shuffle": (
        model_of(
            [
                node("Reshape", "x", "a", output="p"),
                node("Transpose", "p", output="q", perm=[0, 2, 1, 3, 4]),
                node("Reshape", "q", "b"),
            ],
            EVEN,
            {"a": ints(0, 2, 2, 6, 8), "b": ints(0, 4, 6, 8)},
        ),
        ["take"],
    ),
    "merged": (
        model_of(
            [node("Reshape", "x", "a", output="p"), node("MatMul", "p", "w", output="q"), node("Reshape", "q", "b")],
            ("batch", 5, 11),
            {"a": ints(-1, 11), "b": ints(-1, 5, 4), "w": normal(11, 4)},
        ),
        ["linear"],
    ),
}


@pytest.mark.parametrize("name", MOVEMENT)
def test_movement(name: str) -> None:
    model, expected = MOVEMENT[name]
    assert ops(check(model)) == expected


@pytest.mark.parametrize(
    ("opset", "split"),
    [(17, ints(1, 3)), (11, [1, 3]), (6, [2, 2]), (18, None), (17, None)],
)
def test_split(opset: int, split: Any) -> None:
    more: dict[str, Any] = (
        {"num_outputs": 2} if opset >= 18 else {} if split is None or isinstance(split, np.ndarray) else {"split": split}
    )
    inputs = ["x", "s"] if isinstance(split, np.ndarray) else ["x"]
    nodes = [helper.make_node("Split", inputs, ["y", "w"], "cut", axis=1, **more)]
    model = model_of(nodes, EVEN, {"s": split} if isinstance(split, np.ndarray) else None, opset)
    model.graph.output.extend([helper.make_tensor_value_info("w", TensorProto.FLOAT, None)])
    graph = check(shaped(model))
    assert graph.outputs == ("y", "w")
    assert {n.origin for n in graph.nodes} == {"cut"}


def test_uneven_split() -> None:
    model = model_of([helper.make_node("Split", ["x"], ["y", "w"], "cut", axis=3, num_outputs=2)], opset=18)
    model.graph.output.extend([helper.make_tensor_value_info("w", TensorProto.FLOAT, None)])
    assert [n.output.type.shape[3] for n in check(shaped(model)).nodes] == [6, 5]


def resize(
    mode: str, sizes: tuple[int, int] | None = None, scales: tuple[float, float] | None = None, **more: Any
) -> onnx.ModelProto:
    constants: dict[str, np.ndarray] = {}
    if sizes:
        nodes = [
            node("Shape", output="q"),
            node("Slice", "q", "zero", "two", output="f"),
            node("Concat", "f", "hw", output="all", axis=0),
            node("Resize", "x", "", "", "all", mode=mode, **more),
        ]
        constants = {"zero": ints(0), "two": ints(2), "hw": ints(*sizes)}
    else:
        nodes = [node("Resize", "x", "", "k", mode=mode, **more)]
        constants = {"k": np.array([1, 1, *(scales or (2, 2))], np.float32)}
    return model_of(nodes, ("batch", 2, 6, 8), constants, opset=19)


COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("size", [(12, 16), (3, 5), (7, 1)])
def test_nearest_resize(coordinates: str, rounding: str, size: tuple[int, int]) -> None:
    model = resize("nearest", size, coordinate_transformation_mode=coordinates, nearest_mode=rounding)
    assert set(ops(check(model, (2,)))) <= {"take", "slice"}


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("size", [(12, 16), (3, 5), (7, 1), (6, 24)])
def test_linear_resize(coordinates: str, size: tuple[int, int]) -> None:
    assert ops(check(resize("linear", size, coordinate_transformation_mode=coordinates), (2,))) == ["resize_linear"]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(2.0, 3.0), (1.5, 0.75), (2.3, 1.0)])
def test_resize_by_scales(mode: str, scales: tuple[float, float]) -> None:
    check(resize(mode, scales=scales), (2,))


def test_old_resizes() -> None:
    two = np.array([1, 1, 2, 2], np.float32)
    check(model_of([node("Upsample", scales=[1.0, 1.0, 2.0, 3.0], mode="nearest")], EVEN, opset=7))
    check(model_of([node("Upsample", "x", "k", mode="linear")], EVEN, {"k": two}, opset=9))
    check(model_of([node("Resize", "x", "k", mode="nearest")], EVEN, {"k": two}, opset=10))
    check(model_of([node("Resize", "x", "k", mode="linear")], EVEN, {"k": two}, opset=10))


def test_resize_of_sequences_and_chosen_axes() -> None:
    check(model_of([node("Resize", "x", "", "k", mode="linear")], ("batch", 3, 7), {"k": np.array([1, 1, 2], np.float32)}))
    model = model_of(
        [node("Resize", "x", "", "", "s", axes=[2, 3], mode="nearest", keep_aspect_ratio_policy="not_larger")],
        EVEN,
        {"s": ints(9, 9)},
        opset=18,
    )
    assert check(model).nodes[-1].output.type.shape == ("N", 4, 7, 9)


WINDOWS: dict[str, tuple[onnx.ModelProto, list[str]]] = {
    "conv1d": (
        model_of(
            [node("Conv", "x", "w", "b", pads=[1, 2], strides=[2], group=2)],
            ("batch", 4, 9),
            {"w": normal(6, 2, 3), "b": normal(6)},
        ),
        ["reshape", "conv2d", "reshape"],
    ),
    "conv3d": (
        model_of(
            [node("Conv", "x", "w", pads=[1, 0, 2, 0, 1, 1], dilations=[1, 2, 1])],
            ("batch", 2, 4, 6, 5),
            {"w": normal(3, 2, 3, 2, 2)},
        ),
        ["conv3d"],
    ),
    "conv3d_same": (
        model_of(
            [node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[2, 2, 2])],
            ("batch", 2, 4, 6, 5),
            {"w": normal(3, 2, 3, 2, 2)},
        ),
        ["conv3d"],
    ),
    "transposed": (
        model_of(
            [node("ConvTranspose", "x", "w", "b", pads=[1, 0, 0, 1], strides=[2, 3], output_padding=[1, 0])],
            ("batch", 4, 5, 3),
            {"w": normal(4, 3, 3, 2), "b": normal(3)},
        ),
        ["conv_transpose2d"],
    ),
    "transposed_shape": (
        model_of(
            [node("ConvTranspose", "x", "w", strides=[2, 2], output_shape=[10, 7])], ("batch", 4, 5, 3), {"w": normal(4, 3, 3, 3)}
        ),
        ["conv_transpose2d"],
    ),
    "transposed_same": (
        model_of(
            [node("ConvTranspose", "x", "w", strides=[2, 2], auto_pad="SAME_UPPER", group=2)],
            ("batch", 4, 5, 3),
            {"w": normal(4, 3, 3, 3)},
        ),
        ["conv_transpose2d"],
    ),
    "transposed_lower": (
        model_of(
            [node("ConvTranspose", "x", "w", strides=[2, 2], auto_pad="SAME_LOWER", dilations=[2, 1])],
            ("batch", 4, 5, 3),
            {"w": normal(4, 3, 3, 3)},
        ),
        ["conv_transpose2d"],
    ),
    "transposed_1d": (
        model_of([node("ConvTranspose", "x", "w", strides=[2], pads=[1, 0])], ("batch", 4, 5), {"w": normal(4, 3, 3)}),
        ["reshape", "conv_transpose2d", "reshape"],
    ),
    "max_pool_1d": (
        model_of([node("MaxPool", kernel_shape=[3], strides=[2], pads=[1, 0])], ("batch", 2, 9)),
        ["reshape", "max_pool2d", "reshape"],
    ),
    "average_pool_1d": (
        model_of([node("AveragePool", kernel_shape=[3], pads=[1, 1], count_include_pad=1)], ("batch", 2, 9)),
        ["reshape", "average_pool2d", "reshape"],
    ),
    "max_pool_3d": (
        model_of([node("MaxPool", kernel_shape=[2, 3, 2], strides=[2, 1, 2], pads=[1, 1, 0, 0, 1, 1])], ("batch", 2, 5, 6, 7)),
        ["max_pool2d", "reshape", "max_pool2d", "reshape"],
    ),
    "average_pool_3d": (
        model_of(
            [node("AveragePool", kernel_shape=[2, 3, 2], strides=[2, 1, 2], pads=[1, 1, 0, 0, 1, 1])], ("batch", 2, 5, 6, 7)
        ),
        ["average_pool2d", "reshape", "average_pool2d", "reshape"],
    ),
    "average_pool_dilated": (
        model_of([node("AveragePool", kernel_shape=[2, 3], dilations=[2, 1])], opset=19),
        ["conv2d"],
    ),
    "global_max_1d": (model_of([node("GlobalMaxPool")], ("batch", 2, 9)), ["amax"]),
    "global_average_3d": (model_of([node("GlobalAveragePool")], ("batch", 2, 3, 4, 5)), ["mean"]),
    "lrn": (
        model_of([node("LRN", size=3, alpha=0.5, beta=0.6, bias=1.5)], ("batch", 7, 4, 5)),
        ["function", "conv2d", "function", "mul"],
    ),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str) -> None:
    model, expected = WINDOWS[name]
    assert ops(check(model)) == expected


REDUCTIONS: dict[str, list[str]] = {
    "ReduceMean": ["mean"],
    "ReduceSum": ["sum"],
    "ReduceMax": ["amax"],
    "ReduceMin": ["amin"],
    "ReduceL1": ["function", "sum"],
    "ReduceL2": ["function", "sum", "function"],
    "ReduceSumSquare": ["function", "sum"],
    "ReduceLogSumExp": ["function", "sum", "function"],
}


@pytest.mark.parametrize("operator", REDUCTIONS)
@pytest.mark.parametrize("opset", [6, 11, 18])
def test_reduction(operator: str, opset: int) -> None:
    if opset == 18:
        model = model_of([node(operator, "x", "a", keepdims=0)], constants={"a": ints(-1, 1)}, opset=18)
    elif operator == "ReduceSum" and opset == 11:
        model = model_of([node(operator, "x", "a")], constants={"a": ints(1)}, opset=13)
    else:
        model = model_of([node(operator, axes=[1, 3])], opset=opset)
    assert ops(check(model)) == REDUCTIONS[operator]


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_arg(operator: str, last: int) -> None:
    model = model_of([node("Round", output="r"), node(operator, "r", axis=3, keepdims=last, select_last_index=last)])
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert ops(check(model)) == ["function", "argmax"]


@pytest.mark.parametrize("opset", [6, 10, 17])
def test_topk(opset: int) -> None:
    inputs, more = (["x"], {"k": 3}) if opset < 10 else (["x", "k"], {"largest": 0} if opset > 10 else {})
    nodes = [helper.make_node("TopK", inputs, ["y", "i"], "top", axis=-1, **more)]
    model = model_of(nodes, constants={"k": ints(3)} if opset >= 10 else None, opset=opset)
    model.graph.output.extend([helper.make_tensor_value_info("i", TensorProto.INT64, None)])
    graph = check(shaped(model))
    assert (ops(graph), graph.outputs) == (["topk_values", "topk_indices"], ("y", "i"))


PRODUCTS: dict[str, tuple[onnx.ModelProto, list[str]]] = {
    "values": (
        model_of([node("Transpose", output="t", perm=[0, 1, 3, 2]), node("MatMul", "x", "t")]),
        ["transpose", "matmul"],
    ),
    "constant_first": (model_of([node("MatMul", "w", "x")], constants={"w": normal(5, 9)}), ["transpose", "linear", "transpose"]),
    "batched_constant": (model_of([node("MatMul", "x", "w")], constants={"w": normal(1, 1, 11, 5)}), ["linear"]),
    "vector": (model_of([node("MatMul", "x", "w")], constants={"w": normal(11)}), ["linear", "reshape"]),
    "gemm_value_bias": (
        model_of([node("Gemm", "x", "w", "x", beta=0.5)], ("batch", 4), {"w": normal(4, 4)}),
        ["linear", "mul", "add"],
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_product(name: str) -> None:
    model, expected = PRODUCTS[name]
    assert ops(check(model)) == expected


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
@pytest.mark.parametrize("table", [normal(5, 3), normal(5), normal(5, 2, 3)])
def test_embedding(kind: int, table: np.ndarray) -> None:
    nodes = [node("Cast", output="i", to=TensorProto.INT64), node("Gather", "t", "i", output="e"), node("Relu", "e")]
    model = model_of(nodes, ("batch", 4), {"t": table}, type=kind)

    def draw(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return whole_numbers(generator, shape).astype(np.int32 if kind == TensorProto.INT32 else np.int64)

    assert ops(check(model, draw=draw))[0] == "embedding"


UNSUPPORTED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "divide": (
        lambda: model_of([node("ReduceMean", output="m", axes=[1]), node("Div", "x", "m")]),
        "(Div): it divides by a tensor that is computed from the model's input and is no function of one tensor",
    ),
    "divide_zero": (
        lambda: model_of([node("Div", "x", "z")], constants={"z": ints(0, 1, 1).astype(np.float32).reshape(3, 1, 1)}),
        "(Div): it divides by a constant that has zeros",
    ),
    "power": (
        lambda: model_of([node("Pow", "x", "x")]),
        "(Pow): neither its base (above 0) nor its exponent is one constant number",
    ),
    "norm": (
        lambda: model_of([node("InstanceNormalization", "x", "s", "s")], constants={"s": normal(3)}),
        "(InstanceNormalization): not supported: it normalizes by the statistics of its input",
    ),
    "cubic": (lambda: resize("cubic", (12, 16)), "(Resize): mode 'cubic' is not supported, only nearest and linear"),
    "antialias": (
        lambda: resize("linear", (3, 4), antialias=1),
        "(Resize): antialias=1 is not supported where it makes the tensor smaller",
    ),
    "trilinear": (
        lambda: model_of(
            [node("Resize", "x", "", "k", mode="linear")], ("batch", 2, 3, 4, 5), {"k": np.array([1, 1, 2, 2, 2], np.float32)}
        ),
        "(Resize): linear resizing of f32[N,2,3,4,5] along axes [2, 3, 4] is not supported",
    ),
    "transposed_3d": (
        lambda: model_of([node("ConvTranspose", "x", "w")], ("batch", 2, 3, 4, 5), {"w": normal(2, 2, 2, 2, 2)}),
        "(ConvTranspose): only 1-d and 2-d transposed convolutions are supported, the weight is [2,2,2,2,2]",
    ),
    "indices": (
        lambda: model_of(
            [node("Relu", output="z"), node("GatherElements", "x", "i", axis=1)],
            constants={"i": np.zeros((1, 3, 9, 11), np.int64)},
        ),
        "(GatherElements): not supported: only Gather by constant indices, and of rows of constant tables, is",
    ),
    "integers": (
        lambda: model_of(
            [node("Add", "x", "x", output="t"), node("Cast", "t", to=TensorProto.FLOAT)], ("batch", 3), type=TensorProto.INT64
        ),
        "t (Add): it reads the integers 'x', which only Gather from a constant table can read",
    ),
    "is_nan": (
        lambda: model_of([node("IsNaN", output="g"), node("Cast", "g", to=1)]),
        "g (IsNaN): not supported: codes are numbers, neither infinite nor NaN",
    ),
    "truth_values": (
        lambda: model_of([node("Greater", "x", "z")], constants={"z": np.float32(0)}),  # type: ignore[dict-item]
        "the model's outputs (output y): its elements are truth values; return numbers, as of (x > 0).float()",
    ),
    "conv_integer": (
        lambda: model_of(
            [
                helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "quantize"),
                node("ConvInteger", "q", "w", "z", output="i"),
                node("Cast", "i", to=TensorProto.FLOAT),
            ],
            constants={"w": np.ones((2, 3, 1, 1), np.uint8)},
        ),
        "quantize (DynamicQuantizeLinear): not supported: its scales depend on the values; quantize the model with static scales, or pass the float model",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_why_unsupported(name: str) -> None:
    model, why = UNSUPPORTED[name]
    assert f"{why}\n" in problem_of(model())


FIXED: dict[str, tuple[onnx.ModelProto, str]] = {
    "concat": (model_of([node("Concat", "x", "x", axis=0)]), "(Concat): it joins samples to the batch of f32[N,3,9,11]"),
    "gather": (
        model_of([node("Gather", "x", "i")], constants={"i": ints(0)}),
        "(Gather): it picks samples of the batch of f32[N,3,9,11]",
    ),
    "tile": (
        model_of([node("Tile", "x", "r")], constants={"r": ints(2, 1, 1, 1)}),
        "(Tile): it repeats f32[N,3,9,11] by (2, 1, 1, 1)",
    ),
    "argmax": (model_of([node("ArgMax")]), "(ArgMax): it ranks over the batch of f32[N,3,9,11]"),
    "merged": (
        model_of([node("Reshape", "x", "s", output="z"), node("Relu", "z")], constants={"s": ints(-1, 11)}),
        "(Relu): it reshapes f32[N,3,9,11] to [-1,11], which does not keep the batch in front",
    ),
    "merged_output": (
        model_of([node("Reshape", "x", "s")], constants={"s": ints(-1, 11)}),
        "the model's outputs (output 0): it reshapes f32[N,3,9,11] to [-1,11], which does not keep the batch in front",
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_why_the_batch_is_fixed(name: str) -> None:
    model, why = FIXED[name]
    assert why in problem_of(model)


def test_oldest_operator_sets() -> None:
    old = model_of(
        [
            node("BatchNormalization", "x", "s", "b", "m", "v", is_test=1, consumed_inputs=[0, 0, 0, 1, 1], output="z"),
            node("Relu", "z", consumed_inputs=[0]),
        ],
        constants={k: np.abs(normal(3)) for k in "sbmv"},
        opset=5,
    )
    new = model_of([node("BatchNormalization", "x", "s", "b", "m", "v", output="z"), node("Relu", "z")])
    new.graph.initializer.extend(old.graph.initializer)
    assert ops(check(old, dynamic=new)) == ["batch_norm", "clip"]


def test_operator_set_that_cannot_be_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert_version(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        raise RuntimeError("no adapter\nat line 5")

    monkeypatch.setattr(version_converter, "convert_version", convert_version)
    assert problem_of(model_of([node("Relu")], opset=5)) == (
        "IMPORT002 at net\n"
        "  problem: the model uses operator set 5, and onnx cannot convert it to 6: no adapter\n"
        "  remedy:  export the model again, with operator set 13 or later"
    )


def test_even_window_of_local_response_norm() -> None:
    model = model_of([node("LRN", size=4, alpha=0.5)], ("batch", 7, 6, 2))

    def expected(arrays: list[np.ndarray]) -> list[np.ndarray]:
        (x,) = arrays
        squares = np.pad(x * x, ((0, 0), (1, 2), (0, 0), (0, 0)))  # (size - 1) // 2 in front, size // 2 behind
        sums = sum(squares[:, i : i + 7] for i in range(4))
        return [x / (1 + 0.5 / 4 * sums) ** 0.75]

    check_graph(import_model(model), expected)


def test_newest_operator_set() -> None:
    newest = onnx.defs.onnx_opset_version()
    nodes = [
        node("Swish", output="a", alpha=0.5),
        node("ReduceMean", "a", "axes", output="b"),
        helper.make_node("Split", ["a"], ["c", "d"], "split", axis=3, num_outputs=2),
        node("Resize", "c", "", "scales", output="e"),
        node("Mul", "e", "b"),
    ]
    constants = {"axes": ints(2, 3), "scales": np.array([1, 1, 2, 2], np.float32)}
    model = model_of(nodes, constants=constants, opset=newest)
    evaluator = ReferenceEvaluator(model)
    check_graph(import_model(model), lambda arrays: evaluator.run(None, {"x": arrays[0]}))
