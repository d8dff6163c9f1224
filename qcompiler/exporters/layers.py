"""Emitters of the layers with weights, and of batch normalization. One emitter serves all stages."""

from __future__ import annotations

from qcompiler.exporters.call import Call


def convolution(call: Call) -> str:
    """Conv in two or three dimensions; a two-dimensional one of the slices of a volume has a kernel of depth 1.

    Padding is what goes before, then what goes after, on both sides.
    """
    node, bias = call.node, call.constants.bias(call.node)
    weight = call.graph.constant[node.inputs[1]]
    shape = weight.type.with_batch(1)
    flat = len(call.type_of(0).shape) - len(shape)
    shape = (*shape[:2], *[1] * flat, *shape[2:])
    padding, half = node["padding"], len(node["padding"]) // 2
    y = call.emit(
        "Conv",
        [call.operand(0), call.constants.real(weight, shape if flat else None), *([bias] if bias else [])],
        kernel_shape=list(shape[2:]),
        strides=[*[1] * flat, *node["strides"]],
        pads=[*[0] * flat, *padding[:half], *[0] * flat, *padding[half:]],
        dilations=[*[1] * flat, *node["dilation"]],
        group=node["groups"],
    )
    return call.bounded(y)


def conv_transpose2d(call: Call) -> str:
    """ConvTranspose; weights are ``[I, O/groups, KH, KW]`` on both sides."""
    node = call.node
    y = call.emit(
        "ConvTranspose",
        call.operands(),
        kernel_shape=list(call.type_of(1).shape[2:]),
        strides=list(node["strides"]),
        pads=list(node["padding"]),
        output_padding=list(node["output_padding"]),
        dilations=list(node["dilation"]),
        group=node["groups"],
    )
    return call.bounded(y)


def linear(call: Call) -> str:
    """Gemm for a matrix, else (in float stages) MatMul with the transposed weight and Add."""
    bias = call.constants.bias(call.node)
    if len(call.type_of(0).shape) == 2:
        return call.bounded(call.emit("Gemm", [call.operand(0), call.operand(1), *([bias] if bias else [])], transB=1))
    weight = call.helper("Transpose", [call.operand(1)], perm=[1, 0])
    y = call.emit("MatMul", [call.operand(0), weight])
    return call.bounded(call.helper("Add", [y, bias]) if bias else y)


def matmul(call: Call) -> str:
    """MatMul of two computed tensors."""
    return call.bounded(call.emit("MatMul", call.operands()))


def batch_norm(call: Call) -> str:
    """BatchNormalization at inference."""
    return call.emit("BatchNormalization", call.operands(), epsilon=call.node["epsilon"])


def embedding(call: Call) -> str:
    """Gather with the indices limited to the table."""
    last = call.integers("last", call.type_of(1).with_batch(1)[0] - 1)
    indices = call.helper("Clip", [call.to_integer(call.operand(0)), call.integers("first", 0), last])
    return call.emit("Gather", [call.coded_operand(1), indices], axis=0)
