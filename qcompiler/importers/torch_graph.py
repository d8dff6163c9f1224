"""Walks the nodes of an exported program: constants, layer names, shapes, folding; the operators stand in ``torch_operators``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qcompiler.errors import CompileError, InternalError
from qcompiler.importers.builder import (
    UNKNOWN,
    Ending,
    FixedBatchError,
    GraphBuilder,
    ImportedModel,
    Known,
    Layer,
    Merged,
    Repeated,
    Unknown,
    UnsupportedError,
    check_size,
)
from qcompiler.importers.emit_where import Condition
from qcompiler.importers.torch_call import SYMBOLIC, Call, Symbolic
from qcompiler.importers.torch_operators import IGNORED, OPERATORS, PASS_ON, RANKINGS, READ_INTEGERS, REASONS
from qcompiler.ir.graph import BATCH, Dim, Value

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Node


class TorchGraph:
    """One conversion of an exported program."""

    def __init__(self, program: ExportedProgram, name: str) -> None:
        self.program = program
        self.builder = GraphBuilder(name)
        self.env: dict[Node, Any] = {}
        self.batch: object = None  # the constant batch size, or the expression of the symbolic one
        self.weights: dict[int, str] = {}  # names of parameters and buffers by the identity of their Known

    def convert(self) -> ImportedModel:
        """The imported model; CompileError with everything that is in the way."""
        self._bind_inputs()
        for node in self.program.graph.nodes:
            if node.op == "get_attr":
                self.env[node] = self._attribute(node)
            elif node.op == "call_function":
                self.env[node] = self._call(node)
        return self.builder.finish(self._results())

    def _bind_inputs(self) -> None:
        from torch.export.graph_signature import InputKind

        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs if hasattr(spec.arg, "name")}
        holders = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        for node in holders:
            spec = specs[node.name]
            if spec.kind is InputKind.USER_INPUT:
                self.env[node] = self._input(node)
            elif spec.target is not None and spec.kind is not InputKind.CUSTOM_OBJ:
                tensors = {**self.program.state_dict, **self.program.constants}
                self.env[node] = known = self._known(tensors[spec.target], spec.target)
                self.weights[id(known)] = spec.target
            else:
                self.env[node] = UNKNOWN

    def _input(self, node: Node) -> object:
        """A user's input (integers choose rows of tables); constants such as None stand in the nodes that read them."""
        import torch

        tensor = node.meta.get("val")
        if tensor is None:
            return None
        where = f"{self.builder.name}, input {node.name}"
        if not isinstance(tensor, torch.Tensor):
            if not node.users:
                return None
            kind = type(tensor).__name__
            raise CompileError("IMPORT007", where, f"the input is a {kind}, not a tensor", "make it a constant of the model")
        integer = tensor.dtype in (torch.int32, torch.int64)
        if tensor.dtype != torch.float32 and not integer:
            dtype = str(tensor.dtype).removeprefix("torch.")
            remedy = "call model.float() and export with float32 inputs"
            raise CompileError("IMPORT007", where, f"the input has elements of type {dtype}, not float32", remedy)
        if not tensor.ndim:
            raise CompileError("IMPORT005", where, "the input is a scalar and has no batch", "give it a batch in front")
        front, *rest = (_expression(d) for d in tensor.shape)
        if self.batch is not None and front != self.batch:
            problem = f"the input has a batch of {front}, the inputs before it of {self.batch}"
            raise CompileError("IMPORT005", where, problem, "export all inputs with the same batch dimension in front")
        self.batch = front
        self.builder.batch = front if isinstance(front, int) else None
        if not all(isinstance(d, int) for d in rest):
            problem = f"the input is [{','.join(map(str, (front, *rest)))}]: only the batch may be dynamic"
            raise CompileError("IMPORT006", where, problem, "export with constant sizes behind the batch")
        return self.builder.input(node.name, cast(list[int], rest), integer)

    def _known(self, tensor: torch.Tensor, name: str) -> Known:
        tensor = tensor.detach().cpu()
        return Known((tensor.float() if tensor.is_floating_point() else tensor).numpy(), name)

    def _attribute(self, node: Node) -> object:
        import torch

        value: Any = self.program.graph_module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return self._known(value, str(node.target)) if isinstance(value, torch.Tensor) else UNKNOWN

    def _call(self, node: Node) -> object:
        """The result of one node: a value, constants, a symbolic number, a tuple of these, or UNKNOWN."""
        import torch

        target = str(node.target)
        val = node.meta.get("val")
        if target in IGNORED:
            return None
        if isinstance(val, torch.SymInt | torch.SymFloat | torch.SymBool | int | float):
            number = _expression(val)
            return number if isinstance(number, int | float) else SYMBOLIC
        operands: Any = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: self.env[n])
        if target == "<built-in function getitem>":
            (results, index), _ = operands
            return UNKNOWN if isinstance(results, Unknown) else results[index]
        if target in PASS_ON and isinstance(operands[0][0], Ending):
            return operands[0][0]
        if target not in RANKINGS:
            operands = torch.fx.node.map_aggregate(operands, self.builder.read)
        args, kwargs = operands
        flat: list[object] = []
        torch.fx.node.map_aggregate((args, kwargs), flat.append)
        path, call, name = self._names(node, flat)
        tags = getattr(node.target, "tags", ())
        constant = not any(isinstance(x, Value | Unknown | Symbolic | Ending | Merged | Repeated | Condition) for x in flat)
        if constant and isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded not in tags:
            if (why := _too_large(val)) is not None:
                return self.builder.reject(path, target, why)
            return self._fold(node, args, kwargs, name)
        handler = OPERATORS.get(target)
        if handler is None:
            return self.builder.reject(path, target, REASONS.get(target, "not supported"))
        if any(isinstance(x, Unknown) for x in flat):
            return UNKNOWN
        whole = self.builder.integer_inputs | self.builder.index_values
        read = next((x.name for x in flat if isinstance(x, Value) and x.name in whole), None)
        if read is not None and target.split(".")[1] not in READ_INTEGERS:
            return self.builder.reject(path, target, f"it reads the integers {read!r}, which only embeddings can read")
        layer = Layer(self.builder, path, target, name, call)
        batch = self.batch if isinstance(self.batch, int) else None
        bound = Call(layer, self._bound(node, args, kwargs), self._shape(val), batch)
        try:
            result = handler(bound)
        except UnsupportedError as problem:
            return self.builder.reject(path, target, str(problem))
        except FixedBatchError as problem:
            return self.builder.reject_batch(path, target, str(problem))
        self._check(node, result[0] if isinstance(result, tuple) else result)
        return result

    def _bound(self, node: Node, args: Any, kwargs: Any) -> dict[str, Any]:
        """The arguments by name, defaults filled in."""
        target: Any = node.target
        arguments = target._schema.arguments
        bound = {a.name: a.default_value for a in arguments if a.has_default_value()}
        bound.update({a.name: x for a, x in zip(arguments, args, strict=False)})
        bound.update(kwargs)
        return bound

    def _fold(self, node: Node, args: Any, kwargs: Any, name: str) -> object:
        """Run an operator on constants."""
        import torch

        def tensor(x: Any) -> Any:
            return torch.from_numpy(np.array(x.data)) if isinstance(x, Known) else x

        target: Any = node.target
        with torch.no_grad():
            result = target(*torch.fx.node.map_aggregate(args, tensor), **torch.fx.node.map_aggregate(kwargs, tensor))

        def known(x: Any) -> Any:
            return self._known(x, name) if isinstance(x, torch.Tensor) else x

        return tuple(map(known, result)) if isinstance(result, tuple | list) else known(result)

    def _names(self, node: Node, operands: list[object]) -> tuple[str, str, str]:
        """The layer's path, the functional call inside it, if it is one, and the name of its value."""
        stack = [entry for key, entry in node.meta.get("nn_module_stack", {}).items() if not key.startswith("_empty")]
        path, kind = stack[-1] if stack else ("", "")
        path = re.sub(r"@\d+", "", path)  # torch numbers the calls of a module that is called several times
        weights = [self.weights[id(x)] for x in operands if id(x) in self.weights]
        if not stack and weights:
            path = weights[0].rpartition(".")[0]
        operation = str(getattr(node.target, "_opname", node.name)).removeprefix("_").removesuffix("_")
        owned = any(w.rpartition(".")[0] == path for w in weights)
        if path and ("torch.nn.modules." in str(kind) or owned):
            return path, "", path
        return path or "forward", operation, f"{path}.{operation}" if path else operation

    def _shape(self, val: object) -> tuple[Dim | str, ...]:
        """The shape that torch gives, N for its symbolic batch, the expression for anything else that is symbolic."""
        import torch

        tensor = val[0] if isinstance(val, tuple | list) else val
        if not isinstance(tensor, torch.Tensor):
            return ()
        expressions = (_expression(d) for d in tensor.shape)
        symbolic = not isinstance(self.batch, int)
        return tuple(BATCH if symbolic and e == self.batch else e if isinstance(e, int) else str(e) for e in expressions)

    def _check(self, node: Node, result: object) -> None:
        """Our typing rules agree with torch's."""
        if not isinstance(result, Value):
            return
        expected = self._shape(node.meta.get("val"))
        ours = result.type.with_batch(self.batch) if isinstance(self.batch, int) else result.type.shape
        if expected and ours != expected:
            raise InternalError(f"%{result.name} of {node.format_node()} is {result.type}, torch says {expected}")

    def _results(self) -> list[Any]:
        from torch.export.graph_signature import OutputKind

        (output,) = (n for n in self.program.graph.nodes if n.op == "output")
        results: list[Any] = []
        for index, (spec, node) in enumerate(zip(self.program.graph_signature.output_specs, output.args[0], strict=True)):
            if spec.kind is not OutputKind.USER_OUTPUT:
                continue
            result = self.env.get(node, node)
            if result is None or isinstance(result, bool | int | float | str | Symbolic):
                where, problem = f"{self.builder.name}, output {index}", f"the output is {result!r}, not a tensor"
                raise CompileError("IMPORT007", where, problem, "let the model return tensors only")
            results.append(result)
        return results


def _too_large(val: object) -> str | None:
    """Why a constant is not computed: it would be larger than anything that is compiled."""
    import torch

    try:
        for part in val if isinstance(val, tuple | list) else (val,):
            if isinstance(part, torch.Tensor):
                check_size([max(int(d), 1) for d in part.shape], "a constant")
    except UnsupportedError as problem:
        return str(problem)
    return None


def _expression(size: Any) -> Any:
    """A size as a number, or as sympy's expression where it is symbolic."""
    expression = getattr(getattr(size, "node", None), "expr", size)
    return int(expression) if getattr(expression, "is_Integer", False) else expression
