"""The result of a sensitivity analysis: numbers only, as a solver reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ScoresByBits = Mapping[str, Mapping[int, float]]
"""Names of tensors to bits to a number."""


@dataclass(frozen=True)
class SensitivityTable:
    """Estimates of the expected loss that each choice of bits adds; lower is less harm. Units: see the metric's module.

    ``weights``: by names of weight constants; ``activations``: by the first value of each activation class, see
    ``passes.activation_classes``; ``errors``: standard errors of both, where the metric has some. ``samples``: how many were
    used; ``seconds``: the time it took, of all runs together where some were interrupted.
    """

    metric: str
    weights: ScoresByBits
    activations: ScoresByBits
    errors: ScoresByBits = field(default_factory=dict)
    samples: int = 0
    seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> str:
        """The table as JSON."""
        return json.dumps(
            {
                "metric": self.metric,
                "samples": self.samples,
                "seconds": self.seconds,
                "weights": self.weights,
                "activations": self.activations,
                "errors": self.errors,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> SensitivityTable:
        """The table that :meth:`to_json` wrote."""
        read = json.loads(text)
        scores = {key: _scores(read[key]) for key in ("weights", "activations", "errors")}
        return cls(read["metric"], **scores, samples=read["samples"], seconds=read["seconds"])


def _scores(read: dict[str, dict[str, Any]]) -> ScoresByBits:
    return {name: {int(bits): float(score) for bits, score in by_bits.items()} for name, by_bits in read.items()}
