"""Runs a finished library beside the reference on a few samples, before anybody gets it.

A difference is a mistake of the compiler, so it is an InternalError: it names the first layer that differs and leaves a dump of
the smallest graph that shows it, with its inputs, and the command that shows it again.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from qcompiler.backend.artifact import BuiltLibrary
from qcompiler.dump import write_dump
from qcompiler.errors import InternalError
from qcompiler.interpret import dequantize
from qcompiler.ir.graph import Array, Graph
from qcompiler.verification.compare import first_difference
from qcompiler.verification.isolate import Build, Finding, Search
from qcompiler.verification.runner import open_runner
from qcompiler.verification.samples import expected

SAMPLES: Final = 4
"""At most; under an emulator, which is 20 times as slow, one (repeated where kernels work on several)."""
INPUTS: Final = "inputs.npz"


def verify(
    built: BuiltLibrary,
    graph: Graph,
    floats: Sequence[Array],
    build: Build,
    input_layout: str,
    seconds: float,
    dumps: Path | None = None,
) -> str:
    """What was run, for the report. Raises InternalError where ``built`` is not the library that ``graph`` says.

    ``floats``: samples for each input, ``[S, ...]``, of which the first few are run, besides random codes. ``build`` made
    ``built`` of ``graph`` with ``input_layout``. ``seconds``: after which the reference begins no further sample. ``dumps``:
    where a dump goes, by default a new temporary folder. Something must run the target, see :func:`runner.refusal`.
    """
    batch_tile: int = built.description["batch_tile"]
    with open_runner(built) as runner:
        wanted = expected(graph, floats, 1 if runner.emulated else SAMPLES, seconds)
        difference = first_difference(runner, wanted, batch_tile)
        if difference is None:
            count = wanted.samples
            return f"{count} sample{'s' * (count > 1)} run {runner.how} {'have' if count > 1 else 'has'} the reference's codes"
    finding = Search(graph, wanted, build, batch_tile, input_layout).finding(difference)
    folder = Path(tempfile.mkdtemp(prefix="qcompiler-mismatch-")) if dumps is None else dumps / "mismatch"
    path, target = _write(finding, folder), built.target.name
    options = {"calibration": folder / INPUTS, "target": target, "batch-tile": batch_tile, "input-layout": finding.input_layout}
    words = [word for name, value in {**options, "out": folder / "build"}.items() for word in (f"--{name}", str(value))]
    raise InternalError(
        f"the library for {target} differs from the reference at layer {finding.layer}: {finding.difference}\n"
        f"  {path} shows it again: {shlex.join(['qcompiler', 'build', str(path), *words])}\n"
        "  please report it with this folder; verify=False builds without looking"
    )


def _write(finding: Finding, folder: Path) -> Path:
    """The dump of a finding, and its inputs as the numbers that quantize to their codes."""
    path = write_dump(folder, "layer", finding.graph)
    floats = {value.name: dequantize(value, codes) for value, codes in zip(finding.graph.inputs, finding.inputs, strict=True)}
    np.savez(folder / INPUTS, **floats)  # type: ignore[arg-type]
    return path
