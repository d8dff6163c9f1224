"""Relocatable ELF objects, read, cleaned and merged: 64 bit, little-endian, as compilers for x86-64 and arm64 write them.

What a linker's ``-r`` does, without a linker, so that the bytes are the same on every machine: sections of several
objects in one, references between them resolved, everything that is not part of the interface made local. Debug
sections, unwind tables and compiler idents are left out, and the half-float helpers that TVM adds to every object.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from qcompiler.errors import InternalError

_FILE: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QQq")

_IDENT: Final = b"\x7fELF\x02\x01\x01" + bytes(9)
_RELOCATABLE: Final = 1
_SPECIAL_SECTIONS: Final = 0xFF00  # section indices from here on are none

TVM_HALF_FLOAT_SECTION: Final = ".text.tvm.fp16.conv"


class Machine(IntEnum):
    """ELF machine numbers."""

    X86_64 = 62
    AARCH64 = 183


class SectionType(IntEnum):
    """The section types that matter here."""

    SYMBOLS = 2
    STRINGS = 3
    RELOCATIONS = 4
    NO_BITS = 8
    DYNAMIC_SYMBOLS = 11
    GROUP = 17


WRITABLE: Final = 1
ALLOCATED: Final = 2
EXECUTABLE: Final = 4

LOCAL, GLOBAL, WEAK = 0, 1, 2  # bindings
SECTION_SYMBOL, FILE_SYMBOL = 3, 4  # types


@dataclass(frozen=True)
class Relocation:
    """A place in a section to be filled in; ``symbol`` is an index into the object's symbols."""

    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(frozen=True)
class Section:
    """A section of an object or of a linked library; ``size`` in bytes counts for sections without content too."""

    name: str
    type: int
    flags: int
    alignment: int
    entry_size: int
    content: bytes
    size: int
    relocations: tuple[Relocation, ...] = ()


@dataclass(frozen=True)
class Symbol:
    """``section``: an index into the sections, or None for an undefined symbol, or -1 for one that is not in any."""

    name: str
    binding: int
    type: int
    visibility: int
    section: int | None
    value: int
    size: int


@dataclass(frozen=True)
class Elf:
    """A file: sections without the bookkeeping ones, and symbols (``dynamic``: those of a shared library)."""

    machine: int
    flags: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    dynamic: tuple[Symbol, ...] = ()

    @property
    def undefined(self) -> frozenset[str]:
        """Names that something else has to define."""
        return frozenset(s.name for s in self.dynamic or self.symbols if s.section is None and s.name)

    @property
    def exported(self) -> frozenset[str]:
        """Names of global definitions."""
        symbols = self.dynamic or self.symbols
        return frozenset(s.name for s in symbols if s.section is not None and s.binding != LOCAL and s.name)


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


def read_elf(content: bytes) -> Elf:
    """An object or shared library. Raises InternalError for anything but 64 bit little-endian ELF."""
    if content[:6] != _IDENT[:6]:
        raise InternalError("not a 64 bit little-endian ELF file")
    header = _FILE.unpack_from(content)
    machine, table_offset, flags, count, names_index = header[2], header[6], header[7], header[12], header[13]
    raw = [_SECTION.unpack_from(content, table_offset + index * _SECTION.size) for index in range(count)]

    def data(index: int) -> bytes:
        _, kind, _, _, offset, size, *_ = raw[index]
        return b"" if kind == SectionType.NO_BITS else content[offset : offset + size]

    names = data(names_index)
    bookkeeping = {0, SectionType.SYMBOLS, SectionType.STRINGS, SectionType.RELOCATIONS, SectionType.DYNAMIC_SYMBOLS}
    kept = [index for index in range(count) if raw[index][1] not in bookkeeping]
    number = {old: new for new, old in enumerate(kept)}

    def symbols(kind: SectionType) -> tuple[Symbol, ...]:
        found = []
        for index in (i for i in range(count) if raw[i][1] == kind):
            strings = data(raw[index][6])
            for name, info, other, section, value, size in _SYMBOL.iter_unpack(data(index)):
                place = None if section == 0 else number.get(section, -1)
                found.append(Symbol(_string(strings, name), info >> 4, info & 15, other & 3, place, value, size))
        return tuple(found)

    def relocations(target: int) -> tuple[Relocation, ...]:
        found = []
        for index in (i for i in range(count) if raw[i][1] == SectionType.RELOCATIONS and raw[i][7] == target):
            for offset, info, addend in _RELOCATION.iter_unpack(data(index)):
                found.append(Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend))
        return tuple(found)

    relocatable = header[1] == _RELOCATABLE
    sections = tuple(
        Section(
            _string(names, raw[i][0]),
            raw[i][1],
            raw[i][2],
            raw[i][8],
            raw[i][9],
            data(i),
            raw[i][5],
            relocations(i) if relocatable else (),
        )
        for i in kept
    )
    return Elf(machine, flags, sections, symbols(SectionType.SYMBOLS), symbols(SectionType.DYNAMIC_SYMBOLS))


def _is_kept(section: Section) -> bool:
    """Whether a section belongs into the artifact: what is loaded, less unwind tables and the half-float helpers."""
    dropped = section.name.startswith((".eh_frame", ".note.gnu.property", ".comment")) or section.name == TVM_HALF_FLOAT_SECTION
    return bool(section.flags & ALLOCATED) and not dropped and (section.size > 0 or not section.flags & EXECUTABLE)


def merge_objects(objects: Sequence[bytes], exported: Collection[str]) -> bytes:
    """One relocatable object from several; global symbols not in ``exported`` become local.

    Raises InternalError for a symbol that is defined twice, or when a kept section refers to a dropped one.
    """
    files = [read_elf(content) for content in objects]
    sections: list[Section] = []
    symbols: list[Symbol] = []
    numbers: list[dict[int, int]] = []  # per file: symbol index in the file to index in symbols
    by_name: dict[str, int] = {}
    places = []
    for file in files:
        place = {}
        for index, section in enumerate(file.sections):
            if section.type == SectionType.GROUP:
                raise InternalError(f"section group {section.name} in an object")
            if _is_kept(section):
                place[index] = len(sections)
                sections.append(section)
        places.append(place)
    for file, place in zip(files, places, strict=True):
        number: dict[int, int] = {}
        used = {r.symbol for index in place for r in file.sections[index].relocations}
        for index, symbol in enumerate(file.symbols):
            if index == 0 or symbol.type == FILE_SYMBOL or (symbol.section is not None and symbol.section not in place):
                continue  # a symbol of a dropped section; a relocation that uses it is found below
            if symbol.section is None and index not in used:
                continue
            section_number = None if symbol.section is None else place[symbol.section]
            moved = replace(symbol, section=section_number)
            if symbol.binding == LOCAL:
                number[index] = len(symbols)
                symbols.append(moved)
            elif symbol.name not in by_name:
                number[index] = by_name[symbol.name] = len(symbols)
                symbols.append(moved)
            else:
                number[index] = known = by_name[symbol.name]
                if moved.section is not None:
                    if symbols[known].section is not None:
                        raise InternalError(f"{symbol.name} is defined by two objects")
                    symbols[known] = moved
        numbers.append(number)
    moved_sections = []
    for file, place, number in zip(files, places, numbers, strict=True):
        for index in place:
            relocations = []
            for relocation in file.sections[index].relocations:
                if relocation.symbol not in number and relocation.symbol:
                    name = file.symbols[relocation.symbol].name
                    raise InternalError(f"{file.sections[index].name} refers to {name!r} in a section that is left out")
                relocations.append(replace(relocation, symbol=number[relocation.symbol] if relocation.symbol else -1))
            moved_sections.append(replace(file.sections[index], relocations=tuple(relocations)))
    for index, symbol in enumerate(symbols):
        if symbol.binding != LOCAL and symbol.section is not None and symbol.name not in exported:
            symbols[index] = replace(symbol, binding=LOCAL, visibility=0)
    return write_object(Elf(files[0].machine, files[0].flags, tuple(moved_sections), tuple(symbols)))


def write_object(file: Elf) -> bytes:
    """The bytes of a relocatable object; symbols in any order, relocation symbol -1 for none."""
    order = sorted(range(len(file.symbols)), key=lambda index: file.symbols[index].binding != LOCAL)
    number = {old: new + 1 for new, old in enumerate(order)}
    number[-1] = 0
    names, strings = _Strings(), _Strings()
    table = [_SYMBOL.pack(0, 0, 0, 0, 0, 0)]
    for index in order:
        symbol = file.symbols[index]
        place = 0 if symbol.section is None else symbol.section + 1
        info = symbol.binding << 4 | symbol.type
        table.append(_SYMBOL.pack(strings.add(symbol.name), info, symbol.visibility, place, symbol.value, symbol.size))
    local_count = 1 + sum(symbol.binding == LOCAL for symbol in file.symbols)
    note = Section(".note.GNU-stack", 1, 0, 1, 0, b"", 0)  # no executable stack
    plain = [*file.sections, note]
    rows: list[tuple[str, int, int, int, int, int, int, bytes, int]] = [
        (s.name, s.type, s.flags, s.alignment, s.entry_size, 0, 0, s.content, s.size) for s in plain
    ]
    symbol_table = 1 + len(plain) + sum(bool(s.relocations) for s in plain)
    for index, section in enumerate(plain):
        if section.relocations:
            content = b"".join(_RELOCATION.pack(r.offset, number[r.symbol] << 32 | r.kind, r.addend) for r in section.relocations)
            row = (".rela" + section.name, int(SectionType.RELOCATIONS), 0x40, 8, _RELOCATION.size, symbol_table, index + 1)
            rows.append((*row, content, len(content)))
    content = b"".join(table)
    rows.append((".symtab", SectionType.SYMBOLS, 0, 8, _SYMBOL.size, symbol_table + 1, local_count, content, len(content)))
    rows.append((".strtab", SectionType.STRINGS, 0, 1, 0, 0, 0, strings.content, len(strings.content)))
    starts = [names.add(name) for name, *_ in rows] + [names.add(".shstrtab")]
    rows.append((".shstrtab", SectionType.STRINGS, 0, 1, 0, 0, 0, names.content, len(names.content)))
    body = bytearray(_FILE.size)
    headers = [bytes(_SECTION.size)]
    for start, (_, kind, flags, alignment, entry_size, link, info, content, size) in zip(starts, rows, strict=True):
        body += bytes(-len(body) % max(alignment, 1))
        headers.append(_SECTION.pack(start, kind, flags, 0, len(body), size, link, info, alignment, entry_size))
        body += content
    body += bytes(-len(body) % 8)
    count = len(headers)
    body[: _FILE.size] = _FILE.pack(
        _IDENT, _RELOCATABLE, file.machine, 1, 0, 0, len(body), file.flags, _FILE.size, 0, 0, _SECTION.size, count, count - 1
    )
    if count >= _SPECIAL_SECTIONS:
        raise InternalError(f"{count} sections are too many for one object")
    return bytes(body) + b"".join(headers)


class _Strings:
    """A string table in the making."""

    def __init__(self) -> None:
        self.content = b"\0"
        self._places: dict[str, int] = {"": 0}

    def add(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.content)
            self.content += text.encode() + b"\0"
        return self._places[text]


def data_object(machine: Machine, symbol: str, section: str, content: bytes, alignment: int = 64) -> bytes:
    """An object with nothing but read-only bytes in a section of their own, under a global symbol."""
    data = Section(section, 1, ALLOCATED, alignment, 0, content, len(content))
    return write_object(Elf(machine, 0, (data,), (Symbol(symbol, GLOBAL, 1, 0, 0, 0, len(content)),)))


def executable_bytes(file: Elf) -> int:
    """Bytes of all executable sections: what a disassembly has to cover."""
    return sum(section.size for section in file.sections if section.flags & EXECUTABLE)


def writable_sections(sections: Iterable[Section]) -> list[str]:
    """Names of the loaded sections with content that are writable at run time."""
    return [s.name for s in sections if s.flags & WRITABLE and s.flags & ALLOCATED and s.size]
