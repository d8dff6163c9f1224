"""The C compiler and linker for a target: cc, gcc, a cross compiler, clang or zig from PyPI, whichever is there."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from qcompiler.backend.elf import Machine, read_elf
from qcompiler.errors import CompileError, InternalError
from qcompiler.interrupts import interrupts_wait, temporary_folder
from qcompiler.targets.target import Target, host_architecture

MACHINES: Final = {"x86_64": Machine.X86_64, "aarch64": Machine.AARCH64}

_COMPILE_FLAGS: Final = (
    "-std=c11",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffreestanding",  # no library calls but memcpy, memset
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-fno-ident",
    "-g0",
    "-U_FORTIFY_SOURCE",
)
_LINK_FLAGS: Final = (
    "-shared",
    "-nostartfiles",  # the start files bring writable data and weak symbols
    "-Wl,--build-id=none",
    "-Wl,--hash-style=gnu",
    "-Wl,-Bsymbolic",  # the entry reaches the weights without an entry of the global offset table
    "-Wl,-z,defs",
    "-Wl,-z,relro",
    "-Wl,-z,now",
    "-Wl,-z,noexecstack",
    "-Wl,--as-needed",
)
_PROBE: Final = "#include <pthread.h>\n#include <stdint.h>\nint32_t probe(int32_t x) { return x + 1; }\n"


@dataclass(frozen=True)
class Toolchain:
    """A compiler driver that was seen to compile and link for the target."""

    command: tuple[str, ...]
    target: Target

    def _run(self, arguments: Sequence[str], folder: Path, what: str) -> None:
        # Relative names only: nothing of the folder's path gets into what is written.
        environment = os.environ | {"LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
        try:
            with interrupts_wait():  # a compiler that is killed leaves children that write into the folder while it goes
                done = subprocess.run([*self.command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
        except OSError as error:
            raise CompileError("TOOL002", what, f"{self.command[0]} does not run: {error}", _REMEDY) from error
        if done.returncode:
            problem = f"{' '.join(self.command)} failed with exit code {done.returncode}\n{done.stderr.strip()[:4000]}"
            raise CompileError("TOOL002", what, problem, f"correct the installation of the C compiler, or {_REMEDY}")

    def compile_c(self, source: str, file_name: str, headers: dict[str, str] | None = None) -> tuple[bytes, str]:
        """A C source as relocatable object and as assembly text; ``headers`` maps file names to contents."""
        flags = self._compile_flags()
        with temporary_folder() as folder:
            for name, content in {file_name: source, **(headers or {})}.items():
                (folder / name).write_text(content, encoding="utf-8")
            self._run([*flags, "-S", file_name, "-o", "out.s"], folder, file_name)
            assembly = (folder / "out.s").read_text(encoding="utf-8")
            self._run([*flags, "-c", file_name, "-o", "out.o"], folder, file_name)
            return (folder / "out.o").read_bytes(), assembly

    def link_shared(self, content: bytes, soname: str, exported: Sequence[str]) -> bytes:
        """A shared library of one object; only ``exported`` is visible from outside."""
        script = "{ global: " + " ".join(f"{name};" for name in sorted(exported)) + " local: *; };\n"
        with temporary_folder() as folder:
            (folder / "net.o").write_bytes(content)
            (folder / "net.map").write_text(script, encoding="utf-8")
            options = ["-Wl,--version-script=net.map", f"-Wl,-soname,{soname}", "-o", "net.so", "net.o", "-lpthread"]
            self._run([*_LINK_FLAGS, *options], folder, soname)
            return (folder / "net.so").read_bytes()

    def link_program(self, content: bytes, archive: bytes) -> bytes:
        """A static program of one object, which has ``_start``, and what it needs of an archive; there is no C library in it."""
        with temporary_folder() as folder:
            (folder / "main.o").write_bytes(content)
            (folder / "net.a").write_bytes(archive)
            self._run(["-static", "-nostdlib", "-Wl,-z,noexecstack", "-o", "program", "main.o", "net.a"], folder, "program")
            return (folder / "program").read_bytes()

    def _compile_flags(self) -> list[str]:
        """What the compiler understands: the protection flag is x86's own; zig has other CPU names, its default is the oldest."""
        flags = [*_COMPILE_FLAGS, *self.target.c_compiler.flags]
        zig = "ziglang" in self.command or Path(self.command[0]).name == "zig"
        arm = self.target.architecture == "aarch64"
        return [f for f in flags if not (zig and f.startswith("-march=")) and not (arm and f.startswith("-fcf-protection"))]

    def works(self) -> bool:
        """Whether a small source compiles to an object of the target's machine and links."""
        try:
            content, _ = self.compile_c(_PROBE, "probe.c")
            self.link_shared(content, "libprobe.so", ["probe"])
            return read_elf(content).machine == MACHINES[self.target.architecture]
        except (CompileError, InternalError):
            return False


_REMEDY: Final = "pip install 'qcompiler[zig]', or name a working compiler in QC_CC"


def zig_command() -> tuple[str, ...] | None:
    """The command of the zig that is installed in this Python environment."""
    return (sys.executable, "-m", "ziglang") if importlib.util.find_spec("ziglang") else None


def _candidates(target: Target) -> Iterator[tuple[str, ...]]:
    """Commands to try, best first."""
    c_compiler = target.c_compiler
    at_home = host_architecture() == target.architecture
    if at_home:
        yield from ((name,) for name in ("cc", "gcc") if shutil.which(name))
    if shutil.which(f"{c_compiler.prefix}gcc"):
        yield (f"{c_compiler.prefix}gcc",)
    if shutil.which("clang"):
        yield ("clang",) if at_home else ("clang", f"--target={c_compiler.triple}")
    zig = zig_command()
    if zig:
        # The oldest glibc that zig offers for every target, so that the library loads on old systems.
        yield (*zig, "cc", "-target", f"{target.architecture}-linux-gnu.2.17")


@lru_cache(maxsize=32)
def _find(target: Target, named: tuple[tuple[str, str], ...]) -> Toolchain:
    for variable, text in named:
        toolchain = Toolchain(tuple(shlex.split(text)), target)
        if toolchain.works():
            return toolchain
        if variable == "QC_CC":
            problem = f"QC_CC is {text!r}, which does not compile and link C for {target.architecture}"
            raise CompileError("TOOL001", f"target {target.name!r}", problem, f"unset or correct QC_CC, or {_REMEDY}")
    tried = []
    for command in _candidates(target):
        toolchain = Toolchain(command, target)
        if toolchain.works():
            return toolchain
        tried.append(" ".join(Path(part).name for part in command))
    problem = f"there is no C compiler for {target.architecture}" + (f"; these do not work: {', '.join(tried)}" if tried else "")
    raise CompileError("TOOL001", f"target {target.name!r}", problem, _REMEDY)


def find_toolchain(target: Target) -> Toolchain:
    """The first that works of: QC_CC, CC, cc, gcc, the target's cross gcc, clang, zig.

    Raises CompileError TOOL001 if there is none, or if QC_CC is set to one that does not work for the target.
    """
    return _find(target, tuple((name, os.environ[name]) for name in ("QC_CC", "CC") if os.environ.get(name)))


def find_objdump(target: Target) -> str | None:
    """A disassembler for the target's machine code, or None."""
    names = [f"{target.c_compiler.prefix}objdump", "llvm-objdump"]
    if host_architecture() == target.architecture:
        names.insert(0, "objdump")
    return next((name for name in names if shutil.which(name)), None)
