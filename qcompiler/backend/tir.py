"""From scheduled TVM functions to plain C functions in one object file.

A scheduled function has buffers for parameters and its outermost loop runs over tasks. What comes out is
``void name(const void *buffers..., int32_t begin, int32_t end)``: raw pointers, no TVM runtime, no
allocation but the stack, and the tasks of ``[begin, end)``.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tvm
from tvm import s_tir, te, tirx
from tvm.ir import PointerType, PrimType

MAXIMUM_STACK_BYTES: Final = 64 * 1024


class TirArithmetic:
    """:class:`qcompiler.arith.Arithmetic` on TVM expressions."""

    def wide(self, value: Any) -> Any:
        return tirx.const(value, "int64") if isinstance(value, int) else value.astype("int64")

    def clamp(self, value: Any, low: Any, high: Any) -> Any:
        return tirx.min(tirx.max(value, low), high)

    def power(self, exponent: Any, like: Any) -> Any:
        dtype = like.dtype if isinstance(like, te.TensorSlice) else like.ty.dtype
        return tirx.const(1, dtype) << exponent

    def maximum(self, a: Any, b: Any) -> Any:
        return tirx.max(a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return tirx.min(a, b)

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        return tirx.Select(condition, a, b)

    def high_product(self, a: Any, b: Any) -> Any:
        return ((self.wide(a) * self.wide(b)) >> tirx.const(32, "int64")).astype("int32")


TIR: Final = TirArithmetic()


def _passes(target: Any) -> Any:
    """The device-independent lowering of ``tvm/s_tir/pipeline.py``, without the packed calling convention."""
    schedule, plain = s_tir.transform, tirx.transform
    return tvm.ir.transform.Sequential(
        [
            plain.BindTarget(target),
            schedule.CanonicalizeLoop(),
            schedule.LowerCrossThreadReduction(),
            schedule.LowerInitBlock(),
            schedule.PlanAndUpdateBufferAllocationLocation(),
            schedule.ConvertBlocksToOpaque(),
            schedule.CompactBufferAllocation(),
            schedule.LowerMatchBuffer(),
            schedule.StmtSimplify(),
            schedule.LowerOpaqueBlock(),
            plain.FlattenBuffer(),
            plain.NarrowDataType(32),
            schedule.LoopPartition(),
            plain.VectorizeLoop(True),
            plain.StorageRewrite(),
            schedule.HoistIfThenElse(),
            plain.UnrollLoop(),
            schedule.RenormalizeSplitPattern(),
            plain.StmtSimplify(),
            plain.RemoveNoOp(),
            plain.CommonSubexprElim(),
            plain.VerifyMemory(),
        ]
    )


def _statements(body: Any) -> list[Any]:
    """The statements of a body in order, nested sequences flattened."""
    if isinstance(body, tirx.SeqStmt):
        return [statement for part in body.seq for statement in _statements(part)]
    return [body]


def task_count(function: Any) -> int:
    """Extent of the outermost loop of a scheduled (not yet lowered) function."""
    statement = function.body.block.body
    while isinstance(statement, tirx.SeqStmt):
        statement = statement.seq[len(statement.seq) - 1]
    if not isinstance(statement, tirx.For):
        raise ValueError("the outermost statement of a kernel has to be its task loop")
    return int(statement.extent)


def _lower_part(function: Any, target: Any) -> tuple[Any, list[Any], list[Any], int]:
    """The lowered function, its declarations, its other statements, and its number of tasks."""
    tasks = task_count(function)
    lowered = _passes(target)(tvm.IRModule({"main": function}))["main"]
    declarations: list[Any] = []
    statements: list[Any] = []
    for statement in _statements(lowered.body):
        (declarations if isinstance(statement, (tirx.AllocBuffer, tirx.DeclBuffer)) else statements).append(statement)
    return lowered, declarations, statements, tasks


def _over_tasks(statements: list[Any], tasks: int, first: int, begin: Any, end: Any) -> Any:
    """The task loop of one part, which owns tasks ``first`` to ``first + tasks - 1``, cut to ``[begin, end)``."""
    low = tirx.max(begin - first, 0) if first else begin
    high = tirx.min(end - first, tasks)
    if tasks > 1:
        (loop,) = statements
        if not isinstance(loop, tirx.For) or int(loop.extent) != tasks:
            raise ValueError(f"lowering lost the task loop of extent {tasks}")
        return tirx.For(loop.loop_var, low, high - low, tirx.ForKind.SERIAL, loop.body)
    body = statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)
    return tirx.For(tirx.Var("task", "int32"), low, high - low, tirx.ForKind.SERIAL, body)


def _allocations(statement: Any) -> Iterable[Any]:
    """The local buffers declared anywhere inside a lowered statement."""
    if isinstance(statement, tirx.AllocBuffer):
        yield statement.buffer
    children = [getattr(statement, name, None) for name in ("body", "then_case", "else_case")]
    children += statement.seq if isinstance(statement, tirx.SeqStmt) else []
    for child in children:
        if child is not None:
            yield from _allocations(child)


def stack_bytes(function: Any) -> int:
    """Bytes of the local buffers of a lowered function, whether they end up in memory or in registers."""
    total = 0
    for buffer in _allocations(function.body):
        dtype = tvm.DataType(buffer.dtype)
        total += math.prod(int(extent) for extent in buffer.shape) * (dtype.bits * dtype.lanes // 8)
    return total


def lower_kernel(function: Any | Sequence[Any], name: str, target: Mapping[str, Any]) -> Any:
    """The plain C form of a scheduled function: pointers, then int32 ``begin`` and ``end`` of the tasks.

    A sequence of functions with equal parameters is one kernel whose tasks are those of the first, then
    those of the second, and so on. Raises ValueError when the local buffers exceed 64 KiB.
    """
    parts = [function] if isinstance(function, tirx.PrimFunc) else list(function)
    bound = tvm.target.Target(dict(target))
    begin, end = tirx.Var("begin", "int32"), tirx.Var("end", "int32")
    pointers: list[Any] = []
    body: list[Any] = []
    first = 0
    for part in parts:
        lowered, declarations, statements, tasks = _lower_part(part, bound)
        if not pointers:
            pointers = [
                tirx.Var(f"{parameter.name}_pointer", PointerType(PrimType(parameter.dtype))) for parameter in lowered.params
            ]
        body += [tirx.DeclBuffer(parameter, data=pointer) for parameter, pointer in zip(lowered.params, pointers, strict=True)]
        body += declarations
        body.append(_over_tasks(statements, tasks, first, begin, end))
        first += tasks
    attributes = tvm.ir.make_node("ir.DictAttrs", **{"global_symbol": name, "tirx.noalias": True, "target": bound})
    result = tirx.PrimFunc([*pointers, begin, end], tirx.SeqStmt(body), tvm.ir.TupleType([]), attributes)
    used = stack_bytes(result)
    if used > MAXIMUM_STACK_BYTES:
        raise ValueError(f"kernel {name} needs {used} bytes of stack, more than {MAXIMUM_STACK_BYTES}")
    return result


def compile_object(functions: Iterable[Any], target: Mapping[str, Any]) -> tuple[bytes, str, str]:
    """One relocatable object with many lowered functions: its bytes, its assembly and its TIR as text."""
    bound = tvm.target.Target(dict(target))
    module = tvm.IRModule({str(function.attrs["global_symbol"]): function for function in functions})
    module = tirx.transform.LowerIntrin()(tirx.transform.BindTarget(bound)(module))
    built = tvm.get_global_func("target.build.llvm")(module, bound)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        built.write_to_file(str(path), "o")
        content = path.read_bytes()
    return content, str(built.inspect_source("asm")), str(module.script())
