"""Copies, chains of moves, rankings and embeddings: what changes no code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from qcompiler.backend.image import DENSE, PHYSICAL
from qcompiler.backend.index_map import stored_array
from qcompiler.backend.kernel import ArgmaxSpec, CopySpec, EmbeddingSpec, Kernel, MoveSpec, TopkSpec
from tests.schedules import test_copy, test_move
from tests.schedules.forms.family import BEFORE, DTYPES, OTHER_SETS, Array, Family, Run, by_pixel, fills
from tests.schedules.harness import scalars

COPIES: Final = tuple({replace(spec, dtype="uint8"): None for spec in test_copy.SPECS})[::3]
MOVES: Final = (*tuple(test_move.SPECS)[1::3], "pad and turn")
LAYOUTS: Final = ((PHYSICAL, PHYSICAL), (DENSE, PHYSICAL), (PHYSICAL, DENSE))
LINES: Final = (((2, 21, 3, 5), 2), ((2, 40, 9), 1), ((1, 30, 7), 2), ((1, 32, 6), 2), ((2, 6), 1))


def _copy(instruction_set: str, copy: CopySpec, dtype: str) -> CopySpec:
    return replace(copy, dtype=dtype)


def _copy_runs(spec: CopySpec, kernel: Kernel) -> Iterator[Run]:
    for name, x in fills((test_copy.elements(spec.in_shape, spec.in_layout),), spec.dtype):
        wanted = test_copy.reference(spec, test_copy.logical(x, spec.in_shape, spec.in_layout)).astype(spec.dtype)
        arrays = {"x": x, "scalars": scalars(x_zero=test_copy.X_ZERO)}
        yield Run(name, arrays, *by_pixel(wanted)) if spec.out_layout == PHYSICAL else Run(name, arrays, wanted)


def _move(instruction_set: str, move: str, dtype: str, layouts: tuple[str, str]) -> MoveSpec:
    return replace(test_move.SPECS[move], dtype=dtype, in_layout=layouts[0], out_layout=layouts[1])


def _move_runs(spec: MoveSpec, kernel: Kernel) -> Iterator[Run]:
    shape = (1, *spec.in_shape[1:]) if spec.shared else spec.in_shape
    for name, x in fills(shape, spec.dtype):
        moved: Array = np.broadcast_to(x, spec.in_shape)
        for step in spec.moves:
            moved = test_move.moved(step, moved)
        wanted = np.full(spec.out_shape, BEFORE, spec.dtype)
        np.moveaxis(wanted, spec.axis, 0)[spec.offset : spec.offset + moved.shape[spec.axis]] = np.moveaxis(moved, spec.axis, 0)
        arrays = {"x": stored_array(x, spec.in_layout), "scalars": scalars(x_zero=test_move.X_ZERO), **kernel.constants}
        yield Run(name, arrays, *by_pixel(wanted)) if spec.out_layout == PHYSICAL else Run(name, arrays, wanted)


def _argmax(instruction_set: str, line: tuple[Any, int], keep: bool, largest: bool, last: bool, dtype: str) -> ArgmaxSpec:
    shape, axis = line
    result = tuple(1 if place == axis else extent for place, extent in enumerate(shape))
    if not keep:
        result = (*shape[:axis], *shape[axis + 1 :])
    return ArgmaxSpec(shape, result if len(result) > 1 else (*result, 1), axis, largest, last, dtype)


def _ordered(spec: ArgmaxSpec | TopkSpec) -> Iterator[tuple[str, Array, Array]]:
    """Codes with many ties among them, and the places of a line from the best on."""
    codes = (*fills(spec.in_shape, spec.dtype), *(("ties", x) for _, x in fills(spec.in_shape, spec.dtype, (0, 3))))
    for name, x in codes:
        yield name, x, np.argsort((-1 if spec.largest else 1) * x.astype(np.int64), axis=spec.axis, kind="stable")


def _argmax_runs(spec: ArgmaxSpec, kernel: Kernel) -> Iterator[Run]:
    for name, x, order in _ordered(spec):
        equal = x == np.take_along_axis(x, order.take([0], axis=spec.axis), spec.axis)
        last = x.shape[spec.axis] - 1 - np.argmax(np.flip(equal, spec.axis), axis=spec.axis)
        found = last if spec.last else np.argmax(equal, axis=spec.axis)
        yield Run(name, {"x": stored_array(x, PHYSICAL)}, *by_pixel(found.reshape(spec.out_shape).astype(np.int32)))


def _topk(instruction_set: str, line: tuple[Any, int], k: int, largest: bool, indices: bool, dtype: str) -> TopkSpec:
    return TopkSpec(*line, k, largest, indices, dtype)


def _topk_runs(spec: TopkSpec, kernel: Kernel) -> Iterator[Run]:
    for name, x, order in _ordered(spec):
        places = order.take(range(spec.k), axis=spec.axis)
        found = places.astype(np.int32) if spec.indices else np.take_along_axis(x, places, spec.axis)
        yield Run(name, {"x": stored_array(x, PHYSICAL)}, *by_pixel(found))


def _embedding(instruction_set: str, shape: tuple[int, ...], size: tuple[int, int], dtype: str) -> EmbeddingSpec:
    return EmbeddingSpec(shape, *size, dtype)


def _embedding_runs(spec: EmbeddingSpec, kernel: Kernel) -> Iterator[Run]:
    for (_, table), (name, x) in zip(
        fills((spec.rows, spec.width), spec.dtype), fills(spec.in_shape, "int32", (-2, spec.rows + 2)), strict=True
    ):
        indices = x if x.ndim > 1 else x[:, None]
        yield Run(name, {"x": stored_array(indices, PHYSICAL), "table": table}, *by_pixel(table[np.clip(x, 0, spec.rows - 1)]))


BOTH: Final = (False, True)
FAMILIES: Final = (
    Family("copy", {"instruction_set": OTHER_SETS, "copy": COPIES, "dtype": DTYPES}, _copy, _copy_runs),
    Family("move", {"instruction_set": OTHER_SETS, "move": MOVES, "dtype": DTYPES, "layouts": LAYOUTS}, _move, _move_runs),
    Family(
        "ranking",
        {"instruction_set": OTHER_SETS, "line": LINES, "keep": BOTH, "largest": BOTH, "last": BOTH, "dtype": DTYPES},
        _argmax,
        _argmax_runs,
        core=("largest", "last", "dtype", "keep"),
    ),
    Family(
        "ranking",
        {"instruction_set": OTHER_SETS, "line": LINES, "k": (1, 3), "largest": BOTH, "indices": BOTH, "dtype": DTYPES},
        _topk,
        _topk_runs,
        core=("largest", "indices", "dtype"),
    ),
    Family(
        "embedding",
        {
            "instruction_set": OTHER_SETS, "shape": ((3,), (2, 20, 3), (1, 3), (1, 16)), "size": ((9, 37), (5, 16), (3, 4)),
            "dtype": DTYPES,
        },
        _embedding,
        _embedding_runs,
    ),
)  # fmt: skip
