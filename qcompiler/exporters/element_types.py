"""Which ONNX element type holds codes of an integer type, and from which operator set on quantization takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import Array


@dataclass(frozen=True)
class ElementType:
    """An ONNX integer type: its number in ``TensorProto.DataType``, width in bits, and operator set."""

    onnx: int
    bits: int
    signed: bool
    opset: int

    def packed(self, codes: Array) -> bytes:
        """Codes as raw data: little-endian, the first of several in a byte in its low bits."""
        if self.bits >= 8:
            kind = "i" if self.signed else "u"
            return np.ascontiguousarray(codes, dtype=f"<{kind}{self.bits // 8}").tobytes()
        each = 8 // self.bits
        flat = np.asarray(codes, dtype=np.int64).reshape(-1) & ((1 << self.bits) - 1)
        rows = np.pad(flat, (0, -len(flat) % each)).reshape(-1, each)
        whole: Array = (rows << (self.bits * np.arange(each))).sum(axis=1).astype(np.uint8)
        return whole.tobytes()


OPSETS: Final = {4: 21, 8: 13, 16: 21, 32: 13}
"""By width in bits. 32 bits serve constants only: QuantizeLinear has no such result. There is INT2 from operator set 25 on, but
ONNX Runtime (1.31) fuses it into a QLinearConv that it then refuses: 2-bit codes are stored as 4-bit ones."""


def element_type(dtype: IntegerType) -> ElementType:
    """The narrowest ONNX type that runtimes take for codes of ``dtype``."""
    from onnx import TensorProto

    bits = next(bits for bits in OPSETS if bits >= dtype.bits)
    number = TensorProto.DataType.Value(f"{'INT' if dtype.signed else 'UINT'}{bits}")
    return ElementType(number, bits, dtype.signed, OPSETS[bits])


def can_quantize(dtype: IntegerType) -> bool:
    """Whether QuantizeLinear can make such codes: not those of 32 bits."""
    return dtype.bits <= 16
