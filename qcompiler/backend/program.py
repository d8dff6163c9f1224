"""A lowered network: a flat list of kernel calls over fixed addresses, from which the C artifact is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from qcompiler.schedules.tiling import Tiling


class Space(Enum):
    """Where an argument of a kernel lies."""

    INPUT = "input"  # index: which input; the pointer moves on by one sample per image
    OUTPUT = "output"
    WORKSPACE = "workspace"  # offset in bytes
    WEIGHTS = "weights"  # offset in bytes into the weights blob


@dataclass(frozen=True)
class Address:
    """One pointer argument: a space with the input's or output's index, or with an offset in bytes."""

    space: Space
    offset: int


@dataclass(frozen=True)
class Call:
    """``symbol(*arguments, begin, end)`` over tasks 0 to ``tasks``; ``layer`` is the user's name for it (a comment).

    ``alone``: one thread does all tasks, since it takes about as long to hand some to others.
    """

    symbol: str
    arguments: tuple[Address, ...]
    tasks: int
    layer: str
    alone: bool = False


@dataclass(frozen=True)
class Port:
    """An input or output: ``shape`` is one sample's in the user's layout; a code c means ``(c - zero) * scale``."""

    name: str
    dtype: str  # numpy name of the element: uint8, int16, int32
    bits: int
    shape: tuple[int, ...]
    layout: str  # "NCHW" or "NHWC" for rank 4, "" otherwise
    scale: float
    zero: int
    kind: str = "value"  # or "index": whole numbers that name a place (scale 1, zero 0), kept as integers

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Program:
    """Everything the artifact holds.

    ``calls`` work on ``batch_tile`` samples at once, ``tail_calls`` on one (equal to ``calls`` when the tile is 1).
    ``functions``: the kernels' lowered TIR functions (``symbol`` of the calls is their global symbol).
    ``largest_live_bytes``: the most bytes of tensors that are alive at once, whatever the plan.
    ``packed_code_bytes``: of the weights' codes alone, each with its own bits, as a budget counts them; ``weight_code_bytes``: of
    what the blob has for them, where kernels pad channels to whole vectors and repeat depthwise codes.
    ``tilings``: of the kernels that do not have the model's, by symbol.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch_tile: int
    calls: tuple[Call, ...]
    tail_calls: tuple[Call, ...]
    workspace_bytes: int
    largest_live_bytes: int
    weights: bytes
    packed_code_bytes: int
    weight_code_bytes: int
    functions: tuple[Any, ...]
    tilings: Mapping[str, Tiling] = field(default_factory=dict)
