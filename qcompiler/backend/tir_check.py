"""The proof on lowered TIR: no float type, and no division but of addresses by constants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import PointerType, PrimType

from qcompiler.errors import InternalError

_DIVISIONS: Final = (tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod)
_INTEGER_TYPES: Final = ("int", "uint", "bool", "handle", "void")


class TirError(InternalError):
    """A float or a division in a kernel."""


def _is_constant(expression: Any) -> bool:
    """A non-zero integer literal, in one lane or in all."""
    value = expression.value if isinstance(expression, tirx.Broadcast) else expression
    return isinstance(value, tirx.IntImm) and int(value.value) != 0


class _Checker:
    """Walks one function; ``values`` are variables that hold tensor elements, or something computed from them."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.values: set[int] = set()
        self.held: list[Any] = []  # keeps the objects alive whose identity is in ``values``
        self.problems: list[str] = []

    def holds_values(self, expression: Any) -> bool:
        """Whether an expression reads tensor elements, or comes from a call or a variable that does."""
        found = False

        def see(node: Any) -> None:
            nonlocal found
            is_value = isinstance(node, tirx.Var) and hash(node) in self.values
            found = found or isinstance(node, tvm.ir.TensorLoad) or is_value

        tvm_ffi.structural_walk(expression, (tvm.ir.Expr, see), order="post")
        return found

    def bind(self, variable: Any, value: Any) -> None:
        """Note what a variable holds; bindings come before uses."""
        if self.holds_values(value):
            self.values.add(hash(variable))
            self.held.append(variable)

    def expression(self, node: Any) -> None:
        if type(node) is tirx.IntImm:  # a literal: most of what there is, as shuffles name their lanes
            return
        kind = str(node.ty)  # nothing where nothing is given
        if isinstance(node.ty, PrimType) and kind and not kind.startswith(_INTEGER_TYPES):
            self.problems.append(f"{node.ty} in {node}")
        if isinstance(node, tirx.Let):
            self.bind(node.var, node.value)
        if isinstance(node, _DIVISIONS):
            if not _is_constant(node.b):
                self.problems.append(f"division by something that is not constant: {node}")
            elif self.holds_values(node.a):
                self.problems.append(f"division of a value: {node}")

    def statement(self, node: Any) -> None:
        if isinstance(node, tirx.Bind):
            self.bind(node.var, node.value)
        if isinstance(node, tirx.For) and (self.holds_values(node.min) or self.holds_values(node.extent)):
            self.values.add(hash(node.loop_var))
            self.held.append(node.loop_var)
        if isinstance(node, tirx.BufferStore):
            buffer = str(node.buffer.dtype)
            if not buffer.startswith(_INTEGER_TYPES):
                self.problems.append(f"{buffer} buffer {node.buffer.name}")

    def check(self) -> list[str]:
        """All problems of the function, each once."""
        for parameter in self.function.params:
            kind = parameter.ty.element_type if isinstance(parameter.ty, PointerType) else parameter.ty
            if not str(kind).startswith(_INTEGER_TYPES):
                self.problems.append(f"parameter {parameter} is {kind}")
        # Bindings first, so that the order of the walk does not matter.
        tvm_ffi.structural_walk(self.function.body, (tirx.Stmt, self.statement), order="pre")
        tvm_ffi.structural_walk(self.function.body, (tvm.ir.Expr, self.expression), order="pre")
        return list(dict.fromkeys(self.problems))


def verify_tir(functions: Iterable[Any]) -> None:
    """Checks lowered functions: integers only, and every division is of an address or a loop bound by a constant.

    Raises TirError that names function and expression.
    """
    for function in functions:
        problems = _Checker(function).check()
        if problems:
            name = function.attrs["global_symbol"]
            raise TirError(f"kernel {name}:\n" + "\n".join(problems[:20]))
