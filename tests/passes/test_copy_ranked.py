"""What is ranked does not tie because a function reads it too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qcompiler.importers.load import load_model
from qcompiler.interpret import quantize_input, run_integer
from qcompiler.pipeline import Settings, to_integer


class Peaks(nn.Module):
    """A heatmap of nearly equal values, and where it is largest."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heat = self.map(x) * 0.01 + 1.0
        return heat.sigmoid(), heat.flatten(2).argmax(-1)


@pytest.mark.parametrize(("output_bits", "least", "most"), [(16, 0.95, 1.0), (8, 0.0, 0.8)])
def test_peaks_are_found_among_nearly_equal_values(output_bits: int, least: float, most: float) -> None:
    model, x = Peaks().eval(), np.random.default_rng(0).normal(size=(32, 4, 8, 8)).astype(np.float32)
    graph = load_model(model, (torch.from_numpy(x[:1]),)).graph
    integer = to_integer(graph, Settings(x, "minmax", output_bits=output_bits, quality="fast"))
    found = run_integer(integer, [quantize_input(integer.inputs[0], x)])[1]
    expected = model(torch.from_numpy(x))[1].numpy()
    assert least <= (found == expected).mean() <= most
