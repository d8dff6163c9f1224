"""What a dot-product instruction must say about itself to the direct convolution schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from tvm.script import tirx as T  # noqa: N812

DEPTH: Final = 4
"""Input channels per step, for every instruction: one 32 bit word of bytes."""


@dataclass(frozen=True)
class DotProduct:
    """``acc[lanes] += x[4] . weights[4 / group][lanes][group]`` as one tensor intrinsic.

    ``x_dtype``: activations as the instruction wants them; ``convert`` makes them from a code (uint8) while rows are
    copied to scratch, ``None`` where the codes are used as they are. ``x_offset`` is what the conversion subtracts,
    to be put back through the bias. ``weight_dtype``: weights as the instruction wants them, made from the stored codes in
    scratch (in registers where pixels are few). For choosing tiles: ``registers`` of the machine, ``accumulators`` a tile
    may have, ``operations`` a dot product issues, ``rate`` of dot products per cycle, ``latency`` in cycles from one to
    the next on the same accumulator. ``least_weight``: the smallest that it takes; codes of 8 bits are above -128, those of fewer
    bits may be -128 in the upper bits of a byte.
    """

    name: str
    lanes: int
    group: int
    x_dtype: str
    weight_dtype: str
    convert: Callable[[Any], Any] | None
    x_offset: int
    registers: int
    accumulators: int
    operations: int
    rate: float
    latency: float
    implementation: Any
    least_weight: int = -128


@cache
def description(lanes: int, group: int, x_dtype: str, weight_dtype: str) -> Any:
    """The meaning of a :class:`DotProduct` as plain loops."""
    return _whole_word(lanes, x_dtype) if group == DEPTH else _grouped(lanes, group, x_dtype, weight_dtype)


def _whole_word(lanes: int, x_dtype: str) -> Any:
    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def meaning(x: T.handle, weights: T.handle, accumulator: T.handle) -> None:
        X = T.match_buffer(x, (DEPTH,), x_dtype, offset_factor=1)
        W = T.match_buffer(weights, (1, lanes, DEPTH), "int8", offset_factor=1)
        A = T.match_buffer(accumulator, (lanes,), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(A[0:lanes], X[0:DEPTH], W[0:1, 0:lanes, 0:DEPTH])
            T.writes(A[0:lanes])
            for lane, inner in T.grid(lanes, DEPTH):
                with T.sblock("update"):
                    vl, vi = T.axis.remap("SR", [lane, inner])
                    A[vl] = A[vl] + T.cast(X[vi], "int32") * T.cast(W[0, vl, vi], "int32")

    return meaning


def _grouped(lanes: int, group: int, x_dtype: str, weight_dtype: str) -> Any:
    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def meaning(x: T.handle, weights: T.handle, accumulator: T.handle) -> None:
        X = T.match_buffer(x, (DEPTH,), x_dtype, offset_factor=1)
        W = T.match_buffer(weights, (DEPTH // group, lanes, group), weight_dtype, offset_factor=1)
        A = T.match_buffer(accumulator, (lanes,), "int32", offset_factor=1)
        with T.sblock("root"):
            T.reads(A[0:lanes], X[0:DEPTH], W[0 : DEPTH // group, 0:lanes, 0:group])
            T.writes(A[0:lanes])
            for lane, outer, inner in T.grid(lanes, DEPTH // group, group):
                with T.sblock("update"):
                    vl, vo, vi = T.axis.remap("SRR", [lane, outer, inner])
                    A[vl] = A[vl] + T.cast(X[vo * group + vi], "int32") * T.cast(W[vo, vl, vi], "int32")

    return meaning
