"""Top-1 of whole test sets over the size of the weights: bits chosen within a budget, and the same bits by naive min-max.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.pareto_curves --plot examples/benchmarks/pareto.svg

Naive is the usual first try: ranges from the smallest to the largest value for activations and for each channel of weights, all
rounded to the nearest code, biases as they were. It gets the bits that the search chose, so that the sizes are equal. Where
8 bits lose nothing, top-1 of either is that of the float model give or take a few images; how many images keep the float model's
class tells more.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from examples.benchmarks.accuracy import BATCH, percent
from qcompiler.api import parse_bits
from qcompiler.calibrate import FirstSamples
from qcompiler.ir.graph import WEIGHTED, Constant, Graph
from qcompiler.loading import load_graph
from qcompiler.passes.graph_pass import run_passes
from qcompiler.passes.weight_codes import code_limits
from qcompiler.pipeline import Settings, passes
from tests.real_models import Samples, calibration_images, evaluation_images, load_real_model

MODELS: Final = ("resnet20", "efficientnet-lite0")
SHARES: Final = (30.0, 37.5, 50.0, 62.5, 75.0, 100.0)


@dataclass(frozen=True)
class Row:
    """Percent, bytes, seconds."""

    model: str
    share: float
    weight_code_bytes: int
    library_bytes: int
    fp32: float
    chosen: float
    naive: float
    chosen_agreement: float
    naive_agreement: float
    build_seconds: float
    bits: str


def measure(model: str, share: float, folder: Path) -> Row:
    """One size of one model."""
    real = load_real_model(model, folder)
    calibration = calibration_images(model, folder).floats()
    images = evaluation_images(model, folder, "test")
    with tempfile.TemporaryDirectory() as temporary:
        begin = time.perf_counter()
        artifact = qc.build(
            real.model, calibration=calibration, budget=qc.Budget(size=f"{share}%"), out=Path(temporary) / "net", progress=False
        )
        seconds = time.perf_counter() - begin
        chosen = classes(qc.Library(artifact.folder), images)
        sizes = artifact.description["sizes"]
        layers = {name: row["weight_bits"] for name, row in artifact.report().facts["search"]["layers"].items()}
    plain = classes(qc.compile(naive(real.model, calibration, layers), progress=False), images)
    expected = np.concatenate([real.logits(x) for x in images.batches(BATCH)]).argmax(1)
    counts = list(layers.values())
    return Row(
        model=model,
        share=share,
        weight_code_bytes=sizes["weight_code_bytes"],
        library_bytes=sizes["library_bytes"],
        fp32=percent(expected == images.labels),
        chosen=percent(chosen == images.labels),
        naive=percent(plain == images.labels),
        chosen_agreement=percent(chosen == expected),
        naive_agreement=percent(plain == expected),
        build_seconds=seconds,
        bits=" ".join(f"{counts.count(bits)}x{bits}" for bits in (8, 4, 2) if bits in counts),
    )


def classes(library: qc.Library, images: Samples) -> np.ndarray[Any, Any]:
    """The class that the library gives each image, int64[N]."""
    found: np.ndarray[Any, Any] = np.concatenate([library(x, threads=os.cpu_count() or 1) for x in images.batches(BATCH)])
    return found.argmax(1)


def naive(model: Any, calibration: Any, layers: Mapping[str, int]) -> Graph:
    """The allocated graph with min-max ranges and nearest codes."""
    pins = parse_bits({name: f"w{bits}a8" for name, bits in layers.items()})
    steps = passes(Settings(calibration, observer="minmax", pins=pins, samples=FirstSamples()))
    names = [step.name for step in steps]
    graph = load_graph(model, calibration[:1]).graph
    graph = run_passes(graph, [s for s in steps[: names.index("allocate_bits") + 1] if s.name != "equalize_channels"])
    weights = {node.inputs[1] for node in graph.nodes if node.op in WEIGHTED}
    constants = [min_max(c) if c.name in weights else c for c in graph.constants]
    nodes = [node.with_attributes(bias_corrected=1) if node.op in WEIGHTED else node for node in graph.nodes]
    return graph.with_nodes(nodes, constants)


def min_max(constant: Constant) -> Constant:
    """Weights on the grid that spans each channel."""
    low, high = code_limits(constant.bits or 8)
    rows = constant.data.reshape(len(constant.data), -1).astype(np.float64)
    scale = np.maximum(np.abs(rows).max(1), 1e-12) / high
    data = (np.clip(np.floor(rows / scale[:, None] + 0.5), low, high) * scale[:, None]).astype(np.float32)
    return replace(constant, data=data.reshape(constant.data.shape), scale=scale)


def table(rows: list[Row]) -> Table:
    """All sizes of all models."""
    result = Table(title="top-1 on test sets, % (in brackets: same class as fp32)", title_justify="left")
    for heading in ("model", "size limit", "weight codes", "libnet.so", "layers x bits", "fp32", "chosen", "naive", "build s"):
        result.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        result.add_row(
            row.model,
            f"{row.share:g} %",
            f"{row.weight_code_bytes:,}",
            f"{row.library_bytes:,}",
            row.bits,
            f"{row.fp32:.2f}",
            f"{row.chosen:.2f} ({row.chosen_agreement:.2f})",
            f"{row.naive:.2f} ({row.naive_agreement:.2f})",
            f"{row.build_seconds:.0f}",
        )
    return result


def draw(rows: list[Row], path: Path) -> None:
    """A panel for each model; equal rows give equal bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(4.6 * len(models), 3.6), layout="constrained")
    for index, model in enumerate(models):
        axes = figure.add_subplot(1, len(models), index + 1)
        mine = [row for row in rows if row.model == model]
        sizes = [row.weight_code_bytes / 1e3 for row in mine]
        axes.axhline(mine[0].fp32, color="gray", linestyle=":", label="fp32")
        axes.plot(sizes, [row.chosen for row in mine], "o-", label="chosen within a budget")
        axes.plot(sizes, [row.naive for row in mine], "s--", label="the same bits, naive min-max")
        axes.set_title(model)
        axes.set_xlabel("weight codes in the library, kB")
        axes.set_ylabel("top-1, %")
        axes.grid(alpha=0.3)
        axes.legend()
    with rc_context({"svg.hashsalt": "pareto"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[list[str] | None, typer.Option(help="One of the models; may be repeated. Both by default.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A file for the picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure; exit code 1 where naive rounding is above in top-1 and in agreement with the float model."""
    rows = []
    for name in model or MODELS:
        for share in SHARES:
            rows.append(measure(name, share, data))
            print(json.dumps(asdict(rows[-1])), file=sys.stderr)
    if plot is not None:
        draw(rows, plot)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        Console(width=130 if not sys.stdout.isatty() else None).print(table(rows))
    if any(row.naive > row.chosen and row.naive_agreement > row.chosen_agreement for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
