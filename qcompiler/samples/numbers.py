"""What a sample is made of: arrays or tensors of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompiler.errors import CompileError


def is_array(data: object) -> bool:
    """Whether this is an array or a tensor."""
    return hasattr(data, "__array__") and hasattr(data, "shape")


def numbers(part: Any, what: str) -> Any:
    """``part``, an array, tensor or nested list, as an array or tensor; CALIB005, which calls it ``what``, unless of numbers."""
    try:
        array = part if is_array(part) else np.asarray(part)
    except ValueError as problem:
        raise _no_numbers(f"{what} is no array: {problem}") from None
    if isinstance(array, np.ndarray) and array.dtype.kind not in "fiub":
        raise _no_numbers(f"{what} has elements of type {array.dtype}")
    return array


def no_samples() -> CompileError:
    """CALIB002, for data in which there are none."""
    remedy = "pass at least one sample; 64 to 512 are enough"
    return CompileError("CALIB002", "calibration", "the calibration data has no samples", remedy)


def _no_numbers(problem: str) -> CompileError:
    return CompileError("CALIB005", "calibration", problem, "pass float or integer arrays")
