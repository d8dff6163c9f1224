"""Sums of kernels as latencies of networks, and the costs that an allocator reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcompiler.bits import Bits
from qcompiler.cost.candidates import at_bits, candidates
from qcompiler.cost.latency_costs import latency_costs
from qcompiler.cost.latency_table import WholePass
from qcompiler.cost.predict import Observation, Overhead, fit, fit_table, predict
from qcompiler.cost.trace import kernel_keys
from qcompiler.errors import CompileError, InternalError
from qcompiler.targets.target import load_target

from .networks import TARGET, small_graph, table_of


def test_a_fit_finds_what_it_was_made_with() -> None:
    true = Overhead(1.05, 60.0)
    sizes = [(20e3, 12), (50e3, 13), (150e3, 25), (150e3, 80), (3e6, 53), (10e3, 40)]
    found = fit([Observation(ns, calls, true.ns(ns, calls)) for ns, calls in sizes])
    assert found.factor == pytest.approx(1.05, abs=0.01)
    assert found.per_call_ns == pytest.approx(60.0, abs=10.0)
    assert found.relative_error < 0.005


def test_nothing_is_negative() -> None:
    found = fit([Observation(1000.0, 100, 500.0), Observation(1e6, 1, 1.1e6)])
    assert found.per_call_ns == 0.0
    assert found.factor > 0.0


def test_few_networks_say_little() -> None:
    assert fit([]).ns(100.0, 7) == pytest.approx(100.0)
    one = fit([Observation(100e3, 10, 104e3)])
    assert one.ns(100e3, 10) == pytest.approx(104e3, rel=0.005)
    assert one.ns(100e3, 100) == pytest.approx(104e3, rel=0.05)  # not all of it is put down to the calls


def test_a_prediction() -> None:
    graph = at_bits(small_graph(), Bits(4, 8))
    keys = kernel_keys(graph, TARGET)
    table = table_of(dict.fromkeys(keys, 100.0))
    assert predict(graph, table).ns == 100.0 * len(keys)
    found = predict(graph, table, Overhead(1.1, 5.0, 0.03))
    assert found.ns == pytest.approx(115.0 * len(keys))
    assert found.relative_error == 0.03
    calls = {key: keys.count(key) for key in keys}
    seen = replace(table, passes=(WholePass("w4a8", calls, 120.0 * len(keys)),))
    assert predict(graph, seen).ns == pytest.approx(120.0 * len(keys), rel=0.02)
    assert fit_table(seen).relative_error < 0.02


def test_a_prediction_names_what_is_missing() -> None:
    graph = at_bits(small_graph(), Bits(4, 8))
    keys = kernel_keys(graph, TARGET)
    with pytest.raises(CompileError, match=r"(?s)COST004 .*1 of 9 kernels were not measured:.*weight_bits=4"):
        predict(graph, table_of({key: 1.0 for key in keys if key != keys[1]}))


def test_costs_of_layers() -> None:
    graph, target = small_graph(), load_target(TARGET)
    found = candidates(graph, target)
    ns = {key: 1.0 + index for index, key in enumerate(found.keys)}
    costs = latency_costs(graph, target, table_of(ns))
    assert costs == latency_costs(graph, target, table_of(ns), found)
    assert tuple(costs.layers) == found.layers
    choices = {(a, w) for a in (8, 4) for w in (8, 4, 2)}
    assert all(set(by_bits) == choices for by_bits in costs.layers.values())
    for pair in found.traces:  # one layer at a time, and the rest, make the network
        bits = Bits.parse(pair)
        assert bits.activation
        assert bits.weight
        total = sum(by_bits[bits.activation, bits.weight] for by_bits in costs.layers.values())
        assert total + costs.constant == sum(ns[key] for key in found.traces[pair].keys)


def test_costs_need_a_table_of_the_target() -> None:
    with pytest.raises(CompileError, match="COST003"):
        latency_costs(small_graph(), load_target(TARGET), table_of({}, "arm64-neon"))
    with pytest.raises(CompileError, match="COST004"):
        latency_costs(small_graph(), load_target(TARGET), table_of({}))


def test_bits_that_are_chosen_have_no_costs() -> None:
    graph = at_bits(small_graph(), Bits(8, 8))
    with pytest.raises(InternalError, match="are chosen already"):
        latency_costs(graph, load_target(TARGET), table_of({}))
