"""``qcompiler run``: a library on samples from a file.

Errors: CLI005 the output cannot be written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcompiler.cli.app import emit, errors_as_exit_codes
from qcompiler.cli.inputs import load_samples, named_inputs
from qcompiler.cli.options import AsJson
from qcompiler.errors import CompileError


def run(
    artifact: Annotated[Path, typer.Argument(help="folder that `qcompiler build` wrote")],
    inputs: Annotated[Path, typer.Argument(help=".npy or .npz with samples as the float model takes them")],
    output: Annotated[Path | None, typer.Option(help=".npy for the first output, as float32")] = None,
    threads: Annotated[int, typer.Option(min=1, help="threads of the library's own pool")] = 1,
    top: Annotated[int, typer.Option(min=1, help="how many classes to print for each sample")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run a library on samples from a file and print the best classes of each.

    `qcompiler run build/ inputs.npy --output logits.npy`
    """
    import numpy as np

    from qcompiler.backend.library import load

    with errors_as_exit_codes(as_json):
        library = load(artifact)
        result = library(*named_inputs(library, load_samples(inputs)), threads=threads)
        first = np.asarray(result[0] if isinstance(result, tuple) else result)
        if output is not None:
            try:
                np.save(output, first)
            except OSError as problem:
                what = f"the output cannot be written: {problem.strerror}"
                raise CompileError(
                    "CLI005", str(output), what, "name a file in a folder that exists and can be written"
                ) from None
        flat = first.reshape(len(first), -1)
        best = np.argsort(-flat, axis=1, kind="stable")[:, :top]

        def text() -> str:
            lines = (", ".join(f"{c} ({flat[i, c]:.4g})" for c in row) for i, row in enumerate(best))
            return "\n".join(f"{i}: {line}" for i, line in enumerate(lines))

        emit(as_json, lambda: {"top": best.tolist(), "shape": list(first.shape)}, text)
