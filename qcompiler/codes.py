"""Codes and the real numbers they stand for, on numpy arrays: the only place where the integer world meets the float one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

_LARGEST: Final = float(np.finfo(np.float32).max)
_MOST_STEPS: Final = 2.0**33  # no code of 32 bits is farther from its zero point


def quantize(x: Array, scale: float, zero: int, minimum: int, maximum: int, container: str) -> Array:
    """``clamp(floor(x / scale + 1/2) + zero)`` in float64, as an array of the numpy type ``container``; x has no NaN."""
    codes = np.divide(x, scale, dtype=np.float64)
    codes += 0.5
    np.floor(codes, out=codes)
    codes += zero
    np.clip(codes, minimum, maximum, out=codes)
    return codes.astype(container)


def dequantize(codes: Array, scale: float, zero: int) -> Array:
    """``(code - zero) * scale`` computed in float64, as float32; what float32 cannot hold is its largest number."""
    real = codes.astype(np.float64)
    real -= zero
    real *= scale
    if scale > _LARGEST / _MOST_STEPS:
        np.clip(real, -_LARGEST, _LARGEST, out=real)
    return real.astype(np.float32)
