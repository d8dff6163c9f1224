"""Assignments to a part of a tensor, ``y[:, 1:3] = z``: what stays and what is new are joined.

What one assignment joined the next one takes apart again, so that a tensor that is filled part by part is one concatenation
in the end, in which each part keeps a range of its own.
"""

from __future__ import annotations

import numpy as np

from qcompiler.importers.builder import Known, Layer, Repeated, UnsupportedError
from qcompiler.importers.emit_movement import concat, part_size, parts_of, taken_from, takes
from qcompiler.importers.operands import inner_axis, per_sample
from qcompiler.ir.graph import Array, Value


def assigned(layer: Layer, x: object, source: object, axis: int, positions: Array) -> Value | Known:
    """``x`` with ``source`` at ``positions`` along ``axis``; the last one counts where a position comes twice.

    One of the two may be a constant.
    """
    computed = next((operand for operand in (x, source) if isinstance(operand, Value)), None)
    if computed is None:
        raise UnsupportedError("both of its operands are constants")
    axis = inner_axis(computed, axis, "assigns to samples of")
    base, part = (per_sample(layer, y, len(computed.type.shape)) if isinstance(y, Known) else y for y in (x, source))
    assert isinstance(base, Value | Known)
    assert isinstance(part, Value | Known)
    size, count = part_size(base, axis), len(positions)
    stays = np.setdiff1d(np.arange(size), positions)
    order = np.empty(size, np.int64)
    order[stays] = np.arange(len(stays))
    order[positions] = len(stays) + np.arange(count)
    first, last = (int(positions[0]), int(positions[-1]) + 1) if count else (0, 0)
    if np.array_equal(positions, np.arange(first, last)):
        before, after = (_stretch(layer, base, axis, np.arange(*ends)) for ends in ((0, first), (last, size)))
        return _joined(layer, [*before, part, *after], axis)
    joined = _joined(layer, [*_stretch(layer, base, axis, stays), part], axis, ".joined")
    return takes(layer, joined, {axis: order}) if isinstance(joined, Value) else _known(joined, axis, order)


def _stretch(layer: Layer, x: Value | Known, axis: int, positions: Array) -> list[Value | Known]:
    """The parts of which the elements ``positions`` of ``x`` are joined."""
    if not positions.size:
        return []
    parts: list[Value | Known] = [x]
    places = positions
    if isinstance(x, Value):
        parts, places = taken_from(layer, x, axis, positions)
    if np.array_equal(places, np.arange(sum(part_size(part, axis) for part in parts))):
        return parts if len(parts) > 1 else parts_of(layer, parts[0], axis)
    joined = _joined(layer, parts, axis, ".parts")
    return [takes(layer, joined, {axis: places}, ".rest") if isinstance(joined, Value) else _known(joined, axis, places)]


def _known(x: Known, axis: int, positions: Array) -> Known:
    return Repeated(x.data.take(positions, axis), x.name)


def _joined(layer: Layer, parts: list[Value | Known], axis: int, suffix: str = "") -> Value | Known:
    if len(parts) == 1:
        return parts[0]
    constants = [x for x in parts if isinstance(x, Known)]
    if len(constants) == len(parts):
        return Repeated(np.concatenate([x.data for x in constants], axis), layer.name + suffix)
    return concat(layer, parts, axis, suffix)
