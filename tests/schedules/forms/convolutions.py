"""Convolutions and linear layers: four schedules, every form of epilogue, data that reaches its limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import product
from typing import Any, Final

import numpy as np

from qcompiler import arith
from qcompiler.backend.kernel import ConvolutionSpec, Epilogue, Kernel, physical_channels
from qcompiler.errors import InternalError
from qcompiler.schedules import affine
from tests.schedules.forms.family import DTYPES, SETS, Array, Family, Run
from tests.schedules.harness import saturated, scalars, short, short_factor, stored_constants

Shape = dict[str, Any]
"""Fields of a ConvolutionSpec that differ from those of a 1x1 convolution."""

DOMAINS: Final[Mapping[str, tuple[Any, ...]]] = {
    "narrow": (False, True),
    "residual": (None, "uint8", "int16"),
    "out_dtype": DTYPES,
    "pre_shifted": (False, True),
    "saturated": (False, True),
    "short": (False, True),
    "word_bounds": (False, True),
    "left": (0, 3),
}
"""What every field of an epilogue may be; a field that is not here ends the tests."""


def _epilogues() -> list[Epilogue]:
    """Every epilogue that can be written down; the first shift of wide forms is left out, as they have none."""
    assert list(DOMAINS) == [field.name for field in fields(Epilogue)]
    found = []
    for values in product(*DOMAINS.values()):
        named = dict(zip(DOMAINS, values, strict=True))
        if named["pre_shifted"] and not named["narrow"]:
            continue
        try:
            found.append(Epilogue(**named))
        except InternalError:
            continue
    return found


EPILOGUES: Final = _epilogues()
BITS: Final = (8, 4, 2)
CODES: Final = {8: (-127, 127), 4: (-8, 7), 2: (-2, 1)}
OUTPUT_BITS: Final = {"uint8": 8, "int8": 8, "int16": 16, "int32": 24}


def shape(size: tuple[int, int], channels: tuple[int, int], kernel: tuple[int, int] = (1, 1), **more: Any) -> Shape:
    inputs, outputs = channels
    padding = more.pop("padding", (kernel[0] // 2, kernel[1] // 2) * 2)
    return {
        "height": size[0], "width": size[1], "in_channels": inputs, "out_channels": outputs, "kernel": kernel,
        "strides": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1, **more,
    }  # fmt: skip


def by_channel(size: tuple[int, int], channels: int, kernel: tuple[int, int] = (1, 1), **more: Any) -> Shape:
    return shape(size, (channels, channels), kernel, groups=channels, **more)


AFFINE: Final = {
    "blocks": (by_channel((4, 4), 64), by_channel((3, 5), 48)),
    "long": (by_channel((8, 16), 16), by_channel((3, 3), 144)),
    "few": (by_channel((4, 8), 4), by_channel((5, 7), 3)),
    "single": (by_channel((1, 1), 128, dilation=(2, 2)), by_channel((1, 1), 20)),
}
DEPTHWISE: Final = {
    "three": (by_channel((4, 4), 32, (3, 3)), by_channel((3, 5), 48, (3, 3))),
    "strides": (by_channel((5, 7), 16, (3, 3), strides=(2, 2)), by_channel((5, 4), 20, (3, 2), strides=(2, 1), padding=(2, 0, 1, 1))),
    "dilated": (by_channel((6, 6), 16, (3, 3), dilation=(2, 2), padding=(2, 2, 2, 2)), by_channel((5, 6), 3, (2, 2), dilation=(1, 3))),
    "columns": (by_channel((2, 8), 4, (1, 5)), by_channel((9, 1), 16, (5, 1))),
    "segments": (by_channel((1, 1024), 16, (1, 3)), by_channel((2, 1003), 16, (1, 3))),
    "point": (by_channel((4, 4), 64), by_channel((3, 5), 20)),
}  # fmt: skip
DIRECT: Final = {
    "pixels": (shape((2, 4), (16, 32)), shape((3, 5), (20, 40)), shape((2, 4), (16, 4))),
    "rows": (shape((4, 4), (16, 16), (3, 3)), shape((3, 31), (20, 40), (3, 3)), shape((3, 3), (8, 3), (3, 3))),
    "strides": (
        shape((5, 8), (4, 16), (3, 3), strides=(2, 1)),
        shape((6, 7), (12, 24), (3, 2), dilation=(2, 1), padding=(2, 0, 1, 1)),
        shape((5, 7), (2, 20), (3, 3), strides=(1, 2)),
    ),
    "depth": (shape((1, 1), (64, 64)), shape((1, 1), (68, 40)), shape((1, 13), (400, 400))),
    "long sums": (shape((7, 4), (256, 32), (3, 3)), shape((4, 7), (288, 96), (3, 3)), shape((2, 2), (256, 32))),
    "groups": (
        shape((2, 4), (32, 64), (3, 3), groups=4),
        shape((4, 5), (6, 9), (2, 2), groups=3, padding=(0, 1, 1, 0)),
        shape((3, 4), (3, 6), (3, 3), groups=3, strides=(2, 1)),
    ),
    "windows": (
        shape((3, 4), (40, 40), (1, 3), groups=5),
        shape((2, 4), (48, 48), (1, 3), groups=4),
        shape((2, 3), (152, 152), (1, 3), groups=4, strides=(1, 2)),
    ),
}  # fmt: skip
FAR: Final = {"kernel": (3, 3), "dilation": (60, 60), "padding": (60,) * 4}
"""Taps so far apart that the rows of one output do not fit the scratch of a task."""
GENERIC: Final = {
    "plain": (shape((2, 61), (16, 16), **FAR), shape((61, 2), (5, 20), **FAR)),
    "groups": (shape((3, 62), (8, 16), groups=4, **FAR), shape((61, 2), (6, 9), groups=3, **FAR)),
    "strides": (shape((2, 63), (8, 32), groups=2, strides=(2, 2), **FAR), shape((61, 3), (6, 12), groups=6, strides=(1, 2), **FAR)),
}  # fmt: skip
FORMS: Final = tuple(
    dict.fromkeys(
        (e.narrow, e.residual is not None, e.pre_shifted, e.saturated, e.short, e.word_bounds, e.left) for e in EPILOGUES
    )
)
"""The flags of epilogues; their types are axes of their own."""


def family(schedule: str, layouts: Mapping[str, tuple[Shape, ...]]) -> Family:
    """Convolutions of some shapes; all of a layout but the first (``rest`` 0) leave something beside whole tiles and vectors."""

    def make(
        instruction_set: str, form: tuple[Any, ...], bits: int, rest: int, batch: int, layout: str, other: str, out_dtype: str
    ) -> ConvolutionSpec | None:
        narrow, adds, *flags = form
        if not adds and other != "uint8":
            return None
        try:
            epilogue = Epilogue(narrow, other if adds else None, out_dtype, *flags)
            spec = ConvolutionSpec(batch, **layouts[layout][rest], weight_bits=bits, epilogue=epilogue)
        except InternalError:
            return None
        if spec.is_depthwise and affine.serves(spec, instruction_set) != (schedule == "affine"):
            return None
        return spec

    axes = {
        "instruction_set": SETS,
        "form": FORMS,
        "bits": BITS,
        "rest": tuple(range(len(next(iter(layouts.values()))))),
        "batch": (1, 2),
        "layout": tuple(layouts),
        "other": DOMAINS["residual"][1:],
        "out_dtype": DOMAINS["out_dtype"],
    }
    if schedule == "convolution_generic":  # plain loops are the same for every instruction set, and images one loop
        return Family(schedule, axes, make, runs, core=("form", "bits", "rest"))
    return Family(schedule, axes, make, runs, core=("form", "bits", "rest", "batch"), everywhere=True)


def sums(spec: ConvolutionSpec, x: Array, codes: Array, zero: int) -> Array:
    """int64 sums without bias ``[batch, height, width, channels]``; float64 holds them exactly."""
    top, left, bottom, right = spec.padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=zero)
    grouped = padded.reshape(*padded.shape[:3], spec.groups, -1)
    weights = codes.astype(np.float64).reshape(spec.groups, -1, *codes.shape[1:])
    total = np.zeros((spec.batch, spec.out_height, spec.out_width, spec.groups, weights.shape[1]))
    for i, j in np.ndindex(*spec.kernel):
        rows = i * spec.dilation[0] + np.arange(spec.out_height) * spec.strides[0]
        columns = j * spec.dilation[1] + np.arange(spec.out_width) * spec.strides[1]
        total += np.einsum("nhwgi,goi->nhwgo", grouped[:, rows][:, :, columns], weights[..., i, j], optimize=True)
    return total.reshape(*total.shape[:3], -1).astype(np.int64)


FILLS: Final = ("random", "largest", "mixed", "ties", "far")


def runs(spec: ConvolutionSpec, kernel: Kernel) -> Iterator[Run]:
    """Codes and constants, random and extreme, with limits that cut nothing, half and nearly all of the codes."""
    limited = not spec.epilogue.short
    for fill in FILLS:
        for clamp in ("all", "positive", "few") if limited and fill in ("random", "far") else ("all",):
            yield _run(spec, kernel, fill, clamp)


def _run(spec: ConvolutionSpec, kernel: Kernel, fill: str, clamp: str) -> Run:
    generator = np.random.default_rng(list(f"{fill} {clamp}".encode()))
    epilogue, channels = spec.epilogue, spec.out_channels
    low, high = CODES[spec.weight_bits]
    x = generator.integers(0, 256, (spec.batch, spec.height, spec.width, spec.in_channels))
    codes = generator.integers(low, high + 1, (channels, spec.in_channels // spec.groups, *spec.kernel))
    if fill in ("largest", "mixed"):
        x[...] = 255 if fill == "largest" else generator.choice([0, 255], x.shape)
        codes[...] = high if fill == "largest" else np.where(np.arange(channels) % 2, low, high)[:, None, None, None]
    x_zero = int(generator.integers(0, 256))
    total = sums(spec, x, codes, x_zero)
    bias = generator.integers(-3000, 3000, channels)
    most = arith.LARGEST_ACCUMULATOR >> (spec.places + epilogue.left)
    reach = int(np.abs(codes).sum(axis=(1, 2, 3)).max()) * 255 * 2
    if fill == "far":
        bias = generator.choice([-1, 1], channels) * min(arith.MAXIMUM_BIAS, most - reach - 1)
    assert int(np.abs(bias).max()) + reach <= most
    values, scalar = _constants(spec, fill, int(np.abs(total).max()) + 3000, generator)
    limits = np.iinfo(epilogue.out_dtype)
    zero = scalar["y_zero"]
    ends = {"all": (int(limits.min), int(limits.max)), "positive": (zero, int(limits.max)), "few": (zero - 3, zero + 19)}
    scalar |= {"x_zero": x_zero, "lo": max(ends[clamp][0], int(limits.min)), "hi": min(ends[clamp][1], int(limits.max))}
    values["bias"] = bias.astype(np.int32)
    if epilogue.saturated:
        values = saturated(values, scalars(**scalar))
    if epilogue.short:
        values = short(values, scalars(**scalar), epilogue.residual is not None)

    stored = physical_channels(channels)
    residual = None
    if epilogue.residual:
        kind = np.iinfo(epilogue.residual)
        residual = generator.integers(kind.min, kind.max, (*total.shape[:3], stored), endpoint=True).astype(epilogue.residual)
    wanted = _expected(spec, total + bias, values, scalar, residual)
    assert kernel.pack is not None
    weights = codes.astype(np.int8)
    constants = stored_constants(epilogue, values, spec.places)
    if kernel.adjust_bias is not None:
        constants["bias"] = kernel.adjust_bias(constants["bias"], weights)
    arrays = {name: np.pad(array, (0, stored - channels)).astype(np.int32) for name, array in constants.items()}
    garbage = generator.integers(0, 256, (*x.shape[:3], physical_channels(spec.in_channels))).astype(np.uint8)
    garbage[..., : spec.in_channels] = x
    arrays |= {"x": garbage, "weights": kernel.pack(weights), "scalars": scalars(**scalar)}
    if residual is not None:
        arrays["residual"] = residual
    return Run(f"{fill}, {clamp} codes", arrays, wanted.astype(epilogue.out_dtype), stored)


def _constants(
    spec: ConvolutionSpec, fill: str, size: int, generator: np.random.Generator
) -> tuple[dict[str, Array], dict[str, int]]:
    """Constants of channels, and scalars, with which sums up to about ``size`` take all codes; no intermediate overflows."""
    epilogue, channels = spec.epilogue, spec.out_channels
    bits = OUTPUT_BITS[epilogue.out_dtype]
    other_bits = {None: 0, "uint8": 8, "int16": 16}[epilogue.residual]
    scalar = {
        "y_zero": int(generator.integers(0, 256)) if epilogue.out_dtype == "uint8" else 0,
        "residual_zero": int(generator.integers(0, 256)) if epilogue.residual == "uint8" else 0,
    }
    if not epilogue.narrow:
        multiplier = np.full(channels, 1 << 30) if fill == "ties" else generator.integers(1 << 30, 1 << 31, channels)
        factor = size << 30 >> other_bits
        scalar |= {"shift": size.bit_length() + 30 - bits, "residual_multiplier": min(factor, arith.LARGEST_ACCUMULATOR)}
        return {"multiplier": multiplier.astype(np.int32)}, scalar
    first = np.full(channels, max(0, size.bit_length() - 15)) + generator.integers(0, 2, channels)
    first = np.minimum(first, 16) * epilogue.pre_shifted
    bound = generator.integers(1 << 12, 1 << 15, channels)
    values = {"pre_shift": first, "lower": -(bound << first), "upper": bound << first}
    if epilogue.saturated:
        scalar["shift"] = arith.SATURATED_SHIFT
        sizes = np.int64(1) << generator.integers(13, 23, channels)
        values["multiplier"] = sizes if fill == "ties" else generator.integers(sizes, 2 * sizes)
    elif epilogue.short:
        shift = scalar["shift"] = int(generator.choice(arith.SHORT_SHIFTS))
        values["multiplier"] = (
            generator.integers(1 << 10, 1 << 11, channels) if fill == "far" else np.full(channels, 1 << shift - 7)
        )
        if fill not in ("far", "ties"):
            values["multiplier"] = generator.integers(1 << shift - 8, min(1 << shift - 6, arith.SHORT_LIMIT), channels)
        if not epilogue.residual:
            values["pre_shift"] = first - (spec.places + epilogue.left)
            if epilogue.pre_shifted:
                values["pre_shift"] += generator.integers(0, 2, channels)
        largest = short_factor(arith.SHORT_LIMIT, shift, scalar["y_zero"])
        step = 1 << arith.other_places(shift)
        scalar["residual_multiplier"] = largest // (1 if fill == "largest" else 3) // step * step
    else:
        scalar |= {"shift": 28 - bits, "residual_multiplier": (1 << (27 - other_bits)) - 7}
        values["multiplier"] = np.full(channels, 1 << 12) if fill == "ties" else generator.integers(1 << 12, 1 << 13, channels)
    return {name: array.astype(np.int32) for name, array in values.items()}, scalar


def _expected(
    spec: ConvolutionSpec, total: Array, values: dict[str, Array], scalar: dict[str, int], residual: Array | None
) -> Array:
    """The formulas of the reference."""
    tail = (scalar["shift"], scalar["y_zero"], scalar["lo"], scalar["hi"], arith.NUMPY)
    names = ("multiplier", "pre_shift", "lower", "upper") if spec.epilogue.narrow else ("multiplier",)
    constants = [values[name].astype(np.int64) for name in names]
    found: Array
    if residual is None:
        found = (arith.requantize_narrow if spec.epilogue.narrow else arith.requantize)(total, *constants, *tail)
    else:
        other = residual[..., : spec.out_channels].astype(np.int64) - scalar["residual_zero"]
        formula = arith.requantize_add_narrow if spec.epilogue.narrow else arith.requantize_add
        found = formula(total, *constants, other, scalar["residual_multiplier"], *tail)
    return found


FAMILIES: Final = (
    family("affine", AFFINE),
    family("depthwise", DEPTHWISE),
    family("convolution_direct", DIRECT),
    family("convolution_generic", GENERIC),
)
