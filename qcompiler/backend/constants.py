"""The weights blob: every constant of the library in one piece, aligned, equal pieces stored once."""

from __future__ import annotations

from typing import Final

import numpy as np

from qcompiler.backend.program import Address, Space
from qcompiler.ir.graph import Array

ALIGNMENT: Final = 64


class ConstantPool:
    """Collects constants and gives each its address in the blob."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._known: dict[bytes, int] = {}
        self._size = 0
        self.weight_code_bytes = 0

    def add(self, data: Array, weight_codes: bool = False) -> Address:
        """The address of ``data`` (little-endian); ``weight_codes`` counts it as packed weights, once."""
        content = np.ascontiguousarray(data).tobytes()
        if content not in self._known:
            self._known[content] = self._size
            padded = content + bytes(-len(content) % ALIGNMENT)
            self._pieces.append(padded)
            self._size += len(padded)
            self.weight_code_bytes += len(content) if weight_codes else 0
        return Address(Space.WEIGHTS, self._known[content])

    def blob(self) -> bytes:
        """All constants, in the order in which they came."""
        return b"".join(self._pieces)
