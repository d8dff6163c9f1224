"""Top-1 of integer libraries below 8 bits, uniform and within budgets, on whole test sets, with sizes read off the artifacts.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.mixed_precision
    python -m examples.benchmarks.mixed_precision --model resnet8

Settings are the defaults for every row; calibration sees at most 512 training-side samples, and labels of no kind.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from examples.benchmarks.accuracy import BATCH, percent
from tests.real_models import calibration_images, evaluation_images, load_real_model

INNER: Final = {"*": "w4a4", "/conv1/Conv": "w8a8", "/linear/Gemm": "w8a8"}


@dataclass(frozen=True)
class Setting:
    """``options`` of the build; ``required`` top-1 in percent, None where nothing is asked."""

    model: str
    label: str
    options: dict[str, Any]
    required: float | None


def within(share: str) -> dict[str, Any]:
    """A budget on the size."""
    return {"budget": qc.Budget(size=share)}


SETTINGS: Final = (
    Setting("resnet20", "w4a8", {"bits": "w4a8"}, 91.2),
    Setting("resnet20", "w4a4, first and last w8a8", {"bits": INNER}, 89.5),
    Setting("resnet20", "size 50 %", within("50%"), 91.4),
    Setting("resnet20", "size 62.5 %", within("62.5%"), 91.5),
    Setting("resnet20", "size 75 %", within("75%"), None),
    Setting("resnet20", "size 37.5 %", within("37.5%"), None),
    Setting("resnet56", "w4a8", {"bits": "w4a8"}, 92.9),
    Setting("resnet8", "w4a8", {"bits": "w4a8"}, 86.0),
    Setting("resnet8", "size 50 %", within("50%"), 86.0),
    Setting("resnet8", "size 75 %", within("75%"), 87.1),
    Setting("dscnn", "w4a8", {"bits": "w4a8"}, 89.8),
    Setting("dscnn", "size 62.5 %", within("62.5%"), 90.2),
    Setting("efficientnet-lite0", "w8a8", {"bits": "w8a8"}, 81.6),
    Setting("efficientnet-lite0", "w4a8", {"bits": "w4a8"}, 78.0),
    Setting("efficientnet-lite0", "size 62.5 %", within("62.5%"), 80.5),
)


@dataclass(frozen=True)
class Row:
    """One setting's figures: percent, bytes, seconds."""

    model: str
    setting: str
    fp32: float
    integer: float
    required: float | None
    agreement: float
    weight_code_bytes: int
    library_bytes: int
    build_seconds: float
    bits: str


def measure(setting: Setting, folder: Path) -> Row:
    """Build one setting and run the whole test set."""
    real = load_real_model(setting.model, folder)
    calibration = calibration_images(setting.model, folder).floats()
    images = evaluation_images(setting.model, folder, "test")
    with tempfile.TemporaryDirectory() as temporary:
        begin = time.perf_counter()
        artifact = qc.build(real.model, calibration=calibration, out=Path(temporary) / "net", **setting.options)
        seconds = time.perf_counter() - begin
        library = qc.Library(artifact.folder)
        found = np.concatenate([library(x, threads=os.cpu_count() or 1) for x in images.batches(BATCH)]).argmax(1)
        sizes = artifact.description["sizes"]
        chosen = [row.weight_bits for row in artifact.report().layers if row.weight_bits]
    expected = np.concatenate([real.logits(x) for x in images.batches(BATCH)]).argmax(1)
    return Row(
        model=setting.model,
        setting=setting.label,
        fp32=percent(expected == images.labels),
        integer=percent(found == images.labels),
        required=setting.required,
        agreement=percent(found == expected),
        weight_code_bytes=sizes["weight_code_bytes"],
        library_bytes=sizes["library_bytes"],
        build_seconds=seconds,
        bits=" ".join(f"{chosen.count(bits)}x{bits}" for bits in (8, 4, 2) if bits in chosen),
    )


def table(rows: list[Row]) -> Table:
    """The rows beside what is required."""
    result = Table(title="test sets; required in brackets", title_justify="left")
    headings = (
        "model",
        "setting",
        "fp32 %",
        "integer %",
        "same class %",
        "weight codes",
        "libnet.so",
        "layers x bits",
        "build s",
    )
    for heading in headings:
        result.add_column(heading, justify="left" if heading in headings[:2] else "right")
    for row in rows:
        enough = row.required is None or row.integer >= row.required
        limit = "" if row.required is None else f" ({row.required:.1f})"
        result.add_row(
            row.model,
            row.setting,
            f"{row.fp32:.2f}",
            f"[{'green' if enough else 'red'}]{row.integer:.2f}[/]{limit}",
            f"{row.agreement:.2f}",
            f"{row.weight_code_bytes:,}",
            f"{row.library_bytes:,}",
            row.bits,
            f"{row.build_seconds:.0f}",
        )
    return result


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[list[str] | None, typer.Option(help="One of the models; may be repeated. All by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure; exit code 1 where less is found than required."""
    rows = []
    for setting in SETTINGS:
        if model is None or setting.model in model:
            rows.append(measure(setting, data))
            print(json.dumps(asdict(rows[-1])), file=sys.stderr)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        Console(width=150 if not sys.stdout.isatty() else None).print(table(rows))
    if any(row.required is not None and row.integer < row.required for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
