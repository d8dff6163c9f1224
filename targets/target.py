"""Targets: what a CPU can do, read from the data files beside this module into dataclasses that check themselves.

A new CPU is a new file. ``load_target`` takes a name, one of the short names ``x86``, ``arm64`` and ``native``, or the
path of a file that ends in ``.toml``.
"""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, get_args

from qcompiler.errors import CompileError

InstructionSet = Literal["avx512vnni", "avxvnni", "avx2", "x86-64", "dotprod", "neon"]
Architecture = Literal["x86_64", "aarch64"]

ALIASES: Final[Mapping[str, str]] = {"x86": "x86-avx2", "arm64": "arm64-neon"}
"""Short names: what runs on nearly every CPU of its kind, and is the same on whatever machine it is built."""

NATIVE_ORDER: Final = ("x86-avx512vnni", "x86-avxvnni", "x86-avx2", "x86-baseline", "arm64-dotprod", "arm64-neon")
"""Targets that ``native`` tries, best first."""

_ARCHITECTURE_NAMES: Final[Mapping[str, Architecture]] = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
}


@dataclass(frozen=True)
class TvmTarget:
    """TVM's description of the code generator."""

    kind: str
    mtriple: str
    mcpu: str  # "" leaves it out
    mattr: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Data cache sizes of one core, in bytes; where CPUs differ, the smallest that is common."""

    l1_bytes: int
    l2_bytes: int


@dataclass(frozen=True)
class CCompiler:
    """How C for this target is compiled: the prefix of GNU tools, clang's and zig's triple, flags for generated code."""

    prefix: str
    triple: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A CPU to build for.

    ``cpu_flags``: what the CPU must have, as Linux names it; ``bit_pairs``: the pairs that are computed from packed
    storage; ``four_bit_activations``: "bytes" (one code a byte) or "packed".
    """

    name: str
    description: str
    architecture: Architecture
    instruction_set: InstructionSet
    cpu_flags: tuple[str, ...]
    bit_pairs: tuple[str, ...]
    four_bit_activations: Literal["bytes", "packed"]
    tvm: TvmTarget
    memory: Memory
    c_compiler: CCompiler

    @property
    def tvm_target(self) -> dict[str, Any]:
        """The dict that ``tvm.target.Target`` takes."""
        target: dict[str, Any] = {"kind": self.tvm.kind, "mtriple": self.tvm.mtriple}
        if self.tvm.mcpu:
            target["mcpu"] = self.tvm.mcpu
        if self.tvm.mattr:
            target["mattr"] = list(self.tvm.mattr)
        return target


_SECTIONS: Final[Mapping[str, type]] = {"tvm": TvmTarget, "memory": Memory, "c_compiler": CCompiler}
_CHOICES: Final[Mapping[str, Collection[str]]] = {
    "architecture": get_args(Architecture),
    "instruction_set": get_args(InstructionSet),
    "four_bit_activations": ("bytes", "packed"),
}
_LISTS: Final = ("cpu_flags", "bit_pairs", "mattr", "flags")
_NUMBERS: Final = ("l1_bytes", "l2_bytes")


def _value(file: str, key: str, name: str, value: Any) -> Any:
    """The value of a key, checked; lists become tuples."""

    def wrong(expected: str) -> CompileError:
        return CompileError("TARGET004", file, f"{key} is {value!r}, not {expected}", f"set {key} to {expected}")

    if name in _NUMBERS:
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise wrong("a positive number of bytes")
        return value
    if name in _LISTS:
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise wrong("a list of strings")
        if name == "bit_pairs" and not (value and all(re.fullmatch(r"w[248]a[48]", pair) for pair in value)):
            raise wrong('a list of pairs such as "w4a8" with weights of 2, 4 or 8 and activations of 4 or 8 bits')
        return tuple(value)
    if not isinstance(value, str):
        raise wrong("a string")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise wrong("one of " + ", ".join(_CHOICES[name]))
    return value


def _read(file: str, kind: type, content: Mapping[str, Any], prefix: str = "") -> Any:
    """A dataclass from a TOML table: exactly its keys, each checked."""
    names = [field.name for field in fields(kind)]
    for name in content:
        if name not in names:
            raise CompileError(
                "TARGET003", file, f"unknown key {prefix}{name}", "remove it; known keys here: " + ", ".join(names)
            )
    values = {}
    for name in names:
        if name not in content:
            raise CompileError("TARGET002", file, f"missing key {prefix}{name}", f"add {prefix}{name}")
        value = content[name]
        if name in _SECTIONS and not prefix:
            if not isinstance(value, dict):
                raise CompileError("TARGET004", file, f"{name} is {value!r}, not a table", f"write it as [{name}]")
            values[name] = _read(file, _SECTIONS[name], value, f"{name}.")
        else:
            values[name] = _value(file, prefix + name, name, value)
    return kind(**values)


def parse_target(text: str, file: str) -> Target:
    """A target from the text of a data file; ``file`` is its name in errors. Raises CompileError TARGET002 to 004."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CompileError("TARGET004", file, f"not a TOML file: {error}", "correct the syntax") from error
    target: Target = _read(file, Target, content)
    return target


def available_targets() -> tuple[str, ...]:
    """The names of the targets that come with qcompiler, sorted."""
    names = (entry.name for entry in files("qcompiler.targets").iterdir())
    return tuple(sorted(n.removesuffix(".toml") for n in names if n.endswith(".toml") and not n.endswith(".mnemonics.toml")))


def load_target(name: str) -> Target:
    """The target of a name, of a short name (``x86``, ``arm64``, ``native``), or of a file path ending in ``.toml``.

    Raises CompileError TARGET001 for a name that does not exist, TARGET005 where no target fits the host.
    """
    if name == "native":
        return native_target()
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise CompileError("TARGET001", f"target {name!r}", "there is no such file", "give the path of a target file")
        return parse_target(path.read_text(encoding="utf-8"), path.name)
    known = available_targets()
    full = ALIASES.get(name, name)
    if full not in known:
        short = ", ".join(f"{alias} (= {meant})" for alias, meant in ALIASES.items())
        raise CompileError(
            "TARGET001",
            f"target {name!r}",
            "there is no such target",
            f"choose one of {', '.join(known)}; short: {short}, native (the best that this machine runs)",
        )
    target = parse_target(files("qcompiler.targets").joinpath(f"{full}.toml").read_text(encoding="utf-8"), f"{full}.toml")
    if target.name != full:
        raise CompileError(
            "TARGET004", f"{full}.toml", f"name is {target.name!r}", f"set name to {full!r}, as the file is called"
        )
    return target


def host_architecture() -> str:
    """The architecture of this machine, in the target files' words where they have one."""
    machine = platform.machine().lower()
    return _ARCHITECTURE_NAMES.get(machine, machine)


def parse_cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The flags in the text of ``/proc/cpuinfo`` that all its CPUs have."""
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, flags=re.MULTILINE)
    return frozenset.intersection(*(frozenset(line.split()) for line in lines)) if lines else frozenset()


def host_cpu_flags() -> frozenset[str]:
    """What this machine's CPUs can do, as Linux names it; what every CPU of the architecture has, where it does not say."""
    try:
        flags = parse_cpu_flags(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        flags = frozenset()
    always = {"x86_64": {"sse2"}, "aarch64": {"asimd"}}.get(host_architecture(), set())
    return flags | frozenset(always)


def host_refusal(target: Target) -> str | None:
    """Why this machine cannot run the target's libraries; None if it can."""
    if sys.platform != "linux":
        return f"the libraries are ELF files for Linux, this system is {platform.system()}"
    if host_architecture() != target.architecture:
        return f"the library is for {target.architecture}, this machine is {host_architecture()}"
    missing = [flag for flag in target.cpu_flags if flag not in host_cpu_flags()]
    return f"this CPU lacks {', '.join(missing)}" if missing else None


def host_runs(target: Target) -> bool:
    """Whether this machine can run the target's libraries."""
    return host_refusal(target) is None


def native_target() -> Target:
    """The best target that this machine's CPU runs. Raises CompileError TARGET005 if none does."""
    refusals = []
    for name in NATIVE_ORDER:
        target = load_target(name)
        refusal = host_refusal(target)
        if refusal is None:
            return target
        refusals.append(f"{name}: {refusal}")
    raise CompileError(
        "TARGET005",
        "target 'native'",
        "no target fits this machine\n" + "\n".join(refusals),
        "name the target to build for; building for another CPU than the host's is fine",
    )
