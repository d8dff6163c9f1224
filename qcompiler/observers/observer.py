"""What calibration asks of an observer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Observer(Protocol):
    """Sees batches of one tensor, then gives its range."""

    def see(self, batch: torch.Tensor) -> bool:
        """Take in one batch (float32, the batch in front); False, taking nothing, if it has NaN or infinite values."""

    def range(self, bits: int) -> tuple[float, float]:
        """The range to quantize to ``bits`` bits; contains 0."""
