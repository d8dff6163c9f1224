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
    Missing,
    Unknown,
    UnknownEnding,
    UnsupportedError,
)
from qcompiler.importers.emit_condition import TRUTH_VALUES, Condition
from qcompiler.importers.operands import Stacked
from qcompiler.importers.torch_call import Call
from qcompiler.importers.torch_constants import (
    EMPTY,
    SHAPE_ONLY,
    BatchConstant,
    Symbolic,
    at_probes,
    check_constant,
    expression_of,
    fold,
    shape_of,
)
from qcompiler.importers.torch_operators import OPERATORS, PASS_ON, RANKINGS, READ_INTEGERS, READ_TRUTH, REASONS, SOFTMAXES
from qcompiler.ir.graph import BATCH, Dim, Graph, Value

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
        self.empty: dict[tuple[str, str], None] = {}  # places and names of torch.empty and its like
        self.weights: dict[int, str] = {}  # names of parameters and buffers by the identity of their Known

    def convert(self) -> ImportedModel:
        """The imported model; CompileError with everything that is in the way."""
        self._bind_inputs()
        live = self._live()
        for node in self.program.graph.nodes:
            if node.op == "get_attr":
                self.env[node] = self._attribute(node)
            elif node.op == "call_function" and node in live:
                result = self._call(node)
                self.env[node] = self.builder.stand_in(self._sample_shape(node)) if result is UNKNOWN else result
        imported = self.builder.finish(self._results())
        self._check_written(imported.graph)
        return imported

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
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.dtype in (torch.float16, torch.bfloat16, torch.float64):
            self.builder.notes.append(f"the input {node.name} is {dtype} in the model; here it takes the same numbers as float32")
        elif tensor.dtype != torch.float32 and not integer:
            remedy = "call model.float() and export with float32 inputs"
            raise CompileError("IMPORT007", where, f"the input has elements of type {dtype}, not float32", remedy)
        if not tensor.ndim:
            raise CompileError("IMPORT005", where, "the input is a scalar and has no batch", "give it a batch in front")
        front, *rest = (expression_of(d) for d in tensor.shape)
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

    def _live(self) -> set[Node]:
        """The nodes that the user's outputs need: neither assertions nor what is computed and dropped."""
        needed = {node for node in self._outputs() if hasattr(node, "all_input_nodes")}
        for node in reversed(self.program.graph.nodes):
            if node in needed:
                needed.update(node.all_input_nodes)
        return needed

    def _call(self, node: Node) -> object:
        """The result of one node: a value, a constant, a symbolic number, a tuple of these, or UNKNOWN."""
        import torch
        from torch.fx.node import map_aggregate, map_arg

        target = str(node.target)
        val = node.meta.get("val")
        if isinstance(val, torch.SymInt | torch.SymFloat | torch.SymBool | int | float):
            number = expression_of(val)
            return number if isinstance(number, int | float) else Symbolic(at_probes(number, self.batch))
        operands: Any = map_arg((node.args, node.kwargs), lambda n: self.env[n])
        if target == "<built-in function getitem>":
            (results, index), _ = operands
            return UNKNOWN if isinstance(results, Unknown) else results[index]
        if target in PASS_ON and isinstance(operands[0][0], Ending | UnknownEnding):
            return operands[0][0]
        if target not in RANKINGS:
            operands = map_aggregate(operands, self.builder.read)
        if getattr(node.target, "_opname", None) not in READ_TRUTH:
            operands = map_aggregate(operands, lambda x: x.numbers if isinstance(x, Condition) else x)
        args, kwargs = self._without_numbers(node, *operands)
        flat: list[object] = []
        map_aggregate((args, kwargs), flat.append)
        path, call, name = self._names(node, flat)
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if isinstance(node.target, torch._ops.OpOverload) and not random and all(map(_is_constant, flat)):
            try:
                check_constant(val)
                if node.target._opname in EMPTY:
                    self.empty[path, target] = None
                return fold(node.target, args, kwargs, name, self.batch)
            except UnsupportedError as problem:
                return self.builder.reject(path, target, str(problem))
        handler = OPERATORS.get(target)
        if handler is None:
            why = "not supported: it draws random numbers" if random else "not supported"
            return self.builder.reject(path, target, REASONS.get(target, why))
        if any(isinstance(x, Unknown) for x in flat):
            return UnknownEnding(Layer(self.builder, path, target, name, call)) if target in SOFTMAXES else UNKNOWN
        if any(isinstance(x, BatchConstant) for x in flat):
            why = "it reads a constant that differs from sample to sample, or does not have the batch in front"
            return self.builder.reject_batch(path, target, why)
        whole = self.builder.integer_inputs | self.builder.index_values
        read = next((x.name for x in flat if isinstance(x, Value) and x.name in whole), None)
        if read is not None and target.split(".")[1] not in READ_INTEGERS:
            return self.builder.reject(path, target, f"it reads the integers {read!r}, which only embeddings can read")
        layer = Layer(self.builder, path, target, name, call)
        batch = self.batch if isinstance(self.batch, int) else None
        bound = Call(layer, self._bound(node, args, kwargs), self._shape(val), self._dtype(val), batch)
        try:
            result = handler(bound)
        except (UnsupportedError, FixedBatchError) as problem:
            return self.builder.refuse(problem, path, target, flat)
        self._check(node, result[0] if isinstance(result, tuple) else result)
        return result

    def _without_numbers(self, node: Node, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The operands of ``node``, with a constant for the one of which it reads only the shape."""
        place = SHAPE_ONLY.get(getattr(node.target, "_opname", ""))
        if place is None or place >= len(args) or _is_constant(args[place]):
            return args, kwargs
        operand: Any = node.args[place]
        constant = shape_of(operand.meta["val"], self.batch, operand.name) if hasattr(operand, "meta") else None
        others = [x for i, x in enumerate(args) if i != place]
        if constant is None or not all(map(_is_constant, others)):
            return args, kwargs
        return (*args[:place], constant, *args[place + 1 :]), kwargs

    def _bound(self, node: Node, args: Any, kwargs: Any) -> dict[str, Any]:
        """The arguments by name, defaults filled in."""
        target: Any = node.target
        arguments = target._schema.arguments
        bound = {a.name: a.default_value for a in arguments if a.has_default_value()}
        bound.update({a.name: x for a, x in zip(arguments, args, strict=False)})
        bound.update(kwargs)
        return bound

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
        expressions = (expression_of(d) for d in tensor.shape)
        symbolic = not isinstance(self.batch, int)
        return tuple(BATCH if symbolic and e == self.batch else e if isinstance(e, int) else str(e) for e in expressions)

    def _sample_shape(self, node: Node) -> tuple[Dim | str, ...]:
        """The shape of a float result with N for the batch, if it has it in front; () for anything else."""
        import torch

        val = node.meta.get("val")
        if not isinstance(val, torch.Tensor) or not val.is_floating_point():
            return ()
        front, *rest = self._shape(val) or ("",)
        return (BATCH, *rest) if front in (BATCH, self.batch) else ()

    def _dtype(self, val: object) -> str:
        """The type of the (first) result as torch names it."""
        tensor = val[0] if isinstance(val, tuple | list) else val
        return str(getattr(tensor, "dtype", "")).removeprefix("torch.")

    def _check(self, node: Node, result: object) -> None:
        """Our typing rules agree with torch's."""
        if not isinstance(result, Value):
            return
        expected = self._shape(node.meta.get("val"))
        ours = result.type.with_batch(self.batch) if isinstance(self.batch, int) else result.type.shape
        known = [(a, b) for a, b in zip(expected, ours, strict=False) if isinstance(a, int) or a == BATCH]
        if expected and (len(expected) != len(ours) or any(a != b for a, b in known)):
            raise InternalError(f"%{result.name} of {node.format_node()} is {result.type}, torch says {expected}")

    def _outputs(self) -> list[Any]:
        """What the program returns to the user, in order: nodes and constants."""
        from torch.export.graph_signature import OutputKind

        (output,) = (n for n in self.program.graph.nodes if n.op == "output")
        specs = self.program.graph_signature.output_specs
        return [node for spec, node in zip(specs, output.args[0], strict=True) if spec.kind is OutputKind.USER_OUTPUT]

    def _results(self) -> list[Any]:
        results: list[Any] = []
        for index, node in enumerate(self._outputs()):
            result = self.env.get(node, node)
            if result is None or isinstance(result, bool | int | float | str | Symbolic):
                where, problem = f"{self.builder.name}, output {index}", f"the output is {result!r}, not a tensor"
                raise CompileError("IMPORT007", where, problem, "let the model return tensors only")
            if isinstance(result, Condition):
                result = self.builder.reject("the model's outputs", f"output {index}", TRUTH_VALUES)
            if isinstance(result, Stacked | BatchConstant):
                why = "it does not have the batch in front"
                result = self.builder.reject_batch("the model's outputs", f"output {index}", why)
            results.append(result)
        return results

    def _check_written(self, graph: Graph) -> None:
        """IMPORT001 where the graph reads elements of torch.empty that nothing has written."""
        if self.empty and any(np.isnan(constant.data).any() for constant in graph.constants):
            for path, target in self.empty:
                self.builder.reject(path, target, "elements that nothing has written are read; use torch.zeros")
        self.builder.check()


def _is_constant(x: object) -> bool:
    """Whether an operator on it can be run at import."""
    return not isinstance(x, Value | Unknown | Ending | Merged | Stacked | Condition | Missing) and not (
        isinstance(x, Symbolic) and not x.numbers
    )
