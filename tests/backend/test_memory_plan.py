"""The memory plan: buffers alive together never overlap, and the plan stays near the bound."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from qcompiler.backend.memory_plan import ALIGNMENT, Lifetime, largest_live, plan_memory

lifetimes = st.builds(
    lambda size, first, length: Lifetime(size, first, first + length), st.integers(1, 5000), st.integers(0, 20), st.integers(0, 6)
)


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), lifetimes, max_size=25))
def test_no_two_live_buffers_overlap(buffers: dict[str, Lifetime]) -> None:
    plan = plan_memory(buffers)
    assert plan == plan_memory(dict(reversed(buffers.items())))
    assert plan.largest_live == largest_live(buffers) <= plan.size
    for (a, x), (b, y) in itertools.combinations(buffers.items(), 2):
        if x.overlaps(y):
            first, second = plan.offsets[a], plan.offsets[b]
            assert first + x.size <= second or second + y.size <= first
    assert all(offset % ALIGNMENT == 0 and offset + buffers[n].size <= plan.size for n, offset in plan.offsets.items())


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    sizes = [640, 64, 1280, 640, 128]
    chain = {f"b{i}": Lifetime(size, i, i + 1) for i, size in enumerate(sizes)}
    plan = plan_memory(chain)
    assert plan.size == plan.largest_live == 1920


def test_nothing_to_plan() -> None:
    plan = plan_memory({})
    assert (plan.size, plan.largest_live) == (0, 0)
