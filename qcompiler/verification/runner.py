"""Runs a library that was just built: in this process where the CPU can, else in a static program under qemu's user mode.

The program needs no C library: it reads the inputs of all samples from its standard input and writes the outputs of all
samples to its standard output, so a compiler for the target's architecture is enough.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np

from qcompiler.backend.artifact import BuiltLibrary
from qcompiler.backend.library import Library
from qcompiler.backend.toolchain import find_toolchain
from qcompiler.errors import InternalError
from qcompiler.interrupts import temporary_folder
from qcompiler.ir.graph import Array
from qcompiler.targets.target import Target, host_refusal

EMULATED: Final = ("aarch64",)
"""Architectures for which ``run.c.jinja`` knows how a program talks to Linux."""


@dataclass(frozen=True)
class Runner:
    """``run``: input codes as the model lays them out, ``[S, ...]`` each, and a number of threads, to output codes.

    ``how`` says where, for people; ``threads``: whether there can be more than one; ``emulated``: whether it is slow.
    """

    run: Callable[[Sequence[Array], int], list[Array]]
    how: str
    threads: bool
    emulated: bool = False


def refusal(target: Target) -> str | None:
    """Why libraries of ``target`` can't be run on this machine; None if they can."""
    problem = host_refusal(target)
    if problem is None or (target.architecture in EMULATED and emulator(target) is not None):
        return None
    return problem + (f", and qemu-{target.architecture} is not installed" if target.architecture in EMULATED else "")


def emulator(target: Target) -> str | None:
    """The command that runs programs of the target's architecture, or None."""
    names = (f"qemu-{target.architecture}-static", f"qemu-{target.architecture}")
    return next((name for name in names if shutil.which(name)), None)


@contextmanager
def open_runner(built: BuiltLibrary) -> Iterator[Runner]:
    """A runner of a library whose target has no :func:`refusal`."""
    with temporary_folder() as folder:
        for name, content in built.files.items():
            (folder / name).write_bytes(content)
        if host_refusal(built.target) is None:
            with Library(folder) as library:
                yield Runner(_called(library), "here", threads=bool(built.description["pool"]))
        else:
            yield _emulated(built, folder)


def _called(library: Library) -> Callable[[Sequence[Array], int], list[Array]]:
    def run(codes: Sequence[Array], threads: int) -> list[Array]:
        result = library.run_int(
            *(_laid_out(x, port.layout) for x, port in zip(codes, library.inputs, strict=True)), threads=threads
        )
        return list(result) if isinstance(result, tuple) else [result]

    return run


def _laid_out(x: Array, layout: str) -> Array:
    """Codes ``[S, C, H, W]`` in the layout of an input."""
    return x.transpose(0, 2, 3, 1) if layout == "NHWC" else x


def _emulated(built: BuiltLibrary, folder: Path) -> Runner:
    command = emulator(built.target)
    if command is None:
        raise InternalError(f"nothing runs {built.target.name} here")
    description = built.description
    toolchain = find_toolchain(built.target)
    programs: dict[int, Path] = {}

    def program(samples: int) -> Path:
        if samples not in programs:
            source = _source(description, samples)
            content, _ = toolchain.compile_c(source, "run.c", {"net.h": built.files["net.h"].decode()})
            programs[samples] = folder / f"run{samples}"
            programs[samples].write_bytes(toolchain.link_program(content, built.files["libnet.a"]))
            programs[samples].chmod(0o700)
        return programs[samples]

    def run(codes: Sequence[Array], threads: int) -> list[Array]:
        samples = len(codes[0])
        laid_out = (_laid_out(x, port["layout"]) for x, port in zip(codes, description["inputs"], strict=True))
        done = subprocess.run(
            [command, str(program(samples))], input=b"".join(x.tobytes() for x in laid_out), capture_output=True
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[:500]
            raise InternalError(f"the library for {built.target.name} ended with {done.returncode} under {command}: {said}")
        return _outputs(done.stdout, description["outputs"], samples)

    return Runner(run, f"under {command}", threads=False, emulated=True)


def _source(description: Mapping[str, Any], samples: int) -> str:
    """The C source of the program for so many samples."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("qcompiler.verification", ""), undefined=jinja2.StrictUndefined)
    sizes = {kind: [_sample_bytes(port) * samples for port in description[kind]] for kind in ("inputs", "outputs")}
    return environment.get_template("run.c.jinja").render(
        name=description["name"], samples=samples, workspace=description["workspace_bytes"], **sizes
    )


def _sample_bytes(port: Mapping[str, Any]) -> int:
    return int(np.prod(port["shape"], dtype=np.int64)) * int(np.dtype(port["dtype"]).itemsize)


def _outputs(content: bytes, ports: Sequence[Mapping[str, Any]], samples: int) -> list[Array]:
    arrays, start = [], 0
    for port in ports:
        size = _sample_bytes(port) * samples
        arrays.append(np.frombuffer(content[start : start + size], dtype=port["dtype"]).reshape(samples, *port["shape"]))
        start += size
    return arrays
