"""A small network, trained in two seconds on scikit-learn's 1,797 handwritten digits: what the examples compile."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

Array = np.ndarray[Any, Any]


def digits_data() -> tuple[Array, Array, Array, Array]:
    """Training images ``[1297, 1, 8, 8]`` (float32, 0 .. 16) and labels, then 500 for testing."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    x, y = data.images.astype(np.float32)[order, None], data.target.astype(np.int64)[order]
    return x[:1297], y[:1297], x[1297:], y[1297:]


def digits_network() -> nn.Module:
    """The untrained network; ``qcompiler compile digits:digits_network`` finds it too."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU6()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()


def train(x: Array, y: Array, epochs: int = 15) -> nn.Module:
    """The network after a few epochs of Adam, in evaluation mode."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the network is too small for more
    model = digits_network().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(inputs)), 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()
