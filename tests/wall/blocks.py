"""Blocks of real architectures, as random steps: what these networks have side by side is where compilers go wrong.

Weights are drawn anew each time, so that branches have unlike ranges; where a block calls one module twice, both calls read the
same constants.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcompiler.ir.graph import Constant, Value
from tests.wall.graph_builder import Builder, Step, sizes

RELU = (0.0, math.inf)
SAME: dict[str, Any] = {"strides": (1, 1), "dilation": (1, 1)}


def _is_image(x: Value) -> bool:
    return len(sizes(x)) == 3


def _convolved(b: Builder, x: Value, weight: Constant, groups: int = 1) -> Value:
    """A convolution that keeps height and width, some with a bias."""
    before = weight.data.shape[2] // 2
    after = weight.data.shape[2] - 1 - before
    operands = [x, weight, *([b.constant(weight.data.shape[0])] if b.pick(True, False) else [])]
    return b.emit("conv2d", *operands, padding=(before, before, after, after), groups=groups, **SAME)


def _weight(b: Builder, x: Value, kernel: int, groups: int = 1, out: int | None = None) -> Constant:
    channels = sizes(x)[0]
    scale = b.pick(0.1, 1.0, 1.0, 8.0) / math.sqrt(channels / groups * kernel**2)
    return b.constant(out or channels, channels // groups, kernel, kernel, low=-scale, high=scale)


def _normalized(b: Builder, x: Value, parts: list[Constant] | None = None) -> Value:
    return b.emit("batch_norm", x, *(parts or _statistics(b, sizes(x)[0])), epsilon=1e-5)


def _statistics(b: Builder, channels: int) -> list[Constant]:
    gamma, beta, mean = b.constant(channels), b.constant(channels), b.constant(channels)
    return [gamma, beta, mean, b.constant(channels, low=0.2, high=2.0)]


def _rectified(b: Builder, x: Value) -> Value:
    return b.emit("clip", x, clamp=RELU)


def _residual(b: Builder, x: Value) -> Value | None:
    """A convolution and its input, added."""
    return _rectified(b, b.emit("add", _convolved(b, x, _weight(b, x, 3)), x)) if _is_image(x) else None


def _re_parameterized(b: Builder, x: Value) -> Value | None:
    """RepVGG, MobileOne, RepViT: branches of kernels of 3 and 1 and an identity batch norm, added; often depthwise."""
    if not _is_image(x):
        return None
    if b.pick(True, False):
        x = _rectified(b, x)
    groups = b.pick(1, sizes(x)[0], sizes(x)[0])
    total = _convolved(b, x, _weight(b, x, b.pick(3, 3, 2, 5), groups), groups)
    if b.pick(True, True, False):
        total = b.emit("add", total, _convolved(b, x, _weight(b, x, 1, groups), groups))
    if b.pick(True, False):
        total = b.emit("add", *b.random.sample([total, _normalized(b, x) if b.pick(True, False) else x], 2))
    return _rectified(b, total) if b.pick(True, True, False) else total


def _affine_residual(b: Builder, x: Value) -> Value | None:
    """NFNets, ConvMixer: a product or batch norm for each channel, and what it was made from, added."""
    if not _is_image(x):
        return None
    scaled = _normalized(b, x) if b.pick(True, False) else b.emit("mul", x, b.constant(sizes(x)[0], 1, 1))
    return _rectified(b, b.emit("add", scaled, x)) if b.pick(True, False) else b.emit("add", scaled, x)


def _shared(b: Builder, x: Value) -> Value | None:
    """A convolution with its batch norm, called twice; behind another step, in a row, or beside itself."""
    if not _is_image(x):
        return None
    weight, statistics = _weight(b, x, b.pick(1, 3)), _statistics(b, sizes(x)[0])

    def call(value: Value) -> Value:
        operands = [value, weight]
        half = weight.data.shape[2] // 2
        return _normalized(b, b.emit("conv2d", *operands, padding=(half,) * 4, groups=1, **SAME), statistics)

    first = call(x)
    other = b.pick(first, _rectified(b, first), b.emit("mul", x, b.constant(1, low=2.0, high=9.0)))
    second = call(other)
    return b.emit(b.pick("add", "sub", "maximum"), first, second) if b.pick(True, False) else second


def _split(b: Builder, x: Value, first: int) -> tuple[Value, Value]:
    channels = sizes(x)[0]
    parts = [(0, first), (first, channels)]
    a, c = (b.emit("slice", x, axes=(1,), starts=(i,), stops=(j,), steps=(1,)) for i, j in parts)
    return a, c


def _split_and_shuffled(b: Builder, x: Value) -> Value | None:
    """ShuffleNet, CSP, GhostNet: one half goes on, the other through a layer; joined, perhaps shuffled."""
    if not _is_image(x) or sizes(x)[0] < 2:
        return None
    channels, height, width = sizes(x)
    kept, changed = _split(b, x, channels // 2)
    groups = b.pick(1, sizes(changed)[0])
    changed = _rectified(b, _convolved(b, changed, _weight(b, changed, b.pick(1, 3), groups), groups))
    joined = b.emit("concat", *b.random.sample([kept, changed], 2), axis=1)
    if channels % 2 or b.pick(True, False):
        return joined
    pairs = b.emit("reshape", joined, shape=("N", 2, channels // 2, height, width))
    turned = b.emit("transpose", pairs, order=(0, 2, 1, 3, 4))
    return b.emit("reshape", turned, shape=("N", channels, height, width))


def _decoded(b: Builder, x: Value) -> Value | None:
    """YOLO: one part of the scores becomes large numbers; joined with the rest, and perhaps read by a layer."""
    if not sizes(x) or sizes(x)[0] < 2:
        return None
    scores = b.emit("function", x, expression="sigmoid(x)")
    boxes, rest = _split(b, scores, b.random.randrange(1, sizes(x)[0]))
    boxes = b.emit("mul", boxes, b.constant(1, low=10.0, high=200.0))
    joined = b.emit("concat", boxes, rest, axis=1)
    return _convolved(b, joined, _weight(b, joined, 1)) if _is_image(x) and b.pick(True, False) else joined


def _dense(b: Builder, x: Value) -> Value | None:
    """DenseNet: every layer reads all before it; ranges grow."""
    if not _is_image(x):
        return None
    for _ in range(b.pick(1, 2)):
        grown = b.emit("mul", _convolved(b, x, _weight(b, x, b.pick(1, 3), out=4)), b.constant(1, low=0.5, high=20.0))
        x = b.emit("concat", x, _rectified(b, grown), axis=1)
    return x


def _excited(b: Builder, x: Value) -> Value | None:
    """Squeeze and excitation."""
    if not _is_image(x):
        return None
    y = b.emit("mean", x, axes=(2, 3), keepdims=1)
    y = _rectified(b, _convolved(b, y, _weight(b, y, 1, out=b.pick(1, 4, 16))))
    y = _convolved(b, y, _weight(b, y, 1, out=sizes(x)[0]))
    return b.emit(
        "mul", *b.random.sample([x, b.emit("function", y, expression=b.pick("sigmoid(x)", "clip(x + 3, 0, 6) / 6"))], 2)
    )


def _windows(b: Builder, x: Value) -> Value | None:
    """Swin: rows and columns are rolled, cut into windows, read by a linear layer, and put back."""
    if not _is_image(x):
        return None
    channels, height, width = sizes(x)
    for axis, size in ((2, height), (3, width)):
        x = b.emit("take", x, b.indices(np.roll(np.arange(size), b.pick(0, 1, -1)).tolist()), axis=axis)
    tall, wide = (b.random.choice([d for d in range(1, size + 1) if size % d == 0]) for size in (height, width))
    cut = b.emit("reshape", x, shape=("N", channels, height // tall, tall, width // wide, wide))
    turned = b.emit("transpose", cut, order=(0, 2, 4, 3, 5, 1))
    tokens = b.emit("reshape", turned, shape=("N", height // tall * (width // wide), tall * wide, channels))
    tokens = b.emit("linear", tokens, b.constant(channels, channels))
    grid = b.emit("reshape", tokens, shape=("N", height // tall, width // wide, tall, wide, channels))
    back = b.emit("transpose", grid, order=(0, 5, 1, 3, 2, 4))
    return b.emit("reshape", back, shape=("N", channels, height, width))


def _summed(b: Builder, x: Value) -> Value | None:
    """HRNet, WaveNet: a sum of several convolutions."""
    if not _is_image(x):
        return None
    total = _convolved(b, x, _weight(b, x, b.pick(1, 3)))
    for _ in range(b.pick(1, 2, 3)):
        total = b.emit("add", total, _convolved(b, x, _weight(b, x, b.pick(1, 3))))
    return total


BLOCKS: tuple[Step, ...] = (
    _residual, _re_parameterized, _re_parameterized, _affine_residual, _shared, _split_and_shuffled, _decoded, _dense, _excited,
    _windows, _summed,
)  # fmt: skip
