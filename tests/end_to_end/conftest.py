"""A small network that is trained on real data in seconds: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

Array = np.ndarray[Any, Any]


class DigitsNet(nn.Module):
    """Every kind of layer of the first models: plain, strided, depthwise and asymmetric convolutions, residuals, pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.left = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.depthwise = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.ReLU6())
        self.expand = nn.Conv2d(12, 40, 1)
        self.asymmetric = nn.Conv2d(40, 24, 3, stride=2)
        self.average = nn.AvgPool2d(2, 1, ceil_mode=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = functional.relu(self.left(x) + x)
        x = self.pool(x)
        x = functional.relu(self.expand(self.depthwise(x)))
        x = self.average(functional.relu(self.asymmetric(functional.pad(x, (0, 1, 0, 1)))))
        return self.head(self.dropout(x.mean((2, 3))))


@dataclass(frozen=True)
class Digits:
    """The trained network; float32 images [N, 1, 8, 8] in 0 .. 16 and labels, 1,297 for training and 500 for testing."""

    model: DigitsNet
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array

    def logits(self, x: Array) -> Array:
        with torch.no_grad():
            return self.model(torch.from_numpy(x)).numpy()


@pytest.fixture(scope="session")
def digits() -> Digits:
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = data.images.astype(np.float32)[:, None], data.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    torch.manual_seed(0)
    model = DigitsNet()
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    inputs, labels = torch.from_numpy(x[:1297]), torch.from_numpy(y[:1297])
    for _ in range(12):
        for batch in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return Digits(model.eval(), x[:1297], y[:1297], x[1297:], y[1297:])
