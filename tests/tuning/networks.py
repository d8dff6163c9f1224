"""A small trained network with residuals, groups, a function and several kinds of layers, as an allocated graph."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from qcompiler.api import parse_bits
from qcompiler.calibrate import FirstSamples
from qcompiler.ir.graph import Graph
from qcompiler.loading import load_graph
from qcompiler.passes.graph_pass import run_passes
from qcompiler.pipeline import Settings, passes

Array = np.ndarray[Any, Any]


class Network(nn.Module):
    """Convolutions plain, grouped and depthwise; a residual addition; SiLU; pooling; a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, padding=1)
        self.left = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.right = nn.Conv2d(16, 16, 1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.right(torch.relu(self.left(x))) + x)
        y: torch.Tensor = self.head(nn.functional.silu(self.depth(x)).mean((2, 3)))
        return y


@cache
def samples(count: int = 96, seed: int = 0) -> Array:
    """Smooth images: neighbours are alike, as in photos, which is what closed forms live on."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(size=(count, 3, 4, 4)).astype(np.float32)
    x = nn.functional.interpolate(torch.from_numpy(coarse), size=(12, 12), mode="bicubic").numpy()
    return np.ascontiguousarray(x + 0.1 * generator.normal(size=x.shape).astype(np.float32))


def network() -> Network:
    """Always the same weights."""
    torch.manual_seed(0)
    return Network().eval()


def allocated(bits: str) -> Graph:
    """The network with ``bits`` for all layers, before its weights are rounded."""
    graph = load_graph(network(), torch.from_numpy(samples()[:1])).graph
    steps = passes(Settings(samples(), pins=parse_bits(bits), samples=FirstSamples()))
    names = [step.name for step in steps]
    return run_passes(graph, steps[: names.index("allocate_bits") + 1])
