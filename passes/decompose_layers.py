"""Expresses layers that have no kernel of their own by conv2d and moves of elements, exactly.

- ``conv_transpose2d`` of strides (sh, sw): every one of the sh x sw phases of the output is a plain convolution of the input;
  one conv2d computes them all as channels, and a transposition interleaves them (Shi et al., "Is the deconvolution layer the
  same as a convolutional layer?", arXiv 1609.07009). No zeros are multiplied but those that pad a phase's kernel.
- ``conv3d``: the depth slices that a kernel reads become channels; every output slice is a 2-d convolution.
- ``linear`` over more than two axes: a 1x1 convolution over a transposed tensor.

Before:
    %y: f32[N,4,6,6] = conv_transpose2d(%x, %w, ..., strides=(2, 2))  # up
After:
    %y.phases: f32[N,16,4,4] = conv2d(%x, %y.weight, %y.bias, ..., strides=(1, 1))  # up
    %y.grid: f32[N,4,2,2,4,4] = reshape(%y.phases, shape=("N", 4, 2, 2, 4, 4))  # up
    %y.turned: f32[N,4,4,2,4,2] = transpose(%y.grid, order=(0, 1, 4, 2, 5, 3))  # up
    %y.full: f32[N,4,8,8] = reshape(%y.turned, shape=("N", 4, 8, 8))  # up
    %y: f32[N,4,6,6] = slice(%y.full, axes=(2, 3), starts=(1, 1), steps=(1, 1), stops=(7, 7))  # up
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from qcompiler.ir.dtypes import F32, I32, DType
from qcompiler.ir.graph import Array, Attribute, Constant, Dim, Graph, Node, Stage, TensorType, Value
from qcompiler.ir.names import Constants
from qcompiler.ops.table import OPERATORS


@dataclass(frozen=True)
class DecomposeLayers:
    """The layer's clamp goes to the convolution."""

    name: str = "decompose_layers"
    requires: Stage = Stage.FLOAT
    gives: Stage = Stage.FLOAT

    def __call__(self, graph: Graph) -> Graph:
        constants = Constants(graph)
        nodes: list[Node] = []
        for node in graph.nodes:
            builder = _Builder(graph, node, constants)
            if node.op == "conv_transpose2d":
                _transposed(builder)
            elif node.op == "conv3d":
                _three_dimensional(builder)
            elif node.op == "linear" and len(node.output.type.shape) > 2:
                _linear(builder)
            else:
                builder.nodes.append(node)
            nodes += builder.nodes
        return graph.with_nodes(nodes, constants.values())


@dataclass
class _Builder:
    """Collects the nodes that take the place of one layer."""

    graph: Graph
    node: Node
    constants: Constants
    nodes: list[Node] = field(default_factory=list)

    @property
    def x(self) -> Value:
        return self.graph.values[self.node.inputs[0]]

    def array(self, index: int) -> Array:
        """A constant operand in float64."""
        data: Array = self.constants[self.node.inputs[index]].data.astype(np.float64)
        return data

    def constant(self, suffix: str, data: Array, dtype: DType = F32) -> Constant:
        return self.constants.add(f"{self.node.output.name}.{suffix}", data, dtype)

    def weights(self, weight: Array, repeats: int = 1) -> list[Constant]:
        """Constants in place of the layer's own: ``weight``, and its bias, if it has one, with every number ``repeats`` times."""
        bias = [np.repeat(self.array(2), repeats)] if len(self.node.inputs) == 3 else []
        self.constants.release(self.node)
        return [self.constant("weight", weight), *(self.constant("bias", data) for data in bias)]

    def emit(self, op: str, inputs: Sequence[Value | Constant], suffix: str, **attributes: Attribute | None) -> Value:
        """Append a node; its value is the layer's own once :meth:`finish` says so."""
        given = tuple((k, v) for k, v in attributes.items() if v is not None)
        draft = Node(op, tuple(i.name for i in inputs), (Value("", TensorType(F32, ())),), given, self.node.origin)
        value = Value(self.constants.fresh(f"{self.node.output.name}.{suffix}"), OPERATORS[op].infer(draft, inputs))
        self.nodes.append(Node(op, draft.inputs, (value,), given, self.node.origin))
        return value

    def reshape(self, x: Value, suffix: str, *sizes: int) -> Value:
        shape: tuple[Dim, ...] = (x.type.shape[0], *sizes)
        return self.emit("reshape", [x], suffix, shape=shape)

    def finish(self) -> None:
        """The last node's value becomes the layer's."""
        last = self.nodes[-1]
        self.nodes[-1] = Node(last.op, last.inputs, self.node.outputs, last.attributes, last.origin)


def _phases(kernel: int, stride: int, dilation: int) -> tuple[list[list[tuple[int, int]]], int]:
    """For each phase of a stride the kernel's taps that reach it and how many steps back each reads; the steps of all."""
    phases: list[list[tuple[int, int]]] = [[] for _ in range(stride)]
    for tap in range(kernel):
        phases[tap * dilation % stride].append((tap, tap * dilation // stride))
    return phases, max(back for phase in phases for _, back in phase) + 1


def _transposed(b: _Builder) -> None:
    node, weight = b.node, b.array(1)
    groups, (sh, sw), (dh, dw) = node["groups"], node["strides"], node["dilation"]
    _, _, kh, kw = weight.shape
    (rows, high), (columns, wide) = _phases(kh, sh, dh), _phases(kw, sw, dw)
    per_group, out_group = weight.shape[0] // groups, weight.shape[1]
    grouped = weight.reshape(groups, per_group, out_group, kh, kw)
    phases = np.zeros((groups, out_group, sh, sw, per_group, high, wide))
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            for tap_r, back_r in row:
                for tap_c, back_c in column:  # output o reads input (o - tap) / stride: one step back is one place to the left
                    place = high - 1 - back_r, wide - 1 - back_c
                    phases[:, :, r, c, :, place[0], place[1]] = grouped[:, :, :, tap_r, tap_c].transpose(0, 2, 1)
    channels = groups * out_group
    weights = b.weights(phases.reshape(channels * sh * sw, per_group, high, wide), sh * sw)
    padding, kept = [], []  # what is cut off behind follows from the output's size
    for size, back, stride, cut, out in zip(
        b.x.type.with_batch(1)[2:], (high, wide), (sh, sw), node["padding"][:2], node.output.type.with_batch(1)[2:], strict=True
    ):
        # Grid row q holds output rows q * stride ..: only those that the output keeps are computed.
        first, last = cut // stride, (cut + out - 1) // stride
        padding.append((back - 1 - first, last - size + 1))
        kept.append(cut - first * stride)
    before, after = zip(*padding, strict=True)
    source, crops = _cropped(b, before, after)
    plain: dict[str, Attribute | None] = {"strides": (1, 1), "dilation": (1, 1), "groups": groups, "clamp": node.get("clamp")}
    sums = b.emit("conv2d", [source, *weights], "phases", padding=crops, **plain)
    height, width = sums.type.with_batch(1)[2:]
    if (sh, sw) != (1, 1):
        grid = b.reshape(sums, "grid", channels, sh, sw, height, width)
        turned = b.emit("transpose", [grid], "turned", order=(0, 1, 4, 2, 5, 3))
        sums = b.reshape(turned, "full", channels, height * sh, width * sw)
    wanted = node.output.type.with_batch(1)[2:]
    if sums.type.with_batch(1)[2:] != wanted:
        stops = tuple(k + s for k, s in zip(kept, wanted, strict=True))
        b.emit("slice", [sums], "kept", axes=(2, 3), starts=tuple(kept), stops=stops, steps=(1, 1))
    b.finish()


def _cropped(b: _Builder, before: Sequence[int], after: Sequence[int]) -> tuple[Value, tuple[int, int, int, int]]:
    """The layer's input without what negative padding cuts off, and the padding that remains: top, left, bottom, right."""
    x = b.x
    sizes = x.type.with_batch(1)[2:]
    starts = tuple(max(-p, 0) for p in before)
    stops = tuple(size - max(-p, 0) for size, p in zip(sizes, after, strict=True))
    if any(starts) or stops != tuple(sizes):
        x = b.emit("slice", [x], "cropped", axes=(2, 3), starts=starts, stops=stops, steps=(1, 1))
    top, left = (max(p, 0) for p in before)
    bottom, right = (max(p, 0) for p in after)
    return x, (top, left, bottom, right)


def _three_dimensional(b: _Builder) -> None:
    node, weight, x = b.node, b.array(1), b.x
    front, top, left, back, bottom, right = node["padding"]
    groups, (stride, *strides), (step, *dilation) = node["groups"], node["strides"], node["dilation"]
    if front or back:
        x = b.emit("pad", [x], "padded", before=(0, 0, front, 0, 0), after=(0, 0, back, 0, 0), value=0.0)
    depth, taps = node.output.type.with_batch(1)[2], weight.shape[2]
    parts = []
    for tap in range(taps):
        ends = {"starts": (tap * step,), "stops": (tap * step + (depth - 1) * stride + 1,), "steps": (stride,)}
        whole = ends["stops"] == (x.type.shape[2],) and stride == 1 and tap * step == 0
        parts.append(x if whole else b.emit("slice", [x], f"tap{tap}", axes=(2,), **ends))
    channels = b.emit("concat", parts, "taps", axis=1) if taps > 1 else parts[0]
    per_group = weight.shape[1]
    if groups > 1 and taps > 1:  # channels of one group must lie together: [tap, group, c] -> [group, tap, c]
        order = np.arange(taps * groups * per_group).reshape(taps, groups, per_group).transpose(1, 0, 2).ravel()
        channels = b.emit("take", [channels, b.constant("order", order, I32)], "grouped", axis=1)
    flat = weight.transpose(0, 2, 1, 3, 4).reshape(len(weight), taps * per_group, *weight.shape[3:])
    attributes: dict[str, Attribute | None] = {"strides": tuple(strides), "dilation": tuple(dilation), "groups": groups}
    operands: list[Value | Constant] = [channels, *b.weights(flat)]
    b.emit("conv2d", operands, "sums", padding=(top, left, bottom, right), clamp=node.get("clamp"), **attributes)
    b.finish()


def _linear(b: _Builder) -> None:
    """``[N, ..., I]`` to ``[N, I, 1, rest]``, a 1x1 convolution, and back."""
    node, weight = b.node, b.array(1)
    sizes = b.x.type.with_batch(1)[1:]
    rank, rest = len(sizes) + 1, prod(sizes[:-1])
    last = b.emit("transpose", [b.x], "turned", order=(0, rank - 1, *range(1, rank - 1)))
    image = b.reshape(last, "image", sizes[-1], 1, rest)
    bias = node.inputs[2:]
    b.constants.release(node, keeping=bias)
    operands: list[Value | Constant] = [
        image,
        b.constant("weight", weight[:, :, None, None]),
        *(b.constants[name] for name in bias),
    ]
    plain: dict[str, Attribute | None] = {"strides": (1, 1), "dilation": (1, 1), "groups": 1, "padding": (0, 0, 0, 0)}
    sums = b.emit("conv2d", operands, "sums", clamp=node.get("clamp"), **plain)
    back = b.reshape(sums, "channels", len(weight), *sizes[:-1])
    b.emit("transpose", [back], "back", order=(0, *range(2, rank), 1))
    b.finish()
