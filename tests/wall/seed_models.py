"""Small valid ONNX models of every kind that is imported: what ``damaged_models`` damages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


def _numbers(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32) * np.float32(0.4)


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


def _node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node; names are separated by spaces, ``-`` stands for one that is left out."""
    split = [[name if name != "-" else "" for name in names.split()] for names in (inputs, outputs)]
    return helper.make_node(op, *split, name=f"{op.lower()}_{split[1][0]}", **attributes)


def _model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array],
    shape: Sequence[int | str] = ("N", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    output: int = TensorProto.FLOAT,
) -> ModelProto:
    """A model from ``x`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(data, name) for name, data in constants.items()],
    )
    graph.output[0].type.tensor_type.shape.SetInParent()  # of any shape, which the checker wants to be said
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def plain() -> ModelProto:
    """Convolutions, batch norm, pooling, Gemm and a softmax."""
    nodes = [
        _node("Conv", "x w1 b1", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], dilations=[1, 1], group=1),
        _node("BatchNormalization", "a s o m v", "b", epsilon=1e-5),
        _node("Relu", "b", "c"),
        _node("MaxPool", "c", "d", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=0),
        _node("Conv", "d w2", "e", group=8, auto_pad="SAME_UPPER", kernel_shape=[3, 3]),
        _node("AveragePool", "e", "f", kernel_shape=[2, 2], count_include_pad=1, pads=[1, 0, 0, 1]),
        _node("GlobalAveragePool", "f", "g"),
        _node("Flatten", "g", "h", axis=1),
        _node("Gemm", "h w3 b3", "i", transB=1, alpha=0.5, beta=2.0),
        _node("Softmax", "i", "y", axis=-1),
    ]
    constants = {"w1": _numbers(8, 3, 3, 3), "b1": _numbers(8), "s": _numbers(8), "o": _numbers(8), "m": _numbers(8)}
    more = {"v": np.abs(_numbers(8)) + 1, "w2": _numbers(8, 1, 3, 3), "w3": _numbers(5, 8), "b3": _numbers(5)}
    return _model(nodes, {**constants, **more})


def residual() -> ModelProto:
    """Two branches that meet, squeeze and excite, a clip."""
    nodes = [
        _node("Conv", "x w1", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        _node("Conv", "x w2", "b", kernel_shape=[1, 1]),
        _node("Add", "a b", "c"),
        _node("Clip", "c low high", "d"),
        _node("GlobalAveragePool", "d", "e"),
        _node("Conv", "e w3", "f"),
        _node("Sigmoid", "f", "g"),
        _node("Mul", "d g", "h"),
        _node("ReduceMean", "h", "y", axes=[2, 3], keepdims=0),
    ]
    constants = {"w1": _numbers(4, 3, 3, 3), "w2": _numbers(4, 3, 1, 1), "w3": _numbers(4, 4, 1, 1)}
    return _model(nodes, {**constants, "low": np.float32(0), "high": np.float32(6)})


def moves() -> ModelProto:
    """Split, concat, slice, pad, transpose, depth to space."""
    nodes = [
        _node("Pad", "x pads value", "a", mode="constant"),
        _node("Slice", "a starts ends axes steps", "b"),
        _node("Split", "b parts", "c d", axis=1),
        _node("Concat", "d c b", "e", axis=1),
        _node("Transpose", "e", "f", perm=[0, 1, 3, 2]),
        _node("SpaceToDepth", "f", "g", blocksize=2),
        _node("Conv", "g w", "h", kernel_shape=[1, 1]),
        _node("DepthToSpace", "h", "i", blocksize=2, mode="DCR"),
        _node("Tile", "i repeats", "y"),
    ]
    constants = {
        "pads": _ints(0, 0, 1, 1, 0, 0, 1, 1),
        "value": np.float32(0.5),
        "parts": _ints(1, 2),
        "repeats": _ints(1, 1, 2, 1),
    }
    slices = {"starts": _ints(0, 1), "ends": _ints(8, 9), "axes": _ints(2, 3), "steps": _ints(1, 1)}
    return _model(nodes, {**constants, **slices, "w": _numbers(8, 24, 1, 1)})


def resized() -> ModelProto:
    """Nearest and linear resizing and a transposed convolution."""
    nodes = [
        _node("Resize", "x - scales", "a", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        _node("ConvTranspose", "a w", "b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1], kernel_shape=[3, 3]),
        _node("Resize", "b - - sizes", "y", mode="linear"),
    ]
    constants = {"scales": np.array([1, 1, 2, 2], np.float32), "sizes": _ints(1, 4, 16, 16), "w": _numbers(3, 4, 3, 3)}
    return _model(nodes, constants, shape=(1, 3, 4, 4))


def shapes() -> ModelProto:
    """A reshape whose sizes the model computes, and products of matrices."""
    nodes = [
        _node("Shape", "x", "s"),
        _node("Gather", "s zero", "n", axis=0),
        _node("Unsqueeze", "n axes", "n1"),
        _node("Concat", "n1 rest", "shape", axis=0),
        _node("Reshape", "x shape", "a"),
        _node("MatMul", "a w", "b"),
        _node("Add", "b bias", "c"),
        _node("Relu", "c", "d"),
        _node("Squeeze", "d inner", "e"),
        _node("Gemm", "e w2", "y"),
    ]
    constants = {"zero": np.int64(0), "axes": _ints(0), "rest": _ints(1, -1), "inner": _ints(1)}
    return _model(nodes, {**constants, "w": _numbers(192, 6), "bias": _numbers(6), "w2": _numbers(6, 4)})


def folded() -> ModelProto:
    """Constants that other constants are computed from: sizes that a damaged model can make enormous."""
    nodes = [
        _node("ConstantOfShape", "size", "ones", value=numpy_helper.from_array(np.ones(1, np.float32))),
        _node("Expand", "small size", "wide"),
        _node("Add", "ones wide", "sum"),
        _node("Tile", "sum repeats", "tiled"),
        _node("Pad", "tiled pads", "padded"),
        _node("Range", "first last step", "counted"),
        _node("Cast", "counted", "floats", to=TensorProto.FLOAT),
        _node("Reshape", "floats column", "across"),
        _node("Mul", "padded across", "weight"),
        _node("Constant", "", "half", value_float=0.5),
        _node("Mul", "weight half", "halved"),
        _node("Conv", "x halved", "y"),
    ]
    constants = {"size": _ints(2, 3, 1, 1), "small": _numbers(1, 3, 1, 1), "repeats": _ints(2, 1, 1, 1), "pads": _ints(*[0] * 8)}
    ranges = {"first": np.int64(0), "last": np.int64(3), "step": np.int64(1), "column": _ints(1, 3, 1, 1)}
    return _model(nodes, {**constants, **ranges})


def functions() -> ModelProto:
    """Functions of one tensor, spelled by name and by hand."""
    nodes = [
        _node("HardSwish", "x", "a"),
        _node("LeakyRelu", "a", "b", alpha=0.1),
        _node("PRelu", "b slope", "c"),
        _node("Elu", "c", "d", alpha=1.5),
        _node("Pow", "d two", "e"),
        _node("Sqrt", "e", "f"),
        _node("Div", "f two", "g"),
        _node("Erf", "g", "h"),
        _node("Sub", "h x", "i"),
        _node("Max", "i g", "j"),
        _node("LRN", "j", "k", size=3, alpha=0.01),
        _node("HardSigmoid", "k", "y", alpha=0.25, beta=0.5),
    ]
    return _model(nodes, {"slope": _numbers(3, 1, 1), "two": np.float32(2)})


def reductions() -> ModelProto:
    """Reductions, then the places of the largest."""
    nodes = [
        _node("ReduceSum", "x axes", "a", keepdims=1),
        _node("ReduceMax", "x", "b", axes=[3], keepdims=1),
        _node("Add", "a b", "c"),
        _node("ReduceL2", "c", "d", axes=[2], keepdims=0),
        _node("Flatten", "d", "e"),
        _node("TopK", "e k", "values y", axis=-1, largest=1),
    ]
    return _model(nodes, {"axes": _ints(2), "k": _ints(2)}, output=TensorProto.INT64)


def sequence() -> ModelProto:
    """Tokens, rows of a table, a 1-d convolution."""
    nodes = [
        _node("Gather", "table x", "a", axis=0),
        _node("Transpose", "a", "b", perm=[0, 2, 1]),
        _node("Conv", "b w", "c", kernel_shape=[3], pads=[1, 1]),
        _node("ReduceMean", "c", "y", axes=[2], keepdims=0),
    ]
    return _model(nodes, {"table": _numbers(10, 6), "w": _numbers(4, 6, 3)}, shape=("N", 7), kind=TensorProto.INT64)


def volumes() -> ModelProto:
    """A 3-d convolution and pooling."""
    nodes = [
        _node("Conv", "x w", "a", kernel_shape=[3, 3, 3], pads=[1] * 6),
        _node("MaxPool", "a", "b", kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        _node("GlobalMaxPool", "b", "y"),
    ]
    return _model(nodes, {"w": _numbers(4, 2, 3, 3, 3)}, shape=("N", 2, 4, 4, 4))


def quantized() -> ModelProto:
    """QDQ: quantizers around a convolution with int8 weights."""
    nodes = [
        _node("QuantizeLinear", "x sx zx", "q"),
        _node("DequantizeLinear", "q sx zx", "dx"),
        _node("DequantizeLinear", "w sw zw", "dw", axis=0),
        _node("DequantizeLinear", "b sb", "db", axis=0),
        _node("Conv", "dx dw db", "c", kernel_shape=[3, 3]),
        _node("QuantizeLinear", "c sy zy", "qc"),
        _node("DequantizeLinear", "qc sy zy", "y"),
    ]
    codes = np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    weights = {"w": codes, "sw": np.full(4, 0.01, np.float32), "zw": np.zeros(4, np.int8)}
    biases = {"b": np.arange(4, dtype=np.int32), "sb": np.full(4, 2e-4, np.float32)}
    scales = {"sx": np.float32(0.02), "zx": np.uint8(128), "sy": np.float32(0.05), "zy": np.uint8(100)}
    return _model(nodes, {**weights, **biases, **scales})


def quantized_operators() -> ModelProto:
    """QLinearConv and QLinearMatMul."""
    nodes = [
        _node("QuantizeLinear", "x sx zx", "q"),
        _node("QLinearConv", "q sx zx w sw zw sy zy b", "c", kernel_shape=[3, 3]),
        _node("Flatten", "c", "f"),
        _node("QLinearMatMul", "f sy zy m sm zm sy zy", "g"),
        _node("DequantizeLinear", "g sy zy", "y"),
    ]
    generator = np.random.default_rng(1)
    codes = {"w": generator.integers(-127, 128, (2, 3, 3, 3)).astype(np.int8), "b": np.arange(2, dtype=np.int32)}
    scales = {"sx": np.float32(0.02), "zx": np.uint8(128), "sw": np.float32(0.01), "zw": np.int8(0)}
    more = {"sy": np.float32(0.05), "zy": np.uint8(100), "sm": np.float32(0.01), "zm": np.int8(0)}
    return _model(nodes, {**codes, **scales, **more, "m": generator.integers(-127, 128, (72, 5)).astype(np.int8)})


def branches() -> ModelProto:
    """A branch, which is not supported, on a constant, and a function of the model's own."""
    then, other = (
        helper.make_graph([helper.make_node(op, ["x"], ["z"])], op, [], [helper.make_tensor_value_info("z", 1, ("N", 3, 8, 8))])
        for op in ("Relu", "Abs")
    )
    nodes = [
        _node("If", "yes", "a", then_branch=then, else_branch=other),
        helper.make_node("Twice", ["a"], ["y"], domain="own"),
    ]
    model = _model(nodes, {"yes": np.bool_(True)})
    body = [helper.make_node("Add", ["p", "p"], ["q"])]
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Twice", ["p"], ["q"], body, imports))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def old() -> ModelProto:
    """Operator set 6: sizes and limits as attributes, broadcasting by axis."""
    nodes = [
        _node("Pad", "x", "a", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.0),
        _node("Conv", "a w", "b", kernel_shape=[3, 3]),
        _node("Add", "b bias", "c", broadcast=1, axis=1),
        _node("Clip", "c", "d", min=0.0, max=6.0),
        _node("Slice", "d", "e", starts=[0, 1], ends=[8, 7], axes=[2, 3]),
        _node("Reshape", "e shape", "f"),
        _node("Gemm", "f w2 b2", "y", broadcast=1),
    ]
    constants = {"w": _numbers(4, 3, 3, 3), "bias": _numbers(4), "shape": _ints(0, -1), "w2": _numbers(192, 3), "b2": _numbers(3)}
    return _model(nodes, constants, opset=6)


SEEDS: Final[tuple[Callable[[], ModelProto], ...]] = (
    plain,
    residual,
    moves,
    resized,
    shapes,
    folded,
    functions,
    reductions,
    sequence,
    volumes,
    quantized,
    quantized_operators,
    branches,
    old,
)
QUANTIZED: Final = ("quantized", "quantized_operators")
"""Seeds whose outputs ONNX Runtime rounds: they are not compared with the float graph."""
