"""From a torch module to a library, on real data: the codes are the reference's, the classes are the model's."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import qcompiler as qc
from qcompiler.dump import read_dump
from qcompiler.interpret import quantize_input, run_integer
from qcompiler.ir.graph import Array, Graph, Stage
from qcompiler.targets.target import available_targets, host_runs, load_target

from .conftest import Digits

HOST_TARGETS = [name for name in available_targets() if host_runs(load_target(name))]


def reference(dumps: Path) -> Graph:
    """The integer graph of a compilation, read back from its last dump."""
    graph = read_dump(max(dumps.glob("*.qir")))
    assert graph.stage is Stage.INTEGER
    return graph


def codes_of(graph: Graph, x: Array) -> tuple[Array, Array]:
    """Input codes and the reference's output codes."""
    codes = quantize_input(graph.inputs[0], x)
    return codes, run_integer(graph, [codes])[0]


@pytest.mark.parametrize("target", HOST_TARGETS)
@pytest.mark.parametrize("bits", ["w8a8", "w4a8", *(pytest.param(b, marks=pytest.mark.exhaustive) for b in ("w2a8", "w4a4"))])
def test_codes_equal_the_reference(digits: Digits, tmp_path: Path, target: str, bits: str) -> None:
    dumps = tmp_path / "dumps"
    library = qc.compile(digits.model, calibration=digits.x_train[:128], target=target, bits=bits, dump_ir=dumps)
    graph = reference(dumps)
    codes, expected = codes_of(graph, digits.x_test)
    for threads in (1, 4):
        assert np.array_equal(library.run_int(codes, threads=threads), expected)
    highest = np.iinfo(codes.dtype).max if graph.inputs[0].type.dtype.bits == 8 else 15
    for extreme in (np.zeros_like(codes[:2]), np.full_like(codes[:2], highest)):
        assert np.array_equal(library.run_int(extreme), run_integer(graph, [extreme])[0])


def test_eight_bits_keep_the_accuracy(digits: Digits) -> None:
    library = qc.compile(digits.model, calibration=digits.x_train[:256])
    expected = digits.logits(digits.x_test)
    found = library(digits.x_test)
    assert (expected.argmax(1) == digits.y_test).mean() > 0.95
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.99
    noise = ((found - expected) ** 2).sum() / (expected**2).sum()
    assert noise < 10 ** (-25 / 10)  # SQNR above 25 dB


@pytest.mark.parametrize(
    "options", [{"batch_tile": 4}, {"input_layout": "NHWC"}, {"output_bits": 8}, {"output_bits": 32}, {"observer": "minmax"}]
)
def test_options_keep_the_codes(digits: Digits, tmp_path: Path, options: dict[str, object]) -> None:
    dumps = tmp_path / "dumps"
    library = qc.compile(digits.model, calibration=digits.x_train[:64], dump_ir=dumps, **options)
    codes, expected = codes_of(reference(dumps), digits.x_test[:11])
    given = codes.transpose(0, 2, 3, 1) if options.get("input_layout") == "NHWC" else codes
    assert np.array_equal(library.run_int(given), expected)
    assert np.array_equal(library.run_int(given, threads=3), expected)
    assert library.run_int(given[:0]).shape == (0, 10)


def test_pins_reach_their_layers_and_are_stored_packed(digits: Digits, tmp_path: Path) -> None:
    wide = qc.build(digits.model, calibration=digits.x_train[:64], out=tmp_path / "wide")
    narrow = qc.build(
        digits.model, calibration=digits.x_train[:64], out=tmp_path / "narrow", bits={"asymmetric": "w4a4", "expand": 2}
    )
    rows = {row.layer: row for row in qc.Library(tmp_path / "narrow").report().layers}
    assert (rows["asymmetric"].weight_bits, rows["asymmetric"].input_bits, rows["asymmetric"].weight_bytes) == (
        4,
        4,
        40 * 24 * 9 // 2,
    )
    assert (rows["expand"].weight_bits, rows["expand"].output_bits) == (2, 4)
    saved = 40 * 24 * 9 // 2 + 12 * 40 * 3 // 4
    difference = wide.description["sizes"]["weight_code_bytes"] - narrow.description["sizes"]["weight_code_bytes"]
    assert saved <= difference <= 2 * saved  # packed channels are stored in whole vectors
    assert narrow.description["sizes"]["library_bytes"] < wide.description["sizes"]["library_bytes"]


def test_every_dump_parses_back_and_builds_the_same_bytes(digits: Digits, tmp_path: Path) -> None:
    first = qc.build(digits.model, calibration=digits.x_train[:64], out=tmp_path / "a", dump_ir=tmp_path / "dumps", name="net")
    dumps = sorted((tmp_path / "dumps").glob("*.qir"))
    stages = [read_dump(path).stage for path in dumps]
    assert stages[0] is Stage.FLOAT
    assert stages[-1] is Stage.INTEGER
    assert {(tmp_path / "dumps" / name).stat().st_size > 1000 for name in ("net.tir", "net.s")} == {True}
    qc.build(dumps[-1], out=tmp_path / "deeper" / "b", name="net")
    for file in first.description and ("net.o", "libnet.a", "libnet.so", "net.h", "net.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "deeper" / "b" / file).read_bytes(), file
    late = qc.build(dumps[stages.index(Stage.CALIBRATED)], out=tmp_path / "c", name="net")  # the remaining passes run
    assert late.description == first.description


def test_torch_in_torch_out_and_many_threads(digits: Digits) -> None:
    library = qc.compile(digits.model, calibration=digits.x_train[:64])
    expected = library(digits.x_test)
    tensor = library(torch.from_numpy(digits.x_test))
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.numpy(), expected)
    failures: list[int] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(expected))
        for _ in range(5):
            if not np.array_equal(library(digits.x_test[order], threads=1 + seed % 2), expected[order]):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_report_has_every_layer(digits: Digits) -> None:
    library = qc.compile(digits.model, calibration=digits.x_train[:64])
    report = library.report()
    named = [row.layer for row in report.layers if row.weight_bits]
    assert named == ["stem.0", "left.0", "depthwise.0", "expand", "asymmetric", "head"] or "left.0" not in named
    assert all(row.sqnr_db is not None and row.sqnr_db > 15 for row in report.layers)
    assert report.facts["workspace bytes"] <= 1.15 * report.facts["largest live bytes"]
    text = str(report)
    assert "expand" in text
    assert "SQNR" in text
