"""What a kernel is asked to be: hashable descriptions, so that equal layers share one kernel.

Activations of rank 4 lie in memory as ``[batch, height, width, physical channels]``; rank 2 as
``[batch, 1, 1, physical features]``. Everything that may differ between layers of one shape (bias,
multipliers, zero points, clamps) reaches the kernel at run time through pointers into the weight blob.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal

import numpy as np

from qcompiler.arith import weight_places
from qcompiler.errors import InternalError

SCALARS: Final = 8
LANES: Final = 16
REQUANTIZATION: Final = 64
"""Multiply-accumulates that take as long as the requantization of one sum."""


def physical_channels(channels: int) -> int:
    """Channels as stored: 4 for up to 4 (one dot-product word), else whole vectors of 16."""
    return 4 if channels <= 4 else -(-channels // LANES) * LANES


class Scalar(IntEnum):
    """Places in a kernel's ``scalars`` argument, int32[8]."""

    X_ZERO = 0
    SHIFT = 1
    Y_ZERO = 2
    LO = 3
    HI = 4
    RESIDUAL_MULTIPLIER = 5
    RESIDUAL_ZERO = 6
    X_MULTIPLIER = 7


CHANNEL_ARGUMENTS: Final = ("bias", "multiplier", "pre_shift", "lower", "upper")


@dataclass(frozen=True)
class Epilogue:
    """How int32 accumulators become output codes.

    ``narrow``: the int32 form of requantization, with ``pre_shift``, ``lower`` and ``upper`` arguments. ``pre_shifted``: whether
    any ``pre_shift`` is other than 0. ``saturated``: whether :func:`arith.requantize_saturated` serves; ``short``:
    :func:`arith.requantize_short` or, with a residual, :func:`arith.requantize_add_short`; then ``multiplier`` is
    :func:`arith.short_word` and the other three are not there. ``left``: by how many places short forms move sums left before the
    first shift, which then is to the right in all channels.
    ``word_bounds``: of the saturated form of an affine map with weights of 8 bits and no first shift, whether ``lower`` and
    ``upper`` have 16 bits.
    ``residual``: the other operand of a fused addition, same shape and place as the output; its numpy type, or None.

    InternalError where these contradict each other: what can be written down is what schedules have to serve.
    """

    narrow: bool
    residual: str | None
    out_dtype: str  # numpy name: uint8, int16 or int32
    pre_shifted: bool = True
    saturated: bool = False
    short: bool = False
    word_bounds: bool = False
    left: int = 0

    def __post_init__(self) -> None:
        bytes_only = self.short or self.saturated
        if bytes_only and (not self.narrow or self.short == self.saturated or self.out_dtype != "uint8"):
            raise InternalError(f"short or saturated, not both, are narrow forms of bytes: {self}")
        if (self.saturated and self.residual) or (self.short and self.residual not in (None, "uint8")):
            raise InternalError(f"saturated forms add no other operand, short ones bytes: {self}")
        if self.left and (not self.short or self.residual):
            raise InternalError(f"only short forms without another operand move sums left: {self}")
        if self.word_bounds and (not self.saturated or self.pre_shifted):
            raise InternalError(f"bounds of 16 bits are those of saturated forms without first shift: {self}")

    @property
    def channel_arguments(self) -> tuple[str, ...]:
        """The arguments with one int32 for each stored channel, in order."""
        if not self.narrow or self.short:
            return CHANNEL_ARGUMENTS[:2]
        return tuple(name for name in CHANNEL_ARGUMENTS if name != "pre_shift" or self.pre_shifted)


@dataclass(frozen=True)
class ConvolutionSpec:
    """conv2d and linear (height = width = 1), with the requantization fused.

    Sizes are logical; padding is top, left, bottom, right. InternalError for an epilogue that no such convolution has.
    """

    batch: int
    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    weight_bits: int  # 8, 4 or 2; below 8 stored packed
    epilogue: Epilogue

    def __post_init__(self) -> None:
        epilogue = self.epilogue
        if epilogue.word_bounds and (not self.is_affine or self.places):
            raise InternalError(f"bounds of 16 bits are those of affine maps with weights of 8 bits: {self}")
        if epilogue.short and epilogue.residual and self.places and not epilogue.pre_shifted:
            raise InternalError(f"sums that are moved left before another operand is added have to be moved right: {self}")

    @property
    def out_height(self) -> int:
        return (self.height + self.padding[0] + self.padding[2] - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.strides[
            0
        ] + 1

    @property
    def out_width(self) -> int:
        return (self.width + self.padding[1] + self.padding[3] - self.dilation[1] * (self.kernel[1] - 1) - 1) // self.strides[
            1
        ] + 1

    @property
    def places(self) -> int:
        """By how many places the sums are moved left."""
        return weight_places(self.weight_bits)

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.in_channels == self.out_channels and self.groups > 1

    @property
    def is_affine(self) -> bool:
        """Whether every output depends on one input, by a factor and an offset of its channel."""
        return self.is_depthwise and self.kernel == self.strides == (1, 1) and not any(self.padding)


@dataclass(frozen=True)
class PoolSpec:
    """Max pooling of codes (``x`` padded with the smallest code), or average pooling with its requantization.

    Average: ``clamp((sum(x - x_zero) * m[count] + (1 << (s-1))) >> s) + y_zero, lo, hi)``, int64 product; the sum runs
    over taps inside the input (plus, with count_include_pad, the padding, whose taps contribute 0);
    ``multiplier`` argument: int32[count + 1] indexed by the number of counted taps; ``counts`` is (rows, columns):
    for every output row (column) how many rows (columns) are counted, so count = rows[oh] * columns[ow].
    """

    kind: Literal["max", "average"]
    batch: int
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    in_dtype: str
    out_dtype: str
    counts: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


@dataclass(frozen=True)
class AddSpec:
    """``clamp(((a - za) * m1 + (b - zb) * m2 + (1 << (s-1))) >> s) + z, lo, hi)`` over stored elements, within int32.

    a is ``x`` (X_ZERO, X_MULTIPLIER), b is ``residual`` (RESIDUAL_ZERO, RESIDUAL_MULTIPLIER)."""

    elements: int
    a_dtype: str
    b_dtype: str
    out_dtype: str


@dataclass(frozen=True)
class RescaleSpec:
    """``clamp(((x - X_ZERO) * X_MULTIPLIER + (1 << (s-1))) >> s) + Y_ZERO, lo, hi)``, int64 product, over stored elements.

    ``headroom``: of ``x - X_ZERO`` for :func:`arith.requantize_high`, None where only int64 serves."""

    elements: int
    in_dtype: str
    out_dtype: str
    headroom: int | None = None


@dataclass(frozen=True)
class CopySpec:
    """Moves codes: slice, pad, reshape, layout change. The element at logical index o of the output is the element
    of the input at ``starts + o * steps`` (per axis, before the reshape) or ``X_ZERO`` outside of the input.

    ``in_shape``/``out_shape``: logical shapes with the batch; ``in_layout``/``out_layout``: "NCHW" (dense, any rank,
    row-major) or "NHWC" (physical, see module). If ``reshape`` is true the row-major logical order is kept instead and
    starts/steps are ignored.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    in_layout: str
    out_layout: str
    dtype: str
    starts: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    reshape: bool = False


@dataclass(frozen=True)
class Move:
    """One step of a chain of index maps over a sample; axes count the batch as 0.

    ``transpose`` (order), ``take`` ((axis,), indices), ``slice`` (axes, starts, stops, steps; as in ``range``),
    ``pad`` (before, after), ``reshape`` (shape with the batch).
    """

    kind: Literal["transpose", "take", "slice", "pad", "reshape"]
    arguments: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class MoveSpec:
    """``moves`` one after the other on x, written to y from ``offset`` along ``axis`` (an operand of a concat) or to all of it.

    Shapes are logical with the batch; layouts as in :class:`CopySpec`. Elements from a pad are ``X_ZERO``. ``shared``: x
    is one sample for the whole batch (a constant). Whichever part reaches the last channel sets the padding channels.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    in_layout: str
    out_layout: str
    dtype: str
    moves: tuple[Move, ...]
    axis: int = 1
    offset: int = 0
    shared: bool = False


@dataclass(frozen=True)
class ArgmaxSpec:
    """Index (int32) of the largest or smallest element of x along ``axis``; ties to the lowest, or to the last index."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]  # without the axis, or with 1 in its place
    axis: int
    largest: bool
    last: bool
    dtype: str


@dataclass(frozen=True)
class TopkSpec:
    """The ``k`` largest or smallest elements of x along ``axis``, sorted, ties to the lowest index, or their indices."""

    in_shape: tuple[int, ...]
    axis: int
    k: int
    largest: bool
    indices: bool
    dtype: str


@dataclass(frozen=True)
class EmbeddingSpec:
    """``y[n, *i, e] = table[clamp(x[n, *i], 0, rows - 1), e]``; x int32, ``table`` argument: dtype[rows * width]."""

    in_shape: tuple[int, ...]  # logical, of the indices as the graph has them (rank 1: [batch])
    rows: int
    width: int
    dtype: str


@dataclass(frozen=True)
class ResizeSpec:
    """Bilinear resizing of height and width: four codes with whole-number weights, then ``X_MULTIPLIER`` and ``SHIFT``.

    ``rows`` and ``columns``: for every output index the lower source index, the upper one, and the upper one's weight out of
    ``denominators``; ``clamp(((sum (x - X_ZERO) * w * X_MULTIPLIER + (1 << (s-1))) >> s) + X_ZERO, LO, HI)``, int64 product.
    """

    images: int
    height: int
    width: int
    channels: int
    rows: tuple[tuple[int, int, int], ...]
    columns: tuple[tuple[int, int, int], ...]
    denominators: tuple[int, int]
    dtype: str
    narrow: bool  # every product fits int32


@dataclass(frozen=True)
class BinarySpec:
    """``add``, ``mul``, ``maximum`` or ``minimum`` (formulas in ``arith``) of x and residual, broadcast as numpy does.

    Logical shapes of one rank, with the batch (1 for a constant). ``headroom``: how many bits a product of ``mul`` may
    move left for :func:`arith.requantize_high`; None where only int64 serves.
    """

    kind: str
    a_shape: tuple[int, ...]
    b_shape: tuple[int, ...]
    a_dtype: str
    b_dtype: str
    out_dtype: str
    headroom: int | None = None


@dataclass(frozen=True)
class LookupSpec:
    """``table[x]`` over stored elements; x uint8, ``table`` argument: out_dtype[256]."""

    elements: int
    out_dtype: str


@dataclass(frozen=True)
class PreluSpec:
    """``arith.prelu`` by channel; ``multiplier`` argument: int32[physical channels], for negative codes.

    ``X_MULTIPLIER`` is for the others; ``headroom`` as in :class:`BinarySpec`."""

    shape: tuple[int, ...]  # logical, with the batch
    in_dtype: str
    out_dtype: str
    headroom: int | None = None


@dataclass(frozen=True)
class ReduceSpec:
    """``sum`` (with its requantization, int64 product), ``max`` or ``min`` over ``axes``, which are not the batch.

    ``out_shape`` has 1 in their place, or leaves them out; where nothing but the batch is left it is ``[batch, 1]``.
    """

    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    axes: tuple[int, ...]
    in_dtype: str
    out_dtype: str


@dataclass(frozen=True)
class MatmulSpec:
    """``requantize(sum over k of (x - X_ZERO) * (residual - RESIDUAL_ZERO))`` with one multiplier, int32 sums.

    x ``[batch, ..., m, k]``, residual ``[batch, ..., k, p]``: logical, of one rank of at least 3, broadcast in between.
    ``headroom``: of the sums, as in :class:`BinarySpec`.
    """

    a_shape: tuple[int, ...]
    b_shape: tuple[int, ...]
    a_dtype: str
    b_dtype: str
    out_dtype: str
    headroom: int | None = None


KernelSpec = (
    ConvolutionSpec
    | PoolSpec
    | AddSpec
    | RescaleSpec
    | CopySpec
    | MoveSpec
    | ArgmaxSpec
    | TopkSpec
    | EmbeddingSpec
    | ResizeSpec
    | BinarySpec
    | LookupSpec
    | PreluSpec
    | ReduceSpec
    | MatmulSpec
)


def replaceable(spec: KernelSpec) -> tuple[str, ...]:
    """The arguments whose place the result may take if they die: each element is read before its own place is written."""
    match spec:
        case ConvolutionSpec():
            return ("residual",)
        case AddSpec():
            return ("x", "residual")
        case RescaleSpec() | LookupSpec() | PreluSpec():
            return ("x",)
        case BinarySpec(a_shape=a, b_shape=b):
            result = tuple(np.broadcast_shapes(a, b))
            return tuple(name for name, shape in (("x", a), ("residual", b)) if shape == result)
    return ()


def work(spec: KernelSpec) -> float:
    """About how much a kernel has to do, in multiply-accumulates: known for convolutions, without bound for all others."""
    if not isinstance(spec, ConvolutionSpec):
        return math.inf
    outputs = spec.batch * spec.out_height * spec.out_width * spec.out_channels
    return outputs * (spec.in_channels // spec.groups * math.prod(spec.kernel) + REQUANTIZATION)


BiasAdjustment = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], np.ndarray[Any, Any]]
"""int32 bias ``[CO]`` and weight codes to the bias that a kernel starts from."""


@dataclass(frozen=True)
class Kernel:
    """A scheduled TIR function (argument order as in ``arguments``) and how its constants are stored.

    ``arguments``: names among x, residual, weights, bias, multiplier, table, pre_shift, lower, upper, scalars, y.
    ``tasks``: extent of the outermost loop. ``pack``: weight codes ``[CO, CI / groups, KH, KW]`` int8 to bytes (uint8 array).
    ``constants``: arguments that belong to the kernel itself, such as tables of indices.
    ``adjust_bias``: where a kernel sees x ^ 0x80 (ARM), or unpacks weights to the upper bits of bytes.
    """

    function: Any
    arguments: tuple[str, ...]
    tasks: int
    schedule: str
    pack: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] | None = None
    adjust_bias: BiasAdjustment | None = None
    constants: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
