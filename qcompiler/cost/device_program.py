"""A C program that measures all candidates on a device which is elsewhere, and prints the latency table as JSON.

It is the program that measures here (:mod:`qcompiler.cost.measure`), with a ``main``. It needs libc and POSIX clocks.

Errors: COST007 the program cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qcompiler.cost.candidates import Candidates
from qcompiler.cost.harness import build_harness, render
from qcompiler.cost.latency_table import FORMAT
from qcompiler.cost.machine import CPU_FIELDS, package_versions
from qcompiler.cost.measure import PASSES
from qcompiler.errors import CompileError
from qcompiler.progress import Progress

ROUNDS: Final = 50
"""Turns of every trace, if the program is not told another number."""

FILES: Final = ("profile.c", "kernels.o", "build.sh", "README.txt")

_BUILD: Final = """#!/bin/sh
# Builds the program on the device; elsewhere with, for example, CC={prefix}gcc ./build.sh -static
set -e
cd "$(dirname "$0")"
${{CC:-cc}} -std=c11 -O2 -Wl,-z,noexecstack "$@" -o profile profile.c kernels.o
"""

_README: Final = """Measures {kernels} kernels of {name} on {target} ({description}).

  ./build.sh                  builds the program ./profile; needs a C compiler and nothing else
  ./profile > table.json      measures and prints the latency table; ./profile 200 does 200 rounds instead of {rounds}

Let the device do nothing else meanwhile, and fix its clock if you can. Read the table with
qcompiler.cost.latency_table.LatencyTable.read("table.json").
"""


def write_device_program(
    found: Candidates, folder: Path, name: str = "a network", progress: Progress | None = None
) -> tuple[str, ...]:
    """Writes the program for the candidates' target into ``folder`` and gives its files' names.

    ``name`` is the network's, for people. No C compiler is needed here. Raises CompileError COST007.
    """
    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)  # what cannot be is said before the kernels are compiled
    harness = build_harness(found.distinct, found.target, progress)
    keys = list(found.keys)
    main = render(
        "device.c.jinja",
        keys=keys,
        passes=PASSES,
        traces=[
            {"name": trace.name, "calls": trace.calls, "call_keys": [keys.index(key) for key in trace.keys]}
            for trace in found.distinct
        ],
        cpu_fields=CPU_FIELDS,
        rounds=ROUNDS,
        format=FORMAT,
        target=found.target.name,
        versions=package_versions(),
    )
    target = found.target
    facts = {"kernels": len(keys), "name": name, "target": target.name, "description": target.description, "rounds": ROUNDS}
    contents = {
        "profile.c": (harness.source + main).encode(),
        "kernels.o": harness.kernels,
        "build.sh": _BUILD.format(prefix=target.c_compiler.prefix).encode(),
        "README.txt": _README.format(**facts).encode(),
    }
    with _written(folder):
        for file, content in contents.items():
            (folder / file).write_bytes(content)
        (folder / "build.sh").chmod(0o755)
    return FILES


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """COST007 for what the file system refuses."""
    try:
        yield
    except OSError as problem:
        what = f"the program cannot be written: {problem.strerror}"
        raise CompileError("COST007", f"emit={str(folder)!r}", what, "name a folder that can be written") from None
