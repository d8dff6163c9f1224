"""The curve of the best that can be had: at every size (or latency, or bit operations) the bits that lose least, measured.

Errors: SEARCH004 a sweep cannot be understood.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from qcompiler.errors import CompileError
from qcompiler.ir.graph import WEIGHTED, Array, Graph
from qcompiler.passes.activation_classes import activation_classes
from qcompiler.passes.allocate_bits import layer_name
from qcompiler.report import sqnr_db
from qcompiler.search.evaluate import score_distance
from qcompiler.search.problem import Problem

RESOURCES: Final = {"size": "weight_bytes", "latency": "latency_ns", "bops": "bops"}
MOST_POINTS: Final = 64


@dataclass(frozen=True)
class Point:
    """One assignment: bytes of packed weight codes, bit operations, estimated sensitivity, and what is measured.

    ``agreement``: percent of samples that keep the float model's class, None where outputs are no scores; ``sqnr_db``: of the
    first output, ``distance``: see ``evaluate.score_distance``. ``latency_ms``: predicted, None where no kernels were measured.
    ``bits``: of weights and input, by layer.
    """

    weight_bytes: int
    bops: int
    latency_ms: float | None
    sensitivity: float
    agreement: float | None
    sqnr_db: float
    distance: float
    bits: Mapping[str, str]


@dataclass(frozen=True)
class Curve:
    """Points from the smallest to the largest, each nearer to the float model than the one before; and uniform bits by name."""

    name: str
    resource: str
    points: tuple[Point, ...]
    uniform: Mapping[str, Point]

    @classmethod
    def of(cls, name: str, resource: str, found: Sequence[Point], uniform: Mapping[str, Point]) -> Curve:
        """Of the solver's points and the uniform ones, those that no other beats in both the resource and the distance.

        The estimate adds up what tensors do alone; what is measured decides.
        """
        empty = cls(name, resource, (), uniform)
        kept: list[Point] = []
        for point in sorted([*found, *uniform.values()], key=lambda p: (empty.position(p), p.distance)):
            if not kept or point.distance < kept[-1].distance:
                kept.append(point)
        return cls(name, resource, tuple(kept), uniform)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def to_csv(self) -> str:
        """A line for each point, uniform ones last."""
        text = io.StringIO()
        names = [field.name for field in fields(Point) if field.name != "bits"]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["choice", *names, "bits"])
        for label, point in [*(("chosen", p) for p in self.points), *self.uniform.items()]:
            bits = " ".join(f"{layer}={found}" for layer, found in point.bits.items())
            writer.writerow([label, *(getattr(point, name) for name in names), bits])
        return text.getvalue()

    def plot(self, path: Path) -> None:
        """A picture (.png or .svg, what matplotlib writes); SEARCH004 where matplotlib is not installed."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            remedy = "install it: pip install 'qcompiler[plot]'"
            raise CompileError("SEARCH004", str(path), "matplotlib, which draws pictures, is not installed", remedy) from None
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for points, label, style in ((self.points, "chosen", "o-"), (tuple(self.uniform.values()), "uniform", "s--")):
            ordered = sorted(points, key=self.position)
            axes.plot([self.position(p) for p in ordered], [p.sqnr_db for p in ordered], style, label=label)
        for label, point in self.uniform.items():
            axes.annotate(label, (self.position(point), point.sqnr_db), textcoords="offset points", xytext=(6, -12))
        axes.set_xlabel({"size": "weight codes, kB", "latency": "latency, ms", "bops": "bit operations, 10^9"}[self.resource])
        axes.set_ylabel("SQNR of the output, dB")
        axes.set_title(self.name)
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=150)

    def position(self, point: Point) -> float:
        """Where a point stands on the axis of the swept resource."""
        return {"size": point.weight_bytes / 1e3, "latency": point.latency_ms or 0.0, "bops": point.bops / 1e9}[self.resource]


def check_sweep(resource: str, points: int) -> None:
    """SEARCH004 for a resource or a number of points that there is not."""
    if resource not in RESOURCES:
        raise CompileError("SEARCH004", "by", f"{resource!r} cannot be swept", f"choose one of {', '.join(RESOURCES)}")
    if not isinstance(points, int) or not 2 <= points <= MOST_POINTS:
        raise CompileError("SEARCH004", "points", f"{points!r} is no number of points", f"choose 2 to {MOST_POINTS}")


def evaluated(graph: Graph, problem: Problem, bits: Mapping[str, int], expected: Array, found: Array) -> Point:
    """The point of one assignment of ``bits``; ``expected``, ``found``: the scores of the float graph and of what ships."""
    scores = expected.ndim == 2 and expected.shape[1] > 1
    totals = total_costs(problem, bits)
    return Point(
        weight_bytes=int(totals["weight_bytes"]),
        bops=int(totals["bops"]),
        latency_ms=totals["latency_ns"] / 1e6 if "latency_ns" in totals else None,
        sensitivity=float(totals["sensitivity"]),
        agreement=100.0 * float(np.mean(found.argmax(1) == expected.argmax(1))) if scores else None,
        sqnr_db=sqnr_db(expected, found),
        distance=score_distance(expected, found),
        bits=layer_bits(graph, bits),
    )


def total_costs(problem: Problem, bits: Mapping[str, int]) -> dict[str, float]:
    """The total of every resource for one assignment."""
    place = {variable.name: variable.choices.index(str(bits[variable.name])) for variable in problem.variables}
    totals = {name: sum(costs[place[v]] for v, costs in table.items()) for name, table in problem.unary.items()}
    for name, pairs in problem.pairs.items():
        totals[name] = totals.get(name, 0) + sum(matrix[place[a]][place[b]] for (a, b), matrix in pairs.items())
    return totals


def layer_bits(graph: Graph, bits: Mapping[str, int]) -> dict[str, str]:
    """An assignment by the user's layers, as in "w4a8"."""
    classes = {name: group[0] for group in activation_classes(graph) for name in group}
    layers = [node for node in graph.nodes if node.op in WEIGHTED]
    return {layer_name(node): f"w{bits[node.inputs[1]]}a{bits[classes[node.inputs[0]]]}" for node in layers}
