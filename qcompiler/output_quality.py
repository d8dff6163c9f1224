"""What the outputs of a quantized network have lost against the imported model, and in plain words where.

Measured on a few calibration samples as signal to quantization noise ratios (SQNR): of every layer, of every output, and of every
part of an output that is joined of several values, such as boxes in pixels beside scores, where the whole hides what its small
parts lose. Whoever has less than ``POOR`` dB is named, with the layer at which most is lost and the reason as far as it shows in
that layer's input: channels in unlike units, a large mean, few bits, or a few values far above the rest. Of indices the agreement
is measured, in percent.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from qcompiler.errors import AccuracyWarning
from qcompiler.interpret import dequantize, quantize_input, run_float, run_integer
from qcompiler.ir.dtypes import I32, IntegerType
from qcompiler.ir.graph import RANKS, WEIGHTED, Array, Graph, Node, Stage, Value
from qcompiler.output_parts import Part, layer_of, parts_of
from qcompiler.report import sqnr_db

POOR: Final = 18.0  # dB: at 15 an output is of little use, and samples that calibration did not see may lose some more
UNEQUAL: Final = 15.0  # dB that a part may be worse than the whole output, unless it is good itself:
GOOD: Final = 30.0  # dB
CODED: Final = 45.0  # dB: what 8-bit codes of well-behaved values have; more is not missed
FEW_STEPS: Final = 2.0  # of the codes: a channel's deviation that is lost
MANY_STEPS: Final = 8.0  # of the codes: what is coded well enough
AGREEING: Final = 90.0  # percent of indices: with fewer an output is of little use
ENOUGH_INDICES: Final = 8
MUCH_LARGER: Final = 4.0  # times a part: what leaves it few steps of a common scale
FEW: Final = 4  # samples to measure on, at least
MANY: Final = 32
CANDIDATES: Final = 64  # samples among which those with the largest outputs are looked for
FLOAT_WORK: Final = 1e9  # of the float model on them: about a tenth of a second
WORK: Final = 1e8  # multiply-accumulates, for which many samples become few: the reference is exact, not fast


@dataclass(frozen=True)
class OutputQuality:
    """``layers``: SQNR in dB by the integer graph's values; ``outputs``: by output and part; ``notes``: what is bad, and why.

    ``agreement``: by outputs of indices, how many percent of them are the float model's.
    """

    layers: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, float] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def warn(self) -> tuple[str, ...]:
        """``notes``, each said as an AccuracyWarning too."""
        for note in self.notes:
            warnings.warn(note, AccuracyWarning, stacklevel=_levels_inside())
        return self.notes


def measure_quality(imported: Graph, calibrated: Graph | None, integer: Graph, samples: Sequence[Array]) -> OutputQuality:
    """The quality of ``integer`` on ``samples``, float32, one array per input; nothing where there are none.

    ``imported``: the model as it came, with which outputs are compared; ``calibrated``: the graph with whose values layers are,
    by default ``imported``.
    """
    if not samples or imported.stage is Stage.INTEGER:
        return OutputQuality()
    run = _Run(calibrated or imported, integer, samples)
    outputs: dict[str, float] = {}
    agreement: dict[str, float] = {}
    notes: list[str] = []
    wanted = _float_run(imported, samples)
    for index, name in enumerate(imported.outputs):
        value, expected, found = integer.values[integer.outputs[index]], wanted[name], run.outputs[index]
        if _are_indices(value):  # no signal with noise
            agreement[name] = same = round(100.0 * float((expected == found).mean()), 1)
            if same < AGREEING and found.size >= ENOUGH_INDICES:
                notes.append(
                    f"the output {name} agrees with the float model in {same:.1f} % of its indices: {run.index_loss(index)}"
                )
            continue
        run.errors[value.name] = whole = outputs[name] = _rounded(expected, found)
        if whole < POOR:
            notes.append(f"the output {name} has an SQNR of {whole:.1f} dB against the float model: {run.loss(index)}")
        for part in parts_of(imported, name):
            title = f"{name}{part.where()}"
            quality = _rounded(expected[:, part.place], found[:, part.place])
            outputs[f"{title} ({part.layer})"] = quality
            if quality < POOR or quality < min(GOOD, whole - UNEQUAL):
                said = f"{title}, a part of the output {name} that layer {part.layer} gives, has an SQNR of {quality:.1f} dB"
                reason = run.part_loss(part, quality, index, wanted, name)
                notes.append(f"{said} against the float model, all of it {whole:.1f} dB: {reason}")
    return OutputQuality(run.errors, outputs, agreement, tuple(notes))


def quality_samples(imported: Graph, integer: Graph, kept: Sequence[Array]) -> list[Array]:
    """Those of the ``kept`` samples on which quality is measured: up to ``MANY``, evenly spread, and the largest of each output.

    The largest are looked for with ``imported`` among up to ``CANDIDATES``, evenly spread, unless that takes long.
    """
    layers = (node for node in integer.nodes if node.op in WEIGHTED)
    work = sum(node.output.type.elements * integer.constant[node.inputs[1]].data[0].size for node in layers)
    count = int(min(max(WORK // max(work, 1), FEW), MANY))
    if not kept:
        return []
    chosen = _spread(len(kept[0]), count)
    candidates = _spread(len(kept[0]), CANDIDATES)
    elements = sum(value.type.elements for value in imported.values.values())
    if len(candidates) > len(chosen) and imported.stage is not Stage.INTEGER and (work + 10 * elements) * CANDIDATES < FLOAT_WORK:
        chosen = np.union1d(chosen, candidates[_largest(imported, [x[candidates] for x in kept])])
    return [x[chosen] for x in kept]


def _spread(size: int, count: int) -> Array:
    """Up to ``count`` indices below ``size``, evenly spread."""
    return np.unique(np.linspace(0, size - 1, count).astype(int))


def _largest(graph: Graph, samples: Sequence[Array]) -> Array:
    """By output of the graph: the sample on which it is largest in magnitude."""
    import torch

    with torch.no_grad():
        outputs = run_float(graph, [torch.from_numpy(x) for x in samples])
    count = len(samples[0])
    return np.array([x.abs().reshape(count, -1).amax(1).argmax() for x in outputs if len(x) == count], dtype=int)


class _Run:
    """The reference's and the float graph's results of the same samples."""

    def __init__(self, graph: Graph, integer: Graph, samples: Sequence[Array]) -> None:
        self.graph, self.integer = graph, integer
        self.expected = _float_run(graph, samples)
        self.errors: dict[str, float] = {}
        codes = [quantize_input(value, x) for value, x in zip(integer.inputs, samples, strict=True)]
        self.at_inputs = {
            value.name: sqnr_db(x, dequantize(value, code)) for value, x, code in zip(integer.inputs, samples, codes, strict=True)
        }

        def observe(node: Node, result: Array) -> None:
            value = node.output
            if value.name in self.expected and value.scale is not None and node.op not in RANKS:
                self.errors[value.name] = sqnr_db(self.expected[value.name], dequantize(value, result))

        found = run_integer(integer, codes, observe)
        self.outputs = [dequantize(integer.values[n], x) for n, x in zip(integer.outputs, found, strict=True)]

    def loss(self, output: int) -> str:
        """Where the output with this index, or what it is computed from, loses most, and why."""
        return self._loss_before([self.graph.outputs[output]])

    def index_loss(self, output: int) -> str:
        """The same for an output of indices: what is ranked may be good as a whole, and its steps too coarse to tell the best."""
        name = self.graph.outputs[output]
        while name in self.graph.producer and self.graph.producer[name].op not in RANKS:
            name = self.graph.producer[name].inputs[0]
        node = self.graph.producer.get(name)
        ranked = node.inputs[0] if node is not None else name
        value, x = self.integer.values.get(ranked), self.expected.get(ranked)
        if node is None or value is None or value.scale is None or x is None or self.errors.get(ranked, POOR) < POOR:
            return self.loss(output)
        best = np.sort(x.astype(np.float64) * (1.0 if node.get("largest", 1) else -1.0), axis=node["axis"])
        last = np.take(best, range(max(best.shape[node["axis"]] - 2, 0), best.shape[node["axis"]]), axis=node["axis"])
        apart = float(np.median(np.diff(last, axis=node["axis"]))) if last.size else 0.0
        if apart > FEW_STEPS * value.scale:
            return self.loss(output)
        return (
            f"{self._named(ranked)} reaches {_number(float(np.abs(x).max()))} in steps of {_number(value.scale)}, but the best "
            f"and the next of it are {_number(apart)} apart: give it a smaller range, as by smaller numbers for what is masked"
        )

    def part_loss(self, part: Part, quality: float, output: int, wanted: Mapping[str, Array], name: str) -> str:
        """The same for a part of it, which may lose most by having the scale of all, there or where it is joined.

        ``wanted``: the values of the imported model, of which the output is ``name``.
        """
        own = np.concatenate([wanted[value].reshape(-1) for value in part.values])
        places = [(self.integer.outputs[output], wanted[name][:, part.place], wanted[name])]
        places += [(joint, own, wanted[joint]) for joint in part.joints if joint in self.integer.values]
        for number, (value, x, others) in enumerate(places):
            here, largest = (float(np.abs(numbers).max(initial=0.0)) for numbers in (x, others))
            if largest > MUCH_LARGER * here and self._coded(value, x) < quality + 6.0:
                said = f"it reaches {_number(here)} and other parts reach {_number(largest)}, but one scale serves all of them"
                remedy = "make it an output of its own" + (", or compile with output_bits=32" if number == 0 else "")
                return f"{said}{f' at layer {layer_of(self.graph, value)}' if number else ''}; {remedy}"
        known = {**self.at_inputs, **self.errors}
        own_quality = [known[v] for v in part.values if v in known]
        return self._loss_before(part.values) if own_quality and min(own_quality) < quality + 6.0 else self.loss(output)

    def _coded(self, value: str, x: Array) -> float:
        """The SQNR in dB that rounding to the steps of ``value`` leaves of the numbers ``x``, as far as none is clipped."""
        scale = self.integer.values[value].scale or 0.0
        return sqnr_db(x, x + np.float64(scale / 12.0**0.5))

    def _loss_before(self, names: Sequence[str]) -> str:
        known = {**self.at_inputs, **self.errors}
        wanted = self._computed_from(names)
        drops = [(quality - CODED, value, CODED, quality) for value, quality in self.at_inputs.items() if value in wanted]
        for node in self.graph.nodes:
            value = node.output.name
            sources = [known[source] for source in node.inputs if source in known]
            if sources and known.setdefault(value, min(sources)) is not None and value in wanted:
                before = min(sources)
                drops.append((known[value] - min(before, CODED), value, before, known[value]))
        _, value, before, after = min(drops, key=lambda drop: drop[0])
        if value in self.at_inputs:
            return f"most is lost where the input {value} becomes codes, with {after:.1f} dB{self._reason(value)}"
        where = f"most is lost at layer {layer_of(self.graph, value)}, from {before:.1f} to {after:.1f} dB"
        return where + self._reason(value)

    def _computed_from(self, names: Sequence[str]) -> set[str]:
        """``names`` and every value and constant that they are computed from."""
        wanted = set(names)
        for node in reversed(self.graph.nodes):
            if node.output.name in wanted:
                wanted.update(node.inputs)
        return wanted

    def _reason(self, value: str) -> str:
        """What is to be seen in the tensors that the layer of ``value`` reads, or in ``value`` itself."""
        node = self.graph.producer.get(value)
        for name in (*(node.inputs if node is not None else ()), value):
            said = self._coarse(name)
            if said:
                return f": {self._named(name)} {said}"
        weight = self.integer.constant.get(f"{value}.weight")
        if node is not None and node.op in WEIGHTED and weight is not None and weight.type.dtype.bits < 8:
            return f", whose weights have {weight.type.dtype.bits} bits: give it more"
        return ""

    def _named(self, name: str) -> str:
        """A tensor as the user knows it: what was only reshaped has its source's name."""
        while name in self.graph.producer and self.graph.producer[name].op in ("reshape", "transpose"):
            name = self.graph.producer[name].inputs[0]
        return f"the input {name}" if name in self.at_inputs else f"the result {name} of layer {layer_of(self.graph, name)}"

    def _coarse(self, name: str) -> str:
        """Why the codes of a value are too coarse for what it holds; empty where they are not."""
        value, x = self.integer.values.get(name), self.expected.get(name)
        if value is None or x is None or x.ndim < 2 or value.scale is None or not isinstance(value.type.dtype, IntegerType):
            return ""
        x, step, bits = x.astype(np.float64), value.scale, value.type.dtype.bits
        byte = step * min(1.0, (2**bits - 1) / 255)  # what the steps of 8 bits would be: what they do not hold, more bits do not
        axis = 2 if x.ndim == 3 and x.shape[2] < x.shape[1] else 1  # of rank 3, features may come last
        others = tuple(a for a in range(x.ndim) if a != axis)
        largest, spread, mean = np.abs(x).max(axis=others), x.std(axis=others), np.abs(x.mean(axis=others))
        most, least = int(largest.argmax()), int(np.where(spread > 0.0, spread, np.inf).argmin())
        lost = 0.0 < spread[least] < FEW_STEPS * byte
        if lost and largest[most] > max(MANY_STEPS * byte, MUCH_LARGER * largest[least]):
            return (
                f"has channels in unlike units: channel {most} reaches {_number(largest[most])}, channel {least} varies by "
                f"{_number(spread[least])}, and one scale serves both, with steps of {_number(step)}; "
                "normalize every channel before the model, or give them as inputs of their own"
            )
        if lost and mean[least] > max(MANY_STEPS * byte, MUCH_LARGER * spread[least]):
            return (
                f"varies little about a large mean: channel {least} by {_number(spread[least])} about {_number(mean[least])}, "
                f"with steps of {_number(step)}; subtract the mean before"
            )
        root = float(np.sqrt((x**2).mean()))
        if root < MANY_STEPS * step and bits < 8:
            return f"has {bits} bits, with steps of {_number(step)} at a root mean square of {_number(root)}: give it more"
        if root < MANY_STEPS * step:
            reach = step * (value.type.dtype.maximum - value.type.dtype.minimum)
            return (
                f"has few values far above the rest: its codes span {_number(reach)} in steps of {_number(step)}, its root mean "
                f"square is {_number(root)}; compress its range, by a logarithm, a root or a clip"
            )
        return ""


def _float_run(graph: Graph, samples: Sequence[Array]) -> dict[str, Array]:
    """Every value of a float graph, and its constants that are outputs."""
    import torch

    found: dict[str, Array] = {}
    with torch.no_grad():
        outputs = run_float(graph, [torch.from_numpy(x) for x in samples], lambda v, x: found.update({v.name: x.numpy()}))
    return found | {name: x.numpy() for name, x in zip(graph.outputs, outputs, strict=True)}


def _are_indices(value: Value) -> bool:
    """Whether an output of an integer graph holds indices, which have no scale of their own."""
    return value.type.dtype == I32 and value.scale == 1.0


def _rounded(expected: Array, found: Array) -> float:
    return round(sqnr_db(expected, found), 1)


def _number(x: float) -> str:
    """Three digits, as people write them."""
    return f"{x:,.0f}" if 999.5 <= abs(x) < 1e9 else f"{x:.3g}"


def _levels_inside() -> int:
    """The ``stacklevel`` of a warning that is about the line which called this package."""
    frame, levels = inspect.currentframe(), 0
    while frame is not None and frame.f_globals["__name__"].partition(".")[0] == __name__.partition(".")[0]:
        frame, levels = frame.f_back, levels + 1
    return levels
