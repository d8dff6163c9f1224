"""How often ONNX Runtime, running the exported QDQ model, gives the class that the integer library gives.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.qdq_agreement

Whole test sets. Library and export come from one integer graph. Exit code 1 where a model agrees less than is required.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import onnxruntime
import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from tests.real_models import Array, calibration_images, evaluation_images, load_real_model

REQUIRED: Final = {"resnet20": 99.5, "efficientnet-lite0": 99.0}
BATCH: Final = 50


@dataclass(frozen=True)
class Row:
    """One model's figures, in percent; SQNR of ONNX Runtime's logits against the library's in dB; the file in bytes."""

    model: str
    bits: str
    images: int
    library: float
    runtime: float
    agreement: float
    sqnr_db: float
    opset: int
    file_bytes: int
    seconds: float


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """ONNX Runtime with its default optimizations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(name: str, folder: Path, bits: str, limit: int | None, threads: int) -> Row:
    """Compile and export one model and compare the two on the test set."""
    import onnx

    begin = time.perf_counter()
    real = load_real_model(name, folder)
    images = evaluation_images(name, folder, "test")[:limit]
    assert images.labels is not None
    with tempfile.TemporaryDirectory() as temporary:
        dumps, path = Path(temporary) / "dumps", Path(temporary) / "net.onnx"
        library = qc.compile(real.model, calibration=calibration_images(name, folder).floats(), bits=bits, dump_ir=dumps)
        qc.export_onnx(max(dumps.glob("*.qir")), path)
        runtime = session(path, threads)
        opset, file_bytes = onnx.load(path).opset_import[0].version, path.stat().st_size
    feed = runtime.get_inputs()[0].name
    expected: list[Array] = []
    found: list[Array] = []
    for x in images.batches(BATCH):
        expected.append(library(x, threads=threads))
        found.append(runtime.run(None, {feed: x})[0])
    ours, theirs = np.concatenate(expected), np.concatenate(found)
    return Row(
        model=name,
        bits=bits,
        images=len(images),
        library=100.0 * float((ours.argmax(1) == images.labels).mean()),
        runtime=100.0 * float((theirs.argmax(1) == images.labels).mean()),
        agreement=100.0 * float((ours.argmax(1) == theirs.argmax(1)).mean()),
        sqnr_db=float(10 * np.log10((ours**2).sum() / ((ours - theirs) ** 2).sum())),
        opset=opset,
        file_bytes=file_bytes,
        seconds=time.perf_counter() - begin,
    )


def table(rows: list[Row]) -> Table:
    """The rows beside what is required."""
    result = Table(title="ONNX Runtime on the QDQ export against the library; required in brackets", title_justify="left")
    for heading in ("model", "bits", "images", "library %", "ONNX Runtime %", "agreement %", "SQNR dB", "opset", "bytes", "s"):
        result.add_column(heading, justify="left" if heading in ("model", "bits") else "right")
    for row in rows:
        result.add_row(
            row.model,
            row.bits,
            f"{row.images:,}",
            f"{row.library:.2f}",
            f"{row.runtime:.2f}",
            f"{row.agreement:.2f} ({REQUIRED[row.model]:.1f})",
            f"{row.sqnr_db:.1f}",
            str(row.opset),
            f"{row.file_bytes:,}",
            f"{row.seconds:.0f}",
        )
    return result


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[
        list[str] | None, typer.Option(help="resnet20 or efficientnet-lite0; may be repeated. Both by default.")
    ] = None,
    bits: Annotated[str, typer.Option(help="Bits of all layers.")] = "w8a8",
    images: Annotated[int | None, typer.Option(help="Only the first images.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the library and of ONNX Runtime.")] = os.cpu_count() or 1,
) -> None:
    """Measure the agreement; exit code 1 where it is less than is required."""
    unknown = sorted(set(model or ()) - set(REQUIRED))
    if unknown:
        raise typer.BadParameter(f"--model {unknown[0]}: choose of {', '.join(REQUIRED)}")
    rows = [measure(name, data, bits, images, threads) for name in model or REQUIRED]
    Console(width=130).print(table(rows))
    if any(row.agreement < REQUIRED[row.model] for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
