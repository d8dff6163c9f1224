"""A small calibrated network, and tables that no machine has measured."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn

from qcompiler.cost.latency_table import Latency, LatencyTable
from qcompiler.importers.load import load_model
from qcompiler.ir.graph import Graph
from qcompiler.pipeline import Settings, to_calibrated

TARGET = "x86-avx2"


class Small(nn.Module):
    """A convolution, two equal ones of which one ends in an addition, a depthwise one, a pool, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.third = nn.Conv2d(16, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        y = torch.relu(self.third(torch.relu(self.second(y))) + y)
        y = torch.max_pool2d(torch.relu(self.depthwise(y)), 2)
        result: torch.Tensor = self.head(y.mean(dim=(2, 3)))
        return result


@cache
def small_graph() -> Graph:
    """The network with random weights and ranges, on [N, 3, 8, 8]."""
    torch.manual_seed(0)
    samples = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    imported = load_model(Small().eval(), (torch.from_numpy(samples[:1]),))
    return to_calibrated(imported.graph, Settings(samples))


def table_of(ns: dict[str, float], target: str = TARGET) -> LatencyTable:
    """A table with these latencies and no spread."""
    kernels = {key: Latency(value, value, value, 1) for key, value in ns.items()}
    return LatencyTable(target, "a CPU", {"qcompiler": "0"}, kernels)
