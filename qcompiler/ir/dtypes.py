"""Element types: integers of any width, and float for the stages before quantization."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np


@dataclass(frozen=True)
class IntegerType:
    """A two's complement or unsigned integer of 1 to 64 bits, spelled ``u4`` or ``i32``."""

    bits: int
    signed: bool

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise ValueError(f"an integer type has 1 to 64 bits, not {self.bits}")

    def __str__(self) -> str:
        return f"{'i' if self.signed else 'u'}{self.bits}"

    @property
    def minimum(self) -> int:
        """The smallest value of the type."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """The largest value of the type."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def container(self) -> np.dtype[np.generic]:
        """The smallest numpy type that holds one value in whole bytes."""
        width = next(w for w in (8, 16, 32, 64) if w >= self.bits)
        return np.dtype(f"{'int' if self.signed else 'uint'}{width}")


@dataclass(frozen=True)
class FloatType:
    """IEEE 754 binary32, spelled ``f32``."""

    bits: int = 32

    def __str__(self) -> str:
        return f"f{self.bits}"

    @property
    def container(self) -> np.dtype[np.generic]:
        """The numpy type of one value."""
        return np.dtype(f"float{self.bits}")


type_names: Final = re.compile(r"(?P<kind>[iuf])(?P<bits>\d+)\Z")

DType = IntegerType | FloatType

F32: Final = FloatType(32)
U8: Final = IntegerType(8, signed=False)
I8: Final = IntegerType(8, signed=True)
I16: Final = IntegerType(16, signed=True)
I32: Final = IntegerType(32, signed=True)


def parse_dtype(text: str) -> DType:
    """The type spelled ``text`` (``u8``, ``i4``, ``f32``); ValueError for anything else."""
    match = type_names.match(text)
    if match is None or (match["kind"] == "f" and match["bits"] != "32"):
        raise ValueError(f"{text!r} is not an element type such as u8, i4, i32 or f32")
    if match["kind"] == "f":
        return F32
    return IntegerType(int(match["bits"]), signed=match["kind"] == "i")
