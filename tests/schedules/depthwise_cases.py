"""Depthwise convolutions for tests: arguments, random and extreme, and what plain numpy loops make of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from qcompiler import arith
from qcompiler.backend.kernel import ConvolutionSpec, Epilogue, Kernel, physical_channels
from tests.schedules.harness import prepare, saturated, scalars, short, short_factor, stored_constants

Array = np.ndarray[Any, Any]
LIMITS = {8: (-127, 127), 4: (-8, 7), 2: (-2, 1)}
NARROW, WIDE = Epilogue(True, None, "uint8", short=True), Epilogue(False, None, "uint8")
SATURATED = Epilogue(True, None, "uint8", saturated=True)


def spec(
    channels: int, size: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] | None = None, *, batch: int = 1, dilation: tuple[int, int] = (1, 1),
    bits: int = 8, epilogue: Epilogue = NARROW,
) -> ConvolutionSpec:  # fmt: skip
    sides = padding or (kernel[0] // 2, kernel[1] // 2, kernel[0] // 2, kernel[1] // 2)
    return ConvolutionSpec(batch, *size, channels, channels, kernel, strides, sides, dilation, channels, bits, epilogue)


def sums(what: ConvolutionSpec, x: Array, codes: Array, bias: Array, zero: int) -> Array:
    """int64 accumulators ``[N, OH, OW, C]`` of x ``[N, H, W, C]``."""
    top, left, bottom, right = what.padding
    padded = np.pad(x.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=zero)
    total = np.zeros((what.batch, what.out_height, what.out_width, what.in_channels), dtype=np.int64) + bias
    for i in range(what.kernel[0]):
        for j in range(what.kernel[1]):
            rows = i * what.dilation[0] + np.arange(what.out_height) * what.strides[0]
            columns = j * what.dilation[1] + np.arange(what.out_width) * what.strides[1]
            total += padded[:, rows][:, :, columns] * codes[:, 0, i, j].astype(np.int64)
    return total


def arguments(what: ConvolutionSpec, fill: str, generator: np.random.Generator) -> dict[str, Array]:
    """Logical arguments; ``fill`` says how extreme."""
    channels = what.in_channels
    low, high = LIMITS[what.weight_bits]
    x = generator.integers(0, 256, (what.batch, what.height, what.width, channels))
    codes = generator.integers(low, high + 1, (channels, 1, *what.kernel))
    if fill in ("largest", "mixed"):
        x[...] = 255 if fill == "largest" else generator.choice([0, 255], x.shape)
        codes[...] = high if fill == "largest" else np.where(np.arange(channels) % 2, low, high)[:, None, None, None]
    if fill == "limits":
        return {"x": x.astype(np.uint8), "codes": codes.astype(np.int8), **at_limits(what, generator)}
    bits = (18 if what.epilogue.saturated else 15 if what.epilogue.short else 10) if what.epilogue.narrow else 31
    reach = 15 if what.epilogue.word_bounds else 18
    return {
        "x": x.astype(np.uint8),
        "codes": codes.astype(np.int8),
        "bias": generator.integers(-3000, 3000, channels).astype(np.int32),
        "multiplier": generator.integers(1, 1 << bits, channels).astype(np.int32),
        "pre_shift": generator.integers(0, 4, channels).astype(np.int32) * what.epilogue.pre_shifted,
        "lower": -generator.integers(1, 1 << reach, channels).astype(np.int32),
        "upper": generator.integers(1, 1 << reach, channels).astype(np.int32),
    }


def at_limits(what: ConvolutionSpec, generator: np.random.Generator) -> dict[str, Array]:
    """Constants with which some sums of a channel saturate at 16 bits and others do not, above and below.

    Factors of short epilogues are so small that codes show it: those of 16 bits do not reach 0 or 255. Others have all sizes.
    """
    channels, short_form = what.in_channels, what.epilogue.short
    first = generator.integers(0, 17, channels) * what.epilogue.pre_shifted
    ends = generator.choice([-1, 0, 1], channels) * (np.int64(arith.SHORT_LIMIT) << first)
    near = ends + generator.integers(-40_000, 40_000, channels)
    most = arith.MAXIMUM_BIAS >> (what.places + what.epilogue.left)
    far = generator.choice([-1, 1], channels) * (most - generator.integers(0, 2, channels))
    bias = np.where(generator.integers(0, 4, channels), np.clip(near, -most, most), far)
    sizes = np.int64(1) << generator.integers(14, 24, channels)
    multiplier = generator.integers(1000, 2000, channels) if short_form else generator.integers(sizes // 2, sizes)
    return {
        "bias": bias.astype(np.int32),
        "multiplier": multiplier.astype(np.int32),
        "pre_shift": first.astype(np.int32),
        "lower": np.full(channels, -arith.SHORT_LIMIT, np.int32),
        "upper": np.full(channels, arith.SHORT_LIMIT - 1, np.int32),
    }


def expected(what: ConvolutionSpec, values: dict[str, Array], scalar: dict[str, int], residual: Array | None) -> Array:
    total = sums(what, values["x"], values["codes"], values["bias"], scalar["x_zero"])
    if what.epilogue.narrow:
        first = values["pre_shift"].astype(np.int64)
        total = arith.moved_right(np.clip(total, values["lower"], values["upper"]), first)  # its rounding term is in the bias
    total = total * values["multiplier"]
    if residual is not None:
        total = total + (residual.astype(np.int64) - scalar["residual_zero"]) * scalar["residual_multiplier"]
    rounded = (total + (1 << (scalar["shift"] - 1))) >> scalar["shift"]
    return np.clip(rounded + scalar["y_zero"], scalar["lo"], scalar["hi"])


def compare(
    build: Callable[[ConvolutionSpec, str], Kernel],
    what: ConvolutionSpec,
    instruction_set: str,
    folder: Path,
    fills: Collection[str] = ("random", "largest", "mixed"),
) -> None:
    """Run a kernel on every fill and compare it with numpy; its files go to ``folder``."""
    generator = np.random.default_rng(7)
    kernel = build(what, instruction_set)
    run = prepare(kernel, instruction_set, folder)
    stored = physical_channels(what.in_channels)
    shape = (what.batch, what.out_height, what.out_width, stored)
    extreme = {"uint8": (0, 255), "int16": (-32768, 32767), "int32": (-(1 << 31), (1 << 31) - 1)}
    for fill in fills:
        values = arguments(what, fill, generator)
        low, high = extreme[what.epilogue.out_dtype]
        shift = 16 if what.epilogue.narrow else {"uint8": 37, "int16": 31, "int32": 20}[what.epilogue.out_dtype]
        y_zero = 128 if fill == "limits" else 3
        scalar = {
            "x_zero": 131, "shift": shift, "y_zero": y_zero, "lo": low, "hi": high,
            "residual_multiplier": 517, "residual_zero": 100,
        }  # fmt: skip
        if what.epilogue.saturated:
            scalar["shift"] = arith.SATURATED_SHIFT
            values = saturated(values, scalars(**scalar))
        if what.epilogue.short:
            scalar["shift"] = 19
            if what.epilogue.residual is None and (fill != "limits" or not what.epilogue.pre_shifted):
                values["pre_shift"] -= what.places + what.epilogue.left
            residual_multiplier = short_factor(1 << 15, scalar["shift"], scalar["y_zero"])
            scalar["residual_multiplier"] = residual_multiplier // (1 if fill == "largest" else 3) >> 7 << 7
            values = short(values, scalars(**scalar), what.epilogue.residual is not None)
        stored_x = generator.integers(0, 256, (what.batch, what.height, what.width, stored)).astype(np.uint8)
        stored_x[..., : what.in_channels] = values["x"]
        residual = None
        if what.epilogue.residual is not None:
            least, most = extreme[what.epilogue.residual]
            residual = generator.integers(least, most + 1, shape).astype(what.epilogue.residual)
        assert kernel.pack is not None
        bias = values["bias"] if kernel.adjust_bias is None else kernel.adjust_bias(values["bias"], values["codes"])
        arrays = {"x": stored_x, "weights": kernel.pack(values["codes"]), "scalars": scalars(**scalar)}
        for name, array in stored_constants(what.epilogue, values | {"bias": bias}, what.places).items():
            arrays[name] = np.pad(array, (0, stored - what.in_channels))
        arrays["y"] = np.zeros(shape, what.epilogue.out_dtype)
        if residual is not None:
            arrays["residual"] = residual
        result = run(arrays)[..., : what.in_channels]
        wanted = expected(what, values, scalar, None if residual is None else residual[..., : what.in_channels])
        np.testing.assert_array_equal(result, wanted)
        if residual is not None and residual.dtype == arrays["y"].dtype:  # the output may replace the other operand
            result = run(arrays | {"y": residual})[..., : what.in_channels]
            np.testing.assert_array_equal(result, wanted)
