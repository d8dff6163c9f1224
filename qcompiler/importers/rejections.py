"""What stands in the way of an import, all of it: collected while the walk goes on, told at its end.

Codes of this module:
    IMPORT001: operators that are not supported, all of the model's, each with the reason and the user's names of its layers.
    IMPORT005: layers that tie the model to one batch size, or outputs that do not have the batch in front.
"""

from __future__ import annotations

from typing import Final

from qcompiler.errors import CompileError

SUPPORTED: Final = (
    "convolutions (1-d to 3-d, transposed), linear, matmul, embedding, batch_norm, activations and other functions, "
    "add, sub, mul, min, max, pooling, sums, means and extremes over axes, argmax, topk, concat, split, slice, gather, pad, "
    "transpose, reshape, depth-to-space, nearest and linear resizing, local response norm, dropout, and a softmax at the end"
)
_REPLACE: Final = f"replace them, or cut the model before them; supported are {SUPPORTED}"
_KEEP_BATCH: Final = "keep the batch as the first dimension and write it as -1 or x.size(0) in reshapes"

FIXED_BATCH: Final = "the batch cannot be made symbolic:"
"""Stands in front of what works for one batch size only."""

_Places = dict[tuple[str, str], dict[str, None]]
"""The layers, in order, of every operator and reason."""


class Rejections:
    """What is not supported, and what works for one batch size only."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._unsupported: _Places = {}
        self._fixed: _Places = {}

    def add(self, where: str, operator: str, why: str) -> None:
        """Remember an unsupported operator."""
        self._unsupported.setdefault((operator, why), {})[where] = None

    def add_batch(self, where: str, operator: str, why: str) -> None:
        """Remember a layer that works for one batch size only."""
        self._fixed.setdefault((operator, why), {})[where] = None

    def check(self) -> None:
        """Raise IMPORT001, with what works for one batch size only as well, or IMPORT005 if that is all there is."""
        fixed = [FIXED_BATCH, *_lines(self._fixed)] if self._fixed else []
        if self._unsupported:
            lines = _lines(self._unsupported)
            count = "1 operator is" if len(lines) == 1 else f"{len(lines)} operators are"
            problem = "\n".join((f"{count} not supported:", *lines, *fixed))
            raise CompileError("IMPORT001", self.model, problem, f"{_REPLACE}; {_KEEP_BATCH}" if fixed else _REPLACE)
        if fixed:
            raise CompileError("IMPORT005", self.model, "\n".join(fixed), _KEEP_BATCH)


def _lines(rejected: _Places) -> list[str]:
    return [f"{', '.join(places)} ({operator}): {why}" for (operator, why), places in rejected.items()]
