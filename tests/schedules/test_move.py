"""Chains of moves equal numpy, whatever form they take; padding channels are never left as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler.backend.index_map import memory_order, moved_shape
from qcompiler.backend.kernel import Move, MoveSpec, physical_channels
from qcompiler.schedules.move import build
from tests.schedules.harness import instruction_sets, prepare, scalars

Array = np.ndarray[Any, Any]
INSTRUCTION_SETS = instruction_sets(leave_out={"dotprod"})  # these kernels are those of neon
X_ZERO = 113


def transpose(*order: int) -> Move:
    return Move("transpose", (order,))


def take(axis: int, *indices: int) -> Move:
    return Move("take", ((axis,), indices))


def reshape(*shape: int) -> Move:
    return Move("reshape", (shape,))


def slice_(axis: int, start: int, stop: int, step: int) -> Move:
    return Move("slice", ((axis,), (start,), (stop,), (step,)))


def pad(before: tuple[int, ...], after: tuple[int, ...]) -> Move:
    return Move("pad", (before, after))


def spec(
    in_shape: tuple[int, ...],
    *moves: Move,
    dtype: str = "uint8",
    axis: int = 1,
    offset: int = 0,
    size: int = 0,
    shared: bool = False,
) -> MoveSpec:
    part = list(moved_shape(in_shape, moves))
    if size:
        part[axis] = size
    return MoveSpec(in_shape, tuple(part), "NHWC", "NHWC", dtype, moves, axis, offset, shared)


SPECS = {
    "channel shuffle": spec((2, 24, 3, 3), reshape(2, 4, 6, 3, 3), transpose(0, 2, 1, 3, 4), reshape(2, 24, 3, 3)),
    "depth to space": spec((1, 64, 3, 5), reshape(1, 2, 2, 16, 3, 5), transpose(0, 3, 4, 1, 5, 2), reshape(1, 16, 6, 10)),
    "space to depth": spec((1, 3, 6, 4), reshape(1, 3, 3, 2, 2, 2), transpose(0, 3, 5, 1, 2, 4), reshape(1, 12, 3, 2)),
    "heads": spec((2, 40, 64), reshape(2, 40, 2, 32), transpose(0, 2, 1, 3)),
    "heads i16": spec((1, 9, 20), reshape(1, 9, 2, 10), transpose(0, 2, 1, 3), dtype="int16"),
    "turned blocks": spec((2, 33, 50), transpose(0, 2, 1)),
    "turned blocks i32": spec((1, 20, 5, 7), transpose(0, 3, 2, 1), dtype="int32"),
    "nearest": spec((1, 20, 3, 4), take(2, 0, 0, 1, 1, 2, 2), take(3, 0, 0, 1, 1, 2, 2, 3, 3)),
    "reflect": spec((1, 5, 4, 4), take(3, 2, 1, 0, 1, 2, 3, 2), dtype="int16"),
    "channels out of order": spec((3, 6), take(1, 5, 0, 0, 3, 1), dtype="int32"),
    "backwards": spec((1, 6, 3, 7), slice_(3, 6, -1, -2), slice_(1, 5, 0, -1)),
    "pad and turn": spec((2, 3, 4), pad((0, 1, 0), (0, 0, 2)), transpose(0, 2, 1)),
    "zeros between": spec((1, 4, 3, 3), reshape(1, 4, 3, 1, 3, 1), pad((0,) * 6, (0, 0, 0, 1, 0, 1)), reshape(1, 4, 6, 6)),
    "no nest": spec((1, 2, 9), reshape(1, 3, 6)),
    "no nest, padded": spec((2, 2, 9), pad((0, 0, 1), (0, 1, 0)), reshape(2, 6, 5), dtype="int16"),
    "rank 6": spec((1, 2, 3, 2, 3, 4), transpose(0, 5, 1, 3, 2, 4)),
    "flatten": spec((2, 20, 5, 5), reshape(2, 500)),
    "one long run": spec((1, 16, 40, 40)),
    "part of channels": spec((2, 16, 3, 3), size=57, offset=32),
    "last channels": spec((2, 9, 3, 3), size=41, offset=32),
    "odd place": spec((1, 7, 2, 2), size=20, offset=3, dtype="int16"),
    "rows": spec((2, 20, 3, 3), axis=2, size=8, offset=4),
    "columns of a constant": spec((3, 5, 2, 3), axis=3, size=9, offset=6, shared=True),
    "one channel of two": spec((2, 2, 3), take(1, 1)),
    "rank 1": spec((3, 1), reshape(3, 1, 1)),
}


def stored(x: Array, padding: int) -> Array:
    """A tensor as it lies in memory."""
    moved = x.transpose(memory_order(x.ndim, "NHWC"))
    missing = physical_channels(x.shape[1]) - x.shape[1]
    return np.pad(moved, [(0, 0)] * (x.ndim - 1) + [(0, missing)], constant_values=padding).ravel()


def moved(move: Move, x: Array) -> Array:
    arguments = move.arguments
    match move.kind:
        case "transpose":
            return x.transpose(arguments[0])
        case "take":
            return x.take(arguments[1], axis=arguments[0][0])
        case "slice":
            ((axis,), (start,), (stop,), (step,)) = arguments
            return x.take(range(start, stop, step), axis=axis)
        case "pad":
            return np.pad(x, list(zip(*arguments, strict=True)), constant_values=X_ZERO)
        case _:
            return x.reshape(arguments[0])


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("name", SPECS)
def test_equals_numpy(name: str, instruction_set: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    kernel = build(spec, instruction_set)
    run = prepare(kernel, instruction_set, tmp_path)
    limits = np.iinfo(spec.dtype)
    shape = (1, *spec.in_shape[1:]) if spec.shared else spec.in_shape
    x = np.random.default_rng(4).integers(limits.min, limits.max, shape, dtype=spec.dtype, endpoint=True)
    before, untouched = np.full(spec.out_shape, 77, spec.dtype), 78
    y = run({"x": stored(x, 0), "scalars": scalars(x_zero=X_ZERO), "y": stored(before, untouched), **kernel.constants})
    result = np.broadcast_to(x, spec.in_shape)
    for move in spec.moves:
        result = moved(move, result)
    end = spec.offset + result.shape[spec.axis]
    channels = spec.out_shape[1]
    wanted = stored(before, untouched).reshape(*spec.out_shape[:1], *spec.out_shape[2:], -1)
    part = stored(result, 0).reshape(*result.shape[:1], *result.shape[2:], -1)
    if spec.axis == 1:
        wanted[..., spec.offset : end] = part[..., : result.shape[1]]
        wanted[..., channels:] = 0 if end == channels else untouched
    else:
        np.moveaxis(wanted, spec.axis - 1, 0)[spec.offset : end] = np.moveaxis(part, spec.axis - 1, 0)
    np.testing.assert_array_equal(y, wanted.ravel())


def test_what_goes_fast() -> None:
    forms = {name: build(spec, "avx2").schedule for name, spec in SPECS.items()}
    expected = {
        "depth to space": "runs of 32", "turned blocks": "blocks of 16", "turned blocks i32": "blocks of 4",
        "heads": "element by element", "nearest": "runs of 32", "one long run": "runs of 25600", "part of channels": "runs of 16",
        "rows": "runs of 288", "no nest": "element by element",
    }  # fmt: skip
    assert {name: forms[name].removeprefix("move, ") for name in expected} == expected
