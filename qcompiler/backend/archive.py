"""Static libraries in the GNU ``ar`` format with a symbol index, the same bytes on every machine: what ``ar D`` writes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from qcompiler.backend.elf import read_elf
from qcompiler.errors import InternalError

_MAGIC = b"!<arch>\n"


def _member(name: str, content: bytes) -> bytes:
    """A member with no date, owner or group."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)


def write_archive(members: Sequence[tuple[str, bytes]]) -> bytes:
    """An archive of objects, (name of at most 15 characters, content) each, with the index that linkers need."""
    parts = []
    for name, content in members:
        if len(name) > 15:
            raise InternalError(f"archive member name {name!r} is longer than 15 characters")
        parts.append(_member(f"{name}/", content))
    symbols = [(name, index) for index, (_, content) in enumerate(members) for name in sorted(read_elf(content).exported)]
    names = b"".join(name.encode() + b"\0" for name, _ in symbols)
    names += b"\0" * (len(names) % 2)
    first = len(_MAGIC) + 60 + 4 + 4 * len(symbols) + len(names)
    offsets = [first + sum(len(part) for part in parts[:index]) for index in range(len(parts))]
    index = struct.pack(f">{1 + len(symbols)}I", len(symbols), *(offsets[member] for _, member in symbols)) + names
    return _MAGIC + _member("/", index) + b"".join(parts)
