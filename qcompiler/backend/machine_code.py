"""The proof on the machine code: every instruction of a library is known, and none is float or a division.

The tables ``targets/<architecture>.mnemonics.toml`` say which mnemonics are allowed and which are not; what stands in
neither is an error, as is a byte that is no instruction. Bitwise, blend, shuffle and move forms are allowed whatever
their ps/pd name: compilers use them on integers.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from qcompiler.backend.elf import TVM_HALF_FLOAT_SECTION, Elf, executable_bytes, read_elf, writable_sections
from qcompiler.errors import InternalError
from qcompiler.interrupts import temporary_folder

LIBC_FUNCTIONS: Final = frozenset({"memcpy", "memset"})
PTHREAD_PREFIX: Final = "pthread_"
POOL_FUNCTIONS: Final = frozenset({"clock_gettime"})
_SHOWN: Final = 20


class MachineCodeError(InternalError):
    """An instruction, byte, call or symbol that an artifact must not hold."""


@dataclass(frozen=True)
class Instruction:
    """One line of a disassembly; ``length`` in bytes, 0 where the listing does not say."""

    function: str
    place: str
    mnemonic: str
    operands: str
    length: int = 0


@dataclass(frozen=True)
class Mnemonics:
    """The table of one architecture."""

    suffixes: str
    prefixes: frozenset[str]
    calls: frozenset[str]
    allowed: re.Pattern[str]
    forbidden: tuple[tuple[str, re.Pattern[str]], ...]

    def refusal(self, mnemonic: str) -> str | None:
        """Why a mnemonic may not occur; None if it may."""
        names = [mnemonic]
        if self.suffixes and mnemonic[-1:] in self.suffixes:
            names.append(mnemonic[:-1])
        for kind, pattern in self.forbidden:
            if any(pattern.fullmatch(name) for name in names):
                return kind
        return None if any(self.allowed.fullmatch(name) for name in names) else "unknown"


@lru_cache(maxsize=8)
def load_mnemonics(architecture: str) -> Mnemonics:
    """The table of ``x86_64`` or ``aarch64``."""
    text = files("qcompiler.targets").joinpath(f"{architecture}.mnemonics.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)

    def pattern(groups: Iterable[Sequence[str]]) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{entry})" for group in groups for entry in group))

    return Mnemonics(
        suffixes=content["suffixes"],
        prefixes=frozenset(content["prefixes"]),
        calls=frozenset(content["calls"]),
        allowed=pattern(content["allowed"].values()),
        forbidden=tuple((kind, pattern([entries])) for kind, entries in content["forbidden"].items()),
    )


def _split(text: str, mnemonics: Mnemonics) -> tuple[str, str]:
    """Mnemonic and operands of an instruction's text; prefixes and encoding marks such as {vex} are skipped."""
    words = text.split()
    while len(words) > 1 and (words[0] in mnemonics.prefixes or words[0].startswith("{")):
        words = words[1:]
    return (words[0] if words else "(empty)"), " ".join(words[1:])


_FUNCTION_LINE: Final = re.compile(r"^[0-9a-f]+ <(.+)>:$")
_CODE_LINE: Final = re.compile(r"^\s*([0-9a-f]+):\s+((?:[0-9a-f]{2} ?)+|[0-9a-f]{8})(?:\s+(\S.*))?$")


def parse_disassembly(text: str, mnemonics: Mnemonics) -> Iterator[Instruction]:
    """The instructions of ``objdump -d -z -w`` (GNU or LLVM), raw bytes included. Raises MachineCodeError for other lines."""
    function = "(none)"
    for line in text.splitlines():
        start = _FUNCTION_LINE.match(line)
        if start:
            function = start[1]
            continue
        code = _CODE_LINE.match(line)
        if code:
            mnemonic, operands = _split(code[3] or "(bad)", mnemonics)
            yield Instruction(function, "0x" + code[1], mnemonic, operands, len(code[2].replace(" ", "")) // 2)
        elif line.strip() and not line.startswith("Disassembly of section ") and "file format" not in line:
            raise MachineCodeError(f"the disassembler printed a line that is not understood: {line!r}")


def parse_listing(text: str, mnemonics: Mnemonics) -> Iterator[Instruction]:
    """The instructions of a compiler's assembly listing (``cc -S``, LLVM), data directives in code sections included."""
    function, in_code = "(none)", True
    comment = re.compile(r"\s*(//|#(?![-\d:+])).*$" if not mnemonics.suffixes else r"\s*#.*$")
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = comment.sub("", line).strip()
        label = re.match(r"^([\w.$@]+):\s*(.*)$", stripped)
        if label:
            function = function if label[1].startswith(".") else label[1]
            stripped = label[2]
        if not stripped or "=" in stripped.split()[0]:
            continue
        if stripped.startswith("."):
            directive, _, rest = stripped.partition("\t" if "\t" in stripped else " ")
            if directive == ".text":
                in_code = True
            elif directive in (".data", ".bss", ".rodata"):
                in_code = False
            elif directive == ".section":
                code = rest.startswith(".text") or re.search(r'"\w*x\w*"', rest) is not None
                in_code = code and not rest.startswith(TVM_HALF_FLOAT_SECTION)  # it is left out of what is linked
            elif in_code and directive in (
                ".byte",
                ".short",
                ".long",
                ".word",
                ".quad",
                ".inst",
                ".ascii",
                ".zero",
                ".hword",
                ".xword",
            ):
                yield Instruction(function, f"line {number}", directive, rest)
            continue
        if in_code:
            mnemonic, operands = _split(stripped, mnemonics)
            yield Instruction(function, f"line {number}", mnemonic, operands)


def _callee(instruction: Instruction, mnemonics: Mnemonics) -> str | None:
    """The symbol that a direct call or jump goes to, or None."""
    if instruction.mnemonic not in mnemonics.calls or instruction.operands.startswith("*"):
        return None
    disassembled = re.search(r"<([^>+]+)(?:\+0x[0-9a-f]+)?>", instruction.operands)
    name = disassembled[1] if disassembled else instruction.operands.split()[-1] if instruction.operands else ""
    return re.sub(r"@(plt|PLT)$", "", name)


def is_allowed_external(name: str, pool: bool) -> bool:
    """Whether an artifact may need a function of this name from its surroundings."""
    return name in LIBC_FUNCTIONS or (pool and (name in POOL_FUNCTIONS or name.startswith(PTHREAD_PREFIX)))


def check_instructions(instructions: Iterable[Instruction], architecture: str, functions: Collection[str], pool: bool) -> int:
    """Checks every instruction and the targets of calls (``functions``: the library's own); returns the bytes covered.

    Raises MachineCodeError with function, mnemonic and place of everything that may not be there.
    """
    mnemonics = load_mnemonics(architecture)
    problems = []
    covered = 0
    for instruction in instructions:
        covered += instruction.length
        reason = mnemonics.refusal(instruction.mnemonic)
        if reason:
            problems.append(f"{instruction.function} {instruction.place}: {instruction.mnemonic} ({reason})")
            continue
        callee = _callee(instruction, mnemonics)
        known = callee is None or callee in functions or is_allowed_external(callee, pool)
        if not known and callee is not None and not callee.startswith((".", "*")):
            problems.append(f"{instruction.function} {instruction.place}: call of {callee}")
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise MachineCodeError("instructions that must not be there:\n" + "\n".join(problems[:_SHOWN]) + more)
    return covered


def disassemble(content: bytes, objdump: str) -> str:
    """``objdump -d`` of a library, all bytes shown."""
    llvm = "llvm" in Path(objdump).name
    with temporary_folder() as folder:
        path = folder / "library.so"
        path.write_bytes(content)
        command = [objdump, "-d", "-z", *([] if llvm else ["-w"]), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    if done.returncode:
        raise MachineCodeError(f"{objdump} failed: {done.stderr.strip()[:1000]}")
    return done.stdout


def verify_library(content: bytes, architecture: str, objdump: str, exported: Collection[str], pool: bool) -> Counter[str]:
    """The whole proof on a linked library; returns how often each mnemonic occurs.

    Every byte of every executable section is an allowed instruction, calls stay inside or go to memcpy, memset and (with
    ``pool``) clock_gettime and pthread, no other symbol is needed, nothing but ``exported`` is offered, nothing is writable
    but what the loader fills in, and there is no stack to execute. Raises MachineCodeError.
    """
    file = read_elf(content)
    verify_symbols(file, pool)
    if file.exported != frozenset(exported):
        raise MachineCodeError(f"the library offers {sorted(file.exported)}, not {sorted(exported)}")
    mnemonics = load_mnemonics(architecture)
    instructions = list(parse_disassembly(disassemble(content, objdump), mnemonics))
    functions = {instruction.function for instruction in instructions}
    covered = check_instructions(instructions, architecture, functions, pool)
    if covered != executable_bytes(file):
        raise MachineCodeError(f"the disassembly covers {covered} of {executable_bytes(file)} bytes of code")
    return Counter(instruction.mnemonic for instruction in instructions)


def verify_listings(listings: Iterable[str], architecture: str, pool: bool) -> None:
    """The proof on compilers' assembly, where there is no disassembler. Raises MachineCodeError."""
    mnemonics = load_mnemonics(architecture)
    parsed = [list(parse_listing(text, mnemonics)) for text in listings]
    instructions = [instruction for part in parsed for instruction in part]
    check_instructions(instructions, architecture, {i.function for i in instructions}, pool)


def verify_symbols(file: Elf, pool: bool) -> None:
    """Only what is allowed is needed from outside, and nothing is writable. Raises MachineCodeError."""
    undefined = sorted(n for n in file.undefined if not is_allowed_external(n, pool) and n != "_GLOBAL_OFFSET_TABLE_")
    if undefined:
        raise MachineCodeError(f"the code needs {', '.join(undefined)} from its surroundings")
    # The loader fills these in, and they are read-only from then on (full RELRO).
    filled = {".dynamic", ".got", ".got.plt", ".data.rel.ro", ".relro_padding"}
    writable = [name for name in writable_sections(file.sections) if name not in filled]
    if writable:
        raise MachineCodeError(f"the code has writable data: {', '.join(writable)}")
