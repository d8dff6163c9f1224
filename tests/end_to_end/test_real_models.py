"""Real models on real data, compiled with one call and default settings: the same codes everywhere, and the accuracy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import qcompiler as qc
from qcompiler.backend.artifact import Artifact
from qcompiler.backend.elf import read_elf
from qcompiler.targets.target import available_targets, host_refusal, load_target
from tests.backend.c_program import codes_program
from tests.real_models import LARGEST_DROP, UNSEEN, RealModel, calibration_images, evaluation_images, real_models

from .conftest import Array, Compilation

pytestmark = pytest.mark.data
X86_TARGETS = [name for name in available_targets() if load_target(name).architecture == "x86_64"]
USUAL_TARGETS = ("x86-avx512vnni", "x86-avx2")
BATCH = 50
Compiled = Callable[[str], Compilation]
Codes = Callable[[str], tuple[Array, Array]]


@pytest.mark.parametrize("name", real_models())
@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=[] if t in USUAL_TARGETS else pytest.mark.exhaustive) for t in X86_TARGETS]
)
def test_codes_equal_the_reference(name: str, target: str, compiled_real: Compiled, real_codes: Codes) -> None:
    if refusal := host_refusal(load_target(target)):
        pytest.skip(refusal)
    codes, expected = real_codes(name)
    library = qc.Library(compiled_real(name).artifact(target).folder)
    for threads in (1, 4):
        assert np.array_equal(library.run_int(codes, threads=threads), expected)


def test_codes_from_c(compiled_real: Compiled, real_codes: Codes, tmp_path: Path) -> None:
    codes, expected = real_codes("resnet8")
    program = codes_program(compiled_real("resnet8").native, tmp_path)
    for threads in (1, 4):
        assert np.array_equal(program.run(codes[:1000], threads, repeats=2), expected[:1000])


@pytest.mark.parametrize("name", real_models())
def test_accuracy(name: str, data_folder: Path, compiled_real: Compiled, real_model: Callable[[str], RealModel]) -> None:
    real, library = real_model(name), qc.Library(compiled_real(name).native.folder)
    images = evaluation_images(name, data_folder, "test")
    assert images.labels is not None
    ours, classes = [], []
    for x in images.batches(BATCH):
        ours.append(library(x, threads=os.cpu_count() or 1).argmax(1))
        classes.append(real.logits(x).argmax(1))
    found, expected = np.concatenate(ours), np.concatenate(classes)
    figures = {
        "fp32": round(100 * (expected == images.labels).mean(), 2),
        "integer": round(100 * (found == images.labels).mean(), 2),
        "agreement": round(100 * (found == expected).mean(), 2),
    }
    assert figures["fp32"] == pytest.approx(real.required.fp32, abs=0.03), figures
    assert figures["integer"] >= real.required.integer, figures
    assert figures["agreement"] >= real.required.agreement, figures
    if name in UNSEEN:
        part = UNSEEN[name]
        right, correct = (100 * (classes[part] == images.labels[part]).mean() for classes in (found, expected))
        assert right >= correct - LARGEST_DROP, (right, correct)
        assert 100 * (found[part] == expected[part]).mean() >= real.required.agreement


@pytest.mark.exhaustive
def test_torch_and_onnx_are_the_same_network(compiled_real: Compiled, data_folder: Path) -> None:
    x = evaluation_images("resnet20", data_folder, "test")[:1000].floats()
    from_onnx, from_torch = (qc.Library(compiled_real(name).native.folder)(x) for name in ("resnet20", "resnet20-torch"))
    # Batch norm is folded by different programs, so weights differ in their last digits and some codes by one.
    difference = from_onnx - from_torch
    assert (difference**2).sum() < 1e-3 * (from_onnx**2).sum()
    assert (from_onnx.argmax(1) == from_torch.argmax(1)).mean() > 0.99


@pytest.mark.exhaustive
def test_lite0_compiles_within_a_minute(data_folder: Path, real_model: Callable[[str], RealModel], tmp_path: Path) -> None:
    name = "efficientnet-lite0"
    model, calibration = real_model(name).model, calibration_images(name, data_folder, 64).floats()
    start = time.perf_counter()
    qc.Library(qc.build(model, calibration=calibration, out=tmp_path / "library", progress=False).folder)
    assert time.perf_counter() - start < 60.0


@pytest.mark.parametrize("name", real_models())
def test_artifact(name: str, compiled_real: Compiled) -> None:
    artifact: Artifact = compiled_real(name).native
    description = artifact.description
    assert description["workspace_bytes"] <= 1.15 * description["largest_live_bytes"]
    for file in ("net.o", "libnet.so"):
        undefined = set(read_elf((artifact.folder / file).read_bytes()).undefined)
        assert {symbol for symbol in undefined if not symbol.startswith("pthread_")} <= {"memcpy", "memset", "clock_gettime"}
    layers = artifact.report().layers
    assert all(row.weight_bits in (8, None) and row.input_bits == 8 for row in layers)
    assert all(row.sqnr_db is not None and row.sqnr_db > 10.0 for row in layers)
