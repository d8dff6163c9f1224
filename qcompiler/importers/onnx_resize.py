"""ONNX's Resize and Upsample, in all of their versions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np

from qcompiler.importers import operands
from qcompiler.importers.builder import FixedBatchError, UnsupportedError, check_size
from qcompiler.importers.emit_movement import takes
from qcompiler.importers.emit_resize import linear_positions, ratio, resize_linear
from qcompiler.importers.onnx_call import Call
from qcompiler.ir.graph import Array, Value


def upsample(c: Call) -> Value:
    """Upsample of operator sets 1, 7 and 9: scales for all axes, positions divided by them."""
    rank = len(c.x.type.shape)
    if "height_scale" in c.attributes:
        scales = [1.0, 1.0, c.get("height_scale"), c.get("width_scale")]
    else:
        data = c.array(1, "its operand 'scales'")
        scales = [float(s) for s in (c.get("scales") if data is None else data.reshape(-1))]
    out = _scaled_sizes(c.x, range(rank), scales)
    return _resize(c, list(range(rank)), out, list(scales), c.get("mode", "nearest"), "asymmetric", "floor")


def resize(c: Call) -> Value:
    """Resize from operator set 10 on."""
    x, old = c.x, c.opset < 11
    rank = len(x.type.shape)
    axes = [operands.axis_of(x, a) for a in c.get("axes") or range(rank)]
    scales_at = 1 if old else 2
    given, wanted = c.array(scales_at, "its operand 'scales'"), c.operand(3)
    scales: list[float | None]
    if wanted is not None:
        out = [-1 if d is None else d for d in c.shape(3, "its operand 'sizes'")]
        numbers = [x.type.shape[a] if d == "N" else d for a, d in zip(axes, out, strict=True)]
        sizes = [d for d in numbers if isinstance(d, int)]
        if len(sizes) != len(numbers):  # the batch is among them
            sizes = [1 if not isinstance(d, int) else d for d in numbers]
        policy = c.get("keep_aspect_ratio_policy", "stretch")
        scales = [None] * len(sizes)
        if policy != "stretch":
            each = [Fraction(d, s) for d, s in zip(sizes, (_size(x, a) for a in axes), strict=True)]
            chosen = min(each) if policy == "not_larger" else max(each)
            sizes = [floor(_size(x, a) * chosen + Fraction(1, 2)) for a in axes]
            scales = [float(chosen)] * len(sizes)
    elif given is not None and given.size:
        scales = [float(s) for s in given.reshape(-1)]
        sizes = _scaled_sizes(x, axes, [s for s in scales if s is not None])
    else:
        raise UnsupportedError("it has neither scales nor sizes")
    if old:
        down = any(s is not None and s < 1 for s in scales)
        return _resize(c, axes, sizes, scales, c.get("mode", "nearest"), "asymmetric", "ceil" if down else "floor")
    mode = c.get("coordinate_transformation_mode", "half_pixel")
    rounding = c.get("nearest_mode", "round_prefer_floor")
    if c.flag("antialias") and any(n < _size(x, a) for a, n in zip(axes, sizes, strict=True)):
        raise UnsupportedError("antialias=1 is not supported where it makes the tensor smaller")
    return _resize(c, axes, sizes, scales, c.get("mode", "nearest"), mode, rounding)


def _size(x: Value, axis: int) -> int:
    """The size of an axis; 1 for the batch."""
    size = x.type.shape[axis]
    return size if isinstance(size, int) else 1


def _scaled_sizes(x: Value, axes: Sequence[int], scales: Sequence[float]) -> list[int]:
    return [floor(np.float32(_size(x, a)) * np.float32(s)) for a, s in zip(axes, scales, strict=True)]


def _resize(
    c: Call, axes: Sequence[int], out: Sequence[int], scales: Sequence[float | None], method: str, mode: str, rounding: str
) -> Value:
    """Resize ``axes`` to the sizes ``out``; a scale of None is that of the sizes."""
    x = c.x
    changed = {a: (n, s) for a, n, s in zip(axes, out, scales, strict=True) if n != _size(x, a) or s not in (None, 1.0)}
    batch = c.layer.builder.batch
    if 0 in changed:
        if changed[0][0] != 1 and changed[0] != (batch, None):
            raise FixedBatchError(f"it resizes the batch of {x.type}")
        del changed[0]
    if method == "nearest":
        return takes(c.layer, x, {a: nearest(_size(x, a), n, s, mode, rounding) for a, (n, s) in changed.items()})
    if method not in ("linear", "bilinear"):
        raise UnsupportedError(f"mode {method!r} is not supported, only nearest and linear")
    rank = len(x.type.shape)
    if 1 in changed or rank not in (3, 4):
        raise UnsupportedError(f"linear resizing of {x.type} along axes {sorted(changed)} is not supported")
    last = range(2, rank)
    target = [changed[a][0] if a in changed else _size(x, a) for a in last]
    factors = [changed[a][1] if a in changed else 1.0 for a in last]
    return resize_linear(c.layer, x, target, factors, mode)


def nearest(size: int, out: int, scale: float | None, mode: str, rounding: str) -> Array:
    """The source index of every output index, int64[out]."""
    check_size([out])
    exact = Fraction(out, size) if scale is None else ratio(scale, size, out)
    slope, offset = linear_positions(mode, exact, size, out)
    half = Fraction(1, 2)
    chosen: list[int] = []
    for index in range(out):
        position = slope * index + offset
        if rounding == "round_prefer_floor":
            chosen.append(-floor(-(position - half)))
        elif rounding == "round_prefer_ceil":
            chosen.append(floor(position + half))
        elif rounding == "ceil":
            chosen.append(-floor(-position))
        elif rounding == "floor":
            chosen.append(floor(position))
        else:
            raise UnsupportedError(f"nearest_mode {rounding!r} is not supported")
    return np.clip(np.array(chosen, np.int64), 0, size - 1)
