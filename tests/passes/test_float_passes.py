"""No float pass changes what a network computes, whatever is shared in it and whatever names are taken.

Every graph that the importers' tests make goes through the float passes as well, see ``tests.importers.check``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from qcompiler.api import parse_bits
from qcompiler.calibrate import FirstSamples
from qcompiler.check_float import some_inputs
from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.ir.graph import Array, Graph, Stage, rename_inputs
from qcompiler.ir.text import parse_graph
from qcompiler.loading import load_graph
from qcompiler.pipeline import Settings, passes, to_integer
from qcompiler.report import sqnr_db
from tests.float_stage import check_float_stage, float_stage
from tests.passes.shared_modules import PLACES, TEXTS, Levels, Shared, prepared
from tests.passes.test_golden import FILES, PASSES, SEPARATOR

DATA = np.random.default_rng(0).normal(size=(32, 4, 8, 8)).astype(np.float32)
FLOAT = [path for path in FILES if PASSES[path.stem.split(".")[0]].gives is Stage.FLOAT]
LEAST_DB = 30.0


def imported(model: nn.Module) -> Graph:
    return load_graph(model, (torch.from_numpy(DATA[:1]),)).graph


def output_errors(graph: Graph, data: Array, **settings: object) -> list[float]:
    """The SQNR of every output of the integer graph, dB."""
    integer = to_integer(graph, Settings(data, samples=FirstSamples(), **settings))  # type: ignore[arg-type]
    expected = run_float(graph, [torch.from_numpy(data)])
    codes = run_integer(integer, [quantize_input(integer.inputs[0], data)])
    values = (dequantize(integer.values[name], x) for name, x in zip(integer.outputs, codes, strict=True))
    return [sqnr_db(y.numpy(), x) for y, x in zip(expected, values, strict=True)]


def test_every_float_pass_changes_a_golden_graph_and_not_its_outputs() -> None:
    idle = {step.name for step in passes(Settings()) if step.gives is Stage.FLOAT}
    for path in FLOAT:
        graph = parse_graph(path.read_text().partition(SEPARATOR)[0])
        check_float_stage(graph, some_inputs(graph, None, FirstSamples()))
        name = path.stem.split(".")[0]
        if PASSES[name](graph) != graph:
            idle.discard(name)
    assert not idle


def test_every_call_of_a_shared_module_is_right() -> None:
    torch.manual_seed(0)
    graph = imported(prepared(Shared()))
    check_float_stage(graph, [DATA])
    errors = dict(zip(PLACES, output_errors(graph, DATA), strict=True))
    assert {place: error for place, error in errors.items() if error < LEAST_DB} == {}


@pytest.mark.parametrize("name", TEXTS)
def test_names_that_are_taken_stay_what_they_are(name: str) -> None:
    graph = parse_graph(TEXTS[name])
    data = some_inputs(graph, None, FirstSamples())
    check_float_stage(graph, data)
    assert min(output_errors(graph, data[0])) > LEAST_DB


@pytest.fixture(scope="module")
def head() -> Graph:
    torch.manual_seed(0)
    return imported(prepared(Levels()))


def with_copies(graph: Graph) -> Graph:
    """Every node reads constants of its own."""
    nodes, constants = [], []
    for node in graph.nodes:
        own = {name: f"{name}.{node.output.name}" for name in node.inputs if name in graph.constant}
        constants += [replace(graph.constant[name], name=copy) for name, copy in own.items()]
        nodes.append(rename_inputs(node, own))
    return graph.with_nodes(nodes, constants)


def test_a_shared_head_is_as_good_as_copies_of_it(head: Graph) -> None:
    for bits in ("w8a8", "w4a8"):
        shared, copies = (output_errors(graph, DATA, pins=parse_bits(bits)) for graph in (head, with_copies(head)))
        assert min(shared) > min(copies) - 1.0


def test_names_do_not_depend_on_the_bits(head: Graph) -> None:
    """A search finds bits by the names of weights, and runs the passes again with them."""
    graphs = [float_stage(head, [DATA], fewest_bits=bits)[-1][2] for bits in (2, 8)]
    names = [[constant.name for constant in graph.constants] for graph in graphs]
    assert names[0] == names[1]
    assert graphs[0] != graphs[1]
    weights = {node.inputs[1] for node in graphs[0].nodes if node.op == "conv2d"}
    assert float_stage(head, [DATA], fewest_bits=8, assignment=dict.fromkeys(weights, 2))[-1][2] == graphs[0]
