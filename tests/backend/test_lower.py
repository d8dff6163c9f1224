"""Lowering: kernels are shared, dead operands are overwritten, outputs are written in place, bad ranks are refused."""

from __future__ import annotations

import pytest

from qcompiler.backend.kernel import physical_channels
from qcompiler.backend.lower import EMITTERS, lower
from qcompiler.backend.program import Program, Space
from qcompiler.errors import CompileError, InternalError
from qcompiler.ir.graph import WEIGHTED, Graph, Stage
from qcompiler.ir.text import parse_graph
from qcompiler.ops.table import OPERATORS
from qcompiler.targets.target import load_target

HEAD = "graph @g stage=integer (%x: u8[N,16,8,8] scale=0x1p-7 zero=0) {\n"
ADD = "add({}, {}, limits=(0, 255), multipliers=(1048576, 1048576), shift=21)"


def program(body: str, batch_tile: int = 1) -> Program:
    target = load_target("x86-avx2")
    return lower(parse_graph(HEAD + body + "\n}\n"), target.instruction_set, target.tvm_target, batch_tile)


def convolution(name: str, source: str) -> str:
    weights = ", ".join(["1"] * 16)
    return (
        f"  const %{name}.w: i8[16,1,1,1] = [{weights}]\n  const %{name}.m: i32[16] = [{', '.join(['1073741824'] * 16)}]\n"
        f"  %{name}.s: i32[N,16,8,8] = conv2d(%{source}, %{name}.w, dilation=(1, 1), groups=16, padding=(0, 0, 0, 0), strides=(1, 1))  # {name}\n"
        f"  %{name}: u8[N,16,8,8] scale=0x1p-7 zero=0 = requantize(%{name}.s, %{name}.m, limits=(0, 255), shift=31)  # {name}\n"
    )


def test_equal_layers_share_one_kernel_and_equal_constants_one_place() -> None:
    found = program(convolution("a", "x") + convolution("b", "a") + convolution("c", "b") + "  return %c")
    layers = [call for call in found.calls if call.layer in "abc"]
    assert len({call.symbol for call in layers}) == 1
    assert len({call.arguments[1:-1] for call in layers}) == 1
    assert found.weight_code_bytes == 16
    assert found.packed_code_bytes == 3 * 16


def test_an_addition_overwrites_the_operand_that_dies() -> None:
    body = convolution("a", "x") + convolution("b", "a") + f"  %y: u8[N,16,8,8] scale=0x1p-7 zero=0 = {ADD.format('%a', '%b')}\n"
    found = program(body + convolution("z", "y") + "  return %z")
    (addition,) = [call for call in found.calls if call.layer == "y"]
    assert addition.arguments[-1] in addition.arguments[:2]
    assert found.largest_live_bytes == 2 * 1024  # a and b, and nothing for y
    assert found.workspace_bytes <= 1.15 * found.largest_live_bytes


def test_an_operand_that_lives_on_is_not_overwritten() -> None:
    body = convolution("a", "x") + convolution("b", "a") + f"  %y: u8[N,16,8,8] scale=0x1p-7 zero=0 = {ADD.format('%a', '%b')}\n"
    body += f"  %z: u8[N,16,8,8] scale=0x1p-7 zero=0 = {ADD.format('%y', '%a')}\n  %q: u8[N,16,8,8] scale=0x1p-7 zero=0 = {ADD.format('%z', '%b')}\n"
    found = program(body + "  return %q")
    (addition,) = [call for call in found.calls if call.layer == "y"]
    assert addition.arguments[-1] not in addition.arguments[:2]


def test_one_row_outputs_are_written_by_their_kernel() -> None:
    body = "  %p: u8[N,16,1,1] scale=0x1p-7 zero=0 = max_pool2d(%x, ceil_mode=0, dilation=(1, 1), kernel=(8, 8), padding=(0, 0, 0, 0), strides=(1, 1))\n"
    found = program(body + '  %y: u8[N,16] scale=0x1p-7 zero=0 = reshape(%p, shape=("N", 16))\n  return %y')
    assert [call.arguments[-1].space for call in found.calls] == [Space.WORKSPACE, Space.OUTPUT]


def test_the_same_value_twice_among_the_outputs() -> None:
    found = program(convolution("a", "x") + "  return %a, %a")
    assert sum(call.arguments[-1].space is Space.OUTPUT for call in found.calls) == 2


def test_a_batch_tile_has_kernels_of_its_own_and_a_tail() -> None:
    found = program(convolution("a", "x") + "  return %a", batch_tile=4)
    assert found.batch_tile == 4
    assert len(found.calls) == len(found.tail_calls)
    assert {c.symbol for c in found.calls}.isdisjoint({c.symbol for c in found.tail_calls})
    assert found.workspace_bytes == 2 * 4 * 1024


def test_a_tensor_without_a_batch_is_refused_by_name() -> None:
    text = "graph @g stage=integer (%x: u8[4,4] scale=0x1p-7 zero=0) {\n  return %x\n}\n"
    target = load_target("x86-avx2")
    with pytest.raises(CompileError) as caught:
        lower(parse_graph(text), target.instruction_set, target.tvm_target)
    assert str(caught.value) == (
        "LOWER001 at x\n  problem: u8[4,4] has no batch in front\n  remedy:  keep the batch as the first dimension"
    )


def test_only_integer_graphs_are_lowered() -> None:
    graph: Graph = parse_graph("graph @g stage=float (%x: f32[N,4]) {\n  return %x\n}\n")
    with pytest.raises(InternalError, match="not one of stage float"):
        lower(graph, "avx2", {})


def test_physical_channels() -> None:
    assert [physical_channels(c) for c in (1, 3, 4, 5, 16, 17, 24)] == [4, 4, 4, 16, 16, 32, 32]


def test_every_operator_of_the_integer_stage_has_a_kernel() -> None:
    """Those with weights go with their requantization."""
    integer = {name for name, operator in OPERATORS.items() if Stage.INTEGER in operator.stages}
    assert set(EMITTERS) | set(WEIGHTED) == integer
