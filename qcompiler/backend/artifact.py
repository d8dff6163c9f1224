"""Writes the artifact of a program: ``net.o``, ``libnet.a``, ``libnet.so``, ``net.h``, ``net.json`` in a folder.

Everything is built and proven free of float and division before the first file is written, and the bytes depend on
the program, the target and the tools' versions alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qcompiler.backend.archive import write_archive
from qcompiler.backend.c_source import check_name, write_sources
from qcompiler.backend.elf import TVM_HALF_FLOAT_SECTION, data_object, executable_bytes, merge_objects, read_elf
from qcompiler.backend.machine_code import verify_library, verify_listings, verify_symbols
from qcompiler.backend.program import Port, Program
from qcompiler.backend.publish import publish
from qcompiler.backend.toolchain import MACHINES, find_objdump, find_toolchain
from qcompiler.errors import CompileError
from qcompiler.targets.target import Target

if TYPE_CHECKING:
    from qcompiler.backend.tir import CompiledKernels
    from qcompiler.report import Report

FORMAT: Final = 1
"""Version of ``net.json``."""

REPORT: Final = "net.report.json"

FILES: Final = ("net.o", "libnet.a", "libnet.so", "net.h", "net.json")


@dataclass(frozen=True)
class Listings:
    """What the library was made from, for dumps: the ``kernels``, and the C compiler's assembly of the ``c_parts``."""

    kernels: CompiledKernels
    c_parts: tuple[str, ...]

    @property
    def assembly(self) -> str:
        """The compilers' listings."""
        return "".join(readable_assembly(listing) for listing in (self.kernels.assembly, *self.c_parts))

    @property
    def tir(self) -> str:
        """The lowered kernels as TVM prints them."""
        return self.kernels.tir


@dataclass(frozen=True)
class Artifact:
    """A written artifact; ``description`` is the content of net.json.

    ``mnemonics``: how often each instruction occurs in the library; empty where there is no disassembler.
    """

    folder: Path
    description: Mapping[str, Any]
    mnemonics: Mapping[str, int]
    listings: Listings

    def files(self) -> list[str]:
        """Names of the files that are in the folder."""
        return [name for name in (*FILES, REPORT) if (self.folder / name).is_file()]

    def report(self) -> Report:
        """What net.report.json holds. Raises CompileError REPORT001 where there is none."""
        from qcompiler.report import read_report

        return read_report(self.folder)


def port_description(port: Port) -> dict[str, Any]:
    """A port as it stands in net.json; the scale also in hexadecimal, exactly."""
    return {**asdict(port), "shape": list(port.shape), "scale_hex": float(port.scale).hex()}


def readable_assembly(text: str) -> str:
    """A compiler's listing without debug sections and line marks, and without what is not linked."""
    kept = []
    skipping = False
    for line in text.splitlines():
        section = re.match(r"\s*\.(section\s+(?P<name>[^\s,]+)|text\b|data\b|bss\b)", line)
        if section:
            name = section["name"] or ""
            skipping = name.startswith((".debug", TVM_HALF_FLOAT_SECTION, ".note", ".comment"))
        if not skipping and not re.match(r"\s*\.(file|loc|cfi_\w+|ident)\b|\.L(tmp|func_\w+)\d+:", line):
            kept.append(line)
    return "\n".join(kept) + "\n"


def _check_section(section: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.$]{1,100}", section):
        problem = f"{section!r} is not the name of a section"
        raise CompileError(
            "BUILD002", "weights_section", problem, "use letters, digits, '_', '.' and '$', such as '.flash.weights'"
        )


@dataclass(frozen=True)
class BuiltLibrary:
    """The library of a program in memory: ``files`` by their names; the rest as :class:`Artifact` has it."""

    target: Target
    files: Mapping[str, bytes]
    mnemonics: Mapping[str, int]
    listings: Listings

    @property
    def description(self) -> dict[str, Any]:
        """The content of net.json."""
        content: dict[str, Any] = json.loads(self.files["net.json"])
        return content

    def publish(self, out: Path, report: str | None = None) -> Artifact:
        """Writes the files, and ``report`` as net.report.json, into the folder ``out``, all at once.

        Raises CompileError BUILD003 where the folder cannot be written.
        """
        files = self.files if report is None else {REPORT: report.encode(), **self.files}
        publish(out, files, (*FILES, REPORT))
        return Artifact(out, self.description, self.mnemonics, self.listings)


def build_library(
    program: Program,
    target: Target,
    pool: bool = True,
    weights_section: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> BuiltLibrary:
    """Builds and verifies the library of a program.

    ``pool`` puts the thread pool into the library; ``weights_section`` is where the weights go
    (``.rodata.qc_<name>_weights``); ``metadata`` is added to net.json. Raises CompileError BUILD001 and BUILD002, TOOL001 and
    TOOL002, InternalError if the proof fails.
    """
    from qcompiler.backend.tir import CompiledKernels
    from qcompiler.backend.tir_check import verify_tir
    from qcompiler.schedules.tiling import tiling_text

    check_name(program.name)
    section = weights_section or f".rodata.qc_{program.name}_weights"
    _check_section(section)
    sources = write_sources(program, target.name, pool)
    toolchain = find_toolchain(target)
    verify_tir(program.functions)
    kernels = CompiledKernels(program.functions, target.tvm_target)
    headers = {"net.h": sources.header}
    entry, entry_assembly = toolchain.compile_c(sources.entry, "net.c", headers)
    weights = data_object(MACHINES[target.architecture], f"qc_{program.name}_weights", section, program.weights)
    listings = [entry_assembly]
    pool_objects = []
    if sources.pool is not None:
        content, pool_assembly = toolchain.compile_c(sources.pool, "pool.c", headers)
        pool_objects.append(merge_objects([content], sources.exported))
        listings.append(pool_assembly)
    code = merge_objects([entry, kernels.content], sources.exported)
    whole = merge_objects([code, weights, *pool_objects], sources.exported)
    archive = write_archive([("net.o", code), ("weights.o", weights), *(("pool.o", content) for content in pool_objects)])
    verify_symbols(read_elf(whole), pool)
    library = toolchain.link_shared(whole, "libnet.so", sources.exported)
    objdump = find_objdump(target)
    if objdump:
        mnemonics = verify_library(library, target.architecture, objdump, sources.exported, pool)
    else:
        verify_listings([kernels.assembly, *listings], target.architecture, pool)
        mnemonics = None
    description = {
        **(metadata or {}),
        "format": FORMAT,
        "name": program.name,
        "target": target.name,
        "architecture": target.architecture,
        "cpu_flags": list(target.cpu_flags),
        "batch_tile": program.batch_tile,
        "pool": pool,
        "inputs": [port_description(port) for port in program.inputs],
        "outputs": [port_description(port) for port in program.outputs],
        "workspace_bytes": program.workspace_bytes,
        "largest_live_bytes": program.largest_live_bytes,
        "sizes": {
            "packed_code_bytes": program.packed_code_bytes,
            "weight_code_bytes": program.weight_code_bytes,
            "constant_bytes": len(program.weights),
            "code_bytes": executable_bytes(read_elf(whole)),
            "object_bytes": len(whole),
            "archive_bytes": len(archive),
            "library_bytes": len(library),
        },
        "calls": [{"layer": call.layer, "kernel": call.symbol, "tasks": call.tasks} for call in program.calls],
        "tilings": {symbol: tiling_text(tiling) for symbol, tiling in program.tilings.items()},
        "versions": {name: version(name) for name in ("qcompiler", "apache-tvm")},
    }
    text = json.dumps(description, indent=1, sort_keys=True) + "\n"
    files = dict(zip(FILES, (whole, archive, library, sources.header.encode(), text.encode()), strict=True))
    return BuiltLibrary(target, files, dict(mnemonics or {}), Listings(kernels, tuple(listings)))


def write_artifact(
    program: Program, target: Target, out: Path, pool: bool = True, weights_section: str | None = None
) -> Artifact:
    """Builds and verifies the library of a program and writes it into the folder ``out``, which is made if need be.

    Arguments and errors as for :func:`build_library` and :meth:`BuiltLibrary.publish`.
    """
    return build_library(program, target, pool, weights_section).publish(out)
