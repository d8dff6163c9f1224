"""Measuring on this machine: every kernel has a latency, and what is known is not measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qcompiler.bits import Bits
from qcompiler.cost.candidates import at_bits, candidates
from qcompiler.cost.harness import build_harness
from qcompiler.cost.latency_costs import latency_costs
from qcompiler.cost.latency_table import LatencyTable
from qcompiler.cost.machine import cpu_name, parse_cpu_name
from qcompiler.cost.measure import measure
from qcompiler.cost.predict import predict
from qcompiler.cost.table_cache import cache_folder, measured_table
from qcompiler.cost.trace import trace
from qcompiler.errors import CompileError
from qcompiler.targets.target import Target, host_architecture, host_refusal, load_target
from tests.wall.many import random_integer_graph

from .networks import small_graph

SECONDS = 0.05


@pytest.fixture(scope="module")
def native() -> Target:
    """A target that this machine runs."""
    target = load_target("native")
    if refusal := host_refusal(target):
        pytest.skip(refusal)
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def table(native: Target, folder: Path) -> LatencyTable:
    return measured_table(candidates(small_graph(), native), folder, SECONDS)


def no_measurement(*arguments: Any) -> LatencyTable:
    raise AssertionError("it was measured again")


def test_all_six_pairs_have_latencies(native: Target, table: LatencyTable) -> None:
    costs = latency_costs(small_graph(), native, table)
    assert len(costs.layers) == 5
    for by_bits in costs.layers.values():
        assert set(by_bits) == {(a, w) for a in (8, 4) for w in (8, 4, 2)}
        assert all(ns > 0 for ns in by_bits.values())
    assert costs.constant > 0
    assert (table.target, table.cpu) == (native.name, cpu_name())
    assert all(found.samples >= 60 for found in table.kernels.values())
    assert [whole.name for whole in table.passes] == ["w8a8", "w4a8", "w2a8"]


def test_the_sum_is_a_whole_pass(native: Target, table: LatencyTable) -> None:
    found = candidates(small_graph(), native)
    for whole in table.passes:
        assert table.ns(found.traces[whole.name].keys) == pytest.approx(whole.ns, rel=0.5)  # small, on a busy machine
    assert predict(at_bits(small_graph(), Bits(4, 8)), table).ns > 0


def test_what_is_known_is_not_measured(
    native: Target, table: LatencyTable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qcompiler.cost.table_cache.measure", no_measurement)
    monkeypatch.setenv("QC_CACHE", str(folder))
    assert measured_table(candidates(small_graph(), native)) == table


def test_only_what_is_missing_is_measured(
    native: Target, table: LatencyTable, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = (path.name for path in folder.iterdir())
    found = candidates(small_graph(), native)
    lost = found.layer_keys["w2a8"][0]
    kernels = {key: latency for key, latency in table.kernels.items() if key != lost}
    LatencyTable(table.target, table.cpu, table.versions, kernels, table.passes).write(tmp_path / name)
    measured: list[str] = []

    def spy(traces: Any, *arguments: Any) -> LatencyTable:
        measured.extend(trace.name for trace in traces)
        return measure(traces, *arguments)

    monkeypatch.setattr("qcompiler.cost.table_cache.measure", spy)
    again = measured_table(found, tmp_path, SECONDS)
    assert measured == ["w2a8"]
    assert lost in again.kernels
    key = found.layer_keys["w8a8"][0]
    assert again.kernels[key] == table.kernels[key]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format": 1, "kernels": 3}'])
def test_a_damaged_cache_counts_for_nothing(
    content: bytes, native: Target, table: LatencyTable, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = (path.name for path in folder.iterdir())
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr("qcompiler.cost.table_cache.measure", lambda *arguments: table)
    assert measured_table(candidates(small_graph(), native), tmp_path) == table
    assert LatencyTable.read(tmp_path / name) == table


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QC_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "qcompiler"


def test_every_operator_can_be_measured(native: Target) -> None:
    traces = [trace(random_integer_graph(seed), native.name, f"g{seed}") for seed in range(30)]
    kinds = {type(call.spec).__name__ for found in traces for call in found.calls}
    assert len(kinds) >= 14
    found = measure(traces, native, 0.0)
    assert set(found.kernels) == {key for trace_ in traces for key in trace_.keys}


def test_every_call_has_constants_of_its_own(native: Target) -> None:
    graph = at_bits(small_graph(), Bits(8, 8))
    once = trace(graph, native.name, "once")
    one, two = (build_harness([once] * count, native).arena_bytes for count in (1, 2))
    weights = 3 * 16 * 9 + 2 * 16 * 16 * 9 + 16 * 9 + 16 * 5
    assert two - one > weights
    assert once.touched_bytes == once.workspace + 3 * 64 + 2 * 5 + weights


def test_cost005_another_machine() -> None:
    foreign = "arm64-neon" if host_architecture() == "x86_64" else "x86-baseline"
    with pytest.raises(CompileError) as caught:
        measure([], load_target(foreign))
    assert str(caught.value) == (
        f"COST005 at target '{foreign}'\n"
        f"  problem: {host_refusal(load_target(foreign))}\n"
        "  remedy:  measure for 'native', or write a program for the device with `qcompiler profile --emit`"
    )


def test_names_of_cpus() -> None:
    x86 = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Intel(R) Xeon(R)\nstepping\t: 2\n"
    assert parse_cpu_name(x86 + x86) == "Intel(R) Xeon(R) 6 207 2"
    arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n"
    assert parse_cpu_name(arm) == "0x41 8 0x3 0xd0c"
