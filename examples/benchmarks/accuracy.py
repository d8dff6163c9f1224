"""Top-1 of the float models and of the integer libraries that default settings make of them, and how often they agree.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.accuracy                 # whole test sets: for the final table only
    python -m examples.benchmarks.accuracy --split train   # held-out training images: for choosing defaults
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from tests.real_models import (
    CALIBRATION_SAMPLES,
    HELD_OUT_PHOTOS,
    NAMES,
    Array,
    Required,
    Split,
    calibration_images,
    evaluation_images,
    load_real_model,
)

BATCH = 50


@dataclass(frozen=True)
class Row:
    """One model's figures, in percent and seconds; top-1 is None where labels are not known. SQNR of the logits in dB."""

    model: str
    images: int
    calibration_samples: int
    fp32: float | None
    integer: float | None
    agreement: float
    sqnr_db: float
    required: Required
    compile_seconds: float
    evaluate_seconds: float


def percent(hits: Array) -> float:
    """The share of True in percent."""
    return 100.0 * float(np.mean(hits))


def measure(name: str, folder: Path, split: Split, samples: int, observer: str, bits: str) -> Row:
    """Compile one model and compare it with itself in float."""
    real = load_real_model(name, folder)
    if name == "efficientnet-lite0" and split == "train":
        samples = min(samples, HELD_OUT_PHOTOS.start)
    calibration = calibration_images(name, folder, samples)
    images = evaluation_images(name, folder, split)
    start = time.perf_counter()
    library = qc.compile(real.model, calibration=calibration.floats(), observer=observer, bits=bits)
    compiled = time.perf_counter()
    expected = np.concatenate([real.logits(x) for x in images.batches(BATCH)])
    found = np.concatenate([library(x, threads=os.cpu_count() or 1) for x in images.batches(BATCH)])
    classes, ours = expected.argmax(1), found.argmax(1)
    return Row(
        model=name,
        images=len(images),
        calibration_samples=len(calibration),
        fp32=None if images.labels is None else percent(classes == images.labels),
        integer=None if images.labels is None else percent(ours == images.labels),
        agreement=percent(ours == classes),
        sqnr_db=float(10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum())),
        required=real.required,
        compile_seconds=compiled - start,
        evaluate_seconds=time.perf_counter() - compiled,
    )


def table(rows: list[Row], split: str) -> Table:
    """The rows beside what is required of the test set."""
    title = f"{split} images; required (on the test images) in brackets"
    result = Table(title=title, title_justify="left")
    for heading in ("model", "images", "calibration", "fp32 %", "integer %", "agreement %", "SQNR dB", "compile s", "evaluate s"):
        result.add_column(heading, justify="left" if heading == "model" else "right")

    def figure(value: float | None, least: float, judged: bool = True) -> str:
        if value is None:
            return "-"
        color = "white" if split == "train" or not judged else "green" if value >= least else "red"
        return f"[{color}]{value:.2f}[/] ({least:.2f})"

    for row in rows:
        result.add_row(
            row.model,
            f"{row.images:,}",
            str(row.calibration_samples),
            figure(row.fp32, row.required.fp32, judged=False),
            figure(row.integer, row.required.integer),
            figure(row.agreement, row.required.agreement),
            f"{row.sqnr_db:.1f}",
            f"{row.compile_seconds:.1f}",
            f"{row.evaluate_seconds:.1f}",
        )
    return result


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[list[str] | None, typer.Option(help="One of the models; may be repeated. All by default.")] = None,
    split: Annotated[Split, typer.Option(help="test: the whole test sets. train: held-out training images.")] = "test",
    samples: Annotated[int, typer.Option(help="Calibration samples, at most.")] = CALIBRATION_SAMPLES,
    observer: Annotated[str, typer.Option(help="How calibration chooses ranges: mse or minmax.")] = "mse",
    bits: Annotated[str, typer.Option(help="Bits of all layers.")] = "w8a8",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure top-1 and agreement; exit code 1 where the test set shows less than is required."""
    unknown = sorted(set(model or ()) - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"--model {unknown[0]}: choose of {', '.join(NAMES)}")
    rows = [measure(name, data, split, samples, observer, bits) for name in model or NAMES]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        Console(width=140 if not sys.stdout.isatty() else None).print(table(rows, split))
    missed = [row for row in rows if row.agreement < row.required.agreement or (row.integer or 0.0) < row.required.integer]
    if split == "test" and missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
