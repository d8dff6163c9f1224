"""Dumps: a folder with one readable, re-parsable text file after each pass, the TIR and the assembly."""

from __future__ import annotations

import os
from pathlib import Path

from qcompiler.errors import CompileError
from qcompiler.ir.graph import Graph
from qcompiler.ir.text import FolderStore, parse_graph, print_graph

CONSTANTS = "constants"


class Dumper:
    """Writes numbered dumps into ``folder``; large constants go to ``folder/constants``, shared by all dumps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise CompileError(
                "DUMP003", str(folder), f"no dumps can be written: {problem}", "name a folder that can be written"
            ) from None
        for old in (*folder.glob("[0-9][0-9]-*.qir"), *folder.glob("net.*")):
            old.unlink()

    def graph(self, step: str, graph: Graph) -> None:
        """Write ``NN-step.qir``."""
        write_dump(self.folder, f"{self.count:02d}-{step}", graph)
        self.count += 1

    def text(self, name: str, content: str) -> None:
        """Write a file under a temporary name and rename it."""
        _write(self.folder / name, content)


def write_dump(folder: Path, name: str, graph: Graph) -> Path:
    """Write ``name.qir`` into ``folder``, which is made if need be; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.qir"
    _write(path, print_graph(graph, FolderStore(folder / CONSTANTS)))
    return path


def _write(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_dump(path: Path) -> Graph:
    """The graph of a dump; DUMP001 if there is none, DUMP002 if it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise CompileError(
            "DUMP001", str(path), f"the dump cannot be read: {problem}", "name a .qir file that dump_ir wrote"
        ) from None
    try:
        return parse_graph(text, FolderStore(path.parent / CONSTANTS))
    except ValueError as problem:
        raise CompileError(
            "DUMP002", str(path), str(problem), "keep the dump and its folder constants/ as dump_ir wrote them"
        ) from None
