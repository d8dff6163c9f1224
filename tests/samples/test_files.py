"""Numpy files: what is read, how little of it at once, and every error with the file's name."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from qcompiler.errors import CompileError
from qcompiler.samples.image_folder import ImageFolder
from qcompiler.samples.numpy_files import SAMPLES_READ, NpzSamples, open_numpy
from qcompiler.samples.preprocessing import Preprocessing
from qcompiler.samples.source import open_samples


def test_what_is_no_path_stays_what_it_is() -> None:
    data = [np.zeros(3)]
    assert open_samples(data) is data


@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_is_read_in_parts(tmp_path: Path, order: str) -> None:
    x = np.arange(50 * 12, dtype=np.int16).reshape(50, 3, 4)
    np.savez_compressed(tmp_path / "data.npz", x=np.asarray(x, order=order), y=np.arange(50))  # type: ignore[call-overload]
    samples = open_numpy(tmp_path / "data.npz")
    assert isinstance(samples, NpzSamples)
    parts = [batch["x"] for batch in samples.batches(["x"])]
    assert max(map(len, parts)) == SAMPLES_READ
    assert np.array_equal(np.concatenate(parts), x)
    assert np.array_equal(samples.read()["x"], x)


def test_an_npz_of_one_array_is_an_iterable_of_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", np.ones((20, 2)))
    assert [len(batch) for batch in open_samples(tmp_path / "data.npz")] == [16, 4]


def test_a_large_npz_needs_little_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros((4000, 1000), np.float32))
    tracemalloc.start()
    for _ in open_samples(tmp_path / "data.npz"):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # of 16,000,000 bytes


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", np.zeros((4, 2)))
    good = (tmp_path / "good.npy").read_bytes()
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    cases = {
        tmp_path / "none.npy": "No such file or directory",
        write(tmp_path / "text.npy", b"1, 2, 3"): "this is no numpy file of numbers",
        write(tmp_path / "empty.npy", b""): "this is no numpy file of numbers",
        write(tmp_path / "cut.npy", good[:-8]): "this is no numpy file of numbers",
        write(tmp_path / "cut.npz", b"PK\x03\x04"): "this is no numpy file of numbers",
        tmp_path / "objects.npy": "this is no numpy file of numbers",
        npz(tmp_path / "nothing.npz"): "there are no arrays in it",
    }
    for path, why in cases.items():
        with pytest.raises(CompileError) as caught:
            open_samples(path)
        assert str(caught.value) == (
            f"SAMPLES001 at {path}\n"
            f"  problem: no samples can be read: {why}\n"
            "  remedy:  pass a .npy or .npz file of numbers, as numpy.save and numpy.savez write it"
        )


def test_an_npz_that_is_damaged_inside(tmp_path: Path) -> None:
    path = npz(tmp_path / "data.npz", x=np.arange(10000.0))
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(
        CompileError, match=r"SAMPLES001 at .*data.npz\n  problem: no samples can be read: the file is damaged: Bad CRC"
    ):
        list(open_samples(path))


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"a": np.zeros(3), "b": np.zeros(3)}, "there are the arrays ['a', 'b'], but not x"),
        ({"x": np.zeros(3), "z": np.zeros(4)}, "the arrays have different numbers of samples: {'x': 3, 'z': 4}"),
    ],
)
def test_an_npz_that_does_not_fit_the_model(tmp_path: Path, arrays: dict[str, np.ndarray], problem: str) -> None:
    samples = open_numpy(npz(tmp_path / "data.npz", **arrays))
    assert isinstance(samples, NpzSamples)
    with pytest.raises(CompileError) as caught:
        list(samples.batches(["x", "z"] if "z" in arrays else ["x"]))
    assert str(caught.value).startswith(f"SAMPLES003 at {tmp_path / 'data.npz'}\n  problem: {problem}\n")


def test_a_folder_needs_preprocessing_and_a_file_has_none(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        open_samples(tmp_path)
    assert str(caught.value) == (
        f"SAMPLES002 at {tmp_path}\n"
        "  problem: this is a folder; images in it need to be preprocessed as in training\n"
        "  remedy:  pass calibration=qcompiler.ImageFolder(path, size=...), or --preprocess spec.toml on the command line"
    )
    path = npz(tmp_path / "data.npz", x=np.zeros(3))
    with pytest.raises(
        CompileError, match="SAMPLES002 at .*\n  problem: preprocessing is for folders of images, and this is none"
    ):
        open_samples(path, Preprocessing(8))


def test_a_folder_with_preprocessing_is_an_image_folder(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert isinstance(open_samples(str(tmp_path), Preprocessing(8)), ImageFolder)
