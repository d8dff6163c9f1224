"""Bias correction: the mean of every layer's output over the samples is what it was before rounding, borders included."""

from __future__ import annotations

import numpy as np
import torch

from qcompiler.calibrate import FirstSamples
from qcompiler.interpret import run_float
from qcompiler.ir.text import parse_graph
from qcompiler.passes.correct_bias import CorrectBias
from qcompiler.passes.weight_codes import rounded_weights

TEXT = """graph @g stage=allocated (%x: f32[N,2,5,5] range=(-0x1p+0, 0x1p+2) bits=8) {
  const %w: f32[3,2,3,3] bits=4 = [WEIGHTS]
  %y: f32[N,3,3,3] range=(0x0p+0, 0x1p+1) bits=8 = conv2d(%x, %w, dilation=(1, 1), groups=1, padding=(1, 1, 1, 1), strides=(2, 2))  # conv
  return %y
}
"""


def test_the_mean_of_the_output_is_kept() -> None:
    generator = np.random.default_rng(0)
    weights = generator.normal(size=54).astype(np.float32)
    graph = parse_graph(TEXT.replace("WEIGHTS", ", ".join(float(w).hex() for w in weights)))
    x = generator.normal(1.0, 1.0, (40, 2, 5, 5)).astype(np.float32)
    corrected = CorrectBias(FirstSamples(inputs=[x]))(graph)
    rounded = {"w": torch.from_numpy(rounded_weights(graph.constants[0].data, 4).astype(np.float32))}
    before, naive, after = (
        run_float(g, [torch.from_numpy(x)], constants=c)[0].mean((0, 2, 3)).numpy()
        for g, c in ((graph, {}), (graph, rounded), (corrected, rounded))
    )
    assert np.abs(naive - before).max() > 0.02
    assert np.abs(after - before).max() < 1e-5
    assert CorrectBias(FirstSamples(inputs=[x]))(corrected) == corrected
    assert CorrectBias(FirstSamples(), x)(graph) == CorrectBias(FirstSamples(inputs=[x[:32]]))(graph)
    assert CorrectBias(FirstSamples())(graph) == graph
