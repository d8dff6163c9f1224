"""How many bits a layer's weights and its input have: ``"w4a8"``, ``Bits(weight=4, activation=8)``, or 4 (weights alone)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qcompiler.errors import CompileError

WEIGHT_BITS: Final = (2, 4, 8)
ACTIVATION_BITS: Final = (4, 8)


@dataclass(frozen=True)
class Bits:
    """Bits of a layer's weights and of its input; None leaves the choice to the compiler (8 by default)."""

    weight: int | None = None
    activation: int | None = None

    def __post_init__(self) -> None:
        for kind, bits, legal in (("weight", self.weight, WEIGHT_BITS), ("activation", self.activation, ACTIVATION_BITS)):
            if bits is not None and bits not in legal:
                raise CompileError(
                    "BITS001",
                    "bits",
                    f"{bits} {kind} bits have no integer kernel; {kind}s have {', '.join(map(str, legal))} bits",
                    f"choose one of {', '.join(map(str, legal))}",
                )

    @staticmethod
    def parse(value: int | str | Bits) -> Bits:
        """4, "w4", "a4", "w4a8" or Bits; BITS001 or BITS002 for anything else."""
        if isinstance(value, Bits):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return Bits(weight=value)
        match = re.fullmatch(r"(?:w(\d+))?(?:a(\d+))?", value) if isinstance(value, str) else None
        if match is None or not value:
            raise CompileError(
                "BITS002",
                "bits",
                f"{value!r} does not say bits",
                'write 4 (weights), "w4a8", "a4" or Bits(weight=4, activation=8)',
            )
        return Bits(*(int(group) if group else None for group in match.groups()))
