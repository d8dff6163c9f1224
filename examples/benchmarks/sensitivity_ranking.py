"""How well each sensitivity metric ranks a network's layers, against the accuracy that is lost when one layer has 2 bits.

Run from the repository's root, with QC_DATA naming the folder of models and data:

    python -m examples.benchmarks.sensitivity_ranking                      # ResNet-20 and ResNet-56
    python -m examples.benchmarks.sensitivity_ranking --model resnet20 --samples 128 --images 3000

Scores come from the first training images, drops from others, of the training side too. At 4 bits a single layer loses about as
many images as one standard error of the measured drop, so there is nothing to rank by: layers have 2 bits here, which all metrics
score as well. Kendall's tau-b: 1 where a metric orders all pairs of layers as the drops do, 0 for a coin. "ceiling" is the tau of
the drops on one half of the images with those on the other half; "KL on other images" is the divergence measured where the
drops are, so it has no error of few samples.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from qcompiler.importers.load import load_model
from qcompiler.ir.graph import Graph, Stage
from qcompiler.passes.graph_pass import run_passes
from qcompiler.pipeline import Settings, passes
from qcompiler.progress import progress_bars
from qcompiler.sensitivity.analyze import METRICS, sensitivities
from qcompiler.sensitivity.candidates import Candidates
from qcompiler.sensitivity.float_run import FloatRun, float_constants
from tests.real_models import HELD_OUT, Array, Samples, calibration_images, cifar_images, load_real_model

NETWORKS: Final = ("resnet20", "resnet56")
BITS: Final = 2
BATCH: Final = 50


@dataclass(frozen=True)
class Row:
    """One metric on one network: Kendall's tau, its samples, and how long it took."""

    model: str
    metric: str
    samples: int
    tau: float
    seconds: float


def calibrated(name: str, folder: Path) -> Graph:
    """The network as it ships, with ranges, before bits are chosen."""
    graph = load_model(load_real_model(name, folder).model, None).graph
    settings = Settings(calibration_images(name, folder).floats())
    return run_passes(graph, [step for step in passes(settings) if step.requires is Stage.FLOAT])


def layer_hits(graph: Graph, images: Samples) -> tuple[Array, Mapping[str, Array]]:
    """Which images are classified right, bool[N]: in float, and with each layer's weights at ``BITS`` bits."""
    candidates, constants = Candidates(graph, (BITS,), ()), float_constants(graph)
    assert images.labels is not None
    exact: list[Array] = []
    changed: dict[str, list[Array]] = {name: [] for name in candidates.weights}
    for start, x in zip(range(0, len(images), BATCH), images.batches(BATCH), strict=True):
        labels = images.labels[start : start + BATCH]
        run = FloatRun(graph, [torch.from_numpy(x)], constants)
        exact.append(run.outputs()[0].argmax(1).numpy() == labels)
        for name, hits in changed.items():
            hits.append(run.outputs(candidates.change(name, BITS))[0].argmax(1).numpy() == labels)
    return np.concatenate(exact), {name: np.concatenate(hits) for name, hits in changed.items()}


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-b of two lists of equal length: agreeing less disagreeing pairs, over those that are not ties."""
    first, second = (np.sign(np.subtract.outer(np.asarray(x), np.asarray(x))) for x in (a, b))
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))


def measure(
    name: str, folder: Path, metrics: Sequence[str], samples: int, images: int, labels: bool
) -> tuple[list[Row], Mapping[str, float]]:
    """The rows of one network, and each layer's drop in points."""
    graph = calibrated(name, folder)
    training = cifar_images(name, folder, "train")
    judged, scored = training[HELD_OUT][:images], training[:samples]
    begin = time.perf_counter()
    exact, changed = layer_hits(graph, judged)
    drops = {layer: 100.0 * float(exact.mean() - hits.mean()) for layer, hits in changed.items()}
    even, odd = ([float(exact[part].mean() - hits[part].mean()) for hits in changed.values()] for part in _halves())
    rows = [Row(name, "ceiling", len(judged), kendall_tau(even, odd), time.perf_counter() - begin)]
    with progress_bars() as progress:
        for metric in metrics:
            known = scored.labels if labels and metric not in ("kl", "mse", "sqnr") else None
            found = sensitivities(graph, [scored.floats()], metric, known, (BITS,), (), progress)
            tau = kendall_tau([found.weights[layer][BITS] for layer in drops], list(drops.values()))
            rows.append(Row(name, metric, len(scored), tau, found.seconds))
    return rows, drops


def _halves() -> tuple[slice, slice]:
    return slice(0, None, 2), slice(1, None, 2)


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table."""
    result = Table(title=f"layers ranked at {BITS} bits", title_justify="left")
    for heading in ("model", "metric", "samples", "tau", "seconds"):
        result.add_column(heading, justify="left" if heading in ("model", "metric") else "right")
    for row in rows:
        result.add_row(row.model, row.metric, str(row.samples), f"{row.tau:.3f}", f"{row.seconds:.1f}")
    return result


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[list[str] | None, typer.Option(help="resnet20 or resnet56; may be repeated. Both by default.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="A metric; may be repeated. All by default.")] = None,
    samples: Annotated[int, typer.Option(help="Training images that scores are made of; at most 5000.")] = 128,
    images: Annotated[int, typer.Option(help="Other training images that drops are measured on; at most 3000.")] = 3000,
    labels: Annotated[bool, typer.Option(help="Give the metrics the images' labels.")] = False,
    threads: Annotated[int, typer.Option(help="Torch's threads.")] = os.cpu_count() or 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with each layer's drop in points.")] = False,
) -> None:
    """Measure each layer's drop, and how each metric ranks the layers."""
    for option, legal, given in (("model", NETWORKS, model or ()), ("metric", METRICS, metric or ())):
        for unknown in sorted(set(given) - set(legal)):
            raise typer.BadParameter(f"--{option} {unknown}: choose of {', '.join(legal)}")
    torch.set_num_threads(threads)
    measured = [measure(name, data, metric or METRICS, samples, images, labels) for name in model or NETWORKS]
    rows = [row for found, _ in measured for row in found]
    if as_json:
        drops = {found[0].model: by_layer for found, by_layer in measured}
        print(json.dumps({"rows": [asdict(row) for row in rows], "drops": drops}, indent=1))
    else:
        Console(width=100 if not sys.stdout.isatty() else None).print(table(rows))


if __name__ == "__main__":
    typer.run(main)
