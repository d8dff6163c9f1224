"""A limit on the latency, and what the built library then takes, beside libraries whose layers all have the same bits.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.latency_limit
    python -m examples.benchmarks.latency_limit --model resnet20 --size 62.5% --share 105

The limit is a share of what the library with 8 bits takes, measured first. Bits are chosen as ``qcompiler build --latency-ms``
chooses them, from the measured kernels of this machine. At the end all libraries take turns; one sample, one thread, integers in
and out, in the time of the thread, median over turns: other programs on the machine count only as far as they take caches and
clock away.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from examples.benchmarks.accuracy import BATCH, percent
from examples.benchmarks.latency_prediction import Running, in_turns
from qcompiler.cost.machine import cpu_name
from tests.real_models import calibration_images, evaluation_images, load_real_model


@dataclass(frozen=True)
class Row:
    """Milliseconds of one sample, percent, bytes, seconds; None where nothing was predicted or limited."""

    bits: str
    limit_ms: float | None
    predicted_ms: float | None
    measured_ms: float
    top1: float
    agreement: float
    weight_code_bytes: int
    build_seconds: float
    layers: str


def measure(libraries: Mapping[str, Running], seconds: float) -> dict[str, float]:
    """Milliseconds of a sample of every library, in turns for so many seconds."""
    for running in libraries.values():
        running.ns.clear()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for running in libraries.values():
            running.turn()
    return {name: float(np.median(running.ns)) / 1e6 for name, running in libraries.items()}


def table(model: str, rows: list[Row]) -> Table:
    """The rows."""
    result = Table(title=f"{model}, {cpu_name()}, load average {os.getloadavg()[0]:.1f}", title_justify="left")
    for heading in (
        "bits",
        "limit ms",
        "predicted ms",
        "measured ms",
        "top-1 %",
        "same class %",
        "weight codes",
        "layers x bits",
    ):
        result.add_column(heading, justify="left" if heading == "bits" else "right")
    for row in rows:
        known = ["" if ms is None else f"{ms:.3f}" for ms in (row.limit_ms, row.predicted_ms)]
        accuracy = [f"{row.top1:.2f}", f"{row.agreement:.2f}"]
        result.add_row(row.bits, *known, f"{row.measured_ms:.3f}", *accuracy, f"{row.weight_code_bytes:,}", row.layers)
    return result


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[str, typer.Option(help="A model of the folder.")] = "efficientnet-lite0",
    share: Annotated[float, typer.Option(help="The limit, in percent of what the library with 8 bits takes.")] = 96.0,
    size: Annotated[str | None, typer.Option(help="A limit on the size as well, as in 62.5%.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Build within a limit on the latency and measure; exit code 1 where the library takes longer."""
    real = load_real_model(model, data)
    calibration = calibration_images(model, data).floats()
    images = evaluation_images(model, data, "test")
    expected = np.concatenate([real.logits(x) for x in images.batches(BATCH)]).argmax(1)
    artifacts: dict[str, Any] = {}
    libraries: dict[str, Running] = {}
    build_seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:

        def build(name: str, **options: Any) -> None:
            begin = time.perf_counter()
            folder = Path(temporary) / name
            artifacts[name] = qc.build(real.model, calibration=calibration, out=folder, progress=False, **options)
            build_seconds[name] = time.perf_counter() - begin
            libraries[name] = in_turns(qc.Library(folder))

        for uniform in ("w8a8", "w4a8"):
            build(uniform, bits=uniform)
        limit = share / 100.0 * measure(libraries, seconds)["w8a8"]
        build("chosen", budget=qc.Budget(latency_ms=limit, size=size))
        measured = measure(libraries, seconds)
        rows = []
        for name, running in libraries.items():
            report = artifacts[name].report()
            found = np.concatenate([running.library(x) for x in images.batches(BATCH)]).argmax(1)
            counts = [row.weight_bits for row in report.layers if row.weight_bits]
            rows.append(
                Row(
                    bits=name,
                    limit_ms=limit if name == "chosen" else None,
                    predicted_ms=report.facts["search"]["totals"]["latency_ns"] / 1e6 if name == "chosen" else None,
                    measured_ms=measured[name],
                    top1=percent(found == images.labels),
                    agreement=percent(found == expected),
                    weight_code_bytes=artifacts[name].description["sizes"]["weight_code_bytes"],
                    build_seconds=build_seconds[name],
                    layers=" ".join(f"{counts.count(bits)}x{bits}" for bits in (8, 4, 2) if bits in counts),
                )
            )
    text = json.dumps([asdict(row) for row in rows], indent=1)
    print(text, file=sys.stdout if as_json else sys.stderr)
    if not as_json:
        Console(width=130 if not sys.stdout.isatty() else None).print(table(model, rows))
    if measured["chosen"] > limit:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
