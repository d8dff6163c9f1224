"""Peak memory of calibrating ResNet-20 on more and more samples, each number in a fresh process.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.calibration_memory

The samples are CIFAR-10's training images as float32 in a ``.npz``, which calibration reads a batch at a time, so what grows is
what calibration itself keeps. Peaks are the process's resident memory (VmHWM), with what torch and the model take; "above import"
is what came on top of that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

COUNTS = (10, 100, 1_000, 10_000)


def peak_mib() -> float:
    """The most resident memory that this process has had, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024.0


def measure(model: Path, samples: Path, observer: str | None) -> dict[str, float]:
    """Calibrate ``model`` on ``samples`` in this process: peak in MiB, what of it came after the import, and seconds."""
    from qcompiler.loading import load_graph
    from qcompiler.pipeline import Settings, to_integer
    from qcompiler.samples.source import open_samples

    graph = load_graph(model, None).graph
    one = np.zeros((1, *graph.inputs[0].type.shape[1:]), dtype=np.float32)
    to_integer(graph, Settings(one, observer))  # loads the libraries
    before, start = peak_mib(), time.perf_counter()
    to_integer(graph, Settings(open_samples(samples), observer))
    return {"peak": peak_mib(), "above": peak_mib() - before, "seconds": time.perf_counter() - start}


def write_samples(data: Path, count: int, path: Path) -> None:
    """The first ``count`` training images as ResNet-20 takes them."""
    from tests.real_models import cifar_images

    np.savez(path, images=cifar_images("resnet20", data, "train")[:count].floats())


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    observer: Annotated[str | None, typer.Option(help="How calibration chooses all ranges; else the default.")] = None,
    samples: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print one row for each number of samples."""
    if samples is not None:
        print(json.dumps(measure(data / "resnet20.onnx", samples, observer)))
        return
    table = Table(title="calibrating ResNet-20", title_justify="left")
    for heading in ("samples", "peak MiB", "above import MiB", "seconds"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for count in COUNTS:
            path = Path(folder) / f"{count}.npz"
            write_samples(data, count, path)
            command = [
                sys.executable,
                "-m",
                "examples.benchmarks.calibration_memory",
                "--data",
                str(data),
                "--samples",
                str(path),
            ]
            command += [] if observer is None else ["--observer", observer]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            table.add_row(f"{count:,}", f"{found['peak']:.0f}", f"{found['above']:.0f}", f"{found['seconds']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
