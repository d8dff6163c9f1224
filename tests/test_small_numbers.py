"""Numbers of 1e-9 are numbers: a network in other units has the same codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qcompiler.api import parse_bits
from qcompiler.importers.load import load_model
from qcompiler.ir.graph import Array, Graph
from qcompiler.passes.activation_codes import EMPTY_SPAN, affine_codes, wide_codes
from qcompiler.pipeline import Settings, to_integer

UNIT = 2.0**-30


class Net(nn.Module):
    """Convolutions, a residual addition and a constant, with inputs in units of ``x`` and weights in units of ``weights``."""

    def __init__(self, x: float, weights: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.offset = nn.Parameter(torch.randn(1, 8, 4, 4) * x * weights)
        with torch.no_grad():
            self.first.weight *= weights
            self.first.bias *= x * weights
            self.second.bias *= x * weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        return nn.functional.leaky_relu(self.second(y) + y, 0.1) + self.offset


def integer_graph(x: float, weights: float, bits: str) -> Graph:
    data: Array = np.random.default_rng(0).normal(size=(32, 2, 4, 4)).astype(np.float32) * np.float32(x)
    imported = load_model(Net(x, weights).eval(), torch.from_numpy(data[:1]))
    return to_integer(imported.graph, Settings(data, pins=parse_bits(bits)))


@pytest.mark.parametrize(("bits", "x", "weights"), [("w8a8", 1.0, UNIT), ("w4a8", UNIT, 1.0)])
def test_codes_do_not_depend_on_units(bits: str, x: float, weights: float) -> None:
    plain, small = integer_graph(1.0, 1.0, bits), integer_graph(x, weights, bits)
    for name, constant in plain.constant.items():
        if bits == "w8a8" or name.endswith(".weight"):  # what is learned beside them has other ties in other units
            assert np.array_equal(small.constant[name].data, constant.data), name
    ratios = {name: (small.values[name].scale or 1) / (value.scale or 1) for name, value in plain.values.items()}
    assert ratios["x"] == x
    assert ratios[plain.outputs[0]] == pytest.approx(x * weights, rel=1e-2)


def test_spans() -> None:
    assert affine_codes(0.0, 255e-12, 8).scale == pytest.approx(1e-12)
    assert wide_codes(-1e-12, 0.0, 16, 1.0).scale == pytest.approx(1e-12 / 32767)
    assert affine_codes(0.0, 0.0, 8).scale == EMPTY_SPAN / 255
    assert affine_codes(0.0, 1e-44, 8).scale > 1e-38
