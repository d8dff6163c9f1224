"""The check of the float stage finds what a pass breaks, and nothing where a network is only sensitive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcompiler import pipeline
from qcompiler.calibrate import FirstSamples
from qcompiler.check_float import check_float, difference, some_inputs
from qcompiler.errors import InternalError
from qcompiler.ir.graph import Graph, float_constant
from qcompiler.ir.text import parse_graph
from qcompiler.passes.drop_identities import DropIdentities
from qcompiler.passes.fold_pad import FoldPad

DATA = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
LAYER = """graph @g stage=float (%x: f32[N,4]) {
  const %w: f32[4,4] = [0x1p+0, 0x1p-1, 0x1p-2, 0x1p-3, 0x1p+0, -0x1p-1, 0x1p-2, -0x1p-3, 0x1p+1, 0x1p-1, 0x0p+0, 0x1p-3, 0x0p+0, 0x0p+0, 0x0p+0, 0x1p-14]
  %y: f32[N,4] = linear(%x, %w)
  return %y
}
"""  # fmt: skip
ARGMAX = LAYER.replace("return %y", "%z: f32[N] = argmax(%y, axis=1, keepdims=0)\n  return %z")


class Breaker(FoldPad):
    """A pass that overwrites a constant, as any may that has a mistake."""

    def __call__(self, graph: Graph) -> Graph:
        return replace(graph, constants=tuple(float_constant(c.name, c.data * 1.001) for c in graph.constants))


def changed(text: str, old: str, new: str) -> str | None:
    assert old in text
    return difference(parse_graph(text), parse_graph(text.replace(old, new)), [DATA])


def test_the_pass_at_fault_is_named_and_its_graphs_are_written(tmp_path: Path) -> None:
    graph = parse_graph(LAYER)
    steps = [DropIdentities(), Breaker(), DropIdentities()]
    check_float(graph, graph, steps, [DATA])
    with pytest.raises(InternalError) as caught:
        check_float(graph, Breaker()(graph), steps, [DATA], tmp_path)
    text = str(caught.value)
    assert text.startswith("pass fold_pad changes what g computes: slice 0 of axis 1 of %y is off by ")
    assert text.endswith(f"; the graphs are in {tmp_path}")
    assert [path.name for path in sorted(tmp_path.glob("*.qir"))] == ["00-import.qir", "01-before.qir", "02-after.qir"]


def test_every_compilation_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pipeline, "FoldPad", Breaker)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for data in (DATA, iter([DATA])):
        with pytest.raises(InternalError, match="pass fold_pad changes what g computes"):
            pipeline.to_integer(parse_graph(LAYER), pipeline.Settings(data, samples=FirstSamples()))
    monkeypatch.undo()
    integer = pipeline.to_integer(parse_graph(LAYER), pipeline.Settings(iter([DATA]), samples=FirstSamples()))
    assert integer.stage is pipeline.Stage.INTEGER


def test_a_small_slice_is_seen_beside_large_ones() -> None:
    """The last row of weights is 2^-14: 1 % of it is far below what rounds in the others."""
    assert changed(LAYER, "0x1p-14", "0x1.02p-14")
    assert changed(LAYER, "0x1p-14", "0x1.000002p-14") is None
    assert changed(LAYER, "%y: f32[N,4] = linear(%x, %w)", "%y: f32[N,4] = add(%x, %x)")


def output(expression: str) -> str:
    """``LAYER`` with a function behind it."""
    return LAYER.replace("return %y", f'%z: f32[N,4] = function(%y, expression="{expression}")\n  return %z')


@pytest.mark.parametrize(
    "text",
    [
        output("sin(1e6 * x)"),  # rounding of x is all that counts
        output("(x + 1e5) - 1e5"),  # almost everything cancels
        output("log(x)"),  # not a number, for half of the inputs
        output("1 / (x - x)"),  # nothing but infinite
        output("exp(20 * (x + 9))"),  # near the largest numbers
ARGMAX.replace("-0x1p-1, 0x1p-2, -0x1p-3", "0x1p-1, 0x1p-2, 0x1p-3"),  # equal rows
    ],
)  # fmt: skip
def test_networks_that_are_sensitive_are_not_accused(text: str) -> None:
    """One bit of one weight is another rounding, no other network."""
    rounded = text.replace("[0x1p+0,", "[0x1.000002p+0,").replace("0x1p-1, 0x1p-2", "0x1.000002p-1, 0x1p-2")
    assert rounded != text
    assert difference(parse_graph(text), parse_graph(rounded), [DATA]) is None


def test_wrong_ranks_are_seen_through_the_indices() -> None:
    assert changed(ARGMAX, "[0x1p+0,", "[0x1.01p+0,")


def test_random_inputs_are_rows_of_tables_and_within_known_ranges() -> None:
    graph = parse_graph("""graph @g stage=float (%i: f32[N,8,8], %a: f32[N,64], %b: f32[N,64]) {
      const %t: f32[3,1] = [0x1p+0, 0x1p+1, 0x1p+2]
      %f: f32[N,64] = reshape(%i, shape=("N", 64))
      %e: f32[N,64,1] = embedding(%f, %t)
      %r: f32[N,64] = reshape(%e, shape=("N", 64))
      %q: f32[N,64] = quantizer(%a, clamp=(-0x1p+0, 0x1.4p+2), step=0x1p-5)
      %s: f32[N,64] = add(%r, %q)
      %y: f32[N,64] = add(%s, %b)
      return %y
    }""")
    index, ranged, free = some_inputs(graph, None, FirstSamples())
    assert set(np.unique(index)) == {0.0, 1.0, 2.0}
    assert -1.0 <= ranged.min() < -0.5 < 4.5 < ranged.max() <= 5.0
    assert 0.5 < free.std() < 1.5
    kept = [np.zeros((5, 64), dtype=np.float32)] * 3
    assert [len(x) for x in some_inputs(graph, None, FirstSamples(inputs=kept))] == [2, 2, 2]
