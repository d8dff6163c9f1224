"""Scores while they are added up: means over samples and their standard errors, for each tensor and its bits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

Choice = tuple[str, int]
"""A tensor's name and its bits."""


@dataclass
class Scores:
    """The score and, where there is one, the standard error of each choice, by the tensor's name and its bits."""

    means: dict[str, dict[int, float]] = field(default_factory=dict)
    errors: dict[str, dict[int, float]] = field(default_factory=dict)

    def put(self, choice: Choice, mean: float, error: float | None = None) -> None:
        """Note one choice's score."""
        name, bits = choice
        self.means.setdefault(name, {})[bits] = mean
        if error is not None:
            self.errors.setdefault(name, {})[bits] = error

    @classmethod
    def of(cls, sums: Iterable[tuple[Choice, Sums]]) -> Scores:
        """The means and their errors."""
        scores = cls()
        for choice, one in sums:
            scores.put(choice, one.mean, one.error)
        return scores


@dataclass
class Sums:
    """Of independent numbers, such as one for each sample: their sum, the sum of their squares, and how many there were."""

    total: float = 0.0
    squares: float = 0.0
    count: int = 0

    def add(self, total: float, squares: float, count: int) -> None:
        """Add what several numbers sum up to."""
        self.total, self.squares, self.count = self.total + total, self.squares + squares, self.count + count

    @property
    def mean(self) -> float:
        """The mean."""
        return self.total / self.count

    @property
    def error(self) -> float | None:
        """The standard error of the mean; None for a single number."""
        if self.count < 2:
            return None
        return math.sqrt(max(self.squares / self.count - self.mean**2, 0.0) / (self.count - 1))


def sum_and_squares(numbers: torch.Tensor) -> tuple[float, float]:
    """The sum of ``numbers`` and that of their squares, in float64."""
    wide = numbers.to(torch.float64)
    return float(wide.sum()), float(wide.square().sum())
