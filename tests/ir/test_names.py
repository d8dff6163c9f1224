"""No value and no constant can take the name of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompiler.errors import InternalError
from qcompiler.ir.graph import Graph, float_constant
from qcompiler.ir.names import Constants, Names
from qcompiler.ir.text import parse_graph

TEXT = """graph @g stage=float (%x: f32[N,2]) {
  const %w: f32[2,2] = [0x1p+0, 0x1p+1, 0x1p+2, 0x1p+3]
  const %y.bias: f32[2] = [0x1p+0, 0x1p+0]
  %a: f32[N,2] = linear(%x, %w, %y.bias)
  %y: f32[N,2] = linear(%a, %w)
  return %y
}
"""


@pytest.fixture
def graph() -> Graph:
    return parse_graph(TEXT)


@pytest.mark.parametrize(
    ("old", "new"),
    [("%a: f32[N,2] = linear", "%y: f32[N,2] = linear"), ("const %w:", "const %x:"), ("const %y.bias:", "const %w:"), ("%a: ", "%w: ")],
)  # fmt: skip
def test_a_dump_that_defines_a_name_twice_is_refused(old: str, new: str) -> None:
    name = new.removeprefix("const ").partition(":")[0]
    with pytest.raises(ValueError, match=rf"line \d of the dump: {name} is defined twice"):
        parse_graph(TEXT.replace(old, new, 1))


def test_a_graph_does_not_take_two_of_one_name(graph: Graph) -> None:
    (x,), (w, bias), (a, y) = graph.inputs, graph.constants, graph.nodes
    for change in (
        {"inputs": (x, x)},
        {"constants": (w, w)},
        {"constants": (w, replace(bias, name="x"))},
        {"constants": (w, replace(bias, name="y"))},
        {"nodes": (a, replace(y, outputs=a.outputs))},
    ):
        with pytest.raises(InternalError, match=r"graph g: %[\w.]+ is defined twice"):
            replace(graph, **change)


def test_other_nodes_come_with_one_constant_of_each_name(graph: Graph) -> None:
    (w, _), (a, y) = graph.constants, graph.nodes
    assert graph.with_nodes(graph.nodes, [*graph.constants, replace(w)]) == graph
    with pytest.raises(InternalError, match="graph g: two constants are called %w"):
        graph.with_nodes(graph.nodes, [*graph.constants, float_constant("w", 2 * w.data)])
    with pytest.raises(InternalError, match="%a is defined twice"):
        graph.with_nodes([a, replace(y, inputs=("x", "a"))], [*graph.constants, float_constant("a", w.data)])


def test_names_are_numbered_where_they_are_taken(graph: Graph) -> None:
    names = Names.of(graph)
    assert [names.fresh(stem) for stem in ("z", "z", "y", "w", "y.bias", "z")] == ["z", "z_1", "y_1", "w_1", "y.bias_1", "z_2"]


def test_a_name_is_free_when_the_last_reader_is_gone(graph: Graph) -> None:
    constants, (a, y) = Constants(graph), graph.nodes
    for _ in range(2):
        constants.release(y)
    assert constants.add("w", np.zeros(2)).name == "w_1"
    constants.release(a, keeping=["y.bias"])
    assert set(constants) == {"y.bias", "w_1"}
    assert constants.add("w", np.ones(2)).name == "w"
    assert constants.add("y.bias", np.ones(2)).name == "y.bias_1"


def test_what_several_nodes_read_does_not_change_for_one_of_them(graph: Graph) -> None:
    constants, (_, y) = Constants(graph), graph.nodes
    with pytest.raises(InternalError, match="the constant %w is changed for 2 nodes"):
        constants.change("w", np.zeros((2, 2)))
    constants.release(y)
    constants.change("w", np.zeros((2, 2)))
    assert not constants["w"].data.any()
