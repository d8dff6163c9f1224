"""Top-1 of the float models and of the integer libraries that default settings make of them, and how often they agree.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.accuracy                 # whole test sets: for the final table only
    python -m examples.benchmarks.accuracy --split train   # held-out training samples: for choosing defaults

The keyword recordings have no training side: calibration sees the first 100 of the 500, so the other 400 have a row of their own.
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
    HELD_OUT_KEYWORDS,
    HELD_OUT_PHOTOS,
    LARGEST_DROP,
    NAMES,
    UNSEEN,
    Array,
    Required,
    Split,
    calibration_images,
    evaluation_images,
    load_real_model,
)

BATCH = 50
EVERYTHING = slice(None)


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


def measure(name: str, folder: Path, split: Split, samples: int, observer: str | None, bits: str) -> list[Row]:
    """Compile one model and compare it with itself in float, on the whole split and on the part that calibration did not see."""
    real = load_real_model(name, folder)
    if split == "train":
        held_out = {"efficientnet-lite0": HELD_OUT_PHOTOS.start, "dscnn": HELD_OUT_KEYWORDS.start}
        samples = min(samples, held_out.get(name, samples))
    calibration = calibration_images(name, folder, samples)
    images = evaluation_images(name, folder, split)
    start = time.perf_counter()
    library = qc.compile(real.model, calibration=calibration.floats(), observer=observer, bits=bits)
    compiled = time.perf_counter()
    expected = np.concatenate([real.logits(x) for x in images.batches(BATCH)])
    found = np.concatenate([library(x, threads=os.cpu_count() or 1) for x in images.batches(BATCH)])
    evaluated = time.perf_counter()

    def row(label: str, part: slice) -> Row:
        labels = None if images.labels is None else images.labels[part]
        classes, ours = expected[part].argmax(1), found[part].argmax(1)
        fp32 = None if labels is None else percent(classes == labels)
        required = real.required
        if part != EVERYTHING and fp32 is not None:
            required = Required(fp32, fp32 - LARGEST_DROP, required.agreement)
        return Row(
            model=label,
            images=len(ours),
            calibration_samples=len(calibration),
            fp32=fp32,
            integer=None if labels is None else percent(ours == labels),
            agreement=percent(ours == classes),
            sqnr_db=float(10 * np.log10((expected[part] ** 2).sum() / ((expected[part] - found[part]) ** 2).sum())),
            required=required,
            compile_seconds=compiled - start,
            evaluate_seconds=evaluated - compiled,
        )

    rows = [row(name, EVERYTHING)]
    if split == "test" and name in UNSEEN:
        rows.append(row(f"{name}, unseen", UNSEEN[name]))
    return rows


def table(rows: list[Row], split: str) -> Table:
    """The rows beside what is required of the test set."""
    title = f"{split} samples; required (on the test samples) in brackets"
    result = Table(title=title, title_justify="left")
    for heading in (
        "model",
        "samples",
        "calibration",
        "fp32 %",
        "integer %",
        "agreement %",
        "SQNR dB",
        "compile s",
        "evaluate s",
    ):
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
    split: Annotated[Split, typer.Option(help="test: the whole test sets. train: held-out training samples.")] = "test",
    samples: Annotated[int, typer.Option(help="Calibration samples, at most.")] = CALIBRATION_SAMPLES,
    observer: Annotated[
        str | None, typer.Option(help="How calibration chooses ranges, for all tensors; else the default.")
    ] = None,
    bits: Annotated[str, typer.Option(help="Bits of all layers.")] = "w8a8",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure top-1 and agreement; exit code 1 where the test set shows less than is required."""
    unknown = sorted(set(model or ()) - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"--model {unknown[0]}: choose of {', '.join(NAMES)}")
    rows = [row for name in model or NAMES for row in measure(name, data, split, samples, observer, bits)]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        Console(width=140 if not sys.stdout.isatty() else None).print(table(rows, split))
    missed = [row for row in rows if row.agreement < row.required.agreement or (row.integer or 0.0) < row.required.integer]
    if split == "test" and missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
