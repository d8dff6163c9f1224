"""The simulated graph rounds where the integer graph does, and gives back what it was made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.ir.graph import Graph
from qcompiler.ir.text import parse_graph, print_graph
from qcompiler.passes.quantize import Quantize
from qcompiler.tuning.simulation import ActivationQuantizer, SimulatedGraph
from tests.tuning.networks import Array, allocated, samples


def integer_output(graph: Graph, x: Array) -> Array:
    integer = Quantize()(graph)
    (codes,) = run_integer(integer, [quantize_input(integer.inputs[0], x)])
    return dequantize(integer.values[integer.outputs[0]], codes)


@pytest.mark.parametrize("bits", ["w8a8", "w4a8", "w2a8", "w4a4"])
def test_equals_the_integer_graph_but_for_borders(bits: str) -> None:
    simulated = SimulatedGraph(allocated(bits))
    x = samples(64, seed=1)
    with torch.no_grad():
        found = simulated(torch.from_numpy(x)).numpy()
    expected = integer_output(simulated.to_graph(), x)
    exact = run_float(simulated.graph, [torch.from_numpy(x)])[0].numpy()
    assert np.square(found - expected).sum() < (0.25 if "a4" in bits else 0.05) * np.square(exact - expected).sum()


def test_what_is_not_trained_comes_back_as_it_was() -> None:
    """Weights lie on their grid, ranges and codes are the same, and the dump is read back equal."""
    graph = allocated("w4a8")
    written = SimulatedGraph(graph).to_graph()
    again = SimulatedGraph(written)
    assert print_graph(again.to_graph()) == print_graph(written)
    assert parse_graph(print_graph(written)) == written
    integer, repeated = Quantize()(written), Quantize()(again.to_graph())
    assert integer == repeated
    codes = {c.name: c.data for c in Quantize()(graph).constants if c.name.endswith(".weight")}
    assert codes
    for name, data in codes.items():
        assert np.array_equal(integer.constant[name].data, data), name


def test_every_kind_of_parameter_has_a_gradient() -> None:
    simulated = SimulatedGraph(allocated("w4a4"))
    simulated(torch.from_numpy(samples()[:8])).square().sum().backward()
    missing = [name for name, p in simulated.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not missing


def test_learned_scales_are_the_integer_graphs() -> None:
    simulated = SimulatedGraph(allocated("w4a8"))
    with torch.no_grad():
        for quantizer in simulated.quantizers:
            quantizer.scale *= 1.0 + 0.25 * quantizer.scale.requires_grad
    graph = simulated.to_graph()
    integer = Quantize()(graph)
    for name, index in simulated.quantizer_of.items():
        quantizer = simulated.quantizers[index]
        assert isinstance(quantizer, ActivationQuantizer)
        if name in integer.values and name not in simulated.accumulators:
            value = integer.values[name]
            assert value.scale == pytest.approx(float(quantizer.scale.detach()), rel=1e-6)
            assert value.zero == quantizer.zero


def test_weights_that_are_also_a_table_keep_their_numbers_there() -> None:
    """Tied embeddings: what rounds the layer's weights leaves the table alone."""
    graph = parse_graph("""graph @g stage=allocated (%i: f32[N,3] range=(0x0p+0, 0x1p+1) bits=8) {
      const %w: f32[3,2] bits=4 = [0x1p+0, 0x1.2345p-1, 0x1.8p-2, 0x1.77p+0, -0x1.1p+0, 0x1.3p-3]
      %e: f32[N,3,2] range=(-0x1p+1, 0x1p+1) bits=8 = embedding(%i, %w)
      %s: f32[N,2] range=(-0x1p+2, 0x1p+2) bits=8 = sum(%e, axes=(1,), keepdims=0)
      %y: f32[N,3] range=(-0x1p+3, 0x1p+3) bits=8 = linear(%s, %w)
      return %y
    }""")
    simulated = SimulatedGraph(graph)
    assert simulated(torch.tensor([[0.0, 1.0, 2.0]])).shape == (1, 3)
    written = simulated.to_graph()
    embedding, layer = written.producer["e"], written.producer["y"]
    assert written.constant[embedding.inputs[1]] == graph.constant["w"]
    assert written.constant[layer.inputs[1]].scale is not None
    assert not np.array_equal(written.constant[layer.inputs[1]].data, graph.constant["w"].data)
