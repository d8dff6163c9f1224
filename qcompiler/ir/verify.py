"""Rules that hold for a graph of any stage, and the typing rules of its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from qcompiler.errors import InternalError
from qcompiler.ir.dtypes import FloatType, IntegerType
from qcompiler.ir.graph import WEIGHTED, Constant, Graph, Node, Stage, TensorType, Value

INTEGER_ACTIVATIONS: Final = ("u2", "u4", "u8", "i16", "i32")


class TypeRules(Protocol):
    """What the verifier needs of an operator."""

    @property
    def stages(self) -> frozenset[Stage]:
        """Where the operator is legal."""

    def infer(self, node: Node, operands: Sequence[Value | Constant]) -> TensorType:
        """The type of the result."""


def verify(graph: Graph, operators: Mapping[str, TypeRules]) -> None:
    """InternalError with every broken rule, one a line, unless ``graph`` is well formed for its stage."""
    problems = [*_structure(graph), *_stage_rules(graph)]
    if not problems:
        problems = _types(graph, operators)
    if problems:
        raise InternalError(f"graph {graph.name} breaks rules of stage {graph.stage.value}:\n  " + "\n  ".join(problems))


def _structure(graph: Graph) -> list[str]:
    """That names are unique, the graph itself makes sure of."""
    problems: list[str] = []
    defined = {v.name for v in graph.inputs} | {c.name for c in graph.constants}
    for node in graph.nodes:
        problems += [
            f"%{node.outputs[0].name} reads %{i}, which is not defined before it" for i in node.inputs if i not in defined
        ]
        defined.update(value.name for value in node.outputs)
    problems += [f"the output %{name} is not defined" for name in graph.outputs if name not in defined]
    if not graph.outputs:
        problems.append("the graph has no output")
    return problems


def _stage_rules(graph: Graph) -> list[str]:
    """What a value must and must not carry in each stage."""
    problems: list[str] = []
    for value in graph.values.values():
        floating = isinstance(value.type.dtype, FloatType)
        if floating == (graph.stage is Stage.INTEGER):
            problems.append(f"%{value.name} is {value.type} in stage {graph.stage.value}")
        if graph.stage in (Stage.CALIBRATED, Stage.ALLOCATED) and value.range is None:
            problems.append(f"%{value.name} has no calibrated range")
        if graph.stage is Stage.ALLOCATED and value.bits is None:
            problems.append(f"%{value.name} has no bits")
    if graph.stage is Stage.INTEGER:
        problems += [f"%{c.name} is {c.type}" for c in graph.constants if not isinstance(c.type.dtype, IntegerType)]
        problems += _integer_rules(graph)
    return problems


def _integer_rules(graph: Graph) -> list[str]:
    """Accumulators never leave registers; everything else is codes with a scale and a zero point."""
    problems: list[str] = []
    for value in graph.values.values():
        producer = graph.producer.get(value.name)
        if producer is not None and producer.op in WEIGHTED:
            readers = graph.consumers[value.name]
            if value.name in graph.outputs or len(readers) != 1 or not readers[0].op.startswith("requantize"):
                problems.append(f"the accumulator %{value.name} is not read by exactly one requantization")
            elif readers[0].inputs[0] != value.name or readers[0].inputs.count(value.name) != 1:
                problems.append(f"the accumulator %{value.name} is not the first operand of its requantization")
            continue
        if str(value.type.dtype) not in INTEGER_ACTIVATIONS:
            problems.append(f"%{value.name} has codes of type {value.type.dtype}, not one of {', '.join(INTEGER_ACTIVATIONS)}")
        if value.scale is None or not value.scale > 0 or value.zero is None:
            problems.append(f"%{value.name} has no scale above 0 or no zero point")
        elif isinstance(value.type.dtype, IntegerType) and not value.type.dtype.minimum <= value.zero <= value.type.dtype.maximum:
            problems.append(f"%{value.name}: the zero point {value.zero} is not a code of {value.type.dtype}")
    return problems


def _types(graph: Graph, operators: Mapping[str, TypeRules]) -> list[str]:
    problems: list[str] = []
    known: dict[str, Value | Constant] = {**graph.values, **graph.constant}
    for node in graph.nodes:
        label = f"%{node.outputs[0].name} = {node.op}"
        operator = operators.get(node.op)
        if operator is None or graph.stage not in operator.stages:
            problems.append(f"{label}: not an operator of stage {graph.stage.value}")
            continue
        try:
            expected = operator.infer(node, [known[name] for name in node.inputs])
        except Exception as problem:  # any failure of a typing rule is a finding about the graph
            problems.append(f"{label}: {problem}")
            continue
        if expected != node.output.type:
            problems.append(f"{label}: is {node.output.type}, its operands give {expected}")
    return problems
