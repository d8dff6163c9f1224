"""Top-1 of an integer library before and after fine-tuning, ResNet-20 on CIFAR-10, on the whole test set.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.fine_tune

It trains on the 10,000 images of ``cifar10_train10k``, without labels: nearer to the float model. Images are shifted and
mirrored, and every second one is mixed with another: the float model has seen all of them in its own training, and is surer of
them than of what comes later.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from examples.benchmarks.accuracy import BATCH, percent
from examples.benchmarks.mixed_precision import INNER
from tests.real_models import CIFAR, Samples, calibration_images, evaluation_images, load_real_model

REQUIRED: Final = 90.8
TRAINING_BATCH: Final = 64
SHIFT: Final = 4
"""Pixels, at most, each way."""


@dataclass(frozen=True)
class Images:
    """The batches of one epoch, others each time; ``pixels`` uint8 ``[N, 32, 32, 3]``."""

    pixels: np.ndarray[Any, Any]
    generator: np.random.Generator

    def __len__(self) -> int:
        return -(-len(self.pixels) // TRAINING_BATCH)

    def __iter__(self) -> Iterator[Any]:
        order = self.generator.permutation(len(self.pixels))
        for start in range(0, len(order), TRAINING_BATCH):
            x = CIFAR(self._moved(self.pixels[order[start : start + TRAINING_BATCH]]))
            share = self.generator.random((len(x), 1, 1, 1)).astype(np.float32)
            share[::2] = 1.0
            yield share * x + (1.0 - share) * x[self.generator.permutation(len(x))]

    def _moved(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        mirrored = self.generator.random(len(pixels)) < 0.5
        pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
        padded = np.pad(pixels, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
        places = self.generator.integers(0, 2 * SHIFT + 1, (len(pixels), 2))
        side = pixels.shape[1]
        return np.stack([image[y : y + side, x : x + side] for image, (y, x) in zip(padded, places, strict=True)])


@dataclass(frozen=True)
class Row:
    """Percent, and seconds of the training up to there."""

    epochs: int
    integer: float
    agreement: float
    loss: float | None
    seconds: float


def measured(module: Any, epochs: int, images: Samples, expected: Any, seconds: float) -> Row:
    """The library of ``module`` on the test set."""
    library = qc.compile(module, progress=False)
    found = np.concatenate([library(x, threads=os.cpu_count() or 1) for x in images.batches(BATCH)]).argmax(1)
    loss = module.history[-1] if module.history else None
    return Row(epochs, percent(found == images.labels), percent(found == expected), loss, seconds)


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    epochs: Annotated[int, typer.Option(help="Of training.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the images' order and changes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure; exit code 1 where less is found than required."""
    real = load_real_model("resnet20", data)
    images = evaluation_images("resnet20", data, "test")
    expected = np.concatenate([real.logits(x) for x in images.batches(BATCH)]).argmax(1)
    with np.load(data / "cifar10_train10k.npz") as training:
        pixels = training["x"]
    module = qc.trainable(real.model, calibration=calibration_images("resnet20", data).floats(), bits=INNER)
    rows = [measured(module, 0, images, expected, 0.0)]
    begin = time.perf_counter()
    qc.fine_tune(module, Images(pixels, np.random.default_rng(seed)), epochs=epochs)
    rows.append(measured(module, epochs, images, expected, time.perf_counter() - begin))
    print(json.dumps([asdict(row) for row in rows]), file=sys.stdout if as_json else sys.stderr)
    if not as_json:
        table = Table(title=f"ResNet-20, w4a4 but first and last w8a8; required {REQUIRED} %", title_justify="left")
        for heading in ("epochs", "integer %", "same class %", "loss", "training s"):
            table.add_column(heading, justify="right")
        for row in rows:
            loss = "" if row.loss is None else f"{row.loss:.3f}"
            table.add_row(str(row.epochs), f"{row.integer:.2f}", f"{row.agreement:.2f}", loss, f"{row.seconds:.0f}")
        Console(width=100 if not sys.stdout.isatty() else None).print(table)
    if rows[-1].integer < REQUIRED:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
