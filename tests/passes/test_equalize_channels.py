"""Equalization: the float network computes what it did, channels have like ranges, and the integer network is closer to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qcompiler.bits import Bits
from qcompiler.calibrate import FirstSamples
from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.ir.graph import Graph
from qcompiler.loading import load_graph
from qcompiler.passes.equalize_channels import EqualizeChannels, choose_factors, measure_channels
from qcompiler.pipeline import Settings, passes, to_calibrated, to_integer

DATA = np.random.default_rng(0).normal(size=(32, 3, 8, 8)).astype(np.float32)


def network(depthwise: bool, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """The channels between the first two layers have ranges from 1 to 30."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 16, 3, padding=1)
    with torch.no_grad():
        first.weight.mul_(torch.logspace(0, 1.5, 16).reshape(-1, 1, 1, 1))
    second = nn.Conv2d(16, 32, 3, groups=16) if depthwise else nn.Conv2d(16, 24, 1)
    with torch.no_grad():
        second.weight.div_(torch.logspace(0, 1.5, 16).repeat_interleave(2).reshape(-1, 1, 1, 1) if depthwise else 1.0)
    return nn.Sequential(first, activation(), nn.MaxPool2d(2), second, nn.ReLU(), nn.Flatten()).eval()


def prepared(model: nn.Module) -> Graph:
    """The float graph as equalization gets it."""
    graph = load_graph(model, (torch.from_numpy(DATA[:1]),)).graph
    for step in passes(Settings()):
        if step.name == EqualizeChannels.name:
            break
        graph = step(graph)
    return graph


def equalized(graph: Graph, **options: Any) -> Graph:
    return EqualizeChannels(FirstSamples(inputs=[DATA]), **options)(graph)


def spread_of(graph: Graph) -> float:
    name = next(node.output.name for node in graph.nodes if node.op == "conv2d")
    largest = measure_channels(graph, [DATA], [(name, name)])[name].largest
    return float(largest.max() / largest.min())


@pytest.mark.parametrize("depthwise", [True, False])
def test_the_function_stays_and_ranges_come_together(depthwise: bool) -> None:
    graph = prepared(network(depthwise))
    changed = equalized(graph)
    x = torch.from_numpy(DATA)
    assert torch.allclose(run_float(graph, [x])[0], run_float(changed, [x])[0], rtol=1e-4, atol=1e-5)
    assert spread_of(graph) > 20.0
    assert spread_of(changed) < (1.01 if depthwise else 10.0)
    assert equalized(changed) == changed
    assert EqualizeChannels(FirstSamples())(graph) == graph


def test_the_integer_network_is_closer() -> None:
    model = network(depthwise=True)
    graph = load_graph(model, (torch.from_numpy(DATA[:1]),)).graph
    with torch.no_grad():
        expected = model(torch.from_numpy(DATA)).numpy()

    def error(start: Graph, skipped: str) -> float:
        integer = start
        for step in passes(Settings(DATA, samples=FirstSamples(inputs=[DATA]))):
            integer = integer if step.name == skipped else step(integer)
        (codes,) = run_integer(integer, [quantize_input(integer.inputs[0], DATA)])
        return float(((dequantize(integer.values[integer.outputs[0]], codes) - expected) ** 2).sum())

    assert error(graph, "") < 0.5 * error(graph, EqualizeChannels.name)


def test_layers_that_must_not_be_scaled_stay() -> None:
    capped = prepared(network(True, nn.ReLU6))  # 6 is 6 in every channel
    assert equalized(capped) == capped

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network(False)

        def forward(self, x: torch.Tensor) -> Any:
            y = self.body[:2](x)
            return self.body[3](y), y

    graph = prepared(Twice())
    assert equalized(graph) == graph


def test_fewer_weight_bits_allow_smaller_factors() -> None:
    largest, squares = np.geomspace(1, 30, 16), np.geomspace(1, 30, 16) ** 2 / 10
    weight = np.random.default_rng(0).normal(size=(8, 16, 1, 1))
    eight, four = (choose_factors(largest, squares, weight, False, bits) for bits in (8, 4))
    assert 1.0 <= four.max() < eight.max() <= 30.0
    assert choose_factors(np.zeros(16), squares, weight, False, 8).tolist() == [1.0] * 16
    graph = prepared(network(False))
    name = next(node.origin for node in reversed(graph.nodes) if node.op == "conv2d")
    assert spread_of(equalized(graph, pins={name: Bits(weight=2)})) > spread_of(equalized(graph))
    assert equalized(graph, fewest=2) == equalized(graph, pins={name: Bits(weight=2)})
    assert equalized(graph, fewest=2, pins={name: Bits(weight=8)}) == equalized(graph)


def test_what_a_budget_may_give_decides() -> None:
    found: dict[str, Graph] = {}
    for fewest in (8, 4, 2):
        settings = Settings(DATA, fewest_bits=fewest)
        found[str(fewest)] = to_calibrated(load_graph(network(False), (torch.from_numpy(DATA[:1]),)).graph, settings)
    assert found["8"] != found["4"]


def test_bits_that_are_chosen_count_as_pinned_ones_do() -> None:
    graph = prepared(network(False))
    reader = next(node for node in reversed(graph.nodes) if node.op == "conv2d")
    two = equalized(graph, pins={reader.origin: Bits(weight=2)})
    (weight,) = (node.inputs[1] for node in two.nodes if node.output.name == reader.output.name)
    assert two != equalized(graph)
    assert equalized(graph, assignment={weight: 2}) == equalized(graph, assignment={weight: 2}, fewest=4) == two
    assert equalized(graph, assignment={weight: 8}, fewest=2) == equalized(graph)
    assert equalized(graph, assignment={weight: 8}, pins={reader.origin: Bits(weight=2)}) == two


def test_dumps_around_it_give_the_same_integers(tmp_path: Path) -> None:
    graph = load_graph(network(False), (torch.from_numpy(DATA[:1]),)).graph
    steps: list[Graph] = []
    integer = to_integer(graph, Settings(DATA), lambda _, made: steps.append(made))
    assert all(to_integer(made, Settings(DATA)) == integer for made in steps)
