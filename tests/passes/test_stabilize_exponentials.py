"""The logarithm of a sum of exponentials, whose codes have to hold numbers of very different sizes."""

from __future__ import annotations

import numpy as np

from qcompiler.interpret import dequantize, quantize_input, run_integer
from qcompiler.ir.text import parse_graph
from qcompiler.pipeline import Settings, to_integer
from qcompiler.report import sqnr_db

TEXT = """graph @g stage=float (%x: f32[N,6]) {
  %exp: f32[N,6] = function(%x, expression="exp(x)")  # exp
  %sum: f32[N] = sum(%exp, axes=(1,), keepdims=0)  # sum
  %y: f32[N] = function(%sum, expression="log(x)")  # log
  return %y
}
"""


def test_sums_of_all_sizes_keep_their_logarithms() -> None:
    x = np.random.default_rng(0).normal(10, 15, size=(64, 6)).astype(np.float32)
    integer = to_integer(parse_graph(TEXT), Settings(x))
    (codes,) = run_integer(integer, [quantize_input(integer.inputs[0], x)])
    expected = np.log(np.exp(x.astype(np.float64)).sum(1))
    assert sqnr_db(expected, dequantize(integer.values["y"], codes)) > 40
