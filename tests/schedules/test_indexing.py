"""Rankings, embeddings and resizing equal numpy on every instruction set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler.backend.index_map import stored_array
from qcompiler.backend.kernel import ArgmaxSpec, EmbeddingSpec, ResizeSpec, TopkSpec
from qcompiler.schedules import embedding, ranking, resize
from tests.schedules.harness import instruction_sets, prepare, scalars

Array = np.ndarray[Any, Any]
INSTRUCTION_SETS = instruction_sets(leave_out={"dotprod"})  # these kernels are those of neon


def codes(shape: tuple[int, ...], dtype: str, low: int | None = None, high: int | None = None) -> Array:
    limits = np.iinfo(dtype)
    bounds = limits.min if low is None else low, limits.max if high is None else high
    return np.random.default_rng(6).integers(*bounds, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize(
    "spec",
    [
        ArgmaxSpec((2, 21, 3, 5), (2, 21, 1, 5), 2, True, True, "uint8"),
        ArgmaxSpec((2, 40, 9), (2, 9), 1, False, False, "int16"),
        ArgmaxSpec((1, 30, 7), (1, 30), 2, True, False, "int32"),
        TopkSpec((2, 21, 6), 1, 5, True, True, "uint8"),
        TopkSpec((1, 5, 6), 2, 4, False, False, "int32"),
    ],
    ids=str,
)
def test_rankings(spec: ArgmaxSpec | TopkSpec, instruction_set: str, tmp_path: Path) -> None:
    run = prepare(ranking.build(spec, instruction_set), instruction_set, tmp_path)
    for x in (codes(spec.in_shape, spec.dtype, 0, 3), codes(spec.in_shape, spec.dtype)):
        order = np.argsort(-x.astype(np.int64) if spec.largest else x.astype(np.int64), axis=spec.axis, kind="stable")
        if isinstance(spec, TopkSpec):
            wanted = order.take(range(spec.k), axis=spec.axis)
            wanted = wanted.astype(np.int32) if spec.indices else np.take_along_axis(x, wanted, spec.axis)
        else:
            best = np.expand_dims(np.take_along_axis(x, order, spec.axis).take(0, axis=spec.axis), spec.axis)
            equal = x == best
            last = x.shape[spec.axis] - 1 - np.argmax(np.flip(equal, spec.axis), axis=spec.axis)
            wanted = (last if spec.last else np.argmax(equal, axis=spec.axis)).reshape(spec.out_shape).astype(np.int32)
        y = run({"x": stored_array(x, "NHWC").ravel(), "y": np.full_like(stored_array(wanted, "NHWC"), 77).ravel()})
        np.testing.assert_array_equal(y, stored_array(wanted, "NHWC").ravel())


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("shape", [(3,), (2, 20, 3), (1, 3)])
def test_embedding(shape: tuple[int, ...], instruction_set: str, tmp_path: Path) -> None:
    spec = EmbeddingSpec(shape, 9, 37, "uint8")
    run = prepare(embedding.build(spec, instruction_set), instruction_set, tmp_path)
    x, table = codes(shape, "int32", -2, 12), codes((9, 37), "uint8")
    wanted = table[np.clip(x, 0, 8)]
    indices = x if x.ndim > 1 else x[:, None]
    stored = stored_array(wanted, "NHWC")
    y = run({"x": stored_array(indices, "NHWC").ravel(), "table": table.ravel(), "y": np.full_like(stored, 77).ravel()})
    channels = wanted.shape[1]
    np.testing.assert_array_equal(y.reshape(stored.shape)[..., :channels], stored[..., :channels])
    if channels < 16:
        np.testing.assert_array_equal(y, stored.ravel())  # padding channels are 0 where no whole blocks are written


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize(("channels", "dtype"), [(20, "uint8"), (3, "int16")])
def test_resize(channels: int, dtype: str, instruction_set: str, tmp_path: Path) -> None:
    rows, columns = ((0, 1, 0), (0, 1, 3), (1, 2, 1), (2, 2, 0)), ((3, 3, 0), (1, 2, 2), (0, 1, 4))
    limits = np.iinfo(dtype)
    wide = ResizeSpec(2, 3, 4, channels, rows, columns, (4, 5), dtype, False)
    x = codes((2, channels, 3, 4), dtype)
    zero = 100 if dtype == "uint8" else 0
    for spec, multiplier, shift in ((wide, 1717986918, 35), (replace(wide, narrow=True), 51, 10)):
        (folder := tmp_path / str(shift)).mkdir()
        kernel = resize.build(spec, instruction_set)
        run = prepare(kernel, instruction_set, folder)
        total = np.zeros((2, channels, 4, 3), np.int64)
        for i, (above, below, down) in enumerate(rows):
            for j, (left, right, far) in enumerate(columns):
                parts = [(above, left, (4 - down) * (5 - far)), (above, right, (4 - down) * far)]
                parts += [(below, left, down * (5 - far)), (below, right, down * far)]
                total[:, :, i, j] = sum((x[:, :, r, c].astype(np.int64) - zero) * w for r, c, w in parts)
        wanted = np.clip(((total * multiplier + (1 << (shift - 1))) >> shift) + zero, limits.min, limits.max)
        scalar = {"x_zero": zero, "x_multiplier": multiplier, "shift": shift, "lo": limits.min, "hi": limits.max}
        stored = stored_array(wanted.astype(dtype), "NHWC")
        arrays = {"x": stored_array(x, "NHWC").ravel(), "y": np.zeros_like(stored).ravel(), "scalars": scalars(**scalar)}
        y = run({**arrays, **kernel.constants})
        np.testing.assert_array_equal(y.reshape(stored.shape)[..., :channels], stored[..., :channels])
