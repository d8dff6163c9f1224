"""The loops of a map visit what numpy moves: random chains on random shapes, run in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.backend.index_map import Loop, index_map, is_unmoved, moved_shape, source_places, stored_array
from qcompiler.backend.kernel import Move, MoveSpec

Array = np.ndarray[Any, Any]


@st.composite
def moves(draw: st.DrawFn, shape: tuple[int, ...]) -> Move:
    """A move that fits a shape."""
    rank = len(shape)
    axis = draw(st.integers(1, rank - 1))
    size = shape[axis]
    match draw(st.sampled_from(["transpose", "take", "slice", "pad", "split", "merge"])):
        case "transpose":
            return Move("transpose", ((0, *draw(st.permutations(range(1, rank)))),))
        case "take":
            return Move("take", ((axis,), tuple(draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=6)))))
        case "slice":
            start, step = draw(st.integers(0, size - 1)), draw(st.sampled_from([1, 2, -1, -3]))
            return Move("slice", ((axis,), (start,), (size if step > 0 else -1,), (step,)))
        case "pad":
            counts = [tuple(draw(st.integers(0, 2)) if a == axis else 0 for a in range(rank)) for _ in range(2)]
            return Move("pad", (counts[0], counts[1]))
        case "split":
            factor = draw(st.sampled_from([f for f in range(1, size + 1) if size % f == 0]))
            return Move("reshape", ((*shape[:axis], factor, size // factor, *shape[axis + 1 :]),))
    return Move("reshape", ((*shape[:axis], int(np.prod(shape[axis:]))),))


@st.composite
def specs(draw: st.DrawFn) -> MoveSpec:
    """A chain of up to four moves."""
    shape = (1, *draw(st.lists(st.sampled_from([1, 2, 3, 4, 6, 16, 17]), min_size=1, max_size=4)))
    chain: tuple[Move, ...] = ()
    for _ in range(draw(st.integers(1, 4))):
        chain = (*chain, draw(moves(moved_shape(shape, chain))))
    return MoveSpec(shape, moved_shape(shape, chain), "NHWC", "NHWC", "int64", chain)


def run(spec: MoveSpec, x: Array, y: Array, fill: int) -> None:
    """What the loops do, with indices as arrays."""
    found = index_map(spec)
    for nest, copies in ((found.fill, False), (found.copy, True)):
        if nest is None:
            continue
        place, source = np.zeros(1, np.int64), np.zeros(1, np.int64)
        outer = np.zeros(1, np.int64)
        for depth, loop in enumerate(nest.loops):
            if depth == len(nest.loops) - nest.channel_loops:
                outer = place
            steps = np.array(loop.table) if loop.table else np.arange(loop.extent) * loop.x_stride
            place = (place[:, None] + np.arange(loop.extent) * loop.y_stride).ravel()
            source = (source[:, None] + steps).ravel()
        if nest.channel_loops == 0:
            outer = place
        if found.scattered:
            places = source_places(spec).ravel()
            y[nest.y_start + place] = np.where(places < 0, fill, x[places])
        else:
            y[nest.y_start + place] = x[found.x_start + source] if copies else fill
        if nest.zeros:
            y[(nest.y_start + outer[:, None] + np.arange(nest.zeros_at, nest.zeros_at + nest.zeros)).ravel()] = 0


@settings(max_examples=300, deadline=None)
@given(specs())
def test_loops_equal_numpy(spec: MoveSpec) -> None:
    x = np.arange(1, 1 + np.prod(spec.in_shape)).reshape(spec.in_shape)
    wanted = x
    for move in spec.moves:
        arguments = move.arguments
        match move.kind:
            case "transpose":
                wanted = wanted.transpose(arguments[0])
            case "take":
                wanted = wanted.take(arguments[1], axis=arguments[0][0])
            case "slice":
                wanted = wanted.take(range(arguments[1][0], arguments[2][0], arguments[3][0]), axis=arguments[0][0])
            case "pad":
                wanted = np.pad(wanted, list(zip(*arguments, strict=True)), constant_values=-5)
            case _:
                wanted = wanted.reshape(arguments[0])
    stored = stored_array(wanted, "NHWC").ravel()
    y = np.full_like(stored, -9)
    run(spec, stored_array(x, "NHWC").ravel(), y, -5)
    np.testing.assert_array_equal(y, stored)
    if is_unmoved(spec):
        np.testing.assert_array_equal(stored, stored_array(x, "NHWC").ravel())


def test_adjacent_loops_become_one() -> None:
    split = (Move("reshape", ((1, 32, 2, 3, 4),)), Move("transpose", ((0, 1, 2, 4, 3),)))
    found = index_map(MoveSpec((1, 32, 6, 4), (1, 32, 2, 4, 3), "NHWC", "NHWC", "uint8", split))
    assert found.copy is not None
    assert found.copy.loops == (Loop(2, 384, 384), Loop(4, 96, 32), Loop(3, 32, 128), Loop(32, 1, 1))
