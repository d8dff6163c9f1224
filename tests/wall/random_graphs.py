"""Random float graphs out of every operator, small enough that many compile in a minute.

Everything is drawn from a ``random.Random``, so that hypothesis or a seed decides. Each entry of ``STEPS`` appends one operator (or
a small pattern of them) to a graph, or gives None where it does not fit the value it was offered.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np

from qcompiler.ir.dtypes import F32
from qcompiler.ir.graph import Array, Constant, Graph, Stage, TensorType, Value
from qcompiler.ops.functions import NAMED
from qcompiler.ops.operator import TypeRuleError
from tests.wall.blocks import BLOCKS
from tests.wall.graph_builder import Builder, Step, sizes

FUNCTIONS = (*(build() for build in NAMED.values()), "sigmoid(x)", "tanh(x)", "exp(x)", "erf(x)", "abs(x)", "sin(x)", "floor(x)")
BITS = ("w8a8", "w8a8", "w8a8", "w4a8", "w2a8", "w4a4")


def _conv2d(b: Builder, x: Value) -> Value | None:
    if len(sizes(x)) not in (3, 4):
        return None
    channels = sizes(x)[0]
    groups = b.random.choice([g for g in range(1, channels + 1) if channels % g == 0] + [1, 1, channels])
    out = groups * b.pick(1, 1, 2, 3) if groups > 1 else b.pick(1, 3, 4, 5, 16, 17)
    kernel = b.pick(1, 2, 3), b.pick(1, 3)
    operands = [x, b.constant(out, channels // groups, *kernel)]
    if b.pick(True, False):
        operands.append(b.constant(out))
    padding = tuple(b.random.randrange(k) for k in (*kernel, *kernel))
    strides, dilation = (b.pick(1, 1, 2), b.pick(1, 2)), (b.pick(1, 1, 2), 1)
    return b.emit("conv2d", *operands, strides=strides, padding=padding, dilation=dilation, groups=groups)


def _conv3d(b: Builder, x: Value) -> Value | None:
    if len(sizes(x)) != 4:
        return None
    groups = b.random.choice([g for g in (1, 2) if sizes(x)[0] % g == 0])
    weight = b.constant(groups * b.pick(1, 3), sizes(x)[0] // groups, b.pick(1, 2, 3), b.pick(1, 3), 1)
    padding = (b.pick(0, 1), b.pick(0, 1), 0, b.pick(0, 1), b.pick(0, 1), 0)
    strides = (b.pick(1, 2), 1, b.pick(1, 2))
    return b.emit("conv3d", x, weight, strides=strides, padding=padding, dilation=(b.pick(1, 2), 1, 1), groups=groups)


def _conv_transpose2d(b: Builder, x: Value) -> Value | None:
    if len(sizes(x)) != 3:
        return None
    groups = b.random.choice([g for g in (1, 2, 4) if sizes(x)[0] % g == 0])
    strides = (b.pick(1, 2, 3), b.pick(1, 2))
    operands = [x, b.constant(sizes(x)[0], b.pick(1, 2), b.pick(1, 2, 3, 4), b.pick(2, 3))]
    if b.pick(True, False):
        operands.append(b.constant(sizes(operands[1])[1] * groups if False else int(operands[1].data.shape[1]) * groups))
    padding = tuple(b.random.randrange(2) for _ in range(4))
    output_padding = tuple(b.random.randrange(s) for s in strides)
    dilation = (b.pick(1, 1, 2), 1)
    more: dict[str, Any] = {"padding": padding, "output_padding": output_padding, "dilation": dilation}
    return b.emit("conv_transpose2d", *operands, strides=strides, groups=groups, **more)


def _linear(b: Builder, x: Value) -> Value | None:
    if not sizes(x):
        return None
    operands = [x, b.constant(b.pick(1, 5, 16, 20), sizes(x)[-1])]
    return b.emit("linear", *operands, *([b.constant(operands[1].data.shape[0])] if b.pick(True, False) else []))  # type: ignore[union-attr]


def _batch_norm(b: Builder, x: Value) -> Value | None:
    if not sizes(x):
        return None
    channels = sizes(x)[0]
    parts = [b.constant(channels), b.constant(channels), b.constant(channels), b.constant(channels, low=0.2, high=2.0)]
    return b.emit("batch_norm", x, *parts, epsilon=1e-5)


def _clip(b: Builder, x: Value) -> Value:
    return b.emit("clip", x, clamp=b.pick((0.0, math.inf), (0.0, 1.0), (-0.5, 0.5), (0.0, 6.0)))


def _function(b: Builder, x: Value) -> Value:
    return b.emit("function", x, expression=b.random.choice(FUNCTIONS))


def _gated(b: Builder, x: Value) -> Value:
    return b.emit("mul", x, b.emit("function", x, expression=b.pick("sigmoid(x)", "clip(x + 3, 0, 6) / 6")))


def _prelu(b: Builder, x: Value) -> Value | None:
    return b.emit("prelu", x, b.constant(b.pick(1, sizes(x)[0]), low=-0.5)) if sizes(x) else None


def _binary(b: Builder, x: Value) -> Value:
    return b.emit(b.pick("add", "add", "sub", "mul", "maximum", "minimum"), *b.random.sample([x, b.same_shape(x)], 2))


def _with_constant(b: Builder, x: Value) -> Value:
    shape = [d if b.pick(True, False) else 1 for d in sizes(x)]
    operands = b.random.sample([x, b.constant(*shape[b.random.randrange(len(shape) + 1) :])], 2)
    return b.emit(b.pick("add", "sub", "mul", "maximum", "minimum"), *operands)


def _broadcast(b: Builder, x: Value) -> Value | None:
    if not sizes(x):
        return None
    axes = tuple(sorted(b.random.sample(range(1, len(sizes(x)) + 1), b.random.randrange(1, len(sizes(x)) + 1))))
    reduced = b.emit(b.pick("mean", "amax"), x, axes=axes, keepdims=1)
    return b.emit(b.pick("add", "sub", "mul", "maximum"), *b.random.sample([x, reduced], 2))


def _pool(b: Builder, x: Value) -> Value | None:
    if len(sizes(x)) not in (3, 4):
        return None
    kernel = b.pick(1, 2, 3), b.pick(2, 3)
    padding = tuple(b.random.randrange((k + 1) // 2) for k in (*kernel, *kernel))
    more: dict[str, Any] = {"kernel": kernel, "strides": (b.pick(1, 2), b.pick(1, 2)), "padding": padding}
    if b.pick(True, False):
        return b.emit("max_pool2d", x, dilation=(b.pick(1, 1, 2), 1), ceil_mode=b.pick(0, 1), **more)
    return b.emit("average_pool2d", x, ceil_mode=b.pick(0, 1), count_include_pad=b.pick(0, 1), **more)


def _reduce(b: Builder, x: Value) -> Value | None:
    if not sizes(x):
        return None
    axes = tuple(sorted(b.random.sample(range(1, len(sizes(x)) + 1), b.random.randrange(1, len(sizes(x)) + 1))))
    return b.emit(b.pick("mean", "sum", "amax", "amin"), x, axes=axes, keepdims=b.pick(0, 1))


def _reshape(b: Builder, x: Value) -> Value:
    rest, shape = x.type.elements, list[int]()
    for _ in range(b.random.randrange(4)):
        shape.append(b.random.choice([d for d in range(1, rest + 1) if rest % d == 0]))
        rest //= shape[-1]
    return b.emit("reshape", x, shape=("N", *shape, rest))


def _transpose(b: Builder, x: Value) -> Value:
    order = list(range(1, len(x.type.shape)))
    b.random.shuffle(order)
    return b.emit("transpose", x, order=(0, *order))


def _take(b: Builder, x: Value) -> Value | None:
    if not sizes(x):
        return None
    axis = b.random.randrange(1, len(x.type.shape))
    size = sizes(x)[axis - 1]
    chosen = b.pick(
        [i // 2 for i in range(2 * size)],
        list(range(size))[::-1],
        [min(max(i - 1, 0), size - 1) for i in range(size + 2)],
        [b.random.randrange(size) for _ in range(b.random.randrange(1, 7))],
    )
    return b.emit("take", x, b.indices(chosen), axis=axis)


def _slice(b: Builder, x: Value) -> Value | None:
    if not sizes(x):
        return None
    axis = b.random.randrange(1, len(x.type.shape))
    size, step = sizes(x)[axis - 1], b.pick(1, 1, 2, 3, -1, -2)
    first, last = sorted((b.random.randrange(size), b.random.randrange(size)))
    ends = (first, last + 1) if step > 0 else (last, first - 1)
    return b.emit("slice", x, axes=(axis,), starts=(ends[0],), stops=(ends[1],), steps=(step,))


def _pad(b: Builder, x: Value) -> Value:
    before, after = ((0, *(b.pick(0, 0, 1, 2) for _ in sizes(x))) for _ in range(2))
    return b.emit("pad", x, before=before, after=after, value=b.pick(0.0, 0.0, 0.5, -1.0))


def _concat(b: Builder, x: Value) -> Value | None:
    if not sizes(x):
        return None
    axis = b.random.randrange(1, len(x.type.shape))

    def joins(v: Value) -> bool:
        return len(v.type.shape) == len(x.type.shape) and all(
            i == axis or p == q for i, (p, q) in enumerate(zip(v.type.shape, x.type.shape, strict=True))
        )

    parts: list[Value | Constant] = [x, *b.random.choices([v for v in b.values if joins(v)], k=b.pick(1, 2))]
    if b.random.random() < 0.1:
        parts.append(b.constant(1, *sizes(x)))
    b.random.shuffle(parts)
    return b.emit("concat", *parts, axis=axis)


def _resize(b: Builder, x: Value) -> Value | None:
    if len(sizes(x)) != 3:
        return None
    parts: list[tuple[int, int, int, int]] = []
    for size in sizes(x)[1:]:
        out = b.pick(size, 2 * size, 3 * size, size + 1)
        if b.pick(True, False) and out > 1:  # align corners
            parts.append((out, size - 1, 0, out - 1))
        else:  # half pixel
            parts.append((out, 2 * size, size - out, 2 * out))
    names = ("sizes", "numerators", "offsets", "denominators")
    return b.emit("resize_linear", x, **dict(zip(names, zip(*parts, strict=True), strict=True)))  # type: ignore[arg-type]


def _matmul(b: Builder, x: Value) -> Value | None:
    if len(sizes(x)) < 2:
        return None
    rank = len(x.type.shape)
    other = b.same_shape(x)
    turned = b.emit("transpose", other, order=(*range(rank - 2), rank - 1, rank - 2))
    return b.emit("matmul", *b.random.sample([x, turned], 2)) if b.pick(True, False) else b.emit("matmul", x, turned)


def _rank(b: Builder, x: Value) -> Value | None:
    """Ends here: nothing reads indices."""
    if not sizes(x):
        return None
    axis = b.random.randrange(1, len(x.type.shape))
    op = b.pick("argmax", "topk_values", "topk_indices")
    if op == "argmax":
        value = b.emit(op, x, axis=axis, keepdims=b.pick(0, 1), largest=b.pick(0, 1, 1), last=b.pick(0, 0, 1))
    else:
        value = b.emit(op, x, axis=axis, k=b.random.randrange(1, sizes(x)[axis - 1] + 1), largest=b.pick(0, 1))
    if op != "topk_values":
        b.values.remove(value)
    return value


def _embedding(b: Builder, x: Value) -> Value | None:
    del x
    if len(b.inputs) > 2:
        return None
    tokens = Value(f"tokens{len(b.inputs)}", TensorType(F32, ("N", b.pick(1, 3))))
    b.inputs.append(tokens)
    return b.emit("embedding", tokens, b.constant(5, b.pick(2, 16)))


STEPS: tuple[Step, ...] = (
    _conv2d, _conv2d, _conv2d, _linear, _conv3d, _conv_transpose2d, _batch_norm, _clip, _clip, _function,
    _gated, _prelu, _binary, _binary, _with_constant, _broadcast, _pool, _pool, _reduce, _reshape, _transpose, _take, _slice, _pad,
    _concat, _concat, _resize, _matmul, _rank, _embedding, *BLOCKS,
)  # fmt: skip
SHAPES = ((7,), (20,), (3, 6), (16, 5), (3, 5, 6), (4, 6, 4), (16, 4, 3), (18, 3, 3), (1, 9, 1), (2, 3, 4, 4), (3, 2, 5, 3))


def random_graph(random: Random) -> Graph:
    """A float graph of 1 to 3 inputs and 2 to 6 steps; every value that nothing reads is an output."""
    b = Builder(random)
    for index in range(b.pick(1, 1, 1, 2)):
        b.inputs.append(Value(f"x{index}", TensorType(F32, ("N", *random.choice(SHAPES)))))
    b.values += b.inputs
    for _ in range(random.randrange(2, 7)):
        x = random.choice(b.values[-3:] if random.random() < 0.8 else b.values)
        before = len(b.nodes), len(b.constants), len(b.values), len(b.inputs)
        try:
            random.choice(STEPS)(b, x)
        except TypeRuleError:  # the step does not fit this value: as if it had not been tried
            for taken, count in zip((b.nodes, b.constants, b.values, b.inputs), before, strict=True):
                del taken[count:]  # type: ignore[attr-defined]
    if not b.nodes:
        _clip(b, b.values[0])
    read = {name for node in b.nodes for name in node.inputs}
    outputs = [node.output.name for node in b.nodes if node.output.name not in read]
    inputs = tuple(v for v in b.inputs if v.name in read)
    graph = Graph("random", Stage.FLOAT, inputs, tuple(b.constants), (), tuple(outputs))
    return graph.with_nodes(b.nodes)


def random_inputs(graph: Graph, count: int, seed: int) -> list[Array]:
    """Samples for every input: normal numbers, or whole numbers for indices."""
    generator = np.random.default_rng(seed)
    arrays: list[Array] = []
    for value in graph.inputs:
        shape = value.type.with_batch(count)
        if value.name.startswith("tokens"):
            arrays.append(generator.integers(0, 5, shape).astype(np.float32))
        else:
            arrays.append(generator.standard_normal(shape).astype(np.float32))
    return arrays
