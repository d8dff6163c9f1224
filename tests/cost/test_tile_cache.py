"""Which tilings a build uses: off, cached, full; and what is in the cache's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcompiler as qc
from qcompiler.backend.library import load
from qcompiler.backend.tile_table import TileTable, TunedTiling, shipped_tiles
from qcompiler.bits import Bits
from qcompiler.cost import tile_cache
from qcompiler.cost.candidates import at_bits, candidates
from qcompiler.cost.latency_costs import latency_costs
from qcompiler.cost.tile_cache import read_tiles, tiles_for, write_tiles
from qcompiler.cost.tile_search import promising
from qcompiler.cost.trace import kernel_keys, trace
from qcompiler.errors import CompileError
from qcompiler.interpret import run_integer
from qcompiler.schedules.tiling import tiling_text
from qcompiler.targets.target import host_runs, load_target

from .networks import TARGET, small_graph, table_of

CHOSEN = load_target(TARGET)
GRAPH = at_bits(small_graph(), Bits(8, 8))
TRACES = [trace(GRAPH, TARGET, "small")]


def everything_else() -> TileTable:
    """Another tiling than the model's for every kernel that has several."""
    choices = promising(TRACES, TileTable(CHOSEN), shipped_tiles(CHOSEN))
    return TileTable(CHOSEN, {key: TunedTiling(tiling_text(t[-1]), 0.5, "a CPU", "2026-11-27") for key, t in choices.items()})


def no_search(*_: Any, **__: Any) -> TileTable:
    raise AssertionError("it was measured")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the cache, which there is not yet; nothing may be measured."""
    monkeypatch.setenv("QC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tile_cache, "search_tiles", no_search)
    return tmp_path / "cache" / tile_cache._file_name(CHOSEN)


def test_off_ignores_the_cache(cache: Path) -> None:
    write_tiles(cache, everything_else())
    assert tiles_for(TRACES, CHOSEN, "off") == shipped_tiles(CHOSEN)


def test_cached_reads_and_measures_nothing(cache: Path) -> None:
    assert tiles_for(TRACES, CHOSEN, "cached") == shipped_tiles(CHOSEN)
    assert not cache.exists()
    write_tiles(cache, everything_else())
    assert tiles_for(TRACES, CHOSEN, "cached") == shipped_tiles(CHOSEN).updated(everything_else())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format": 1, "target": "x86-avx2", "kernels": {"k": 1}}'])
def test_a_damaged_file_counts_for_nothing(cache: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir()
    cache.write_bytes(content)
    assert tiles_for(TRACES, CHOSEN, "cached") == shipped_tiles(CHOSEN)
    monkeypatch.setattr(tile_cache, "search_tiles", lambda *_: everything_else())
    tiles_for(TRACES, CHOSEN, "full")
    assert read_tiles(cache, CHOSEN) == everything_else()


def test_full_keeps_what_it_finds_and_what_is_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = everything_else()
    first, *others = found.kernels
    write_tiles(cache, TileTable(CHOSEN, {first: found.kernels[first]}))
    asked: list[TileTable] = []

    def search(traces: Any, known: TileTable, *_: Any) -> TileTable:
        asked.append(known)
        return TileTable(CHOSEN, {key: found.kernels[key] for key in others})

    monkeypatch.setattr(tile_cache, "search_tiles", search)
    assert tiles_for(TRACES, CHOSEN, "full") == shipped_tiles(CHOSEN).updated(found)
    assert [list(known.kernels) for known in asked] == [[first]]
    assert read_tiles(cache, CHOSEN) == found
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_tile002_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CompileError) as caught:
        write_tiles(tmp_path / "file" / "tiles.json", everything_else())
    assert str(caught.value) == (
        f"TILE002 at {tmp_path}/file/tiles.json\n"
        "  problem: the table of tilings cannot be written: File exists\n"
        "  remedy:  name a folder that can be written with QC_CACHE"
    )


def test_what_is_measured_is_what_ships() -> None:
    tiles = everything_else()
    plain = candidates(small_graph(), CHOSEN)
    found = plain.tiled(tiles)
    tuned = [key for key in found.traces["w8a8"].keys if " tiling=" in key]
    assert len(tuned) >= len(tiles.kernels) > 0
    assert found.traces["w8a8"].keys == kernel_keys(GRAPH, TARGET, tiles=tiles)
    assert plain.traces["w8a8"].keys == kernel_keys(GRAPH, TARGET)
    costs = latency_costs(small_graph(), CHOSEN, table_of(dict.fromkeys(found.keys, 10.0)), found)
    assert all(by_bits[8, 8] == 10.0 for by_bits in costs.layers.values())
    with pytest.raises(CompileError, match="COST004"):  # a table of the model's kernels says nothing about these
        latency_costs(small_graph(), CHOSEN, table_of(dict.fromkeys(plain.keys, 10.0)), found)


def test_a_build_with_other_tilings_is_the_same_network(cache: Path, tmp_path: Path) -> None:
    options = {"target": TARGET, "name": "small", "progress": False}
    before = qc.build(GRAPH, out=tmp_path / "before", **options)
    write_tiles(cache, everything_else())
    off = qc.build(GRAPH, out=tmp_path / "off", **options)
    tuned = qc.build(GRAPH, out=tmp_path / "tuned", tune="cached", **options)
    for file in ("net.o", "libnet.a", "libnet.so", "net.h", "net.json"):
        assert (before.folder / file).read_bytes() == (off.folder / file).read_bytes()
    assert (tuned.folder / "net.o").read_bytes() != (off.folder / "net.o").read_bytes()
    tilings = json.loads((tuned.folder / "net.json").read_text())["tilings"]
    assert set(tilings.values()) == {found.tiling for found in everything_else().kernels.values()}
    assert "tuned kernels: " + str(len(tilings)) in str(tuned.report())
    if not host_runs(CHOSEN):
        pytest.skip(f"this CPU does not run {TARGET}")
    codes = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    expected = run_integer(GRAPH, [codes])[0]
    for artifact in (off, tuned):
        assert np.array_equal(load(artifact.folder).run_int(codes), expected)


def test_full_tunes_the_batch_tile_too(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def search(traces: Any, *_: Any) -> TileTable:
        seen.extend(call.kernel for trace in traces for call in trace.calls)
        return TileTable(CHOSEN)

    monkeypatch.setattr(tile_cache, "search_tiles", search)
    qc.build(GRAPH, out=tmp_path / "out", target=TARGET, tune="full", batch_tile=4, progress=False)
    assert {key.split()[2] for key in seen if key.split()[1] == "convolution"} == {"batch=1", "batch=4"}


def test_a_wrong_wish() -> None:
    with pytest.raises(CompileError) as caught:
        qc.build(GRAPH, out="nowhere", tune="yes")
    assert str(caught.value) == ("OPTION001 at tune\n  problem: tune is 'yes'\n  remedy:  choose one of 'off', 'cached', 'full'")
