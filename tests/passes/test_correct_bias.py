"""Bias correction: the mean of every layer's output is what it was before quantization, where it counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.calibrate import FirstSamples
from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.ir.graph import Graph
from qcompiler.ir.text import parse_graph
from qcompiler.passes.correct_bias import CorrectBias, mean_difference
from qcompiler.passes.quantize import Quantize

TEXT = """graph @g stage=allocated (%x: f32[N,2,5,5] range=(-0x1.8p+1, 0x1.4p+2) bits=8) {
  const %w: f32[3,2,3,3] bits=4 = [WEIGHTS]
  %y: f32[N,3,3,3] range=(-0x1p+4, 0x1p+4) bits=8 = conv2d(%x, %w, dilation=(1, 1), groups=1, padding=(1, 1, 1, 1), strides=(2, 2))  # conv
  return %y
}
"""
TWO = """graph @g stage=allocated (%x: f32[N,8] range=(-0x1p+2, 0x1p+2) bits=8) {
  const %w: f32[8,8] bits=4 = [WEIGHTS]
  const %v: f32[4,8] bits=4 = [OTHERS]
  %y: f32[N,8] range=(0x0p+0, 0x1p+1) bits=4 = linear(%x, %w, clamp=(0x0p+0, inf))  # first
  %z: f32[N,4] range=(-0x1p+4, 0x1p+4) bits=8 = linear(%y, %v)  # second
  return %z
}
"""
GENERATOR = np.random.default_rng(0)


def filled(text: str) -> Graph:
    for word, count in (("WEIGHTS", 54 if text is TEXT else 64), ("OTHERS", 32)):
        numbers = np.random.default_rng(len(word)).normal(size=count).astype(np.float32)
        text = text.replace(word, ", ".join(float(w).hex() for w in numbers))
    return parse_graph(text)


def integer_outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    integer = Quantize()(graph)
    (codes,) = run_integer(integer, [quantize_input(integer.inputs[0], x)])
    return dequantize(integer.values[integer.outputs[0]], codes)


@pytest.mark.parametrize(("text", "shape", "axes"), [(TEXT, (40, 2, 5, 5), (0, 2, 3)), (TWO, (200, 8), (0,))])
def test_the_mean_of_the_integer_output_is_kept(text: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """Also where the layer before clips and rounds to 4 bits: the second layer takes back what that shifts."""
    graph = filled(text)
    x = np.random.default_rng(0).normal(1.0, 1.0, shape).astype(np.float32)
    corrected = CorrectBias(FirstSamples(inputs=[x]))(graph)
    expected = run_float(graph, [torch.from_numpy(x)])[0].numpy().mean(axes)
    naive, after = (integer_outputs(g, x).mean(axes) for g in (graph, corrected))
    assert np.abs(naive - expected).max() > 0.05
    assert np.abs(after - expected).max() < 0.1 * np.abs(naive - expected).max()


def test_samples_may_come_from_the_data() -> None:
    graph = filled(TEXT)
    x = np.random.default_rng(0).normal(1.0, 1.0, (40, 2, 5, 5)).astype(np.float32)
    corrected = CorrectBias(FirstSamples(inputs=[x]))(graph)
    assert CorrectBias(FirstSamples(inputs=[x]))(corrected) == corrected
    assert CorrectBias(FirstSamples(), x)(graph) == CorrectBias(FirstSamples(inputs=[x[:32]]))(graph)
    assert CorrectBias(FirstSamples())(graph) == graph


def test_only_places_inside_of_the_clamp_count() -> None:
    exact, rounded = torch.full((64, 1), -5.0), torch.full((64, 1), -3.0)
    exact[:16], rounded[:16] = 2.0, 1.5
    assert mean_difference([exact], [rounded], (0.0, float("inf"))).tolist() == [0.5]
    assert mean_difference([exact], [rounded], None)[0] < -1.0
    assert mean_difference([exact], [rounded], (9.0, 10.0)).tolist() == [0.0]


def test_a_mean_within_its_error_is_not_corrected() -> None:
    noise = torch.from_numpy(GENERATOR.normal(0.01, 1.0, (64, 1)))
    assert mean_difference([noise], [torch.zeros(64, 1, dtype=torch.float64)], None).tolist() == [0.0]
    assert mean_difference([noise + 1.0], [torch.zeros(64, 1, dtype=torch.float64)], None)[0] > 0.9
