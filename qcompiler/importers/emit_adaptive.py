"""Adaptive pooling into positions that do not divide an axis: the windows overlap, and differ by an element at most.

Window i of w over n elements goes from floor(i * n / w) to ceil((i + 1) * n / w). Maxima take windows of one length, the shorter
ones repeat an element. Averages are taken of windows of each length apart, and joined in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcompiler.importers import emit_convolution as emit
from qcompiler.importers.builder import Layer, check_size
from qcompiler.importers.emit_movement import takes
from qcompiler.importers.operands import space
from qcompiler.ir.graph import Array, Value


@dataclass(frozen=True)
class _Windows:
    """Windows of one length along an axis: the elements that they are made of, their step there, and which results they give."""

    elements: Array
    length: int
    step: int
    results: Array


def _laid_out(rows: Array, results: Array) -> _Windows:
    """Windows, a row of elements each: as they lie if their steps are equal, side by side if not."""
    count, length = rows.shape
    step = int(rows[1, 0] - rows[0, 0]) if count > 1 else length
    run = rows[0, 0] + np.arange(step * (count - 1) + length)
    starts = step * np.arange(count)
    if step > 0 and np.array_equal(rows, run[starts[:, None] + np.arange(length)]):
        return _Windows(run, length, step, results)
    return _Windows(rows.reshape(-1), length, length, results)


def _along(size: int, wanted: int, one_length: bool) -> list[_Windows]:
    """The windows of an axis by their lengths, or all of the largest length, with the last element repeated."""
    positions = np.arange(wanted)
    first, end = positions * size // wanted, -(-(positions + 1) * size // wanted)
    lengths = end - first
    if one_length:
        return [_laid_out(np.minimum(first[:, None] + np.arange(lengths.max()), end[:, None] - 1), positions)]
    groups = [(length, positions[lengths == length]) for length in np.unique(lengths).tolist()]
    return [_laid_out(first[chosen, None] + np.arange(length), chosen) for length, chosen in groups]


def adaptive_pool(layer: Layer, x: Value, wanted: Sequence[int], average: bool) -> Value:
    """Means or maxima of ``wanted`` windows along the axes behind the channels of ``[N,C,...]``."""
    check_size(wanted)
    choices = [_along(n, w, not average) for n, w in zip(space(x, len(wanted)), wanted, strict=True)]
    return _joined(layer, x, choices, (), average)


def _joined(layer: Layer, x: Value, choices: Sequence[list[_Windows]], chosen: tuple[_Windows, ...], average: bool) -> Value:
    """The results for the windows ``chosen`` along the first axes and for all of those along the others."""
    if len(chosen) == len(choices):
        return _pooled(layer, x, chosen, average)
    lengths = choices[len(chosen)]
    if len(lengths) == 1:
        return _joined(layer, x, choices, (*chosen, *lengths), average)
    parts = [_joined(_part(layer, w.length), x, choices, (*chosen, w), average) for w in lengths]
    axis = len(chosen) + 2
    order = np.argsort(np.concatenate([w.results for w in lengths]))
    return takes(layer, layer.emit("concat", parts, ".joined", axis=axis), {axis: order})


def _part(layer: Layer, length: int) -> Layer:
    """The layer with a name of its own for what comes of windows of one length."""
    return replace(layer, where=layer.origin, call="", name=f"{layer.name}.of{length}")


def _pooled(layer: Layer, x: Value, chosen: Sequence[_Windows], average: bool) -> Value:
    axes = len(chosen)
    kernel, strides, none = [w.length for w in chosen], [w.step for w in chosen], (0,) * (2 * axes)
    if set(kernel) == {1}:
        return takes(layer, x, {axis: w.elements[:: w.step] for axis, w in enumerate(chosen, 2)})
    x = takes(layer, x, {axis: w.elements for axis, w in enumerate(chosen, 2)}, ".windows")
    if average:
        return emit.average_pool(layer, x, kernel, strides, none, False, False)
    return emit.max_pool(layer, x, kernel, strides, none, (1,) * axes, False)
