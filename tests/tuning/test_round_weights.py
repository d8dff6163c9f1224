"""The rounding pass: better than nearest codes, the same twice, and nothing where it has nothing to go by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.calibrate import FirstSamples
from qcompiler.interpret import run_float
from qcompiler.ir.graph import Graph
from qcompiler.ir.verify import verify
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.correct_bias import CorrectBias
from qcompiler.report import sqnr_db
from qcompiler.tuning.closed_form import samples_within
from qcompiler.tuning.round_weights import RoundWeights
from tests.tuning.networks import Array, allocated, samples
from tests.tuning.test_simulation import integer_output


def rounded(bits: str, quality: str, data: Array | None = None) -> Graph:
    kept = FirstSamples(inputs=[samples() if data is None else data])
    graph = RoundWeights(quality, kept)(allocated(bits))
    verify(graph, OPERATORS)
    return CorrectBias(kept)(graph)


def quality_db(graph: Graph) -> float:
    """The outputs' SQNR on samples that nothing has seen."""
    x = samples(128, seed=7)
    expected = run_float(allocated("w8a8"), [torch.from_numpy(x)])[0].numpy()
    return sqnr_db(expected, integer_output(graph, x))


@pytest.mark.parametrize(("bits", "gain"), [("w4a8", 3.0), ("w2a8", 3.0)])
def test_closed_form_is_better_than_nearest_codes_by_some_db(bits: str, gain: float) -> None:
    assert quality_db(rounded(bits, "good")) > quality_db(rounded(bits, "fast")) + gain


def test_twice_is_the_same_to_the_bit() -> None:
    assert rounded("w4a4", "good") == rounded("w4a4", "good")


def test_a_rounded_graph_stays_as_it_is() -> None:
    graph = rounded("w4a8", "good")
    assert RoundWeights("good", FirstSamples(inputs=[samples()]))(graph) == graph


def test_nothing_is_done_without_samples_or_at_8_bits_or_when_fast() -> None:
    assert RoundWeights("good", FirstSamples(inputs=[samples()]))(allocated("w8a8")) == allocated("w8a8")
    graph = allocated("w4a8")
    assert RoundWeights("good", FirstSamples())(graph) == graph
    assert RoundWeights("fast", FirstSamples(inputs=[samples()]))(graph) == graph


def test_channels_without_weights_and_single_samples_do_no_harm() -> None:
    x = samples()[:1]
    graph = rounded("w4a8", "good", x)
    for constant in graph.constants:
        assert np.isfinite(constant.data).all()


def test_fewer_samples_where_a_graph_is_large() -> None:
    graph = allocated("w8a8")
    one = samples_within(graph, 1 << 20)
    assert 1 < one < 1000
    assert samples_within(graph, 1 << 21) == pytest.approx(2 * one, abs=1)
    assert samples_within(graph, 1) == 1
