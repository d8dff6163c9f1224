"""Arguments and weight codes of depthwise kernels: codes lie in rows of 16 channels, one row for each tap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm.tirx.script.builder.ir as tir

from qcompiler.arith import weight_places
from qcompiler.backend.kernel import LANES, SCALARS, ConvolutionSpec, Kernel, physical_channels
from qcompiler.schedules.loops import Buffers, build_function, splat
from qcompiler.schedules.pack import bias_adjustment
from qcompiler.schedules.taps import FLIP, TapUnit


def arguments(spec: ConvolutionSpec) -> dict[str, tuple[int, str]]:
    """Elements and dtype of each argument of a depthwise kernel, in order."""
    channels = physical_channels(spec.in_channels)
    taps = spec.kernel[0] * spec.kernel[1]
    output = spec.batch * spec.out_height * spec.out_width * channels
    found: dict[str, tuple[int, str]] = {"x": (spec.batch * spec.height * spec.width * channels, "uint8")}
    if spec.epilogue.residual is not None:
        found["residual"] = (output, spec.epilogue.residual)
    found["weights"] = (-(-channels // LANES) * taps * LANES * spec.weight_bits // 8, "uint8")
    for name in spec.epilogue.channel_arguments:
        found[name] = (channels, "int32")
    return found | {"scalars": (SCALARS, "int32"), "y": (output, spec.epilogue.out_dtype)}


def make_kernel(spec: ConvolutionSpec, unit: TapUnit, tasks: int, schedule: str, emit: Callable[[Buffers], None]) -> Kernel:
    """The kernel whose loops ``emit`` writes."""
    named = arguments(spec)
    return Kernel(
        function=build_function(named, emit),
        arguments=tuple(named),
        tasks=tasks,
        schedule=schedule,
        pack=lambda codes: pack_taps(codes, spec.weight_bits),
        adjust_bias=bias_adjustment(FLIP if unit.flips else 0, spec.places),
    )


def pack_taps(codes: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Codes int8 ``[C, 1, KH, KW]`` to bytes ``[C / 16][KH * KW][16]``; below 8 bits, byte i of a row of 16
    holds channel i in its lowest bits, then channels i + 16 * bits / 8, and so on upwards."""
    channels = codes.shape[0]
    blocks = -(-channels // LANES)
    padded = np.zeros((blocks * LANES, codes.shape[2] * codes.shape[3]), dtype=np.int8)
    padded[:channels] = codes.reshape(channels, -1)
    rows = padded.reshape(blocks, LANES, -1).transpose(0, 2, 1).astype(np.uint8) & np.uint8((1 << bits) - 1)
    fields = rows.reshape(blocks, -1, 8 // bits, LANES * bits // 8)
    places = np.arange(8 // bits, dtype=np.uint8)[:, None] * np.uint8(bits)
    packed: np.ndarray[Any, Any] = np.bitwise_or.reduce(fields << places, axis=2)
    return packed.astype(np.uint8).reshape(-1)


def unpack_rows(stored: Any, bits: int, rows: int, channels: int) -> Any:
    """The first ``channels`` int8 codes of ``rows`` packed rows of 16, in the upper bits of bytes."""
    row = LANES * bits // 8
    lanes = rows * row
    places = weight_places(bits)
    mask = splat(tir.uint8(0xFF << places & 0xFF), lanes)
    moved = [(stored << splat(tir.uint8(places - place), lanes)) & mask for place in range(0, 8, bits)]
    fields = [tir.reinterpret(f"int8x{lanes}", field) for field in moved]
    if bits == 8 and channels == lanes:
        return fields[0]
    order = [channel % LANES // row * lanes + channel // LANES * row + channel % row for channel in range(channels)]
    return tir.Shuffle(fields, order)
