"""The C sources of an artifact: header, entry and thread pool, from the templates beside this module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jinja2
import numpy as np

from qcompiler.backend.program import Address, Call, Port, Program, Space
from qcompiler.errors import CompileError, InternalError

_C_TYPES: Final[Mapping[str, str]] = {"uint8": "uint8_t", "int8": "int8_t", "int16": "int16_t", "int32": "int32_t"}


def check_name(name: str) -> None:
    """Whether ``qc_<name>_run`` is a C identifier. Raises CompileError BUILD001."""
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", name):
        raise CompileError(
            "BUILD001", f"name={name!r}", "the name becomes part of C symbols", "use 1 to 64 letters, digits and underscores"
        )


def comment_text(text: str) -> str:
    """A text that can stand in a C comment and in a string."""
    return re.sub(r"[^A-Za-z0-9_.:,;/ \[\]()+-]", "_", text).replace("*/", "__").replace("/*", "__")[:80]


@dataclass(frozen=True)
class Sources:
    """What is compiled: texts of ``net.h``, ``net.c`` and, if wanted, ``pool.c``; ``exported``: the library's interface."""

    header: str
    entry: str
    pool: str | None
    exported: tuple[str, ...]


def _port(kind: str, index: int, port: Port) -> dict[str, Any]:
    """A port in the header's words."""
    dimensions = port.shape or (1,)
    return {
        "kind": kind,
        "index": index,
        "macro": f"{kind.upper()}_{index}",
        "name": comment_text(port.name),
        "c_type": _C_TYPES[port.dtype],
        "bits": port.bits,
        "shape": port.shape,
        "dimensions": "".join(f"[{extent}]" for extent in port.shape),
        "c_shape": "{" + ", ".join(map(str, dimensions)) + "}",
        "elements": int(np.prod(port.shape, dtype=np.int64)),
        "layout": port.layout,
        "layout_comment": f" ({port.layout} without N)" if port.layout else "",
        "scale": repr(float(port.scale)),
        "zero": port.zero,
        "meaning": "the index c"
        if port.kind == "index"
        else f"(c {'-' if port.zero >= 0 else '+'} {abs(port.zero)}) * {float(port.scale).hex()}",
    }


@dataclass(frozen=True)
class _Encoding:
    """How calls become numbers: every argument is ``offset << base_bits | base``."""

    program: Program
    kernels: Mapping[str, int]

    @property
    def base_bits(self) -> int:
        return (len(self.program.inputs) + len(self.program.outputs) + 1).bit_length()

    def base(self, address: Address) -> tuple[int, int]:
        """Which pointer of the entry's table, and the offset in bytes from it."""
        inputs, outputs = len(self.program.inputs), len(self.program.outputs)
        match address.space:
            case Space.INPUT:
                return address.offset, 0
            case Space.OUTPUT:
                return inputs + address.offset, 0
            case Space.WORKSPACE:
                return inputs + outputs, address.offset
            case Space.WEIGHTS:
                return inputs + outputs + 1, address.offset

    def words(self, call: Call) -> list[int]:
        """The numbers of one call."""
        bases = [self.base(argument) for argument in call.arguments]
        return [
            self.kernels[call.symbol] << 1 | call.alone,
            call.tasks,
            *(offset << self.base_bits | base for base, offset in bases),
        ]


def _argument_counts(calls: Iterable[Call]) -> dict[str, int]:
    """Kernels in order of first use, with their number of pointer arguments."""
    counts: dict[str, int] = {}
    for call in calls:
        if counts.setdefault(call.symbol, len(call.arguments)) != len(call.arguments):
            raise InternalError(f"kernel {call.symbol} is called with {len(call.arguments)} and {counts[call.symbol]} pointers")
        if call.tasks < 1:
            raise InternalError(f"call of {call.symbol} for {call.layer} has {call.tasks} tasks")
    return counts


def _tables(program: Program, encoding: _Encoding) -> list[dict[str, Any]]:
    """The tile's calls, then those of the tail where it is another."""
    sets: list[tuple[str, int, Sequence[Call]]] = [("tile_calls", program.batch_tile, program.calls)]
    if program.batch_tile > 1:
        sets.append(("tail_calls", 1, program.tail_calls))
    tables = []
    for name, samples, calls in sets:
        rows = [(encoding.words(call), comment_text(call.layer)) for call in calls]
        written = [{"words": ", ".join(map(str, words)), "layer": layer} for words, layer in rows]
        tables.append({"name": name, "samples": samples, "calls": written, "word_count": sum(len(words) for words, _ in rows)})
    return tables


def write_sources(program: Program, target: str, pool: bool) -> Sources:
    """The C sources of a program for the target's name.

    Raises CompileError BUILD001 for a name that is no C identifier, InternalError for calls that do not fit together.
    """
    check_name(program.name)
    every_call = (*program.calls, *(program.tail_calls if program.batch_tile > 1 else ()))
    counts = _argument_counts(every_call)
    encoding = _Encoding(program, {symbol: index for index, symbol in enumerate(counts)})
    largest = max((word for call in every_call for word in encoding.words(call)), default=0)
    ports = (*program.inputs, *program.outputs)
    name, macro = program.name, program.name.upper()
    values = {
        "name": name,
        "macro": macro,
        "target": target,
        "pool": pool,
        "ports": [_port("input", i, p) for i, p in enumerate(program.inputs)]
        + [_port("output", i, p) for i, p in enumerate(program.outputs)],
        "input_count": len(program.inputs),
        "output_count": len(program.outputs),
        "workspace_bytes": program.workspace_bytes,
        "weights_bytes": len(program.weights),
        "kernels": [{"symbol": symbol, "arguments": count} for symbol, count in counts.items()],
        "argument_counts": list(counts.values()),
        "maximum_arguments": max(counts.values(), default=1),
        "sample_bytes": [port.sample_bytes for port in ports],
        "element_bytes": [np.dtype(port.dtype).itemsize for port in ports],
        "base_bits": encoding.base_bits,
        "base_mask": (1 << encoding.base_bits) - 1,
        "word_bits": 32 if largest < 1 << 32 else 64,
        "tables": _tables(program, encoding),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("qcompiler.backend", ""), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    exported = [f"qc_{name}_{part}" for part in ("run", "workspace_bytes", "open", "close", "weights")]
    if pool:
        exported += [f"qc_{name}_pool_{part}" for part in ("bytes", "create", "parallel_for", "destroy")]
    return Sources(
        header=environment.get_template("net.h.jinja").render(values),
        entry=environment.get_template("net.c.jinja").render(values),
        pool=environment.get_template("pool.c.jinja").render(values) if pool else None,
        exported=tuple(exported),
    )
