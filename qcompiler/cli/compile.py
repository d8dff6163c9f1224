"""``qcompiler compile``: compile, load, check against the reference, report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompiler.cli.app import as_data, emit, errors_as_exit_codes
from qcompiler.cli.inputs import load_model
from qcompiler.cli.options import AsJson, BuildOptions, Model
from qcompiler.errors import InternalError

if TYPE_CHECKING:
    import numpy as np

    from qcompiler.backend.library import Library


def compile_model(model: Model, options: BuildOptions, as_json: AsJson = False) -> None:
    """Compile MODEL, load it here, check it against the reference, and report layer by layer; nothing is kept.

    `qcompiler compile net.onnx --calibration inputs.npy --dump-ir dumps/`
    """
    import qcompiler
    from qcompiler.interrupts import temporary_folder

    with errors_as_exit_codes(as_json), temporary_folder() as temporary:
        dumps = options.dump_ir or temporary
        library = qcompiler.compile(load_model(model), **replace(options, dump_ir=dumps).keywords(), progress=not as_json)
        checked = check_against_reference(library, dumps)
        latency = measure_latency(library)
        report = library.report()

        def text() -> str:
            check = f"output codes equal the reference's on {checked} random samples"
            return f"{report}{check}\nlatency: {latency:.3f} ms (batch 1, 1 thread, median of this run)"

        emit(as_json, lambda: {**as_data(report.to_json()), "checked_samples": checked, "latency_ms": latency}, text)


def check_against_reference(library: Library, dumps: Path, samples: int = 2) -> int:
    """Compare the library with the integer graph of the last dump on random codes, for every input of the network.

    Returns the number of samples. Raises InternalError if a single bit differs.
    """
    import numpy as np

    from qcompiler.dump import read_dump
    from qcompiler.interpret import run_integer
    from qcompiler.ir.dtypes import IntegerType

    graph = read_dump(max(dumps.glob("*.qir")))
    generator = np.random.default_rng(0)
    given, codes = [], []
    for value, port in zip(graph.inputs, library.inputs, strict=True):
        kind = value.type.dtype
        assert isinstance(kind, IntegerType)
        random = generator.integers(kind.minimum, kind.maximum + 1, (samples, *value.type.with_batch(1)[1:]), dtype=port.dtype)
        codes.append(random)
        given.append(np.ascontiguousarray(np.moveaxis(random, 1, -1)) if port.layout == "NHWC" else random)
    found = library.run_int(*given)
    for index, (a, b) in enumerate(zip(found if isinstance(found, tuple) else (found,), run_integer(graph, codes), strict=True)):
        if not np.array_equal(a, b):
            raise InternalError(f"output {index} of {library.name} differs from the reference in {int((a != b).sum())} codes")
    return samples


def zero_inputs(library: Library) -> list[np.ndarray[Any, Any]]:
    """One sample of codes, all zero points, for every input."""
    import numpy as np

    return [np.full((1, *p.shape), p.zero, dtype=p.dtype) for p in library.inputs]


def measure_latency(library: Library, runs: int = 30) -> float:
    """Median milliseconds of ``runs`` calls with one sample and one thread, after a warm-up."""
    import statistics
    import time

    codes = zero_inputs(library)
    library.run_int(*codes)
    times: list[float] = []
    for _ in range(runs):
        begin = time.perf_counter()
        library.run_int(*codes)
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)
