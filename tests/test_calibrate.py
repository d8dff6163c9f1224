"""Calibration: what it accepts, every error in full, bounded memory, and ranges that do not depend on batches."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qcompiler.calibrate import FirstSamples, calibrate
from qcompiler.errors import CompileError
from qcompiler.ir.graph import Graph
from qcompiler.ir.text import parse_graph
from qcompiler.observers.extremes import MinMaxObserver
from qcompiler.observers.mse import MseObserver
from qcompiler.samples.restartable import Restartable
from qcompiler.samples.source import open_samples

ONE = """graph @g stage=float (%x: f32[N,2]) {
  const %w: f32[1,2] = [0x1p+0, -0x1p+0]
  %y: f32[N,1] = linear(%x, %w)  # fc
  return %y
}
"""
TWO = """graph @g stage=float (%a: f32[N,2], %b: f32[N,2]) {
  %y: f32[N,2] = add(%a, %b)  # add
  return %y
}
"""


def graph(text: str = ONE) -> Graph:
    return parse_graph(text)


DATA = np.array([[0.0, 1.0], [2.0, -3.0], [0.5, 0.25]], dtype=np.float32)


def ranges(found: Graph) -> dict[str, Any]:
    return {name: value.range for name, value in found.values.items()}


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        torch.from_numpy(DATA),
        DATA.astype(np.float64),
        torch.from_numpy(DATA).bfloat16(),
        [DATA[:1], DATA[1:]],
        [(DATA[:2], np.zeros(2)), (DATA[2:], np.zeros(1))],
        list(DATA),
        {"x": DATA},
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(DATA), torch.zeros(3)), batch_size=2),
        (row for row in DATA),
    ],
    ids=["array", "tensor", "double", "bfloat16", "batches", "loader with labels", "samples", "dict", "DataLoader", "generator"],
)
def test_every_kind_of_data_gives_the_same_ranges(data: Any) -> None:
    found = calibrate(graph(), data, "minmax")
    assert ranges(found) == {"x": (-3.0, 2.0), "y": (-1.0, 5.0)}


def test_a_tuple_of_batches() -> None:
    """Two arrays may be inputs and labels; three and more that are all inputs are batches, or samples without one."""
    assert ranges(calibrate(graph(), (DATA[:1], DATA), "minmax"))["x"] == ranges(calibrate(graph(), DATA[:1], "minmax"))["x"]
    for data in ((DATA[:1], DATA[1:], DATA[:2]), tuple(DATA), [(row, 7) for row in DATA], ((row, 7) for row in DATA)):
        assert ranges(calibrate(graph(), data, "minmax"))["x"] == (-3.0, 2.0)


def test_several_inputs() -> None:
    for data in ((DATA, DATA), {"a": DATA, "b": DATA}, [(DATA, DATA)], [{"b": DATA, "a": DATA}]):
        assert ranges(calibrate(graph(TWO), data, "minmax"))["y"] == (-6.0, 4.0)


def endless() -> Iterator[np.ndarray]:
    while True:
        yield np.array([[np.inf, 0.0]])


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        (
            ONE,
            None,
            "CALIB001 at calibration\n  problem: no calibration data was given, and samples cannot be made up either: the imported graph has no batch norms whose running statistics say what every input is (exporters often fold them into convolutions)\n",
        ),
        (
            ONE,
            np.zeros((0, 2)),
            "CALIB002 at calibration\n  problem: the calibration data has no samples\n  remedy:  pass at least one sample; 64 to 512 are enough",
        ),
        (ONE, [], "CALIB002 at calibration\n  problem: the calibration data has no samples\n"),
        (
            ONE,
            [DATA, np.array([[1.0, np.nan]])],
            "CALIB003 at calibration\n  problem: sample 3 of input x has NaN or infinite values\n  remedy:  remove or repair this sample",
        ),
        (ONE, endless(), "CALIB003 at calibration\n  problem: sample 0 of input x has NaN or infinite values\n"),
        (
            ONE,
            np.zeros((4, 3)),
            "CALIB004 at calibration\n  problem: input x has shape [4, 3], the model takes [N, 2]\n  remedy:  pass samples in the model's own layout, with the batch in front",
        ),
        (
            ONE,
            {"z": DATA},
            "CALIB004 at calibration\n  problem: a batch has the inputs ['z']\n  remedy:  name every input of the model: ['x']",
        ),
        (TWO, [DATA], "CALIB004 at calibration\n  problem: a batch is one tensor, the model has 2 inputs\n"),
        (TWO, [(DATA,)], "CALIB004 at calibration\n  problem: a batch has 1 tensors, the model has 2 inputs\n"),
        (TWO, [(DATA, DATA[:1])], "CALIB004 at calibration\n  problem: the inputs of a batch have [3, 1] samples\n"),
        (ONE, "data.npy", "CALIB005 at calibration\n  problem: the data is a str\n"),
        (ONE, 7, "CALIB005 at calibration\n  problem: the data is a int\n"),
        (ONE, np.array([["a", "b"]]), "CALIB005 at calibration\n  problem: input x has elements of type <U1\n"),
        (ONE, ["a", "b"], "CALIB005 at calibration\n  problem: input x has elements of type <U1\n"),
        (ONE, [None], "CALIB005 at calibration\n  problem: input x has elements of type object\n"),
        (ONE, np.array([DATA, None], dtype=object), "CALIB005 at calibration\n  problem: input x has elements of type object\n"),
        (ONE, [({}, 3)], "CALIB005 at calibration\n  problem: input x has elements of type object\n"),
        (ONE, [([[1.0, 2.0], [3.0]],)], "CALIB005 at calibration\n  problem: input x is no array: "),
        (
            ONE,
            np.zeros(3),
            "CALIB004 at calibration\n  problem: input x has shape [3], the model takes [N, 2]: axis 0, the batch, is missing, and the others differ\n"
            "  remedy:  pass samples in the model's own layout, with the batch in front, x[None] for one sample",
        ),
        (
            ONE.replace("0x1p+0, -0x1p+0", "0x1p+127, -0x1p+127"),
            DATA * 4,
            "CALIB006 at fc\n  problem: the float model itself gives NaN or infinite values here for calibration data\n",
        ),
    ],
)
def test_bad_data_is_a_clear_error(text: str, data: Any, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        calibrate(graph(text), data)
    assert str(caught.value).startswith(message)


def test_an_unknown_observer_is_named() -> None:
    with pytest.raises(CompileError, match="there is no observer 'kl'"):
        calibrate(graph(), DATA, "kl")


def test_first_samples_are_kept_once() -> None:
    for count in (2, 9):
        samples = FirstSamples(count=count)
        calibrate(graph(), (row for row in DATA), samples=samples)
        assert np.array_equal(samples.inputs[0], DATA[:count])
        data = Restartable.of(row for row in DATA)
        looked = FirstSamples(count=count)
        looked.fill(graph(), data)
        found = calibrate(graph(), data, "minmax", looked)
        assert np.array_equal(looked.inputs[0], DATA[:count])
        assert ranges(found) == {"x": (-3.0, 2.0), "y": (-1.0, 5.0)}


def test_a_loader_is_not_taken_for_a_generator() -> None:
    data = [DATA]
    assert Restartable.of(data) is data


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("names", [("x",), ("anything",), ("x", "labels")])
def test_npz_files(tmp_path: Path, compressed: bool, names: tuple[str, ...]) -> None:
    arrays = dict(zip(names, (DATA, np.arange(3)), strict=False))
    (np.savez_compressed if compressed else np.savez)(tmp_path / "data.npz", **arrays)
    found = calibrate(graph(), open_samples(tmp_path / "data.npz"), "minmax")
    assert ranges(found) == {"x": (-3.0, 2.0), "y": (-1.0, 5.0)}


def test_npz_of_several_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", b=DATA, a=np.asfortranarray(DATA))
    assert ranges(calibrate(graph(TWO), open_samples(tmp_path / "data.npz"), "minmax"))["y"] == (-6.0, 4.0)
    assert ranges(calibrate(graph(TWO), list(open_samples(str(tmp_path / "data.npz"))), "minmax"))["y"] == (-6.0, 4.0)


def test_npy_files_are_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", DATA)
    data = open_samples(tmp_path / "data.npy")
    assert isinstance(data, np.memmap)
    assert ranges(calibrate(graph(), data, "minmax")) == {"x": (-3.0, 2.0), "y": (-1.0, 5.0)}


def test_ranges_do_not_depend_on_batches_or_their_order() -> None:
    data = np.random.default_rng(0).standard_t(3, (4096, 8)).astype(np.float32)
    whole, parts = MseObserver(), MseObserver()
    whole.see(torch.from_numpy(data))
    for part in np.array_split(data[::-1].copy(), 13):
        parts.see(torch.from_numpy(part))
    assert whole.range(8) == parts.range(8)
    assert whole.range(4) == parts.range(4)


@pytest.mark.parametrize("bits", [8, 4])
def test_mse_range_is_the_best_of_all_clippings(bits: int) -> None:
    """Against the true error of quantizing the very data, over a grid of clipping points."""
    data = np.random.default_rng(1).laplace(size=(1, 30000)).astype(np.float32)
    observer = MseObserver()
    observer.see(torch.from_numpy(data))

    def error(low: float, high: float) -> float:
        step = (high - low) / (2**bits - 1)
        codes = np.clip(np.floor((data - low) / step + 0.5), 0, 2**bits - 1)
        return float(((codes * step + low - data) ** 2).mean())

    best = min(error(data.min() * a, data.max() * b) for a in np.linspace(0.1, 1, 37) for b in np.linspace(0.1, 1, 37))
    assert error(*observer.range(bits)) <= 1.05 * best
    assert error(*observer.range(bits)) <= error(float(data.min()), float(data.max()))


def test_one_sided_and_constant_tensors() -> None:
    for observer in (MinMaxObserver(), MseObserver()):
        assert observer.see(torch.zeros(3, 4))
        assert observer.range(8) == (0.0, 0.0)
        assert observer.see(torch.full((2, 4), 3.0))
        low, high = observer.range(8)
        assert low == 0.0
        assert 2.0 < high <= 3.0
        assert not observer.see(torch.tensor([[float("nan")]]))


WIDE = """graph @g stage=float (%x: f32[N,64]) {
  %y: f32[N,64] = add(%x, %x)  # add
  return %y
}
"""


@pytest.mark.parametrize("observer", ["minmax", "moving-average", "percentile", "mse", "entropy"])
@pytest.mark.parametrize("kind", ["generator", "array", "npy", "npz"])
def test_memory_does_not_grow_with_the_samples(tmp_path: Path, kind: str, observer: str) -> None:
    """From 10 to 10,000 samples; numpy reports what it allocates, and a mapped file is not allocated."""

    def data(count: int) -> Any:
        samples = np.ones((count, 64), np.float32)
        match kind:
            case "generator":
                return (np.ones((1, 64), np.float32) for _ in range(count))
            case "array":
                return samples
            case "npy":
                np.save(tmp_path / "data.npy", samples)
            case "npz":
                np.savez_compressed(tmp_path / "data.npz", x=samples)
        return open_samples(tmp_path / f"data.{kind}")

    def peak(count: int) -> int:
        given = data(count)
        tracemalloc.start()
        calibrate(graph(WIDE), given, observer)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(10)
    few, many = peak(10), peak(10_000)
    assert many < few + 200_000, (few, many)  # the samples are 2,560,000 bytes
