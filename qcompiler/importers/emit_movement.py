"""Operators that move elements and compute nothing: padding, slicing, gathering, joining, reshaping, transposing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Final, Literal

import numpy as np

from qcompiler.importers.builder import (
    FixedBatchError,
    Known,
    Layer,
    Merged,
    Repeated,
    UnsupportedError,
    check_size,
    dims,
)
from qcompiler.importers.operands import LOWEST, axis_of, inner_axis, per_sample, sizes, value
from qcompiler.ir.graph import BATCH, Array, Dim, Value

PADDING: Final = {"reflect": "reflect", "edge": "edge", "replicate": "edge", "wrap": "wrap", "circular": "wrap"}
"""numpy's names of the paddings that repeat elements, by ONNX's and torch's."""


def pad(layer: Layer, x: object, before: Sequence[int], after: Sequence[int], fill: float, mode: str = "constant") -> Value:
    """Padding; negative counts crop. One count per axis, 0 for the batch."""
    x = value(x)
    if before[0] or after[0]:
        raise FixedBatchError(f"it pads the batch by {before[0]} and {after[0]}")
    if mode != "constant":
        return _repeating_pad(layer, x, before, after, mode)
    cut = [axis for axis in range(len(x.type.shape)) if before[axis] < 0 or after[axis] < 0]
    grown = x
    if max((*before, *after)) > 0:
        counts: dict[str, Any] = {"before": tuple(max(b, 0) for b in before), "after": tuple(max(a, 0) for a in after)}
        grown = layer.emit("pad", [x], ".grown" if cut else "", value=float(fill), **counts)
        if not abs(fill) < -LOWEST:
            layer.builder.refuse_readers(grown, layer, f"it pads with {fill}; only -inf right before max pooling is supported")
    return cropped(layer, grown, cut, [max(-before[a], 0) for a in cut], [min(after[a], 0) or None for a in cut], [1] * len(cut))


def _repeating_pad(layer: Layer, x: Value, before: Sequence[int], after: Sequence[int], mode: str) -> Value:
    if mode not in PADDING:
        raise UnsupportedError(f"padding of mode {mode!r} is not supported")
    chosen: dict[int, Array] = {}
    for axis, size in enumerate(x.type.shape):
        if not isinstance(size, int):
            continue
        counts = (max(before[axis], 0), max(after[axis], 0))
        if mode == "reflect" and max(counts) >= size:
            raise UnsupportedError(f"it reflects {max(counts)} elements of an axis of {size}")
        check_size([size + sum(counts)])
        kept = slice(max(-before[axis], 0), size + min(after[axis], 0))
        chosen[axis] = np.pad(np.arange(size)[kept], counts, mode=PADDING[mode])  # type: ignore[call-overload]
    return takes(layer, x, chosen)


def cropped(
    layer: Layer,
    x: object,
    axes: Sequence[int],
    starts: Sequence[int | None],
    stops: Sequence[int | None],
    steps: Sequence[int],
    suffix: str = "",
) -> Value:
    """``x[start:stop:step]`` along ``axes`` with the meaning that Python gives to None, negative and large indices."""
    x = value(x)
    kept: dict[int, tuple[int, int, int]] = {}
    for axis, start, stop, step in zip((axis_of(x, a) for a in axes), starts, stops, steps, strict=True):
        size = x.type.shape[axis]
        if step == 0:
            raise UnsupportedError("its step is 0")
        if not isinstance(size, int):
            if start not in (None, 0) or (stop is not None and stop < 2**31 - 1) or step != 1:
                raise FixedBatchError(f"it slices the batch by [{start}:{stop}:{step}]")
            continue
        first, last, _ = slice(start, stop, step).indices(size)
        if (first, last, step) != (0, size, 1):
            kept[axis] = (first, last, step)
    if not kept:
        return x
    if all(step > 0 and first < last for first, last, step in kept.values()):
        return takes(layer, x, {axis: np.arange(*numbers) for axis, numbers in kept.items()}, suffix)
    starts_, stops_, steps_ = zip(*(kept[a] for a in sorted(kept)), strict=True)
    return layer.emit("slice", [x], suffix, axes=tuple(sorted(kept)), starts=starts_, stops=stops_, steps=steps_)


def takes(layer: Layer, x: object, chosen: Mapping[int, Array], suffix: str = "") -> Value:
    """Elements by constant indices along some axes; an axis that is left as it is costs nothing, a range is a slice."""
    x = value(x)
    slices: dict[int, tuple[int, int, int]] = {}
    gathers: list[tuple[int, Array]] = []
    for axis, indices in chosen.items():
        size = x.type.shape[axis]
        if not isinstance(size, int):
            raise FixedBatchError(f"it picks samples of the batch of {x.type}")
        if indices.size and not -size <= indices.min() <= indices.max() < size:
            raise UnsupportedError(f"its indices {indices.min()} to {indices.max()} are not all within {size} elements")
        positive = np.where(indices < 0, indices + size, indices).astype(np.int64)
        parts, places = taken_from(layer, x, axis, positive)
        if any(isinstance(part, Value) for part in parts):
            x, positive = concat(layer, parts, axis, f"{suffix}.parts"), places
            size = x.type.with_batch(1)[axis]
        step = 1 if len(positive) < 2 else int(positive[1] - positive[0])
        if np.array_equal(positive, np.arange(size)):
            continue
        if step > 0 and positive.size and np.array_equal(positive, positive[0] + step * np.arange(len(positive))):
            slices[axis] = (int(positive[0]), int(positive[-1]) + 1, step)
        else:
            gathers.append((axis, positive))
    if slices:
        starts, stops, steps = zip(*(slices[a] for a in sorted(slices)), strict=True)
        ending = ".slice" if gathers else suffix
        x = layer.emit("slice", [x], ending, axes=tuple(sorted(slices)), starts=starts, stops=stops, steps=steps)
    for index, (axis, positive) in enumerate(gathers, 1):
        ending = suffix if index == len(gathers) else f"{suffix}.axis{axis}"
        indices_of = Known(positive.astype(np.int32), f"{layer.name}.indices{axis}", index=True)
        x = layer.emit("take", [x, indices_of], ending, axis=axis)
    return x


def taken_from(layer: Layer, x: Value, axis: int, positions: Array) -> tuple[list[Value | Known], Array]:
    """The parts of a concatenation in which the elements ``positions`` of ``x`` along ``axis`` lie, and where there.

    What is joined of unlike parts and taken apart again keeps the range of each part. ``x`` and ``positions`` themselves where
    no part can be left out.
    """
    parts: list[Value | Known] = [x]
    found, source = (parts, positions), x
    while (node := layer.builder.producer(source)) is not None and positions.size:
        if node.op == "take" and node["axis"] == axis:
            indices = layer.builder.find_constant(node.inputs[1])
            assert indices is not None
            positions, source = indices.data[positions], layer.builder.value(node.inputs[0])
        elif node.op == "slice" and node["axes"] == (axis,):
            positions, source = node["starts"][0] + node["steps"][0] * positions, layer.builder.value(node.inputs[0])
        elif node.op == "concat" and node["axis"] == axis:
            parts = parts_of(layer, source, axis)
            ends = np.cumsum([part_size(part, axis) for part in parts])
            owner = np.searchsorted(ends, positions, side="right")
            used = np.unique(owner)
            if len(used) == len(parts):
                break
            starts = np.concatenate(([0], ends[:-1]))
            kept = [parts[i] for i in used]
            moved = np.cumsum([0, *(part_size(part, axis) for part in kept)])
            positions = positions - starts[owner] + moved[np.searchsorted(used, owner)]
            found = (kept, positions)
            if len(kept) > 1 or not isinstance(kept[0], Value):
                break
            source = kept[0]
        else:
            break
    return found


def constant_part(layer: Layer, x: Value, axis: int, positions: Array) -> Known | None:
    """The elements ``positions`` of ``x`` along ``axis`` if they are constants that were joined to it."""
    parts, places = taken_from(layer, x, axis, positions)
    constants = [part.data for part in parts if isinstance(part, Known)]
    if len(constants) < len(parts):
        return None
    return Repeated(np.concatenate(constants, axis).take(places, axis), layer.name)


def parts_of(layer: Layer, x: Value | Known, axis: int) -> list[Value | Known]:
    """What a concatenation along ``axis`` joins; ``x`` itself where it is none."""
    node = layer.builder.producer(x) if isinstance(x, Value) else None
    if node is None or node.op != "concat" or node["axis"] != axis:
        return [x]
    parts: list[Value | Known] = []
    for name in node.inputs:
        constant = layer.builder.find_constant(name)
        parts.append(layer.builder.value(name) if constant is None else Repeated(np.asarray(constant.data), name))
    return parts


def part_size(x: Value | Known, axis: int) -> int:
    """The elements of ``x`` along an axis other than the batch."""
    return x.type.with_batch(1)[axis] if isinstance(x, Value) else x.data.shape[axis]


def gather(layer: Layer, x: object, indices: Array, axis: int) -> Value:
    """``numpy.take`` along one axis by constant indices of any rank: their dimensions take the place of the axis."""
    x = value(x)
    axis = inner_axis(x, axis, "picks samples of")
    shape = (*x.type.shape[:axis], *indices.shape, *x.type.shape[axis + 1 :])
    if indices.ndim == 1:
        return takes(layer, x, {axis: indices})
    return reshaped(layer, takes(layer, x, {axis: indices.reshape(-1)}, ".taken"), shape)


def expanded(layer: Layer, x: object, shape: Sequence[Dim | None]) -> Value:
    """``x`` broadcast to ``shape`` (its last dimensions; -1 and None keep what is there)."""
    x = value(x)
    own = x.type.shape
    if len(shape) > len(own):
        raise FixedBatchError(f"it puts {len(shape) - len(own)} axes in front of the batch of {x.type}")
    chosen: dict[int, Array] = {}
    for axis, wanted in enumerate(shape, len(own) - len(shape)):
        size = own[axis]
        if axis == 0 or wanted in (None, -1, 1, size):
            if axis == 0 and isinstance(wanted, int) and wanted not in (-1, 1, layer.builder.batch):
                raise FixedBatchError(f"it makes {wanted} samples of the batch of {x.type}")
            continue
        if size != 1 or not isinstance(wanted, int):
            raise UnsupportedError(f"{x.type} cannot be expanded to {dims([-1 if d is None else d for d in shape])}")
        check_size([wanted])
        chosen[axis] = np.zeros(wanted, np.int64)
    return takes(layer, x, chosen)


def repeated(layer: Layer, x: object, counts: Sequence[int]) -> Value:
    """``numpy.tile``: one count for every axis, 1 for the batch."""
    x = value(x)
    if len(counts) != len(x.type.shape) or counts[0] != 1:
        raise FixedBatchError(f"it repeats {x.type} by {tuple(counts)}, which does not leave the batch alone")
    axes = [(a, d) for a, d in enumerate(x.type.shape) if isinstance(d, int)]
    check_size([d * counts[a] for a, d in axes])
    return takes(layer, x, {a: np.tile(np.arange(d), counts[a]) for a, d in axes})


def split(layer: Layer, x: object, parts: Sequence[int], axis: int, names: Sequence[str]) -> tuple[Value, ...]:
    """Consecutive parts along an axis, each with a name of its own."""
    x = value(x)
    axis = inner_axis(x, axis, "splits")
    if sum(parts) != x.type.shape[axis]:
        raise UnsupportedError(f"its parts {tuple(parts)} are not all of axis {axis} of {x.type}")
    ends = np.cumsum(parts).tolist()
    pieces: list[Value] = []
    for name, size, end in zip(names, parts, ends, strict=True):
        pieces.append(cropped(replace(layer, name=name), x, [axis], [end - size], [end], [1]))
    return tuple(pieces)


def concat(layer: Layer, operands: Sequence[object], axis: int, suffix: str = "") -> Value:
    """Tensors joined along an axis; some may be constants."""
    computed = [x for x in operands if not isinstance(x, Known)]
    if not computed:
        raise UnsupportedError("all of its operands are constants")
    rank = len(value(computed[0]).type.shape)
    axis = inner_axis(value(computed[0]), axis, "joins samples to")
    parts: list[Value | Known] = []
    for x in operands:
        part = per_sample(layer, x, rank) if isinstance(x, Known) else value(x)
        if isinstance(part, Known) and (part.data.ndim != rank or part.data.shape[0] != 1):
            raise FixedBatchError(f"its constant operand {dims(part.data.shape)} is not one for each sample")
        if not isinstance(part, Known) or part.data.size:
            parts.append(part)
    return value(parts[0]) if len(parts) == 1 else layer.emit("concat", parts, suffix, axis=axis)


def reshape(layer: Layer, x: object, shape: Sequence[Dim | None]) -> Value | Merged:
    """``x`` in another shape, in which one dimension may be None: what remains.

    The constant batch size that the model was written for stands for the batch where it is in front of ``shape``. A shape
    that joins the batch with the axes behind it gives a :class:`Merged` tensor.
    """
    batch = layer.builder.batch
    x = x.value if isinstance(x, Merged) else value(x)
    if not shape:
        raise FixedBatchError(f"it reshapes {x.type} to a scalar")
    front, *rest = shape
    each = x.type.elements
    product = prod(d for d in rest if isinstance(d, int))
    if BATCH not in rest:
        if None not in rest and product == each and (front is None or front in (BATCH, batch)):
            return reshaped(layer, x, (BATCH, *(d for d in rest if d is not None)))
        if rest.count(None) == 1 and front is not None and front in (BATCH, batch) and product and each % product == 0:
            return reshaped(layer, x, (BATCH, *(each // product if d is None else d for d in rest)))
    target = dims([-1 if d is None else d for d in shape])
    why = f"it reshapes {x.type} to {target}, which does not keep the batch in front"
    axes = len(x.type.shape) - len(rest)
    joined = prod(sizes(x)[: axes - 1])
    expected = None if front is None else joined * batch if batch is not None else BATCH
    if rest and axes > 1 and tuple(rest) == x.type.shape[axes:] and front == expected:
        return Merged(x, axes, why)
    raise FixedBatchError(why)


def reshaped(layer: Layer, x: Value, shape: tuple[Dim, ...], suffix: str = "") -> Value:
    """``x`` in a shape with the batch in front; nothing where it has that shape, a channel shuffle where it is one."""
    if x.type.shape == shape:
        return x
    if (shuffle := _channel_shuffle(layer, x, shape)) is not None:
        source, indices = shuffle
        return takes(layer, source, {1: indices}, suffix)
    return layer.emit("reshape", [x], suffix, shape=shape)


def _channel_shuffle(layer: Layer, x: Value, shape: tuple[Dim, ...]) -> tuple[Value, Array] | None:
    """What view, transpose, view makes of ``[N,C,...]``, if that is another order of its channels."""
    transpose = layer.builder.producer(x)
    if transpose is None or transpose.op != "transpose":
        return None
    view = layer.builder.producer(layer.builder.value(transpose.inputs[0]))
    if view is None or view.op != "reshape":
        return None
    source = layer.builder.value(view.inputs[0])
    behind = len(shape) - 2
    split_shape, order = view.output.type.with_batch(1), tuple(transpose["order"])
    factors = len(split_shape) - behind
    same_space = behind >= 0 and split_shape[factors:] == shape[2:] and order[factors:] == tuple(range(factors, len(order)))
    if source.type.shape != shape or not same_space or factors < 3:
        return None
    channels = np.arange(prod(split_shape[1:factors])).reshape(split_shape[1:factors])
    return source, channels.transpose([a - 1 for a in order[1:factors]]).reshape(-1)


def permuted(layer: Layer, x: object, order: Sequence[int], suffix: str = "") -> Value:
    """A transposition; one that keeps the order of the elements is a reshape."""
    x = value(x)
    shape = x.type.shape
    order = tuple(axis_of(x, a) for a in order)
    if order[0] != 0:
        raise FixedBatchError(f"it moves the batch of {x.type} by {order}")
    moved = [a for a in order if shape[a] != 1]
    if moved == sorted(moved):
        return reshaped(layer, x, tuple(shape[a] for a in order), suffix)
    return layer.emit("transpose", [x], suffix, order=order)


def channel_shuffle(layer: Layer, x: object, groups: int) -> Value:
    """Channels ``[groups, C / groups]`` in the order of ``[C / groups, groups]``."""
    x = value(x)
    channels = sizes(x)[0]
    if channels % groups:
        raise UnsupportedError(f"{channels} channels do not split into {groups} groups")
    return takes(layer, x, {1: np.arange(channels).reshape(groups, -1).T.reshape(-1)})


def depth_to_space(layer: Layer, x: object, block: int, order: Literal["DCR", "CRD"]) -> Value:
    """``[N, C * block * block, H, W]`` to ``[N, C, H * block, W * block]``; in ``CRD`` (pixel shuffle) C is outermost."""
    x = value(x)
    if len(x.type.shape) != 4:
        raise UnsupportedError(f"only tensors [N,C,H,W] are supported, not {x.type}")
    channels, height, width = sizes(x)
    if channels % (block * block):
        raise UnsupportedError(f"{channels} channels are no multiple of {block}x{block}")
    depth = channels // (block * block)
    crd = order == "CRD"
    inner: tuple[Dim, ...] = (depth, block, block) if crd else (block, block, depth)
    split_up = layer.emit("reshape", [x], ".split", shape=(BATCH, *inner, height, width))
    moved = permuted(layer, split_up, (0, 1, 4, 2, 5, 3) if crd else (0, 3, 4, 1, 5, 2), ".moved")
    return reshaped(layer, moved, (BATCH, depth, height * block, width * block))


def space_to_depth(layer: Layer, x: object, block: int, order: Literal["DCR", "CRD"] = "DCR") -> Value:
    """The inverse of :func:`depth_to_space`."""
    x = value(x)
    if len(x.type.shape) != 4:
        raise UnsupportedError(f"only tensors [N,C,H,W] are supported, not {x.type}")
    channels, height, width = sizes(x)
    if height % block or width % block:
        raise UnsupportedError(f"{height}x{width} is no multiple of {block}x{block}")
    shape = (BATCH, channels, height // block, block, width // block, block)
    split_up = layer.emit("reshape", [x], ".split", shape=shape)
    moved = permuted(layer, split_up, (0, 1, 3, 5, 2, 4) if order == "CRD" else (0, 3, 5, 1, 2, 4), ".moved")
    return reshaped(layer, moved, (BATCH, channels * block * block, height // block, width // block))
