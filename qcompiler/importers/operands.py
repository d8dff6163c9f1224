"""What every emitter asks of its operands: is it computed, is it constant, what are its dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from qcompiler.importers.builder import LAST_STEP, Ending, FixedBatchError, Known, Layer, Merged, Repeated, UnsupportedError, dims
from qcompiler.importers.constant_data import owned_data
from qcompiler.ir.graph import Array, Value

INFINITY = float("inf")
LOWEST: Final = -3.4e38
"""Padding with numbers up to this one, which float32 hardly has, means padding that no maximum sees."""


@dataclass(frozen=True)
class Stacked:
    """Tensors along a new axis in front of the batch, which a sum, a mean, an extreme or an index takes away again."""

    parts: tuple[Value | Known, ...]


def value(x: object, what: str = "its operand") -> Value:
    """``x`` as a computed tensor."""
    if isinstance(x, Merged):
        raise FixedBatchError(x.why)
    if isinstance(x, Stacked):
        raise FixedBatchError(f"it reads {len(x.parts)} tensors that are stacked in front of the batch")
    if not isinstance(x, Value):
        raise UnsupportedError(f"{what} is a constant")
    return x


def known(x: object, what: str) -> Known:
    """``x`` as a constant."""
    if not isinstance(x, Known) or isinstance(x, Repeated):
        raise UnsupportedError(f"{what} is computed from the model's input, only constants are supported")
    return x


def optional_known(x: object, what: str) -> Known | None:
    """``x`` as a constant, or None."""
    return None if x is None else known(x, what)


def scalar(x: object) -> float | None:
    """The number that a constant of one element holds; None for anything else."""
    return float(x.data.reshape(-1)[0]) if isinstance(x, Known) and x.data.size == 1 else None


def per_sample(layer: Layer, x: Known, rank: int) -> Known:
    """A constant of the batch size that the model was written for, equal for all samples, as one for each sample."""
    batch = layer.builder.batch
    if batch is None or batch == 1 or x.data.ndim != rank or x.data.shape[0] != batch:
        return x
    if not np.array_equal(x.data, np.broadcast_to(x.data[:1], x.data.shape), equal_nan=x.data.dtype.kind == "f"):
        raise FixedBatchError(f"its constant operand {dims(x.data.shape)} differs from sample to sample")
    return Repeated(x.data[:1], x.name)


def sizes(x: Value) -> tuple[int, ...]:
    """The dimensions behind the batch."""
    return tuple(d for d in x.type.shape if isinstance(d, int))


def space(x: Value, axes: int) -> tuple[int, ...]:
    """The dimensions behind the channels of ``[N,C,...]``, of which there are ``axes``."""
    if len(x.type.shape) != axes + 2:
        wanted = {1: "[N,C,L]", 2: "[N,C,H,W]", 3: "[N,C,D,H,W]"}.get(axes, f"of rank {axes + 2}")
        raise UnsupportedError(f"only tensors {wanted} are supported, not {x.type}")
    return sizes(x)[1:]


def axis_of(x: Value, axis: int) -> int:
    """``axis`` counted from 0."""
    rank = len(x.type.shape)
    if not -rank <= axis < rank:
        raise UnsupportedError(f"{x.type} has no axis {axis}")
    return axis % rank


def inner_axis(x: Value, axis: int, what: str) -> int:
    """``axis`` counted from 0; FixedBatchError for the batch, which the operator would ``what``."""
    axis = axis_of(x, axis)
    if axis == 0:
        raise FixedBatchError(f"it {what} the batch of {x.type}")
    return axis


def scaled(x: Known, factor: float) -> Known:
    """``x * factor``."""
    return x if factor == 1 else Known(x.data * np.float32(factor), x.name)


def ending(layer: Layer, x: object, function: Literal["softmax", "log_softmax"], axis: int) -> Ending:
    """A softmax over an axis other than the batch."""
    x = value(x)
    axis = axis_of(x, axis)
    if axis == 0:
        raise UnsupportedError(LAST_STEP)
    return Ending(x, function, axis, layer)


def as_floats(data: Array) -> Array:
    """Floating data as float32; anything else as it is."""
    floating = data.dtype.kind == "f" or data.dtype.name == "bfloat16"  # to numpy, ml_dtypes' types are of no kind
    float32 = np.dtype(np.float32)
    return owned_data(data, float32) if floating and data.dtype != float32 else data


def along(axes: Sequence[int], values: Sequence[int], rank: int, default: int = 0) -> list[int]:
    """``values`` at the places ``axes`` of a list of ``rank`` numbers."""
    result = [default] * rank
    for axis, number in zip(axes, values, strict=True):
        result[axis] = number
    return result
