"""Pooling, resizing, reductions and products of matrices."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import numpy as np

from qcompiler import arith
from qcompiler.backend.image import PHYSICAL
from qcompiler.backend.index_map import stored_array
from qcompiler.backend.kernel import Kernel, MatmulSpec, PoolSpec, ReduceSpec, ResizeSpec, physical_channels
from tests.schedules.forms.elementwise import tail, zero_of
from tests.schedules.forms.family import DTYPES, OTHER_SETS, Family, Run, by_pixel, fills
from tests.schedules.harness import scalars
from tests.schedules.test_pooling import pool, reference

WINDOWS: Final[dict[str, dict[str, Any]]] = {
    "whole": {"size": (6, 8), "kernel": (2, 2), "strides": (2, 2)},
    "padded": {"size": (5, 7), "kernel": (3, 3), "strides": (2, 1), "padding": (1, 1, 1, 1)},
    "ceil": {"size": (5, 7), "kernel": (2, 3), "strides": (2, 2), "ceil": 1, "padding": (0, 1, 0, 1)},
    "large": {"size": (17, 16), "kernel": (17, 16)},
    "far": {"size": (4, 4), "kernel": (2, 2), "padding": (2, 2, 2, 2)},
}


def _pool(
    instruction_set: str, kind: str, window: str, channels: int, batch: int, dtype: str, out: str, more: bool
) -> PoolSpec | None:
    """``more``: dilation, or for averages the padding in what is counted."""
    if kind == "max" and dtype != out:
        return None
    if kind == "average":
        return pool(kind, channels, **WINDOWS[window], batch=batch, dtypes=(dtype, out), include_pad=more)
    return None if more and window in ("large", "whole") else pool(
        kind, channels, **WINDOWS[window], batch=batch, dtypes=(dtype, out), dilation=(2, 1) if more else (1, 1)
    )  # fmt: skip


def _pool_runs(spec: PoolSpec, kernel: Kernel) -> Iterator[Run]:
    shape = (spec.batch, spec.height, spec.width, physical_channels(spec.channels))
    counts = np.arange(max(spec.counts[0]) * max(spec.counts[1]) + 1) if spec.kind == "average" else np.ones(1)
    multiplier = ((1 << 30) // np.maximum(counts, 1)).astype(np.int32)
    within = {"int32": (-(1 << 20), 1 << 20)} if spec.kind == "average" else {}
    for few in (False, True) if spec.kind == "average" else (False,):
        scalar = {"x_zero": zero_of(spec.in_dtype, 77), **tail(spec.out_dtype, 30, few)}
        for name, x in fills(shape, spec.in_dtype, within.get(spec.in_dtype)):
            wanted = reference(spec, x[..., : spec.channels], multiplier, scalar).astype(spec.out_dtype)
            yield Run(name, {"x": x, "multiplier": multiplier, "scalars": scalars(**scalar)}, wanted, shape[3])


SIZES: Final = {
    "odd": (3, 4, ((0, 1, 0), (0, 1, 3), (1, 2, 1), (2, 2, 0)), ((3, 3, 0), (1, 2, 2), (0, 1, 4)), (4, 5)),
    "double": (2, 2, ((0, 0, 0), (0, 1, 1), (0, 1, 3), (1, 1, 0)), ((0, 0, 0), (0, 1, 1), (0, 1, 3), (1, 1, 0)), (4, 4)),
}


def _resize(instruction_set: str, size: str, channels: int, images: int, dtype: str, narrow: bool) -> ResizeSpec | None:
    if narrow and dtype == "int32":
        return None
    height, width, *rest = SIZES[size]
    return ResizeSpec(images, height, width, channels, *rest, dtype, narrow)


def _resize_runs(spec: ResizeSpec, kernel: Kernel) -> Iterator[Run]:
    zero = zero_of(spec.dtype, 100)
    shift = 10 if spec.narrow else 34
    multiplier = (1 << shift) // (spec.denominators[0] * spec.denominators[1])
    within = {"int32": (-(1 << 24), 1 << 24)}
    for name, x in fills((spec.images, spec.channels, spec.height, spec.width), spec.dtype, within.get(spec.dtype)):
        total = np.zeros((*x.shape[:2], len(spec.rows), len(spec.columns)), np.int64)
        down_of, far_of = spec.denominators
        for (i, (above, below, down)), (j, (left, right, far)) in product(enumerate(spec.rows), enumerate(spec.columns)):
            parts = [(above, left, (down_of - down) * (far_of - far)), (above, right, (down_of - down) * far)]
            parts += [(below, left, down * (far_of - far)), (below, right, down * far)]
            total[:, :, i, j] = sum((x[:, :, r, c].astype(np.int64) - zero) * w for r, c, w in parts)
        for few in (False, True):
            limits = np.iinfo(spec.dtype)
            ends = (zero, zero + 30) if few else (int(limits.min), int(limits.max))
            scalar = {"x_zero": zero, "x_multiplier": multiplier, "shift": shift, "lo": ends[0], "hi": ends[1]}
            wanted = np.clip(((total * multiplier + (1 << (shift - 1))) >> shift) + zero, *ends).astype(spec.dtype)
            yield Run(name, {"x": stored_array(x, PHYSICAL), "scalars": scalars(**scalar), **kernel.constants}, *by_pixel(wanted))


REDUCED: Final = (
    ((2, 80, 5, 7), (2, 3), True),
    ((2, 40, 5, 7), (1,), False),
    ((1, 3, 20, 3, 2), (1, 3), False),
    ((3, 37), (1,), True),
    ((2, 20, 3, 5), (2,), False),
    ((2, 70, 3), (1, 2), False),
)


def _reduce(instruction_set: str, kind: str, reduced: tuple[Any, ...], dtype: str, out: str) -> ReduceSpec | None:
    shape, axes, keep = reduced
    if kind != "sum" and dtype != out:
        return None
    result = tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))
    if not keep:
        result = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
    return ReduceSpec(kind, shape, result if len(result) > 1 else (*result, 1), axes, dtype, out)


def _reduce_runs(spec: ReduceSpec, kernel: Kernel) -> Iterator[Run]:
    zero = zero_of(spec.in_dtype, 77)
    within = {"int32": (-(1 << 22), 1 << 22)} if spec.kind == "sum" else {}
    for few in (False, True) if spec.kind == "sum" else (False,):
        scalar = {"x_zero": zero, "x_multiplier": 2**31 - 1, **tail(spec.out_dtype, 36, few)}
        for name, x in fills(spec.in_shape, spec.in_dtype, within.get(spec.in_dtype)):
            if spec.kind == "sum":
                total = (x.astype(np.int64) - zero).sum(axis=spec.axes)
                ends = scalar["shift"], scalar["y_zero"], scalar["lo"], scalar["hi"]
                wanted = arith.requantize(total, 2**31 - 1, *ends, arith.NUMPY)
            else:
                wanted = (x.max if spec.kind == "max" else x.min)(axis=spec.axes)
            shaped = wanted.reshape(spec.out_shape).astype(spec.out_dtype)
            yield Run(name, {"x": stored_array(x, PHYSICAL), "scalars": scalars(**scalar)}, *by_pixel(shaped))


PRODUCTS: Final = (
    ((2, 37, 19), (2, 19, 7)),
    ((1, 3, 33), (1, 33, 1)),
    ((2, 12, 5, 9), (2, 12, 9, 6)),
    ((1, 3, 7, 8), (1, 1, 8, 2)),
    ((2, 1, 3, 6, 5), (2, 20, 1, 5, 9)),
    ((1, 32, 16), (1, 16, 8)),
)


def _matmul(instruction_set: str, shapes: tuple[Any, Any], a: str, b: str, out: str, fast: bool) -> MatmulSpec | None:
    if fast and "int16" in (a, b):
        return None
    sums = 255 * 255 * shapes[0][-1]
    return MatmulSpec(*shapes, a, b, out, arith.headroom(sums, 43) if fast else None)


def _matmul_runs(spec: MatmulSpec, kernel: Kernel) -> Iterator[Run]:
    zeros = zero_of(spec.a_dtype, 130), zero_of(spec.b_dtype, 100)
    small = {"int16": (-(1 << 12), 1 << 12)} if spec.a_dtype == spec.b_dtype else {}
    for few in (False, True):
        scalar = {"x_zero": zeros[0], "residual_zero": zeros[1], "x_multiplier": 2**31 - 1, **tail(spec.out_dtype, 43, few)}
        ends = scalar["shift"], scalar["y_zero"], scalar["lo"], scalar["hi"]
        first = fills(spec.a_shape, spec.a_dtype, small.get(spec.a_dtype))
        second = list(fills(spec.b_shape, spec.b_dtype, small.get(spec.b_dtype)))
        for (name, a), (other, b) in zip(first, [second[0], *second[2:0:-1], second[3]], strict=True):
            total = np.matmul(a.astype(np.int64) - zeros[0], b.astype(np.int64) - zeros[1])
            wanted = arith.requantize(total, 2**31 - 1, *ends, arith.NUMPY).astype(spec.out_dtype)
            arrays = {"x": stored_array(a, PHYSICAL), "residual": stored_array(b, PHYSICAL), "scalars": scalars(**scalar)}
            yield Run(f"{name}, {other}", arrays, *by_pixel(wanted))


FAMILIES: Final = (
    Family(
        "pooling",
        {
            "instruction_set": OTHER_SETS, "kind": ("max", "average"), "window": tuple(WINDOWS), "channels": (48, 3),
            "batch": (1, 2), "dtype": DTYPES, "out": DTYPES, "more": (False, True),
        },
        _pool,
        _pool_runs,
        core=("kind", "window", "dtype", "out"),
    ),
    Family(
        "resize",
        {"instruction_set": OTHER_SETS, "size": tuple(SIZES), "channels": (32, 3), "images": (1, 2), "dtype": DTYPES, "narrow": (False, True)},
        _resize,
        _resize_runs,
    ),
    Family(
        "reduction",
        {"instruction_set": OTHER_SETS, "kind": ("sum", "max", "min"), "reduced": REDUCED, "dtype": DTYPES, "out": DTYPES},
        _reduce,
        _reduce_runs,
        core=("kind", "dtype", "out"),
    ),
    Family(
        "matmul",
        {"instruction_set": OTHER_SETS, "shapes": PRODUCTS, "a": DTYPES[:3], "b": DTYPES[:3], "out": DTYPES, "fast": (False, True)},
        _matmul,
        _matmul_runs,
        core=("a", "b", "out", "fast"),
    ),
)  # fmt: skip
