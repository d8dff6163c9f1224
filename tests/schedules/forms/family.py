"""A family of kernels as tests see it: what a schedule may be asked, the data to ask it with, and the right answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from qcompiler.backend.kernel import Kernel, KernelSpec, physical_channels
from tests.schedules.harness import TARGETS

Array = np.ndarray[Any, Any]

SETS: Final = tuple(TARGETS)
OTHER_SETS: Final = tuple(name for name in SETS if name != "dotprod")
"""Of kernels without products of bytes: those for dotprod are those for neon."""
DTYPES: Final = ("uint8", "int8", "int16", "int32")
"""Types of codes in memory."""
BEFORE: Final = 85
"""What y holds before a call."""


@dataclass(frozen=True)
class Run:
    """``arrays``: the arguments as they lie in memory, but y; ``wanted``: y, with the first of ``stored`` channels (0: all)."""

    name: str
    arrays: Mapping[str, Array]
    wanted: Array
    stored: int = 0


@dataclass(frozen=True, eq=False)
class Family:
    """What the descriptions of one type may be that one schedule serves.

    ``axes``: values by name, the instruction set first, of which ``make`` takes one each; it gives None where they do not go
    together. ``runs``: data for a kernel, random and extreme. ``core``: the axes whose whole product is run, the others take
    turns; all where it is empty.
    """

    schedule: str
    axes: Mapping[str, Sequence[Any]]
    make: Callable[..., KernelSpec | None]
    runs: Callable[[Any, Kernel], Iterator[Run]]
    core: tuple[str, ...] = ()
    everywhere: bool = False


def fills(shape: tuple[int, ...], dtype: str, within: tuple[int, int] | None = None) -> Iterator[tuple[str, Array]]:
    """Random codes, all the smallest, all the largest, and a mix of both."""
    limits = np.iinfo(dtype)
    low, high = within or (int(limits.min), int(limits.max))
    random = np.random.default_rng(11)
    yield "random", random.integers(low, high, shape, endpoint=True).astype(dtype)
    yield "smallest", np.full(shape, low, dtype)
    yield "largest", np.full(shape, high, dtype)
    yield "mixed", random.choice([low, high], shape).astype(dtype)


def by_pixel(y: Array) -> tuple[Array, int]:
    """A tensor with its channels last, and how many of them are stored."""
    return np.moveaxis(y, 1, -1), physical_channels(y.shape[1])
