"""Where the time of a network goes: every kernel's time, its share of the machine's peak, and what it moves.

Kernels run one after the other as in the network, with its memory plan, one sample on one thread. What bounds a kernel is the
larger of two times: its multiply-accumulates at the peak of ``vpdpbusd``, and its bytes (each read or written once) at the
bandwidth of memory; "kernel %" is the larger one's share of the time measured, so what is lacking to 100 % is the kernel's own.
Bytes that come out of a cache can make it more than 100 %. From the repository's root:

    python -m examples.benchmarks.kernels resnet50
    python -m examples.benchmarks.kernels dumps/19-prove_overflow.qir --top 10
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from examples.benchmarks.cases import Case
from examples.benchmarks.machine import environment, peak_macs, read_bandwidth
from qcompiler.backend.kernel import ConvolutionSpec, MatmulSpec
from qcompiler.backend.tile_table import shipped_tiles
from qcompiler.cost.harness import argument_bytes
from qcompiler.cost.measure import RunningTraces
from qcompiler.cost.trace import TracedCall, trace
from qcompiler.dump import read_dump
from qcompiler.ir.graph import Graph
from qcompiler.schedules.table import build_kernel
from qcompiler.targets.target import load_target


@dataclass(frozen=True)
class Row:
    """One kernel of a network; ``calls``: how often it is called, ``us``: for all of them; MACs and bytes are of one call."""

    kernel: str
    schedule: str
    calls: int
    us: float
    macs: int
    bytes: int
    peak_us: float  # of all calls
    memory_us: float

    @property
    def bound(self) -> str:
        return "compute" if self.peak_us > self.memory_us else "memory"

    @property
    def share(self) -> float:
        """Of the bound."""
        return max(self.peak_us, self.memory_us) / self.us


def integer_graph(model: str, data: Path, bits: str, target: str) -> Graph:
    """The integer graph of a model or of a dump."""
    if model.endswith(".qir"):
        return read_dump(Path(model))
    case = Case(model, 1, data)
    with tempfile.TemporaryDirectory() as folder:
        qc.compile(case.source, calibration=case.calibration, bits=bits, quality="fast", target=target, dump_ir=folder)
        return read_dump(max(Path(folder).glob("*.qir")))


def macs(call: TracedCall) -> int:
    """Multiply-accumulates of a call."""
    spec = call.spec
    if isinstance(spec, ConvolutionSpec):
        outputs = spec.batch * spec.out_height * spec.out_width * spec.out_channels
        return outputs * spec.in_channels // spec.groups * prod(spec.kernel)
    return prod(spec.a_shape) * spec.b_shape[-1] if isinstance(spec, MatmulSpec) else 0


def text(call: TracedCall) -> str:
    """A kernel in a few words."""
    spec = call.spec
    if not isinstance(spec, ConvolutionSpec):
        return type(spec).__name__.removesuffix("Spec").lower()
    kind = "depthwise " if spec.is_depthwise else ""
    size = f"{spec.kernel[0]}x{spec.kernel[1]}" + (f"/{spec.strides[0]}" if spec.strides != (1, 1) else "")
    plus = " +" if spec.epilogue.residual else ""
    return f"{kind}{size} {spec.in_channels}>{spec.out_channels} at {spec.out_height}x{spec.out_width} w{spec.weight_bits}{plus}"


def measure(graph: Graph, target: str, seconds: float) -> list[Row]:
    """The kernels of a network in the order of their first calls."""
    chosen = load_target(target)
    tiles = shipped_tiles(chosen)
    traced = trace(graph, chosen.name).tiled(lambda call: tiles.tiling(call.spec))
    running = RunningTraces([traced], chosen)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        running.round()
    ns = running.call_ns(0)
    peak, bandwidth = peak_macs() or float("nan"), read_bandwidth()
    rows = []
    for key in dict.fromkeys(traced.keys):
        places = [place for place, call in enumerate(traced.calls) if call.key == key]
        call = traced.calls[places[0]]
        kernel = build_kernel(call.spec, chosen.instruction_set, call.tiling)
        moved, count = sum(argument_bytes(kernel).values()), len(places)
        rows.append(
            Row(
                text(call),
                kernel.schedule,
                count,
                float(ns[places].sum()) / 1e3,
                macs(call),
                moved,
                count * macs(call) / peak * 1e6,
                count * moved / bandwidth * 1e6,
            )
        )
    return rows


def table(name: str, rows: list[Row], top: int | None) -> Table:
    """The kernels that take most time, or all in order."""
    whole = sum(row.us for row in rows)
    compute = sum(row.peak_us for row in rows) / whole
    result = Table(title=f"{name}: {whole:,.0f} us in kernels, {compute:.0%} of the peak", title_justify="left")
    for heading in ("kernel", "schedule", "calls", "us", "time %", "G MAC/s", "peak %", "KB", "GB/s", "bound", "of it %"):
        result.add_column(heading, justify="left" if heading in ("kernel", "schedule", "bound") else "right")
    for row in rows if top is None else sorted(rows, key=lambda row: -row.us)[:top]:
        each = row.us / row.calls
        result.add_row(
            row.kernel,
            row.schedule,
            str(row.calls),
            f"{row.us:,.1f}",
            f"{row.us / whole:.1%}",
            f"{row.macs / each / 1e3:,.0f}" if row.macs else "",
            f"{row.peak_us / row.us:.0%}" if row.macs else "",
            f"{row.bytes / 1e3:,.0f}",
            f"{row.bytes / each / 1e3:,.1f}",
            row.bound,
            f"{row.share:.0%}",
        )
    return result


def main(
    model: Annotated[str, typer.Argument(help="A model of the latency benchmark, or a .qir file of an integer graph.")],
    data: Annotated[Path, typer.Option(envvar="QC_DATA", help="The folder of models and data.")],
    bits: Annotated[str, typer.Option(help="Of all layers.")] = "w8a8",
    target: Annotated[str, typer.Option(help="An x86 target.")] = "native",
    seconds: Annotated[float, typer.Option(help="To measure.")] = 3.0,
    top: Annotated[int | None, typer.Option(help="Print only those that take most time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure and print."""
    rows = measure(integer_graph(model, data, bits, target), target, seconds)
    facts = environment(("qcompiler", "apache-tvm"))
    if as_json:
        print(json.dumps({"environment": facts, "kernels": [asdict(row) for row in rows]}, indent=2))
        return
    console = Console(width=150 if not sys.stdout.isatty() else None)
    console.print(table(f"{model}, {bits}", rows, top))
    console.print(f"{facts['cpu']}, load {facts['load']:.2f}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
