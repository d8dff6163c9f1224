"""The search: what is tried, what is chosen, and that a real one measures every tiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from qcompiler.backend.tile_table import TileTable, TunedTiling
from qcompiler.bits import Bits
from qcompiler.cost import tile_search
from qcompiler.cost.candidates import at_bits
from qcompiler.cost.machine import cpu_name
from qcompiler.cost.tile_search import FEWEST_ROUNDS, MEMORIES, choose, measure_tilings, promising, search_tiles
from qcompiler.cost.trace import Trace, trace
from qcompiler.schedules.tiling import parse_tiling, tiling_text
from qcompiler.targets.target import Target, host_refusal, load_target

from .networks import TARGET, small_graph

CHOSEN = load_target(TARGET)
EMPTY = TileTable(CHOSEN)


@pytest.fixture(scope="module")
def traced() -> Trace:
    return trace(at_bits(small_graph(), Bits(8, 8)), TARGET, "small")


def table(key: str, tiling: str) -> TileTable:
    return TileTable(CHOSEN, {key: TunedTiling(tiling, 0.9, "a CPU", "2026-11-27")})


def fake(factors: Mapping[int, float]) -> Any:
    """A measurement in which the tiling of a rank takes a share of the model's 1,000 ns, another one 1,200 ns."""

    def measured(traces: Any, choices: Any, target: Target, progress: Any = None) -> dict[str, Any]:
        rounds = np.ones((FEWEST_ROUNDS, MEMORIES))
        return {
            kernel: np.stack([1000.0 * factors.get(rank, 1.2) * rounds for rank in range(len(tilings))])
            for kernel, tilings in choices.items()
        }

    return measured


def test_convolutions_have_choices_and_the_model_comes_first(traced: Trace) -> None:
    choices = promising([traced], EMPTY, EMPTY)
    kinds = {key.split()[1] for key in choices}
    assert kinds == {"convolution"}
    assert 1 <= len(choices) <= 4  # not the depthwise one
    assert all(tilings[0] == () and len(set(tilings)) == len(tilings) > 1 for tilings in choices.values())


def test_what_is_known_is_not_searched(traced: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = promising([traced], EMPTY, EMPTY)
    first, *others = choices
    assert list(promising([traced], table(first, ""), EMPTY)) == others
    monkeypatch.setattr(tile_search, "measure_tilings", lambda *_: pytest.fail("it was measured"))
    known = TileTable(CHOSEN, {key: TunedTiling("", 1.0, "", "") for key in choices})
    assert search_tiles([traced], known, EMPTY).kernels == {}


def test_what_ships_is_tried_first(traced: Trace) -> None:
    choices = promising([traced], EMPTY, EMPTY)
    key = next(key for key in choices if " kernel=(3,3) " in key and " residual=none " in key)
    rare = "8:1x2x1/8x8x2" if " out_channels=16 " in key else ""
    assert parse_tiling(rare) not in choices[key]
    assert promising([traced], EMPTY, table(key, rare))[key][1] == parse_tiling(rare)


def test_the_fastest_is_chosen(traced: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = promising([traced], EMPTY, EMPTY)
    monkeypatch.setattr(tile_search, "measure_tilings", fake({0: 1.0, 1: 0.9}))
    found = search_tiles([traced], EMPTY, EMPTY)
    assert set(found.kernels) == set(choices)
    for key, tuned in found.kernels.items():
        assert tuned.tiling == tiling_text(choices[key][1])
        assert (tuned.ratio, tuned.cpu) == (0.9, cpu_name())


def test_the_model_stays_where_little_is_gained(traced: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_search, "measure_tilings", fake({0: 1.0, 1: 0.98}))
    found = search_tiles([traced], EMPTY, EMPTY)
    assert {(tuned.tiling, tuned.ratio) for tuned in found.kernels.values()} == {("", 1.0)}


def test_noise_does_not_choose() -> None:
    rounds, memories = np.meshgrid(np.arange(20), np.arange(MEMORIES), indexing="ij")
    model = np.where(rounds % 3 == 0, 1500.0, 1000.0)  # the machine has other work now and then
    assert choose(np.stack([model, 0.95 * model, 0.9 * model])) == (2, 0.9)
    disturbed = np.where(rounds % 2 == 1, 6.0, 0.9) * model
    assert choose(np.stack([model, disturbed])) == (1, 0.9)
    lucky = np.where(memories % 2 == 0, 0.9, 1.01) * model  # in the half that chooses
    assert choose(np.stack([model, lucky])) == (0, 1.0)
    mostly = np.where(memories < 2, 0.8, 0.99) * model  # in each half once
    assert choose(np.stack([model, mostly])) == (1, 0.895)
    assert choose(np.stack([model, 0.975 * model])) == (0, 1.0)


def test_a_real_search(monkeypatch: pytest.MonkeyPatch) -> None:
    native = load_target("native")
    if refusal := host_refusal(native):
        pytest.skip(refusal)
    monkeypatch.setattr(tile_search, "SECONDS", 1e-9)
    graph = at_bits(small_graph(), Bits(8, 8))
    traces = [trace(graph, native.name, f"batch {batch}", batch=batch) for batch in (2, 1)]
    nothing = TileTable(native)
    choices = promising(traces, nothing, nothing)
    assert {key.split()[2] for key in choices} == {"batch=1", "batch=2"}
    few = {key: tilings[:3] for key, tilings in list(choices.items())[:4]}
    done: list[float] = []

    class Bar:
        def advance(self, step: str, amount: float = 1, total: float | None = None) -> None:
            if step == "tune":
                done.append(amount)

    times = measure_tilings(traces, few, native, Bar())
    assert {key: ns.shape for key, ns in times.items()} == {key: (len(t), FEWEST_ROUNDS, MEMORIES) for key, t in few.items()}
    assert all((ns > 0).all() for ns in times.values())
    assert sum(done) == pytest.approx(100)
