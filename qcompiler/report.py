"""What a compilation did, layer by layer: bits, shapes, bytes, and the error against the float model."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.ir.dtypes import IntegerType
from qcompiler.ir.graph import WEIGHTED, Array, Graph, Node

EXACT_DB: Final = 200.0
"""What stands for no error at all, since JSON has no infinity."""


@dataclass(frozen=True)
class LayerReport:
    """One layer of the integer graph.

    ``weight_bits`` and ``weight_bytes`` (packed codes) are None for layers without weights; ``input_bits`` and ``output_bits``
    are those of the codes; ``macs`` are multiply-accumulates of one sample; ``sqnr_db`` is the signal to quantization noise
    ratio of the layer's output against the float model, accumulated from the input on, in dB, where samples were there.
    """

    layer: str
    operation: str
    shape: tuple[int, ...]
    input_bits: int
    output_bits: int
    weight_bits: int | None
    weight_bytes: int | None
    macs: int
    sqnr_db: float | None


@dataclass(frozen=True)
class Report:
    """``layers`` in order; ``facts``: sizes in bytes, target, and whatever else was measured."""

    name: str
    layers: tuple[LayerReport, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Report:
        """The report that :meth:`to_json` wrote."""
        data = json.loads(text)
        layers = tuple(LayerReport(**{**row, "shape": tuple(row["shape"])}) for row in data["layers"])
        return Report(data["name"], layers, data["facts"])

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{self.name}: {len(self.layers)} layers", title_justify="left")
        table.add_column("layer", overflow="fold")
        for heading in ("operation", "output", "bits w/in/out", "weight bytes", "MACs", "SQNR dB"):
            table.add_column(heading, justify="left" if heading in ("operation", "output") else "right")
        for row in self.layers:
            table.add_row(
                row.layer,
                row.operation,
                "x".join(map(str, row.shape)),
                f"{row.weight_bits or '-'}/{row.input_bits}/{row.output_bits}",
                "" if row.weight_bytes is None else f"{row.weight_bytes:,}",
                f"{row.macs:,}" if row.macs else "",
                "" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
            )
        text = io.StringIO()
        console = Console(file=text, width=110)
        console.print(table)
        for key, value in self.facts.items():
            if value:
                console.print(f"{key}: {_shown(key, value)}", highlight=False)
        return text.getvalue()


def _shown(key: str, value: Any) -> str:
    """A fact for people; the whole of it is in the JSON."""
    if key == "search":
        totals = ", ".join(f"{name} {total:,.12g}" for name, total in value["totals"].items())
        drop = "" if value["measured drop %"] is None else f", measured drop {value['measured drop %']:.2f} %"
        noise = "" if value["measured SQNR dB"] is None else f", measured SQNR {value['measured SQNR dB']:.1f} dB"
        return f"{totals} ({value['metric']}, {value['status']}{drop}{noise})"
    if key in ("output SQNR dB", "output agreement %"):
        return ", ".join(f"{name} {number:.1f}" for name, number in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items() if number)
    return f"{value:,}" if isinstance(value, int) else "\n  ".join(value) if isinstance(value, list) else str(value)


def sqnr_db(signal: Array, approximation: Array) -> float:
    """``10 log10(sum(signal^2) / sum((signal - approximation)^2))``, from ``-EXACT_DB`` to ``EXACT_DB``.

    Infinite elements count as the largest of float32, whose squares float64 holds; elements that are no number count as 0.
    """
    largest = float(np.finfo(np.float32).max)
    finite = [
        np.clip(np.nan_to_num(x.astype(np.float64), posinf=largest, neginf=-largest), -largest, largest)
        for x in (signal, approximation)
    ]
    noise = float(((finite[0] - finite[1]) ** 2).sum())
    power = float((finite[0] ** 2).sum())
    if noise == 0.0:
        return EXACT_DB
    tiny = np.finfo(np.float64).tiny
    decibels = 10.0 * (math.log10(max(power, tiny)) - math.log10(max(noise, tiny)))
    return max(-EXACT_DB, min(decibels, EXACT_DB))


def layer_reports(graph: Graph, errors: Mapping[str, float]) -> tuple[LayerReport, ...]:
    """A row per layer of an integer graph; an accumulator and its requantization are one layer."""
    return tuple(_layer(graph, node, errors) for node in graph.nodes if node.op not in WEIGHTED)


def _layer(graph: Graph, node: Node, errors: Mapping[str, float]) -> LayerReport:
    operation, weight_bits, weight_bytes, macs = node.op, None, None, 0
    first = next(name for name in node.inputs if name in graph.values)
    if node.op.startswith("requantize"):
        sums = graph.producer[node.inputs[0]]
        operation = sums.op + ("+add" if "add" in node.op else "")
        first = sums.inputs[0]
        weight = graph.constant[sums.inputs[1]]
        assert isinstance(weight.type.dtype, IntegerType)
        weight_bits = weight.type.dtype.bits
        weight_bytes = -(-weight.data.size * weight_bits // 8)
        macs = sums.output.type.elements * (weight.data.size // len(weight.data))
    bits = [graph.values[name].type.dtype.bits for name in (first, node.output.name)]
    return LayerReport(
        layer=node.origin or node.output.name,
        operation=operation,
        shape=node.output.type.with_batch(1)[1:],
        input_bits=bits[0],
        output_bits=bits[1],
        weight_bits=weight_bits,
        weight_bytes=weight_bytes,
        macs=macs,
        sqnr_db=errors.get(node.output.name),
    )


def artifact_facts(description: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says about the artifact as a whole: the content of net.json in a few lines, sizes in bytes."""
    sizes = description["sizes"]
    return {
        "target": description["target"],
        "packed code bytes": sizes["packed_code_bytes"],
        "weight code bytes": sizes["weight_code_bytes"],
        "constant bytes": sizes["constant_bytes"],
        "library bytes": sizes["library_bytes"],
        "workspace bytes": description["workspace_bytes"],
        "largest live bytes": description["largest_live_bytes"],
        "tuned kernels": len(description["tilings"]),
    }


def read_report(folder: Path) -> Report:
    """The report of an artifact; REPORT001 where the folder has none."""
    path = folder / "net.report.json"
    if not path.is_file():
        raise CompileError("REPORT001", str(folder), "there is no net.report.json", "name a folder that qcompiler build wrote")
    return Report.from_json(path.read_text(encoding="utf-8"))
