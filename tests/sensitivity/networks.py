"""Small calibrated networks, and a run of one that quantizes by rounding every value and nothing else cleverly."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from qcompiler.importers.load import load_model
from qcompiler.ir.graph import Graph, Stage
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.activation_codes import Codes
from qcompiler.passes.graph_pass import run_passes
from qcompiler.pipeline import Settings, passes


class Mixed(nn.Module):
    """Convolutions, a residual addition, a concatenation whose parts share its codes or not, pooling, a function, 5 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        z = torch.max_pool2d(torch.relu(y + self.second(y)), 2)
        both = torch.cat([z, torch.sigmoid(self.third(z))], dim=1)
        return self.head(both.mean(dim=(2, 3)))


class TwoOutputs(nn.Module):
    """Two regressions of one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.body(x))
        return self.left(y), self.right(y)


class Tiny(nn.Module):
    """Two layers and 3 classes: small enough for whole Hessians. Smooth, so that they are not that of a linear function."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x)))


SHAPES = {Mixed: (3, 8, 8), TwoOutputs: (6,), Tiny: (5,)}


def samples_of(kind: type[nn.Module], count: int = 10) -> list[np.ndarray]:
    return [np.random.default_rng(3).normal(size=(count, *SHAPES[kind])).astype(np.float32)]


@functools.cache
def calibrated(kind: type[nn.Module]) -> Graph:
    """The network with random weights, calibrated on 64 samples."""
    torch.manual_seed(0)
    data = samples_of(kind, 64)[0]
    graph = load_model(kind().eval(), (torch.from_numpy(data[:1]),)).graph
    float_passes = [step for step in passes(Settings(data)) if step.requires is Stage.FLOAT]
    return run_passes(graph, float_passes)


def plain_run(
    graph: Graph,
    inputs: Sequence[torch.Tensor],
    weights: Mapping[str, torch.Tensor] | None = None,
    codes: Mapping[str, Codes] | None = None,
    shifts: Mapping[str, torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """The outputs of the whole graph with other weights, values as ``codes`` represent them, and numbers added to values."""
    tensors = {c.name: torch.from_numpy(c.data.copy()) for c in graph.constants} | dict(weights or {})

    def made(name: str, x: torch.Tensor) -> torch.Tensor:
        if codes and name in codes:
            c = codes[name]
            x = x.mul(1.0 / c.scale).add(c.zero + 0.5).floor().clamp(c.dtype.minimum, c.dtype.maximum).sub(c.zero).mul(c.scale)
        return x + shifts[name] if shifts and name in shifts else x

    for value, x in zip(graph.inputs, inputs, strict=True):
        tensors[value.name] = made(value.name, x)
    for node in graph.nodes:
        result = OPERATORS[node.op].run_float(node, [tensors[name] for name in node.inputs])
        tensors[node.output.name] = made(node.output.name, result)
    return [tensors[name] for name in graph.outputs]
