"""Latency of our libraries beside ONNX Runtime: batch 1, one thread, one core, runs interleaved in one process.

ONNX Runtime's int8 model is static QDQ, weights per channel, activations unsigned and weights signed bytes, after its own
pre-processing. Both take and give float; of our library the integer entry is timed too. Run from the repository's root:

    python -m examples.benchmarks.latency
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime
import torch
import typer
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from qcompiler.codes import quantize
from tests.real_models import NAMES, Array, calibration_images, load_real_model

CALIBRATION_SAMPLES = 64
BLOCK_SECONDS = 0.02  # an engine runs for about so long before the next has its turn: caches are as warm as in use
OURS, OURS_FLOAT, THEIRS, THEIRS_FLOAT = "ours, codes", "ours, float in and out", "ONNX Runtime int8", "ONNX Runtime fp32"


@dataclass(frozen=True)
class Timing:
    """One engine on one model. Milliseconds; ``cosine`` is the similarity of its outputs with the float model's."""

    model: str
    engine: str
    runs: int
    median_ms: float
    minimum_ms: float
    cosine: float


class Samples(CalibrationDataReader):
    """Calibration images one by one, as ONNX Runtime wants them."""

    def __init__(self, name: str, images: Array) -> None:
        self.items: Iterator[dict[str, Array]] = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.items, None)


def onnx_file(model: Any, example: Array, folder: Path) -> Path:
    """The model as an ONNX file of batch 1."""
    path = folder / "float.onnx"
    if isinstance(model, torch.nn.Module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (torch.from_numpy(example),), path, dynamo=False, opset_version=17)
        return path
    proto = onnx.load(model)
    for port in (*proto.graph.input, *proto.graph.output):
        port.type.tensor_type.shape.dim[0].ClearField("dim_param")
        port.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(proto, path)
    return path


def quantized_onnx(path: Path, calibration: Array, folder: Path) -> Path:
    """ONNX Runtime's int8 model, made as its documentation says."""
    prepared, quantized = folder / "prepared.onnx", folder / "int8.onnx"
    try:
        quant_pre_process(path, prepared)
    except Exception as error:
        print(f"symbolic shape inference failed ({error}); going on without it", file=sys.stderr)
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
    input_name = onnx.load(prepared).graph.input[0].name
    quantize_static(
        prepared,
        quantized,
        Samples(input_name, calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return quantized


def session(path: Path) -> Callable[[Array], Array]:
    """A function that runs an ONNX file on one thread with all optimizations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    made = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = made.get_inputs()[0].name
    return lambda x: made.run(None, {name: x})[0]


def interleaved(engines: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of every run of every engine; they take turns (A B C A B C ...) until ``seconds`` are over."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    block = {}
    for name, run in engines.items():
        run()
        start = time.perf_counter()
        run()
        block[name] = max(1, round(BLOCK_SECONDS / (time.perf_counter() - start)))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, run in engines.items():
            for _ in range(block[name]):
                start = time.perf_counter_ns()
                run()
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return times


def cosine(a: Array, b: Array) -> float:
    """Cosine similarity of two arrays taken as vectors."""
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def measure(name: str, data: Path, target: str, seconds: float) -> list[Timing]:
    """All engines on one model."""
    real = load_real_model(name, data)
    calibration = calibration_images(name, data, CALIBRATION_SAMPLES).floats()
    library = qc.compile(real.model, calibration=calibration, target=target)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = onnx_file(real.model, calibration[:1], folder)
        theirs, theirs_float = session(quantized_onnx(path, calibration, folder)), session(path)
    x = calibration[:1]
    port = library.inputs[0]
    codes = quantize(x, port.scale, port.zero, 0, (1 << port.bits) - 1, port.dtype)
    times = interleaved(
        {
            OURS: lambda: library.run_int(codes),
            THEIRS: lambda: theirs(x),
            OURS_FLOAT: lambda: library(x),
            THEIRS_FLOAT: lambda: theirs_float(x),
        },
        seconds,
    )
    few = calibration[:32]
    expected = real.logits(few)
    ours, other = library(few), np.concatenate([theirs(image[None]) for image in few])
    similarity = {OURS: cosine(ours, expected), OURS_FLOAT: cosine(ours, expected), THEIRS: cosine(other, expected)}
    return [
        Timing(name, engine, len(runs), float(np.median(runs)), min(runs), similarity.get(engine, 1.0))
        for engine, runs in times.items()
    ]


def environment(core: int) -> dict[str, Any]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    packages = ("qcompiler", "apache-tvm", "onnxruntime", "torch", "numpy")
    return {
        "cpu": names[0] if names else platform.processor(),
        "core": core,
        "load": os.getloadavg()[0],
        "versions": {package: version(package) for package in packages},
    }


def table(timings: list[Timing]) -> Table:
    """The timings, with each median's ratio to ONNX Runtime's int8."""
    result = Table(title="batch 1, one thread", title_justify="left")
    for heading in ("model", "engine", "runs", "median ms", "minimum ms", "of ONNX Runtime int8", "cosine with fp32"):
        result.add_column(heading, justify="left" if heading in ("model", "engine") else "right")
    base = {timing.model: timing.median_ms for timing in timings if timing.engine == THEIRS}
    for timing in timings:
        result.add_row(
            timing.model,
            timing.engine,
            f"{timing.runs:,}",
            f"{timing.median_ms:.3f}",
            f"{timing.minimum_ms:.3f}",
            f"{timing.median_ms / base[timing.model]:.2f}",
            f"{timing.cosine:.5f}",
        )
    return result


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    model: Annotated[list[str] | None, typer.Option(help="One of the models; may be repeated.")] = None,
    target: Annotated[str, typer.Option(help="What to compile for.")] = "native",
    seconds: Annotated[float, typer.Option(help="How long to measure each model.")] = 10.0,
    core: Annotated[int, typer.Option(help="The core to run on; -1 takes the last.")] = -1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time our libraries and ONNX Runtime side by side."""
    cores = sorted(os.sched_getaffinity(0))
    chosen = cores[-1] if core < 0 else core
    os.sched_setaffinity(0, {chosen})
    torch.set_num_threads(1)
    facts = environment(chosen)
    names = model or [name for name in NAMES if name != "resnet20-torch"]
    timings = [timing for name in names for timing in measure(name, data, target, seconds)]
    if as_json:
        print(json.dumps({**facts, "timings": [asdict(timing) for timing in timings]}, indent=1))
        return
    console = Console(width=120 if not sys.stdout.isatty() else None)
    console.print(table(timings))
    versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
    console.print(f"{facts['cpu']}, core {chosen}, load {facts['load']:.2f} at the start; {versions}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
