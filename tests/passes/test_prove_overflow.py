"""Every bound of the overflow proof has a graph that breaks it, by one."""

from __future__ import annotations

import pytest

from qcompiler.errors import InternalError
from qcompiler.ir.text import parse_graph
from qcompiler.passes.prove_overflow import ProveOverflow

LAYER = """graph @g stage=integer (%x: u8[N,2] scale=0x1p-7 zero=3) {
  const %w: i8[1,2] = [WEIGHTS]
  const %b: i32[1] = [BIAS]
  const %m: i32[1] = [MULTIPLIER]
  %s: i32[N,1] = linear(%x, %w, %b)
  %y: i16[N,1] scale=0x1p-3 zero=0 = requantize(%s, %m, limits=(-32768, 32767), shift=SHIFT)
  return %y
}
"""
ADD = """graph @g stage=integer (%x: u8[N,2] scale=0x1p-7 zero=0) {
  %y: u8[N,2] scale=0x1p-3 zero=128 = add(%x, %x, limits=(0, 255), multipliers=(M1, M2), shift=29)
  return %y
}
"""
NARROW = """graph @g stage=integer (%x: u8[N,1] scale=0x1p-7 zero=3) {
  const %w: i8[1,1] = [127]
  const %m: i32[1] = [MULTIPLIER]
  const %p: i32[1] = [1]
  const %lo: i32[1] = [-100]
  const %hi: i32[1] = [UPPER]
  %s: i32[N,1] = linear(%x, %w)
  %y: i8[N,1] scale=0x1p-3 zero=0 = requantize_narrow(%s, %m, %p, %lo, %hi, limits=(-128, 127), shift=1)
  return %y
}
"""
SATURATED = """graph @g stage=integer (%x: u8[N,1] scale=0x1p-7 zero=3) {
  const %w: i8[1,1] = [127]
  const %m: i32[1] = [16777216]
  const %p: i32[1] = [1]
  const %lo: i32[1] = [LOWER]
  const %hi: i32[1] = [UPPER]
  %s: i32[N,1] = linear(%x, %w)
  %y: u8[N,1] scale=0x1p-3 zero=9 = requantize_narrow(%s, %m, %p, %lo, %hi, limits=(9, 200), shift=SHIFT)
  return %y
}
"""
POOL = """graph @g stage=integer (%x: u8[N,1,4,4] scale=0x1p-7 zero=0) {
  %y: u8[N,1,1,1] scale=0x1p-3 zero=0 = average_pool2d(%x, counts=(16,), kernel=(4, 4), limits=(0, 255), multipliers=(M,), padding=(0, 0, 0, 0), shift=SHIFT, strides=(1, 1))
  return %y
}
"""


def fill(text: str, **values: object) -> str:
    for name, value in values.items():
        text = text.replace(name.upper(), str(value))
    return text


SOUND = [
    fill(LAYER, weights="127, -127", bias=2**31 - 1 - 2 * 127 * 255, multiplier=2**31 - 1, shift=31),
    fill(LAYER, weights="1, 1", bias=0, multiplier=2**31 - 1, shift=62),
    fill(ADD, m1=2**21, m2=2**21),
    fill(NARROW, multiplier=131_000, upper=32385),
    fill(SATURATED, lower=0, upper=383, shift=24),
    fill(POOL, m=2**31 - 1, shift=31),
    fill(POOL, m=2**31 - 1, shift=62),
]


@pytest.mark.parametrize("text", SOUND)
def test_the_proof_holds_up_to_the_bound(text: str) -> None:
    graph = parse_graph(text)
    assert ProveOverflow()(graph) == graph


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            fill(LAYER, weights="127, -127", bias=2**31 - 2 * 127 * 255, multiplier=1, shift=31),
            "a partial sum can reach 2147483648, the limit is 2147483647",
        ),
        # Signed bytes start 128 * sum(codes) higher.
        (
            fill(LAYER, weights="127, 127", bias=2**31 - 1 - 2 * 127 * 255, multiplier=1, shift=31),
            "a partial sum can reach 2147483901, the limit is 2147483647",
        ),
        (fill(LAYER, weights="1, 1", bias=2**30, multiplier=2**31 - 1, shift=0), "shift 0 is not in 1 .. 62"),
        (fill(LAYER, weights="1, 1", bias=0, multiplier=2**31 - 1, shift=63), "shift 63 is not in 1 .. 62"),
        (fill(LAYER, weights="1, 1", bias=0, multiplier=-1, shift=31), "multipliers -1 to 0 are not in 0 .. 2^31 - 1"),
        (
            fill(LAYER, weights="1, 1", bias=0, multiplier=1, shift=31).replace("32767)", "32768)"),
            "limits (-32768, 32768) are not codes of i16",
        ),
        (fill(ADD, m1=2**22, m2=2**22), "a sum can reach 2407530496, the limit is 2147483647"),
        # Past what saturates, products are not used modulo 2^32.
        (fill(SATURATED, lower=0, upper=384, shift=24), "a narrow product can reach 3229614080, the limit is 2147483647"),
        (fill(SATURATED, lower=-1, upper=383, shift=24), "a narrow product can reach"),
        (fill(SATURATED, lower=0, upper=383, shift=23), "a narrow product can reach"),
        (fill(NARROW, multiplier=140_000, upper=32385), "a narrow product can reach 2266880001, the limit is 2147483647"),
    ],
)
def test_the_proof_fails_past_it(text: str, problem: str) -> None:
    graph = parse_graph(text)
    with pytest.raises(InternalError) as caught:
        ProveOverflow()(graph)
    assert problem in str(caught.value)
