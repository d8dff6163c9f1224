"""Every rule of the verifier has a graph that breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcompiler.errors import InternalError
from qcompiler.ir.graph import Graph, Stage
from qcompiler.ir.text import parse_graph
from qcompiler.ir.verify import verify
from qcompiler.ops.table import OPERATORS
from qcompiler.passes.drop_identities import DropIdentities
from qcompiler.passes.graph_pass import run_passes

FLOAT = """graph @g stage=float (%x: f32[N,2]) {
  const %w: f32[2,2] = [0x1p+0, 0x1p+1, 0x1p+2, 0x1p+3]
  %a: f32[N,2] = linear(%x, %w)
  %y: f32[N,2] = clip(%a, clamp=(0x0p+0, inf))
  return %y
}
"""
INTEGER = """graph @g stage=integer (%x: u8[N,2] scale=0x1p-7 zero=3) {
  const %w: i8[2,2] = [1, 2, 3, 4]
  const %m: i32[2] = [1073741824, 1073741824]
  %s: i32[N,2] = linear(%x, %w)
  %y: u8[N,2] scale=0x1p-3 zero=128 = requantize(%s, %m, limits=(0, 255), shift=38)
  return %y
}
"""


@pytest.mark.parametrize("text", [FLOAT, INTEGER])
def test_sound_graphs_pass(text: str) -> None:
    verify(parse_graph(text), OPERATORS)


@pytest.mark.parametrize(
    ("text", "old", "new", "problem"),
    [
        (FLOAT, "clip(%a", "clip(%b", "%y reads %b, which is not defined before it"),
        (FLOAT, "return %y", "return %z", "the output %z is not defined"),
        (FLOAT, "%y: f32[N,2]", "%y: f32[N,3]", "%y = clip: is f32[N,3], its operands give f32[N,2]"),
        (FLOAT, "clip(", "frobnicate(", "%y = frobnicate: not an operator of stage float"),
        (FLOAT, "clip(%a, clamp=(0x0p+0, inf))", "requantize(%a, %w, limits=(0, 1), shift=3)", "%y = requantize: not an operator of stage float"),
        (FLOAT, "f32[2,2]", "f32[1,4]", "%a = linear: linear: f32[N,2] does not end in 4 features"),
        (FLOAT, "clamp=(0x0p+0, inf)", "clamp=(0x1p+0, 0x0p+0)", "%y = clip: clip: the lower limit 1.0 is above the upper limit 0.0"),
        (FLOAT, "stage=float", "stage=calibrated", "%x has no calibrated range"),
        (FLOAT.replace("f32[N,2]", "f32[N,2] range=(0x0p+0, 0x1p+0)"), "stage=float", "stage=allocated", "%x has no bits"),
        (INTEGER, "%y: u8[N,2]", "%y: f32[N,2]", "%y is f32[N,2] in stage integer"),
        (INTEGER, "const %m: i32[2]", "const %m: f32[2]", "%m is f32[2]"),
        (INTEGER, "return %y", "return %s, %y", "the accumulator %s is not read by exactly one requantization"),
        (INTEGER, "%y: u8[N,2]", "%y: u7[N,2]", "%y has codes of type u7, not one of u2, u4, u8, i16, i32"),
        (INTEGER, " scale=0x1p-3", "", "%y has no scale above 0 or no zero point"),
        (INTEGER, "scale=0x1p-3", "scale=-0x1p-3", "%y has no scale above 0 or no zero point"),
        (INTEGER, "zero=128", "zero=300", "%y: the zero point 300 is not a code of u8"),
        (INTEGER, "const %m: i32[2] = [1073741824, 1073741824]", "const %m: i32[1] = [3]", "%y = requantize: requantize: i32[1] is not i32[2]"),
    ],
)  # fmt: skip
def test_broken_graphs_are_refused(text: str, old: str, new: str, problem: str) -> None:
    assert old in text
    with pytest.raises(InternalError) as caught:
        verify(parse_graph(text.replace(old, new, 1)), OPERATORS)
    assert problem in [line.strip() for line in str(caught.value).splitlines()]


def test_a_graph_without_outputs_is_refused() -> None:
    with pytest.raises(InternalError, match="the graph has no output"):
        verify(replace(parse_graph(FLOAT), outputs=()), OPERATORS)


def test_the_accumulator_must_be_the_first_operand() -> None:
    text = INTEGER.replace("requantize(%s, %m", "requantize_add(%s, %m, %s").replace("limits", "other_multiplier=1, limits")
    with pytest.raises(InternalError, match="the accumulator %s is not the first operand of its requantization"):
        verify(parse_graph(text), OPERATORS)


def test_the_runner_checks_stages_and_results() -> None:
    with pytest.raises(InternalError, match="pass drop_identities requires stage float, the graph is integer"):
        run_passes(parse_graph(INTEGER), [DropIdentities()])

    class Liar(DropIdentities):
        def __call__(self, graph: Graph) -> Graph:
            return replace(graph, stage=Stage.INTEGER)

    with pytest.raises(InternalError, match="promises stage float and gave integer"):
        run_passes(parse_graph(FLOAT), [Liar()])

    class Breaker(DropIdentities):
        def __call__(self, graph: Graph) -> Graph:
            return replace(graph, nodes=graph.nodes[1:])

    with pytest.raises(InternalError, match="reads %a, which is not defined before it"):
        run_passes(parse_graph(FLOAT), [Breaker()])
