"""Blocks cover a graph, soft rounding ends on codes beside the given ones, and a learned graph is nearer to the float one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompiler.calibrate import FirstSamples
from qcompiler.interpret import run_float
from qcompiler.ir.graph import WEIGHTED, Graph
from qcompiler.ir.verify import verify
from qcompiler.ops.table import OPERATORS
from qcompiler.report import sqnr_db
from qcompiler.tuning.blocks import blocks
from qcompiler.tuning.closed_form import round_in_order
from qcompiler.tuning.reconstruct import Reconstruction
from qcompiler.tuning.round_weights import RoundWeights
from qcompiler.tuning.simulation import SimulatedGraph
from qcompiler.tuning.soft_rounding import SoftRounding
from tests.tuning.networks import allocated, samples
from tests.tuning.test_simulation import integer_output


@pytest.mark.parametrize("most", [1, 2, 6])
def test_blocks_are_all_nodes_in_order_and_hand_over_what_is_read(most: int) -> None:
    graph = allocated("w8a8")
    found = blocks(graph, most)
    assert [node for block in found for node in block.nodes] == list(graph.nodes)
    known = {value.name for value in graph.inputs}
    for block in found:
        assert set(block.inputs) <= known
        assert block.layers <= most
        known |= set(block.outputs)
    assert set(graph.outputs) <= known
    assert max(block.layers for block in found) == min(most, max(block.layers for block in blocks(graph)))


def test_a_residual_stays_in_one_block() -> None:
    graph = allocated("w8a8")
    (block,) = (block for block in blocks(graph) if any(node.op == "add" for node in block.nodes))
    assert sum(node.op in WEIGHTED for node in block.nodes) >= 2
    assert len(block.outputs) == 1


def test_soft_rounding_begins_near_the_codes_and_ends_on_them_or_beside() -> None:
    generator = torch.Generator().manual_seed(0)
    exact, scale = torch.randn(8, 20, generator=generator), torch.full((8, 1), 0.4)
    codes = torch.floor(exact / scale + 0.5).clamp(-7, 7)
    soft = SoftRounding(exact, codes, scale, -7, 7)
    assert torch.allclose(soft(), codes * scale, atol=0.4 * 0.021)
    assert torch.equal(soft.decided(), codes)
    optimizer = torch.optim.Adam(soft.parameters(), 0.1)
    target = (codes + soft.side) * scale  # every weight shall go to its neighbour
    for step in range(200):
        optimizer.zero_grad()
        ((soft() - target).square().sum() + 0.01 * soft.undecided(20.0 - 18.0 * step / 200)).backward()
        optimizer.step()
    decided = soft.decided()
    assert torch.equal(decided, codes + soft.side)
    assert int(decided.abs().max()) <= 7
    away = (exact / scale - codes).sign()
    inside = (codes + away).abs() <= 7
    assert torch.equal(soft.side[inside & (away != 0)], away[inside & (away != 0)])


def learned(bits: str, steps: int = 150, closed_form: bool = True) -> tuple[Graph, Graph]:
    """Before and after."""
    simulated = SimulatedGraph(allocated(bits))
    if closed_form:
        round_in_order(simulated, [samples()])
    before = simulated.to_graph()
    Reconstruction(steps=steps)(simulated, [samples()])
    return before, simulated.to_graph()


def quality_db(graph: Graph) -> float:
    x = samples(128, seed=7)
    expected = run_float(allocated("w8a8"), [torch.from_numpy(x)])[0].numpy()
    return sqnr_db(expected, integer_output(graph, x))


@pytest.mark.parametrize("bits", ["w4a8", "w4a4"])
def test_learning_from_nearest_codes_helps_on_samples_that_nothing_has_seen(monkeypatch: pytest.MonkeyPatch, bits: str) -> None:
    monkeypatch.setattr("qcompiler.tuning.reconstruct.RATE", 2.0)  # the default is for what the closed form has left
    before, after = learned(bits, closed_form=False)
    verify(after, OPERATORS)
    assert quality_db(after) > quality_db(before) + 0.5


def test_a_block_that_learns_nothing_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.tuning.reconstruct.RATE", 1e3)  # of no use
    before, after = learned("w4a8", steps=3)
    assert after == before


def test_codes_are_beside_those_of_the_closed_form() -> None:
    before, after = learned("w4a4", steps=30)
    for constant in before.constants:
        other = after.constant[constant.name]
        if constant.scale is not None and other.scale is not None:
            assert np.array_equal(constant.scale, other.scale)
            along = constant.scale.reshape(-1, *[1] * (constant.data.ndim - 1))
            assert np.abs(np.round((other.data - constant.data) / along)).max() <= 1


def test_twice_is_the_same_to_the_bit() -> None:
    assert learned("w4a4", steps=10)[1] == learned("w4a4", steps=10)[1]


def test_the_best_quality_is_a_pass_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.tuning.reconstruct.STEPS", 10)
    kept = FirstSamples(inputs=[samples()])
    good, best = (RoundWeights(quality, kept)(allocated("w4a8")) for quality in ("good", "best"))
    verify(best, OPERATORS)
    assert best != good
    assert RoundWeights("best", kept)(best) == best
