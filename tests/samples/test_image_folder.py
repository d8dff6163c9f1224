"""Folders of images: pixels, geometry, the specification's file, and every error with the file's name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcompiler as qc
from qcompiler.errors import CompileError
from qcompiler.samples.preprocessing import Preprocessing

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


def picture(height: int, width: int) -> Any:
    """Red grows from left to right, green from top to bottom."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    pixels[..., 2] = 255
    return Image.fromarray(pixels)


def test_the_middle_is_cropped_and_normalized() -> None:
    x = Preprocessing(size=(4, 6), resize=(10, 20), scale=1.0, mean=[1, 2, 3], std=[2, 4, 8])(picture(10, 20))
    assert x.shape == (3, 4, 6)
    assert x.dtype == np.float32
    assert np.array_equal(x[0], np.tile((np.arange(7, 13) - 1) / 2, (4, 1)).astype(np.float32))
    assert np.array_equal(x[1, :, 0], ((np.arange(3, 7) - 2) / 4).astype(np.float32))
    assert np.all(x[2] == (255 - 3) / 8)


def test_channels_layout_and_scale() -> None:
    image = picture(8, 8)
    plain = Preprocessing(8)(image)
    assert plain.max() == 1.0
    assert np.array_equal(Preprocessing(8, channels="BGR")(image), plain[::-1])
    assert np.array_equal(Preprocessing(8, layout="NHWC")(image), plain.transpose(1, 2, 0))
    assert Preprocessing(8, channels="L")(image).shape == (1, 8, 8)
    assert Preprocessing(8)(image.convert("L")).shape == (3, 8, 8)


@pytest.mark.parametrize("sides", [(40, 20), (20, 40)])
def test_the_shorter_side_is_resized(sides: tuple[int, int]) -> None:
    x = Preprocessing(size=8, resize=10, interpolation="nearest", scale=1.0)(picture(*sides))
    assert x.shape == (3, 8, 8)
    middle = 40 / 2
    assert abs(float(x[1 if sides[0] == 40 else 0].mean()) - middle) < 1.5  # the middle of the longer side
    whole = Preprocessing(size=8, scale=1.0, interpolation="nearest")(picture(*sides))
    assert whole[0].max() - whole[0].min() > 0.8 * sides[1]  # nothing is cropped


def folder(path: Path, count: int = 20) -> Path:
    for index in range(count):
        (path / f"{index % 3}").mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), (index, 0, 0)).save(path / f"{index % 3}" / f"{index:02}.png")
    (path / "labels.csv").write_text("not an image")
    return path


def test_images_come_in_batches_in_the_order_of_their_names(tmp_path: Path) -> None:
    images = qc.ImageFolder(folder(tmp_path), size=8, scale=1.0)
    assert len(images) == 20
    parts = list(images)
    assert [len(part) for part in parts] == [16, 4]
    assert np.array_equal(np.concatenate(parts)[:, 0, 0, 0], sorted(range(20), key=lambda i: (i % 3, i)))
    assert np.array_equal(np.concatenate(list(images)), np.concatenate(parts))


def test_the_specification_from_a_file(tmp_path: Path) -> None:
    expected = Preprocessing(size=(4, 6), resize=8, mean=(0.5, 0.25, 0.125), std=2.0, channels="BGR", interpolation="bicubic")
    (tmp_path / "spec.toml").write_text(
        'size = [4, 6]\nresize = 8\nmean = [0.5, 0.25, 0.125]\nstd = 2\nchannels = "BGR"\ninterpolation = "bicubic"\n'
    )
    keys = {"size": [4, 6], "resize": 8, "mean": [0.5, 0.25, 0.125], "std": 2, "channels": "BGR", "interpolation": "bicubic"}
    (tmp_path / "spec.json").write_text(json.dumps(keys))
    assert Preprocessing.read(tmp_path / "spec.toml") == expected
    assert Preprocessing.read(tmp_path / "spec.json") == expected


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"size": 0}, "size is 0\n  remedy:  give pixels: one number, or height and width"),
        ({"size": [1, 2, 3]}, "size is [1, 2, 3]\n"),
        ({"size": "8"}, "size is '8'\n"),
        ({"size": 8, "resize": 4.5}, "resize is 4.5\n"),
        ({"size": 8, "resize": 4}, "resize gives (4,) pixels, less than size (8, 8)\n  remedy:  resize to at least the size"),
        ({"size": 8, "channels": "CMYK"}, "channels is 'CMYK'\n  remedy:  choose one of 'RGB', 'BGR', 'L'"),
        ({"size": 8, "layout": "HWC"}, "layout is 'HWC'\n  remedy:  choose one of 'NCHW', 'NHWC'"),
        ({"size": 8, "interpolation": "area"}, "interpolation is 'area'\n  remedy:  choose one of 'nearest', "),
        ({"size": 8, "mean": [1, 2]}, "mean is [1, 2]\n  remedy:  give a number, or 3, one per channel"),
        ({"size": 8, "mean": "0.5"}, "mean is '0.5'\n"),
        ({"size": 8, "std": [1, 0, 1]}, "std has a 0\n  remedy:  write 1 for a channel that is not to be divided"),
        ({"size": 8, "scale": float("inf")}, "scale is inf\n  remedy:  give a number"),
    ],
)
def test_wrong_specifications(tmp_path: Path, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(CompileError) as caught:
        Preprocessing(**fields)
    assert str(caught.value).startswith(f"SAMPLES005 at preprocessing\n  problem: {problem}")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("none.toml", None, "the file cannot be read: No such file or directory\n  remedy:  name a TOML or JSON file"),
        ("bad.toml", "size = ", "this is neither TOML nor JSON: "),
        ("bad.json", "size", "this is neither TOML nor JSON: "),
        ("list.json", "[1]", "the keys are list\n  remedy:  give size, and if needed channels, interpolation, "),
        ("keys.toml", "size = 8\nsizes = 9\n", "the keys are size, sizes\n"),
        ("less.toml", "mean = 0.5\n", "the keys are mean\n"),
        ("value.toml", "size = -8\n", "size is -8\n"),
    ],
)
def test_specification_files_that_are_wrong(tmp_path: Path, name: str, text: str | None, problem: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(CompileError) as caught:
        Preprocessing.read(tmp_path / name)
    assert str(caught.value).startswith(f"SAMPLES005 at {tmp_path / name}\n  problem: {problem}")


def test_fields_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="SAMPLES005 at preprocessing\n  problem: the fields are sizes\n"):
        qc.ImageFolder(folder(tmp_path, 1), sizes=8)
    with pytest.raises(CompileError, match="SAMPLES005 at preprocessing\n  problem: it is given twice\n"):
        qc.ImageFolder(folder(tmp_path, 1), preprocessing=Preprocessing(8), size=8)


def test_folders_and_images_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CompileError) as caught:
        qc.ImageFolder(tmp_path, size=8)
    assert str(caught.value).startswith(
        f"SAMPLES004 at {tmp_path}\n  problem: there are no images in this folder\n  remedy:  name a folder with .bmp .gif "
    )
    with pytest.raises(CompileError, match="problem: there is no such folder"):
        qc.ImageFolder(tmp_path / "none", size=8)
    images = qc.ImageFolder(folder(tmp_path, 3), size=8)
    bad = tmp_path / "1" / "01.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(
        CompileError, match=f"SAMPLES004 at {bad}\n  problem: the image cannot be read: .*\n  remedy:  repair or remove it"
    ):
        list(images)
    bad.write_text("hello")
    with pytest.raises(
        CompileError, match=f"SAMPLES004 at {bad}\n  problem: the image cannot be read: cannot identify image file"
    ):
        list(images)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CompileError) as caught:
        qc.ImageFolder(tmp_path, size=8)
    assert str(caught.value) == (
        f"SAMPLES004 at {tmp_path}\n  problem: reading images needs pillow\n  remedy:  pip install 'qcompiler[images]'"
    )
