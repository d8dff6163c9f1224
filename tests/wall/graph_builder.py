"""A random float graph in the making: operators and constants are appended, drawn from a ``random.Random``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from qcompiler.ir.dtypes import F32, I32
from qcompiler.ir.graph import Attribute, Constant, Node, TensorType, Value, float_constant
from qcompiler.ops.operator import TypeRuleError
from qcompiler.ops.table import OPERATORS

LARGEST = 1200  # elements of one sample of a value


@dataclass
class Builder:
    """A graph in the making."""

    random: Random
    inputs: list[Value] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def emit(self, op: str, *operands: Value | Constant, **attributes: Attribute) -> Value:
        name = f"v{len(self.nodes)}"
        inputs = tuple(o.name for o in operands)
        draft = Node(op, inputs, (Value(name, TensorType(F32, ())),), tuple(attributes.items()))
        type_ = OPERATORS[op].infer(draft, operands)
        if type_.elements > LARGEST:
            raise TypeRuleError("too large")
        value = Value(name, type_)
        self.nodes.append(Node(op, inputs, (value,), tuple(attributes.items()), f"{op}_{len(self.nodes)}"))
        self.values.append(value)
        return value

    def constant(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Constant:
        data = np.array([self.random.uniform(low, high) for _ in range(math.prod(shape))]).reshape(shape)
        self.constants.append(float_constant(self.constant_name(), data))
        return self.constants[-1]

    def constant_name(self) -> str:
        """A new one; often what exporters call a parameter of the next layer, which passes would like for their own."""
        taken = {c.name for c in self.constants}
        wish = f"v{len(self.nodes)}.{self.pick('weight', 'bias')}"
        return wish if self.pick(True, False) and wish not in taken else f"c{len(self.constants)}"

    def indices(self, values: Sequence[int]) -> Constant:
        data = np.array(values, dtype=np.int32)
        self.constants.append(Constant(self.constant_name(), TensorType(I32, data.shape), data))
        return self.constants[-1]

    def same_shape(self, x: Value) -> Value:
        """A value shaped like ``x``, ``x`` itself where there is no other."""
        return self.random.choice([v for v in self.values if v.type == x.type])


def sizes(x: Value) -> tuple[int, ...]:
    """The dimensions behind the batch."""
    return tuple(d for d in x.type.shape if isinstance(d, int))


Step = Callable[[Builder, Value], Value | None]
"""Appends one operator, or a pattern of some; None where it does not fit the value that it is offered."""
