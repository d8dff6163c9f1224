"""Every error that a user can cause in a pass, in full."""

from __future__ import annotations

import pytest

from qcompiler.bits import Bits
from qcompiler.errors import CompileError
from qcompiler.ir.text import parse_graph
from qcompiler.passes.allocate_bits import AllocateBits
from qcompiler.passes.quantize import Quantize

CALIBRATED = """graph @g stage=calibrated (%x: f32[N,2] range=(-0x1p+0, 0x1p+0) range4=(-0x1p-1, 0x1p-1)) {
  const %w: f32[1,2] = [0x1p+0, 0x1p+1]
  %layer.y: f32[N,1] range=(-0x1p+2, 0x1p+2) range4=(-0x1p+1, 0x1p+1) = linear(%x, %w)  # /layer/fc
  return %layer.y
}
"""
ALLOCATED = """graph @g stage=allocated (%x: f32[N,2] range=(-0x1p+0, 0x1p+0) bits=8) {
  const %c: f32[3,2] = [0x1p+0, 0x1p+0, 0x1p+0, 0x1p+0, 0x1p+0, 0x1p+0]
  %y: f32[N,2] range=(-0x1p+0, 0x1p+0) bits=8 = OP
  return %y
}
"""


def test_a_pattern_that_names_nothing() -> None:
    with pytest.raises(CompileError) as caught:
        AllocateBits({"layer9.*": Bits(4)})(parse_graph(CALIBRATED))
    assert str(caught.value) == (
        "BITS003 at bits\n  problem: the pattern 'layer9.*' names no layer with weights\n  remedy:  the layers are: /layer/fc"
    )


@pytest.mark.parametrize("pattern", ["/layer/*", "layer.*", "*"])
def test_patterns_match_layers_and_values(pattern: str) -> None:
    found = AllocateBits({pattern: Bits.parse("w2a4")})(parse_graph(CALIBRATED))
    assert (found.constants[0].bits, found.inputs[0].bits, found.inputs[0].range) == (2, 4, (-0.5, 0.5))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            3,
            "BITS001 at bits\n  problem: 3 weight bits have no integer kernel; weights have 2, 4, 8 bits\n  remedy:  choose one of 2, 4, 8",
        ),
        (
            "w4a2",
            "BITS001 at bits\n  problem: 2 activation bits have no integer kernel; activations have 4, 8 bits\n  remedy:  choose one of 4, 8",
        ),
        (
            "4",
            'BITS002 at bits\n  problem: \'4\' does not say bits\n  remedy:  write 4 (weights), "w4a8", "a4" or Bits(weight=4, activation=8)',
        ),
        ("", "BITS002 at bits\n  problem: '' does not say bits\n"),
        (True, "BITS002 at bits\n  problem: True does not say bits\n"),
    ],
)
def test_bits_that_do_not_exist(value: int | str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        Bits.parse(value)
    assert str(caught.value).startswith(message)


def test_bits_that_do() -> None:
    assert Bits.parse(4) == Bits(weight=4)
    assert Bits.parse("a4") == Bits(activation=4)
    assert Bits.parse("w4a8") == Bits(4, 8) == Bits.parse(Bits(4, 8))


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("linear(%c, %c)  # plus", "QUANT001 at plus\n  problem: operand 0 of linear must be computed from the input\n"),
        ("linear(%x, %x)  # product", "QUANT001 at product\n  problem: operand 1 of linear must be a constant\n"),
        ("mean(%x, axes=(1,))  # drop", "QUANT002 at drop\n  problem: mean has no integer form\n  remedy:  replace the layer"),
    ],
)
def test_what_has_no_integer_form(operation: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        Quantize()(parse_graph(ALLOCATED.replace("OP", operation)))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "(%x: f32[N,1,200000] range=(-0x1p+0, 0x1p+0) bits=8) {\n"
            "  %y: f32[N,1,1] range=(-0x1p+0, 0x1p+0) bits=8 = matmul(%x, %z)  # product\n",
            "QUANT003 at product\n  problem: a sum of 200000 terms of up to 16384 does not fit 32 bits\n"
            "  remedy:  split it into smaller sums in the model",
        ),
        (
            "(%x: f32[N,1,200000] range=(-0x1p+0, 0x1p+0) bits=8) {\n"
            "  %i: f32[N,1] range=(0x0p+0, 0x1p+2) bits=8 = argmax(%x, axis=2, keepdims=0)\n"
            "  %j: f32[N,1] range=(0x0p+0, 0x1p+2) bits=8 = add(%i, %i)  # sum of indices\n"
            "  %y: f32[N,1,2] range=(-0x1p+0, 0x1p+0) bits=8 = embedding(%j, %table)  # embed\n",
            "QUANT002 at embed\n  problem: the indices are computed in the model; only indices that are inputs of the model "
            "are supported\n  remedy:  compute them outside of the model",
        ),
    ],
    ids=["sums", "indices"],
)
def test_what_integers_cannot_hold(text: str, message: str) -> None:
    header = "graph @g stage=allocated " + text.replace(") {\n", ", %z: f32[N,200000,1] range=(-0x1p+0, 0x1p+0) bits=8) {\n", 1)
    header = header.replace("{\n", "{\n  const %table: f32[2,2] = [0x1p+0, 0x1p+0, 0x1p+0, 0x1p+0]\n", 1)
    with pytest.raises(CompileError) as caught:
        Quantize()(parse_graph(header + "  return %y\n}\n"))
    assert str(caught.value) == message
