"""The QDQ form of ResNet-20 in ONNX Runtime beside the library, on a part of the test set.

The whole of it, and EfficientNet-Lite0: ``python -m examples.benchmarks.qdq_agreement``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qcompiler as qc
from tests.real_models import calibration_images, evaluation_images, load_real_model

from .conftest import run_onnx

pytestmark = pytest.mark.data
IMAGES = 2000


def test_resnet20_has_the_librarys_classes(data_folder: Path, tmp_path: Path) -> None:
    model, calibration = load_real_model("resnet20", data_folder).model, calibration_images("resnet20", data_folder).floats()
    qc.build(model, calibration=calibration, out=tmp_path / "build", dump_ir=tmp_path / "dumps", progress=False)
    library = qc.Library(tmp_path / "build")
    path = qc.export_onnx(max((tmp_path / "dumps").glob("*.qir")), tmp_path / "net.onnx")
    x = evaluation_images("resnet20", data_folder, "test")[:IMAGES].floats()
    # 99.5 % of the whole test set are required; this part of it leaves room for other processors.
    assert (library(x).argmax(1) == run_onnx(path, x)[0].argmax(1)).mean() >= 0.993
    assert np.abs(run_onnx(path, x[:50], optimized=False)[0] - library(x[:50])).mean() < 0.05 * np.abs(library(x[:50])).mean()
