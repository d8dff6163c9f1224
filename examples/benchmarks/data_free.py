"""What calibration without data costs: libraries of a network calibrated on real images, on distilled ones, and on noise.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.data_free                 # the whole test set: for the final table only
    python -m examples.benchmarks.data_free --split train   # held-out training images: for choosing defaults

Data-free compilation sees the model and the shape of its input, nothing else. Exit code 1 where its top-1 is less than required.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from tests.real_models import (
    CALIBRATION_SAMPLES,
    Array,
    RealModel,
    Samples,
    Split,
    calibration_images,
    evaluation_images,
    load_real_model,
)

MODEL: Final = "resnet20-torch"
"""The one with batch norms as training left them; the ONNX files have them folded."""
SHAPE: Final = (1, 3, 32, 32)
REQUIRED: Final = {"w8a8": 91.4}
NOISE_SAMPLES: Final = 64
BATCH: Final = 100


@dataclass(frozen=True)
class Row:
    """One library's figures, in percent; SQNR of the logits in dB."""

    bits: str
    calibration: str
    fp32: float
    integer: float
    agreement: float
    sqnr_db: float
    compile_seconds: float


def measure(real: RealModel, images: Samples, expected: Array, bits: str, calibration: str, data: Array | None) -> Row:
    """Compile the model on ``data``, or on nothing, and compare it with itself in float."""
    begin = time.perf_counter()
    library = qc.compile(real.model, torch.zeros(SHAPE), calibration=data, bits=bits)
    seconds = time.perf_counter() - begin
    found = np.concatenate([library(x) for x in images.batches(BATCH)])
    classes, ours = expected.argmax(1), found.argmax(1)
    return Row(
        bits=bits,
        calibration=calibration,
        fp32=100.0 * float((classes == images.labels).mean()),
        integer=100.0 * float((ours == images.labels).mean()),
        agreement=100.0 * float((ours == classes).mean()),
        sqnr_db=float(10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum())),
        compile_seconds=seconds,
    )


def measure_all(folder: Path, split: Split, bits: list[str]) -> Iterator[Row]:
    """Every way to calibrate for each of ``bits``."""
    real, images = load_real_model(MODEL, folder), evaluation_images(MODEL, folder, split)
    expected = np.concatenate([real.logits(x) for x in images.batches(BATCH)])
    ways: dict[str, Callable[[], Array | None]] = {
        f"{CALIBRATION_SAMPLES} training images": lambda: calibration_images(MODEL, folder).floats(),
        "none: distilled": lambda: None,
        f"{NOISE_SAMPLES} of Gaussian noise": lambda: np.random.default_rng(0).normal(size=(NOISE_SAMPLES, *SHAPE[1:])),
    }
    for wish in bits:
        for calibration, data in ways.items():
            yield measure(real, images, expected, wish, calibration, data())


def table(rows: list[Row], split: str) -> Table:
    """The rows, data-free ones beside what is required of the test set."""
    result = Table(title=f"ResNet-20, {split} images; required (on the test images) in brackets", title_justify="left")
    for heading in ("bits", "calibration", "fp32 %", "integer %", "agreement %", "SQNR dB", "compile s"):
        result.add_column(heading, justify="left" if heading in ("bits", "calibration") else "right")
    for row in rows:
        required = f" ({REQUIRED[row.bits]:.1f})" if judged(row) else ""
        result.add_row(
            row.bits,
            row.calibration,
            f"{row.fp32:.2f}",
            f"{row.integer:.2f}{required}",
            f"{row.agreement:.2f}",
            f"{row.sqnr_db:.1f}",
            f"{row.compile_seconds:.0f}",
        )
    return result


def judged(row: Row) -> bool:
    """Whether something is required of this row."""
    return row.calibration.startswith("none") and row.bits in REQUIRED


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    split: Annotated[Split, typer.Option(help="test: the whole test set. train: held-out training images.")] = "test",
    bits: Annotated[list[str] | None, typer.Option(help="Bits of all layers; may be repeated. w8a8 and w4a8 by default.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
) -> None:
    """Measure top-1 and agreement; exit code 1 where the test set shows less than is required."""
    torch.set_num_threads(threads)
    rows = list(measure_all(data, split, bits or ["w8a8", "w4a8"]))
    Console(width=120 if not sys.stdout.isatty() else None).print(table(rows, split))
    if split == "test" and any(judged(row) and row.integer < REQUIRED[row.bits] for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
