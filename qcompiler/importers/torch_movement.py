"""aten operators that move elements: padding, slicing, indexing, joining, reshaping, resizing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from qcompiler.importers import emit_movement as emit
from qcompiler.importers import operands
from qcompiler.importers.builder import FixedBatchError, Known, Merged, Repeated, UnsupportedError
from qcompiler.importers.emit_elementwise import binary
from qcompiler.importers.emit_resize import resize_linear
from qcompiler.importers.operands import Stacked
from qcompiler.importers.torch_call import Call, Handler, table
from qcompiler.importers.torch_constants import Symbolic
from qcompiler.ir.graph import BATCH, Array, Value


def _padded(c: Call, counts: list[int], mode: str) -> Value:
    rank = len(c.x.type.shape)
    before, after = [0] * rank, [0] * rank
    for pair in range(len(counts) // 2):
        before[rank - 1 - pair], after[rank - 1 - pair] = counts[2 * pair : 2 * pair + 2]
    return emit.pad(c.layer, c.x, before, after, c.get("value") or 0.0, mode)


def _pad(c: Call) -> Value:
    return _padded(c, list(c["pad"]), c.get("mode", "constant"))


def _circular(c: Call) -> Value:
    return _padded(c, list(c["pad"]), "circular")


def _repeating_pad(mode: str) -> Handler:
    return lambda c: _padded(c, list(c["padding"]), mode)


def _slice(c: Call) -> Value | Known:
    stop = c["end"]
    if isinstance(c["start"], Symbolic) or (isinstance(stop, Symbolic) and c["dim"] != 0):
        raise FixedBatchError("it slices by a number that depends on the batch")
    if isinstance(stop, Symbolic):
        if c.shape[0] != BATCH:
            raise FixedBatchError("it slices the batch")
        stop = None
    if c["dim"] == 0 and c.batch is not None and stop == c.batch:
        stop = None
    axis = operands.axis_of(c.x, c["dim"])
    size = c.x.type.shape[axis]
    positions = np.arange(size if isinstance(size, int) else 0)[c["start"] : stop : c["step"]]
    constant = emit.constant_part(c.layer, c.x, axis, positions)
    return emit.cropped(c.layer, c.x, [axis], [c["start"]], [stop], [c["step"]]) if constant is None else constant


def _narrow(c: Call) -> Value:
    return emit.cropped(c.layer, c.x, [c["dim"]], [c["start"]], [c["start"] + c["length"]], [1])


def _select(c: Call) -> object:
    if isinstance(c.operand, Stacked) and c["dim"] == 0:
        return c.operand.parts[c["index"]]
    return emit.gather(c.layer, c.x, np.array(c["index"]), c["dim"])


def _split(c: Call) -> tuple[Value, ...]:
    x = c.x
    axis = operands.inner_axis(x, c["dim"], "splits")
    size = x.type.shape[axis]
    assert isinstance(size, int)
    given = next(c[name] for name in ("split_size", "split_sizes", "chunks", "sections", "indices") if name in c.arguments)
    if "chunks" in c.arguments:
        given = -(-size // given)
    if "sections" in c.arguments:
        parts = [size // given + (index < size % given) for index in range(given)]
    elif "indices" in c.arguments:
        parts = np.diff([0, *given, size]).tolist()
    elif isinstance(given, int):
        parts = [min(given, size - start) for start in range(0, size, given)]
    else:
        parts = list(given)
    return emit.split(c.layer, x, parts, axis, c.names(len(parts)))


def _unbind(c: Call) -> tuple[Value | Known, ...]:
    if isinstance(c.operand, Stacked) and c["dim"] == 0:
        return c.operand.parts
    x = c.x
    axis = operands.inner_axis(x, c["dim"], "splits")
    size = x.type.shape[axis]
    assert isinstance(size, int)
    return tuple(emit.gather(replace(c.layer, name=name), x, np.array(i), axis) for i, name in enumerate(c.names(size)))


def _concat(c: Call) -> Value:
    return emit.concat(c.layer, c["tensors"], c["dim"])


def _concat_along(axis: int) -> Handler:
    """hstack and its like, which join along ``axis`` tensors that have that axis."""

    def handler(c: Call) -> Value:
        if len(c.shape) <= axis:
            raise UnsupportedError(f"its operands have no axis {axis}")
        return emit.concat(c.layer, c["tensors"], axis)

    return handler


def _triangle(keep: Callable[[Array, int], Array]) -> Handler:
    """``tril`` and ``triu``: 0 outside of a triangle of the last two axes."""

    def handler(c: Call) -> Value:
        operands.inner_axis(c.x, -2, "cuts a triangle over")
        inside = keep(np.ones(c.x.type.with_batch(1)[-2:], np.float32), c["diagonal"])
        return binary(c.layer, "mul", c.x, c.layer.known(inside, "triangle"))

    return handler


def _stack(c: Call) -> Value | Stacked:
    tensors, rank = c["tensors"], len(c.shape)
    axis = c["dim"] % rank
    if axis == 0:
        return Stacked(tuple(tensors))
    parts: list[Any] = []
    for index, x in enumerate(tensors):
        if isinstance(x, Known):
            parts.append(Repeated(np.expand_dims(x.data, axis), x.name))
            continue
        shape = operands.value(x).type.shape
        parts.append(emit.reshaped(c.layer, x, (*shape[:axis], 1, *shape[axis:]), f".part{index}"))
    return emit.concat(c.layer, parts, axis)


def _index(c: Call) -> Value:
    """``x[:, i, j]`` by constant indices, of which each varies along an axis of its own."""
    given = [(axis, operands.known(index, "an index").data) for axis, index in enumerate(c["indices"]) if index is not None]
    given = [(axis, np.flatnonzero(data) if data.dtype == bool and data.ndim == 1 else data) for axis, data in given]
    if any(data.dtype.kind not in "iu" for _, data in given):
        raise UnsupportedError("it chooses by truth values")
    if len(given) == 1:
        return emit.gather(c.layer, c.x, given[0][1], given[0][0])
    rank = len(given)
    axes = [axis for axis, _ in given]
    for place, (_, data) in enumerate(given):
        whole = (1,) * (rank - data.ndim) + data.shape
        if (
            len(whole) != rank
            or any(d != 1 for i, d in enumerate(whole) if i != place)
            or axes != list(range(axes[0], axes[0] + rank))
        ):
            raise UnsupportedError("its indices are no grid of neighbouring axes")
    return emit.takes(c.layer, c.x, {axis: data.reshape(-1) for axis, data in given})


def _index_select(c: Call) -> Value:
    indices = operands.known(c["index"], "the indices").data
    return emit.gather(c.layer, c.x, indices.reshape(-1), c["dim"])


def _flip(c: Call) -> Value:
    axes = [operands.inner_axis(c.x, a, "turns") for a in c["dims"]]
    if not axes:
        return c.x
    return emit.cropped(c.layer, c.x, axes, [None] * len(axes), [None] * len(axes), [-1] * len(axes))


def _roll(c: Call) -> Value:
    if not c["dims"]:
        raise FixedBatchError("it rolls over the batch")
    shifts = [c["shifts"]] if isinstance(c["shifts"], int) else c["shifts"]
    axes = [operands.inner_axis(c.x, a, "rolls") for a in c["dims"]]
    size = c.x.type.with_batch(1)
    return emit.takes(c.layer, c.x, {a: np.roll(np.arange(size[a]), s) for a, s in zip(axes, shifts, strict=True)})


def _expand(c: Call) -> Value:
    return emit.expanded(c.layer, c.x, c.sizes())


def _repeat(c: Call) -> Value:
    return emit.repeated(c.layer, c.x, c["repeats"] if "repeats" in c.arguments else c["dims"])


def _repeat_interleave(c: Call) -> Value:
    if c["dim"] is None:
        raise FixedBatchError("it repeats over the batch")
    axis = operands.inner_axis(c.x, c["dim"], "repeats")
    size = c.x.type.with_batch(1)[axis]
    return emit.takes(c.layer, c.x, {axis: np.repeat(np.arange(size), c["repeats"])})


def _reshape(c: Call) -> Value | Merged:
    unknown = [d for d in c.shape if isinstance(d, str) and d != BATCH]
    if unknown and (len(unknown) > 1 or c.shape[0] != unknown[0]):
        raise FixedBatchError(f"its result [{','.join(map(str, c.shape))}] does not keep the batch in front")
    try:
        return emit.reshape(c.layer, c.operand, c.sizes())
    except FixedBatchError:
        if unknown:
            shape = ",".join(map(str, c.shape))
            raise FixedBatchError(f"its result [{shape}] does not keep the batch in front") from None
        raise


def _squeeze(c: Call) -> Value | Merged:
    axes = c.get("dim")
    rank = len(c.x.type.shape)
    given = (axes,) if isinstance(axes, int) else axes or range(rank)
    if c.batch == 1 and any(a % rank == 0 for a in given):
        raise FixedBatchError("it takes the batch of 1 away")
    return _reshape(c)


def _permute(c: Call) -> Value:
    return emit.permuted(c.layer, c.x, c["dims"])


def _transpose(c: Call) -> Value:
    rank = len(c.x.type.shape)
    order = list(range(rank))
    names = ("dim0", "dim1") if "dim0" in c.arguments else ("axis0", "axis1")
    a, b = (operands.axis_of(c.x, c[d]) for d in names) if names[0] in c.arguments else (0, rank - 1)
    order[a], order[b] = b, a
    return emit.permuted(c.layer, c.x, order)


def _movedim(c: Call) -> Value:
    sources, targets = ([n] if isinstance(n := c[name], int) else list(n) for name in ("source", "destination"))
    axes = list(range(len(c.x.type.shape)))
    moved = [operands.axis_of(c.x, a) for a in sources]
    rest = [a for a in axes if a not in moved]
    for target, axis in sorted(zip((operands.axis_of(c.x, t) for t in targets), moved, strict=True)):
        rest.insert(target, axis)
    return emit.permuted(c.layer, c.x, rest)


def _channel_shuffle(c: Call) -> Value:
    return emit.channel_shuffle(c.layer, c.x, c["groups"])


def _pixel_shuffle(c: Call) -> Value:
    return emit.depth_to_space(c.layer, c.x, c["upscale_factor"], "CRD")


def _pixel_unshuffle(c: Call) -> Value:
    return emit.space_to_depth(c.layer, c.x, c["downscale_factor"], "CRD")


def _resized(c: Call) -> tuple[list[int], list[float | None]]:
    """Sizes of the axes behind the channels, and the scales that the user gave for them."""
    sizes = [d for d in c.shape[2:] if isinstance(d, int)]
    given = c.get("scale_factors") or [c.get(n) for n in ("scales_d", "scales_h", "scales_w", "scales") if n in c.arguments]
    return sizes, list(given) if len(given) == len(sizes) else [None] * len(sizes)


def _nearest(exact: bool) -> Handler:
    """Nearest neighbours, in torch's own float32 arithmetic."""

    def handler(c: Call) -> Value:
        sizes, scales = _resized(c)
        chosen: dict[int, Array] = {}
        for axis, (out, scale) in enumerate(zip(sizes, scales, strict=True), 2):
            size = c.x.type.with_batch(1)[axis]
            step = np.float32(1 / scale) if scale else np.float32(size) / np.float32(out)
            positions = (np.arange(out, dtype=np.float32) + np.float32(0.5 if exact else 0)) * step
            chosen[axis] = np.minimum(np.floor(positions).astype(np.int64), size - 1)
        return emit.takes(c.layer, c.x, chosen)

    return handler


def _linear(c: Call) -> Value:
    sizes, scales = _resized(c)
    if c["align_corners"]:
        return resize_linear(c.layer, c.x, sizes, [None] * len(sizes), "align_corners")
    return resize_linear(c.layer, c.x, sizes, scales, "half_pixel")


OPERATORS: Final[dict[str, Handler]] = table(
    {
        "pad.default constant_pad_nd.default": _pad,
        "_pad_circular.default": _circular,
        "reflection_pad1d.default reflection_pad2d.default reflection_pad3d.default": _repeating_pad("reflect"),
        "replication_pad1d.default replication_pad2d.default replication_pad3d.default": _repeating_pad("replicate"),
        "slice.Tensor slice_copy.Tensor": _slice,
        "narrow.default narrow_copy.default": _narrow,
        "select.int select_copy.int": _select,
        "split.Tensor split.sizes split_with_sizes.default chunk.default tensor_split.sections tensor_split.indices": _split,
        "split_copy.Tensor split_with_sizes_copy.default": _split,
        "unbind.int unbind_copy.int": _unbind,
        "cat.default concat.default concatenate.default": _concat,
        "hstack.default column_stack.default": _concat_along(1),
        "dstack.default": _concat_along(2),
        "stack.default": _stack,
        "tril.default": _triangle(np.tril),
        "triu.default": _triangle(np.triu),
        "index.Tensor _unsafe_index.Tensor": _index,
        "index_select.default": _index_select,
        "flip.default": _flip,
        "roll.default": _roll,
        "expand.default expand_copy.default expand_as.default": _expand,
        "repeat.default tile.default": _repeat,
        "repeat_interleave.self_int": _repeat_interleave,
        "view.default view_copy.default reshape.default _unsafe_view.default _reshape_copy.default": _reshape,
        "view_as.default reshape_as.default ravel.default": _reshape,
        "flatten.using_ints unflatten.int unsqueeze.default unsqueeze_copy.default": _reshape,
        "squeeze.default squeeze.dim squeeze.dims squeeze_copy.default squeeze_copy.dim squeeze_copy.dims": _squeeze,
        "permute.default permute_copy.default": _permute,
        "t.default t_copy.default transpose.int transpose_copy.int swapaxes.default": _transpose,
        "movedim.int movedim.intlist": _movedim,
        "channel_shuffle.default native_channel_shuffle.default": _channel_shuffle,
        "pixel_shuffle.default": _pixel_shuffle,
        "pixel_unshuffle.default": _pixel_unshuffle,
        "upsample_nearest1d.default upsample_nearest2d.default upsample_nearest3d.default": _nearest(exact=False),
        "upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec": _nearest(exact=False),
        "_upsample_nearest_exact1d.default _upsample_nearest_exact2d.default _upsample_nearest_exact3d.default": _nearest(
            exact=True
        ),
        "_upsample_nearest_exact1d.vec _upsample_nearest_exact2d.vec _upsample_nearest_exact3d.vec": _nearest(exact=True),
        "upsample_linear1d.default upsample_linear1d.vec upsample_bilinear2d.default upsample_bilinear2d.vec": _linear,
    }
)
