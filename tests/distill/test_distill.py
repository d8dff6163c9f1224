"""Samples made from batch-norm statistics: what they are worth on a trained network, and where none can be made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qcompiler as qc
from qcompiler.distill.distill import distill
from qcompiler.distill.noise import smooth_noise
from qcompiler.distill.stand_in import stand_in
from qcompiler.distill.statistics import batch_statistics, explained
from qcompiler.dump import read_dump
from qcompiler.interpret import quantize_input, run_integer
from qcompiler.ir.graph import Array, Graph
from qcompiler.ir.text import parse_graph
from qcompiler.loading import load_graph
from qcompiler.pipeline import Settings, to_integer
from tests.end_to_end.conftest import Digits, digits

__all__ = ["digits"]  # a fixture is found by its name here

EXAMPLE = torch.zeros(1, 1, 8, 8)

QUANTIZED = """graph @g stage=float (%x: f32[N,2]) {
  const %w: f32[2,2] = [0x1p+0, 0x0p+0, 0x0p+0, 0x1p+0]
  const %one: f32[2] = [0x1p+0, 0x1p+0]
  const %zero: f32[2] = [0x0p+0, 0x0p+0]
  %codes: f32[N,2] = quantizer(%x, clamp=(-0x1p+0, 0x1p+0), step=0x1p-7)  # x
  %fc: f32[N,2] = linear(%codes, %w)  # fc
  %bn: f32[N,2] = batch_norm(%fc, %one, %zero, %zero, %one, epsilon=0x1p-17)  # bn
  %y: f32[N,2] = quantizer(%bn, clamp=(-0x1p+0, 0x1p+0), step=0x1p-7)  # y
  return %y
}
"""
TWO_INPUTS = """graph @g stage=float (%a: f32[N,2,6,6], %b: f32[N,2]) {
  const %one: f32[2] = [0x1p+0, 0x1p+0]
  const %zero: f32[2] = [0x0p+0, 0x0p+0]
  const %four: f32[2] = [0x1p+2, 0x1p+2]
  const %mean: f32[2] = [0x1p+4, -0x1p+1]
  %p: f32[N,2,6,6] = batch_norm(%a, %one, %zero, %mean, %four, epsilon=0x0p+0)  # bn1
  %q: f32[N,2] = batch_norm(%b, %one, %zero, %zero, %one, epsilon=0x0p+0)  # bn2
  return %p, %q
}
"""


@pytest.fixture(scope="module")
def graph(digits: Digits) -> Graph:
    return load_graph(digits.model, EXAMPLE).graph


def top1(graph: Graph, digits: Digits) -> float:
    """Percent of the test images, by the integer reference."""
    (scores,) = run_integer(graph, [quantize_input(graph.inputs[0], digits.x_test)])
    return 100.0 * float((scores.argmax(1) == digits.y_test).mean())


def test_a_model_without_data_is_as_good_as_with_data(digits: Digits, graph: Graph, tmp_path: Path) -> None:
    qc.build(digits.model, EXAMPLE, out=tmp_path / "free", dump_ir=tmp_path / "dumps")
    free = top1(read_dump(max((tmp_path / "dumps").glob("*.qir"))), digits)
    noise = np.random.default_rng(0).normal(size=(64, 1, 8, 8)).astype(np.float32)
    real, noisy = (top1(to_integer(graph, Settings(data)), digits) for data in (digits.x_train[:256], noise))
    assert free >= real - 1.0
    assert free >= noisy + 10.0
    notes = json.loads((tmp_path / "free" / "net.report.json").read_text(encoding="utf-8"))["facts"]["notes"]
    assert re.fullmatch(
        "NO CALIBRATION DATA: ranges, rounding and all errors in this report come from 64 samples made up from the statistics of "
        r"3 batch norms \(mismatch 0\.0\d\d, 0 is perfect\); check the accuracy on real data, or pass some as calibration=",
        notes[0],
    )
    scores = qc.Library(tmp_path / "free")(digits.x_test)
    assert 100.0 * float((scores.argmax(1) == digits.y_test).mean()) == free


def test_samples_look_like_the_data(digits: Digits, graph: Graph) -> None:
    distilled = distill(graph, steps=20)
    assert distilled is not None
    (x,) = distilled.samples
    real = digits.x_train
    assert (x.shape, x.dtype) == ((64, 1, 8, 8), np.float32)
    assert distilled.layers == 3
    assert distilled.mismatch < 0.1
    assert abs(x.mean() - real.mean()) < 0.5 * real.std()  # pixels are 0 .. 16; noise starts around 0 with deviation 1
    assert 0.5 < x.std() / real.std() < 2.0
    assert distill(graph, steps=0).mismatch > distilled.mismatch  # type: ignore[union-attr]


def test_the_same_call_gives_the_same_samples(graph: Graph) -> None:
    first, again, other = (distill(graph, 8, 3, seed).samples[0] for seed in (0, 0, 1))  # type: ignore[union-attr]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_large_networks_get_batches_of_bounded_memory(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    elements = sum(value.type.elements for value in graph.values.values())
    monkeypatch.setattr("qcompiler.distill.distill.LIVE_BYTES", 4 * 5 * elements)
    monkeypatch.setattr("qcompiler.distill.distill.WORK", 12 * elements)
    steps: list[tuple[str, float, float | None]] = []

    class Steps:
        def advance(self, step: str, amount: float = 1, total: float | None = None) -> None:
            steps.append((step, amount, total))

    distilled = distill(graph, steps=2, progress=Steps())
    assert distilled is not None
    assert 12 <= len(distilled.samples[0]) < 20  # the head is not computed, so a few more fit
    assert len(steps) == steps[0][2]
    assert {step for step, _, _ in steps} == {"distill"}


def test_several_inputs_of_any_scale_and_rank() -> None:
    distilled = distill(parse_graph(TWO_INPUTS))
    assert distilled is not None
    image, vector = distilled.samples
    assert np.allclose(image.mean((0, 2, 3)), [16.0, -2.0], atol=0.2)
    assert np.allclose(image.std((0, 2, 3)), 2.0, rtol=0.1)
    assert np.allclose(vector.mean(0), 0.0, atol=0.1)
    assert np.allclose(vector.std(0), 1.0, rtol=0.1)


def test_an_input_that_no_batch_norm_reads_is_not_explained() -> None:
    graph = parse_graph(TWO_INPUTS.replace("batch_norm(%b, %one, %zero, %zero, %one, epsilon=0x0p+0)", "add(%b, %one)"))
    assert not explained(graph, batch_statistics(graph))
    assert stand_in(graph) is None


def test_statistics_are_zero_mismatch_where_they_are_met() -> None:
    (known,) = batch_statistics(parse_graph(QUANTIZED))
    x = torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))
    assert float(known.mismatch((x - x.mean(0)) / x.std(0))) < 1e-4
    assert float(known.mismatch(3.0 * x + 1.0)) == pytest.approx(1.0 + 4.0, rel=0.1)


def test_models_with_ranges_of_their_own_need_no_samples() -> None:
    assert stand_in(parse_graph(QUANTIZED)) is None  # the layer's own value is gone when the batch norm is folded
    partly = QUANTIZED.replace("quantizer(%bn, clamp=(-0x1p+0, 0x1p+0), step=0x1p-7)", "identity(%bn)")
    assert stand_in(parse_graph(partly)) is not None


@pytest.mark.parametrize("shape", [(64, 3, 32, 32), (64, 3, 40), (16, 2, 4, 8, 8), (512, 5), (512,)])
def test_noise(shape: tuple[int, ...]) -> None:
    x = smooth_noise(shape, torch.Generator().manual_seed(0))
    assert x.shape == shape
    assert float(x.std()) == pytest.approx(1.0, rel=0.02)
    neighbours = float((x[..., 1:] * x[..., :-1]).mean())
    assert (neighbours > 0.5) == (len(shape) > 2)


class Plain(nn.Module):
    """No batch norm, as exporters that fold them leave it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return torch.relu(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize("module", [Plain().eval(), nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()).eval()])
def test_no_batch_norms_is_a_clear_error(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(qc.CompileError) as caught:
        qc.build(module, EXAMPLE, out=tmp_path / "out")
    assert str(caught.value) == (
        "CALIB001 at calibration\n"
        "  problem: no calibration data was given, and samples cannot be made up either: the imported graph has no batch norms "
        "whose running statistics say what every input is (exporters often fold them into convolutions)\n"
        "  remedy:  pass calibration=an array [samples, ...], an iterable of batches (arrays, tensors, tuples of them), or a dict "
        "by input name; 64 to 512 samples are enough; or give the model with its batch norms as they were"
    )
    assert list(tmp_path.iterdir()) == []


def test_export_needs_no_data_either(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    monkeypatch.setattr("qcompiler.distill.distill.STEPS", 2)
    onnx.checker.check_model(qc.export_onnx(digits.model, tmp_path / "net.onnx", EXAMPLE))

    def fail(*_: object) -> Array:
        raise AssertionError("a float graph needs no samples")

    monkeypatch.setattr("qcompiler.distill.stand_in.stand_in", fail)
    qc.export_onnx(digits.model, tmp_path / "float.onnx", EXAMPLE, as_float=True)
