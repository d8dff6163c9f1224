"""The kernels that a choice of bits can lead to, found without scheduling one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from qcompiler.backend.lower import lower, plan_steps
from qcompiler.bits import Bits
from qcompiler.cost.candidates import at_bits, candidates
from qcompiler.cost.trace import kernel_keys
from qcompiler.errors import InternalError
from qcompiler.ir.graph import WEIGHTED, Graph, Stage
from qcompiler.passes.allocate_bits import AllocateBits
from qcompiler.passes.narrow_requantization import NarrowRequantization
from qcompiler.passes.quantize import Quantize
from qcompiler.targets.target import load_target

from .networks import TARGET, small_graph

PAIRS = ("w8a8", "w4a8", "w2a8", "w8a4", "w4a4", "w2a4")


def mixtures(graph: Graph, count: int) -> list[Graph]:
    """Integer graphs with random bits for every layer."""
    draw = random.Random(0)
    found = []
    for _ in range(count):
        layers = [node.output.name for node in graph.nodes if node.op in WEIGHTED]
        pins = {name: Bits(draw.choice((8, 4, 2)), draw.choice((8, 4))) for name in layers}
        found.append(NarrowRequantization()(Quantize()(AllocateBits(pins)(graph))))
    return found


def test_every_layer_at_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise AssertionError("a kernel was scheduled")

    monkeypatch.setattr("qcompiler.schedules.table.build_kernel", fail)
    graph = small_graph()
    found = candidates(graph, load_target(TARGET))
    assert tuple(found.traces) == tuple(found.layer_keys) == PAIRS
    assert [weights for _, weights in found.layers] == [n.inputs[1] for n in graph.nodes if n.op in WEIGHTED]
    assert found.layers[0][0] == graph.inputs[0].name
    for pair, keys in found.layer_keys.items():
        assert all(f" weight_bits={pair[1]} " in key for key in keys)
    assert found.layer_keys["w4a8"] == found.layer_keys["w4a4"]  # codes are bytes: it is the same kernel
    assert [trace.name for trace in found.distinct] == ["w8a8", "w4a8", "w2a8"]
    assert len(found.keys) == 3 * 5 + 4  # the rest has no weights


def test_mixtures_have_no_other_kernels() -> None:
    known = set(candidates(small_graph(), load_target(TARGET)).keys)
    for graph in mixtures(small_graph(), 10):
        assert known.issuperset(kernel_keys(graph, TARGET))


def test_an_allocated_graph_has_the_same_candidates() -> None:
    target = load_target(TARGET)
    allocated = AllocateBits({"*": Bits(4, 4)})(small_graph())
    assert candidates(allocated, target).traces == candidates(small_graph(), target).traces


def test_an_integer_graph_has_its_own_kernels() -> None:
    graph = at_bits(small_graph(), Bits(2, 8))
    found = candidates(graph, load_target(TARGET))
    assert found.keys == kernel_keys(graph, TARGET)
    assert found.layers == ()


def test_a_float_graph_has_none() -> None:
    graph = Graph("g", Stage.FLOAT, (), (), (), ())
    with pytest.raises(InternalError, match="known when it is calibrated"):
        candidates(graph, load_target(TARGET))


@pytest.mark.parametrize("batch", [1, 3])
def test_planned_steps_are_the_calls_of_the_program(batch: int) -> None:
    graph, target = at_bits(small_graph(), Bits(4, 8)), load_target(TARGET)
    program = lower(graph, target.instruction_set, target.tvm_target, batch)
    plan = plan_steps(graph, batch)
    assert [step.layer for step in plan.steps] == [call.layer for call in program.calls]
    assert [plan.addresses[step.writes] for step in plan.steps] == [call.arguments[-1] for call in program.calls]
