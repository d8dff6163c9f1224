"""The values of one tensor for all samples, in chunks, in as few bytes as they need.

Codes of up to 8 bits take a byte; other values are half floats, whose rounding is far below that of codes, unless they are too
large or too small for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

import torch
from typing_extensions import override

if TYPE_CHECKING:
    from torch import Tensor

    from qcompiler.tuning.simulation import ActivationQuantizer

HALF: Final = (2.0**-10, 6e4)
"""The largest element of what is kept as half floats: small numbers would lose their last bits, and those under 1e-7 all."""
BYTES: Final = 3
"""Of an element that is kept as a code and as a half float."""


@dataclass(frozen=True)
class Stored(Sequence["Tensor"]):
    """``[chunk]`` is the float32 tensor ``[n, ...]`` again."""

    parts: Sequence[Tensor]
    quantizer: ActivationQuantizer | None = None

    @classmethod
    def of(cls, chunks: Iterable[Tensor], quantizer: ActivationQuantizer | None = None) -> Stored:
        """Keep ``chunks``; with ``quantizer``, their codes."""
        if quantizer is not None:
            return cls([quantizer.codes(chunk) for chunk in chunks], quantizer)
        return cls([chunk.half() if HALF[0] <= float(chunk.abs().max()) < HALF[1] else chunk for chunk in chunks])

    @override
    def __len__(self) -> int:
        return len(self.parts)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Stored: ...
    @override
    def __getitem__(self, index: int | slice) -> Tensor | Stored:
        if isinstance(index, slice):
            return Stored(self.parts[index], self.quantizer)
        part = self.parts[index]
        return part.to(torch.float32) if self.quantizer is None else self.quantizer.values(part)
