"""Copies equal numpy indexing."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler.backend.kernel import CopySpec, physical_channels
from qcompiler.schedules.copy import build
from tests.schedules.harness import instruction_sets, prepare, scalars

Array = np.ndarray[Any, Any]
INSTRUCTION_SETS = instruction_sets(leave_out={"dotprod"})  # these kernels are those of neon
X_ZERO = 113


def convert(shape: tuple[int, ...], source: str, result: str, dtype: str = "uint8") -> CopySpec:
    return CopySpec(shape, shape, source, result, dtype, (0,) * len(shape), (1,) * len(shape))


def slice_(
    in_shape: tuple[int, ...], out_shape: tuple[int, ...], starts: tuple[int, ...], steps: tuple[int, ...] = (1, 1, 1, 1),
    layouts: tuple[str, str] = ("NHWC", "NHWC"), dtype: str = "uint8",
) -> CopySpec:  # fmt: skip
    return CopySpec(in_shape, out_shape, *layouts, dtype, starts, steps)


SPECS = [
    convert((2, 3, 13, 15), "NCHW", "NHWC"),
    convert((1, 3, 3, 3), "NCHW", "NHWC"),
    convert((1, 4, 9, 5), "NCHW", "NHWC", "int16"),
    convert((1, 20, 7, 7), "NCHW", "NHWC"),
    convert((1, 33, 5, 5), "NCHW", "NHWC", "int16"),
    convert((1, 5, 4, 5), "NCHW", "NHWC", "int32"),
    convert((2, 20, 7, 7), "NHWC", "NCHW"),
    convert((1, 3, 5, 7), "NHWC", "NCHW"),
    convert((1, 2, 5, 7), "NHWC", "NCHW", "int16"),
    convert((1, 17, 3, 3), "NHWC", "NCHW", "int32"),
    convert((2, 40, 1, 1), "NHWC", "NCHW"),
    convert((3, 1000), "NHWC", "NCHW", "int16"),
    convert((2, 10), "NCHW", "NHWC"),
    convert((2, 6, 5, 5), "NHWC", "NHWC"),
    convert((2, 5, 7), "NCHW", "NCHW", "int32"),
    CopySpec((2, 20, 5, 5), (2, 500), "NHWC", "NHWC", "uint8", reshape=True),
    CopySpec((1, 48, 1, 1), (1, 48), "NHWC", "NHWC", "uint8", reshape=True),
    CopySpec((2, 72), (2, 2, 6, 6), "NHWC", "NHWC", "uint8", reshape=True),
    CopySpec((1, 6, 4, 4), (1, 24, 2, 2), "NHWC", "NHWC", "int16", reshape=True),
    CopySpec((2, 6, 4), (8, 6), "NCHW", "NHWC", "uint8", reshape=True),
    slice_((1, 16, 6, 6), (1, 16, 9, 10), (0, 0, -1, -2)),
    slice_((1, 20, 6, 6), (1, 20, 5, 3), (0, 0, 1, 5), (1, 1, 1, -2)),
    slice_((1, 40, 3, 3), (1, 20, 3, 3), (0, 17, 0, 0)),
    slice_((1, 40, 3, 3), (1, 3, 3, 3), (0, 37, 0, 0)),
    slice_((1, 24, 3, 3), (1, 12, 3, 3), (0, 0, 0, 0), (1, 2, 1, 1)),
    slice_((1, 6, 4, 4), (1, 9, 4, 6), (0, -2, 0, -1), dtype="int16"),
    slice_((3, 6, 4, 4), (1, 6, 2, 4), (1, 0, 2, 0), layouts=("NCHW", "NCHW")),
    slice_((1, 3, 8, 8), (1, 3, 12, 12), (0, 0, -2, -2), layouts=("NCHW", "NHWC")),
]


def logical(stored: Array, shape: tuple[int, ...], layout: str) -> Array:
    """The tensor that a buffer holds."""
    if layout == "NCHW":
        return stored.reshape(shape)
    physical = stored.reshape(shape[0], *shape[2:], physical_channels(shape[1]))
    return np.moveaxis(physical, -1, 1)[:, : shape[1]]


def elements(shape: tuple[int, ...], layout: str) -> int:
    channels = physical_channels(shape[1]) if layout == "NHWC" else shape[1]
    return int(np.prod((shape[0], channels, *shape[2:])))


def reference(spec: CopySpec, x: Array) -> Array:
    if spec.reshape:
        return x.reshape(spec.out_shape)
    y = np.full(spec.out_shape, X_ZERO, dtype=spec.dtype)
    for index in product(*(range(extent) for extent in spec.out_shape)):
        origin = tuple(start + i * step for start, i, step in zip(spec.starts, index, spec.steps, strict=True))
        if all(0 <= place < extent for place, extent in zip(origin, spec.in_shape, strict=True)):
            y[index] = x[origin]
    return y


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.in_layout}{s.in_shape}-{s.out_layout}{s.out_shape}-{s.dtype}")
def test_equals_numpy(spec: CopySpec, instruction_set: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    limits = np.iinfo(spec.dtype)
    run = prepare(build(spec, instruction_set), instruction_set, tmp_path)
    x = generator.integers(limits.min, limits.max, elements(spec.in_shape, spec.in_layout), dtype=spec.dtype, endpoint=True)
    y = np.zeros(elements(spec.out_shape, spec.out_layout), spec.dtype)
    result = run({"x": x, "scalars": scalars(x_zero=X_ZERO), "y": y})
    wanted = reference(spec, logical(x, spec.in_shape, spec.in_layout))
    np.testing.assert_array_equal(logical(result, spec.out_shape, spec.out_layout), wanted)
