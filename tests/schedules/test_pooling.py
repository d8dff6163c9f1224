"""Pooling kernels equal numpy, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler.backend.kernel import PoolSpec, physical_channels
from qcompiler.schedules.pooling import build
from tests.schedules.harness import instruction_sets, prepare, scalars

Array = np.ndarray[Any, Any]
INSTRUCTION_SETS = instruction_sets(leave_out={"dotprod"})  # these kernels are those of neon


def valid(size: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> list[list[int]]:
    """The inside positions of every window of one axis."""
    windows = [[o * stride - pad + k * dilation for k in range(kernel)] for o in range(out)]
    return [[place for place in window if 0 <= place < size] for window in windows]


def pool(
    kind: str, channels: int, size: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0), *, batch: int = 1, dilation: tuple[int, int] = (1, 1),
    dtypes: tuple[str, str] = ("uint8", "uint8"), ceil: int = 0, include_pad: bool = False,
) -> PoolSpec:  # fmt: skip
    out = [
        (size[a] + padding[a] + padding[a + 2] - dilation[a] * (kernel[a] - 1) - 1 + ceil * (strides[a] - 1)) // strides[a] + 1
        for a in range(2)
    ]
    inside = [valid(size[a], out[a], kernel[a], strides[a], padding[a], dilation[a]) for a in range(2)]
    counts = tuple(tuple(kernel[a] if include_pad else len(window) for window in inside[a]) for a in range(2))
    return PoolSpec(
        kind, batch, *size, channels, out[0], out[1], kernel, strides, padding, dilation, *dtypes, (counts[0], counts[1])
    )


SPECS = [
    pool("max", 64, (12, 12), (3, 3), (2, 2), (1, 1, 1, 1)),
    pool("max", 3, (9, 7), (2, 2), (2, 2), ceil=1),
    pool("max", 20, (9, 7), (3, 2), (1, 1), (1, 1, 1, 1), dilation=(2, 2), batch=2),
    pool("max", 16, (13, 13), (13, 13), (1, 1), (6, 6, 6, 6), dtypes=("int16", "int16")),
    pool("max", 48, (6, 6), (2, 2), (2, 2), dtypes=("int32", "int32")),
    pool("average", 1280, (7, 7), (7, 7)),
    pool("average", 24, (18, 18), (18, 18), dtypes=("uint8", "int16")),
    pool("average", 32, (9, 9), (3, 3), (2, 2), (1, 1, 1, 1), ceil=1),
    pool("average", 16, (8, 9), (3, 3), (1, 1), (1, 1, 1, 1), include_pad=True, batch=2),
    pool("average", 2, (6, 6), (2, 2), (2, 2), dtypes=("int16", "uint8")),
]


def reference(spec: PoolSpec, x: Array, multiplier: Array, scalar: dict[str, int]) -> Array:
    rows = valid(spec.height, spec.out_height, spec.kernel[0], spec.strides[0], spec.padding[0], spec.dilation[0])
    columns = valid(spec.width, spec.out_width, spec.kernel[1], spec.strides[1], spec.padding[1], spec.dilation[1])
    y = np.zeros((spec.batch, spec.out_height, spec.out_width, spec.channels), dtype=np.int64)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            taps = x[:, row][:, :, column].astype(np.int64)
            if spec.kind == "max":
                y[:, i, j] = taps.max(axis=(1, 2), initial=np.iinfo(spec.in_dtype).min)
            else:
                count = spec.counts[0][i] * spec.counts[1][j]
                total = (taps - scalar["x_zero"]).sum(axis=(1, 2)) * multiplier[count]
                shifted = (total + (1 << (scalar["shift"] - 1))) >> scalar["shift"]
                y[:, i, j] = np.clip(shifted + scalar["y_zero"], scalar["lo"], scalar["hi"])
    return y


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.kind}-{s.channels}x{s.height}-{s.kernel}-{s.in_dtype}-{s.out_dtype}")
def test_equals_numpy(spec: PoolSpec, instruction_set: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    run = prepare(build(spec, instruction_set), instruction_set, tmp_path)
    shape = (spec.batch, spec.height, spec.width, physical_channels(spec.channels))
    out = np.iinfo(spec.out_dtype)
    scalar = {"x_zero": 77, "shift": 30, "y_zero": 40, "lo": int(out.min), "hi": int(out.max)}
    counts = np.arange(max(spec.counts[0]) * max(spec.counts[1]) + 1)
    multiplier = ((1 << 30) // np.maximum(counts, 1)).astype(np.int32)
    limits = np.iinfo(spec.in_dtype)
    low, high = int(limits.min), int(limits.max)
    for x in (generator.integers(low, high + 1, shape), np.full(shape, low), np.full(shape, high)):
        codes = x.astype(spec.in_dtype)
        y = np.zeros((spec.batch, spec.out_height, spec.out_width, shape[3]), spec.out_dtype)
        result = run({"x": codes, "multiplier": multiplier, "scalars": scalars(**scalar), "y": y})[..., : spec.channels]
        np.testing.assert_array_equal(result, reference(spec, codes[..., : spec.channels], multiplier, scalar))
