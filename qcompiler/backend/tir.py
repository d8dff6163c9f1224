"""From scheduled TVM functions to plain C functions in one object file.

A scheduled function has buffers for parameters and its outermost loop runs over tasks. What comes out is
``void name(const void *buffers..., int32_t begin, int32_t end)``: raw pointers, no TVM runtime, no
allocation but the stack, and the tasks of ``[begin, end)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import tvm
from tvm import s_tir, te, tirx
from tvm.ir import PointerType, PrimType
from tvm_ffi import structural_map, structural_walk

from qcompiler.backend.prefetch import insert
from qcompiler.errors import InternalError
from qcompiler.interrupts import temporary_folder

MAXIMUM_STACK_BYTES: Final = 64 * 1024


def lanes_of(value: Any) -> int:
    """How many lanes an expression has."""
    dtype = value.dtype if isinstance(value, te.TensorSlice) else value.ty.dtype
    return int(tvm.DataType(dtype).lanes)


def converted(value: Any, dtype: str) -> Any:
    """``value`` in another element type, with as many lanes."""
    lanes = lanes_of(value)
    return value.astype(dtype if lanes == 1 else f"{dtype}x{lanes}")


class TirArithmetic:
    """:class:`qcompiler.arith.Arithmetic` on TVM expressions, scalars or vectors."""

    def wide(self, value: Any) -> Any:
        return tirx.const(value, "int64") if isinstance(value, int) else converted(value, "int64")

    def clamp(self, value: Any, low: Any, high: Any) -> Any:
        return tirx.min(tirx.max(value, low), high)

    def power(self, exponent: Any, like: Any) -> Any:
        dtype = like.dtype if isinstance(like, te.TensorSlice) else like.ty.dtype
        one = str(dtype).partition("x")[0] if lanes_of(exponent) == 1 else dtype  # shifted once, then in every lane
        return tirx.const(1, one) << exponent

    def maximum(self, a: Any, b: Any) -> Any:
        return tirx.max(a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        return tirx.min(a, b)

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        lanes = lanes_of(condition)
        return tirx.Select(condition, *(v if lanes_of(v) == lanes else tirx.Broadcast(v, lanes) for v in (a, b)))

    def moved_right(self, value: Any, places: Any) -> Any:
        return value >> places

    def unsigned(self, value: Any) -> Any:
        return tirx.const(value, "uint32") if isinstance(value, int) else converted(value, "uint32")

    def signed(self, value: Any) -> Any:
        return converted(value, "int32")

    def high_product(self, a: Any, b: Any) -> Any:
        return converted((self.wide(a) * self.wide(b)) >> tirx.const(32, "int64"), "int32")


class X86Arithmetic(TirArithmetic):
    """Products of a vector and one number as x86 has them, of even lanes and of odd ones.

    LLVM finds that form by itself only where both factors change in a loop. ``signed_products``: whether there are any
    (from SSE4.1 on); else they are unsigned, which is too much by ``b`` where a is negative, and b has to be positive.
    """

    def __init__(self, signed_products: bool) -> None:
        self.signed_products = signed_products

    def high_product(self, a: Any, b: Any) -> Any:
        lanes = lanes_of(a)
        if lanes < 4 or lanes_of(b) > 1:
            return super().high_product(a, b)
        pairs, half = f"int64x{lanes // 2}", tirx.const(32, "int64")
        even = tirx.reinterpret(pairs, a)
        odd = even >> half
        if self.signed_products:
            even = (even << half) >> half
        else:
            even, odd = even & tirx.const(0xFFFFFFFF, "int64"), odd & tirx.const(0xFFFFFFFF, "int64")
        products = [tirx.reinterpret(f"int32x{lanes}", part * self.wide(b)) for part in (even, odd)]
        upper = tirx.Shuffle(products, [lane // 2 * 2 + 1 + lane % 2 * lanes for lane in range(lanes)])
        return upper if self.signed_products else upper - ((a >> tirx.const(31, "int32")) & b)


TIR: Final = TirArithmetic()
X86: Final = {
    "x86-64": X86Arithmetic(signed_products=False),
    "avx2": X86Arithmetic(signed_products=True),
    "avxvnni": X86Arithmetic(signed_products=True),
    "avx512vnni": X86Arithmetic(signed_products=True),
}


def arithmetic(instruction_set: str) -> TirArithmetic:
    """How an instruction set calculates."""
    return X86.get(instruction_set, TIR)


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
            plain.prim_func_pass(lambda function, *_: function.with_body(insert(_without_periods(function.body))), opt_level=0),
            plain.CommonSubexprElim(),
            plain.VerifyMemory(),
        ]
    )


def _without_periods(body: Any) -> Any:
    """Loads of the elements 0 to n - 1 again and again as one load, repeated: LLVM loads single elements where indices repeat."""

    def replace(load: Any) -> Any:
        index = load.indices[-1]
        periodic = isinstance(index, tirx.FloorMod) and isinstance(index.a, tirx.Ramp) and isinstance(index.b, tirx.Broadcast)
        if not periodic:
            return load
        lanes, period = lanes_of(index), int(index.b.value)
        whole = isinstance(index.a.base, tirx.IntImm) and int(index.a.base) % period == 0 and lanes % period == 0
        if int(index.a.stride) != 1 or not whole:
            return load
        once = tirx.BufferLoad(load.source, [*load.indices[:-1], tirx.Ramp(0, 1, period)])
        return tirx.Shuffle([once] * (lanes // period), list(range(lanes)))

    return structural_map(body, (tvm.ir.TensorLoad, replace))


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


def stack_bytes(body: Any) -> int:
    """Bytes of the local buffers of a lowered body, whether they end up in memory or in registers."""
    total = 0
    for buffer in _allocations(body):
        dtype = tvm.DataType(buffer.dtype)
        total += math.prod(int(extent) for extent in buffer.shape) * (dtype.bits * dtype.lanes // 8)
    return total


def _touched(body: Any) -> set[str]:
    """The names of the buffers that a lowered body reads or writes."""
    touched: set[str] = set()

    def see(node: Any) -> None:
        touched.add((node.source if isinstance(node, tvm.ir.TensorLoad) else node.buffer).name)

    structural_walk(body, [(tvm.ir.TensorLoad, see), (tirx.BufferStore, see)], order="pre")
    return touched


def _aligned_stack() -> list[Any]:
    """Statements that align the function's stack to whole vectors, so that those which LLVM keeps there do not cross cache lines.

    LLVM does it only for a buffer of vectors that has to be in memory, as one that is prefetched: without, the caller's
    alignment to 16 bytes decides, and layers of few input channels took up to a fifth longer where it was unlucky.
    """
    buffer = tirx.decl_buffer((1,), "int32x16", name="aligned", scope="local")
    address = tirx.address_of(tirx.BufferLoad(buffer, [0]))
    numbers = [tirx.const(value, "int32") for value in (0, 3, 1)]  # for reading, into all caches, data
    return [tirx.AllocBuffer(buffer), tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, *numbers))]


def lower_kernel(function: Any | Sequence[Any], name: str, target: Mapping[str, Any]) -> Any:
    """The plain C form of a scheduled function: pointers, then int32 ``begin`` and ``end`` of the tasks.

    A sequence of functions with equal parameters is one kernel whose tasks are those of the first, then
    those of the second, and so on. Raises ValueError when the local buffers exceed 64 KiB, InternalError where an
    argument is neither read nor written: what a kernel is given takes part in its result.
    """
    from qcompiler.backend.short_form import expand

    parts = [function] if isinstance(function, tirx.PrimFunc) else list(function)
    bound = tvm.target.Target(dict(target))
    begin, end = tirx.Var("begin", "int32"), tirx.Var("end", "int32")
    pointers: list[Any] = []
    body: list[Any] = []
    first, touched = 0, {"x"}  # what there is of x may be out of reach, behind padding
    for part in parts:
        lowered, declarations, statements, tasks = _lower_part(part, bound)
        touched |= _touched(lowered.body)
        if not pointers:
            pointers = [
                tirx.Var(f"{parameter.name}_pointer", PointerType(PrimType(parameter.dtype))) for parameter in lowered.params
            ]
        body += [tirx.DeclBuffer(parameter, data=pointer) for parameter, pointer in zip(lowered.params, pointers, strict=True)]
        body += declarations
        body.append(_over_tasks(statements, tasks, first, begin, end))
        first += tasks
    unused = [parameter.name for parameter in lowered.params if parameter.name not in touched]
    if unused:
        raise InternalError(f"kernel {name} neither reads nor writes its {', '.join(unused)}")
    whole = expand(tirx.SeqStmt(body), bound)
    used = stack_bytes(whole)
    if used > MAXIMUM_STACK_BYTES:
        raise ValueError(f"kernel {name} needs {used} bytes of stack, more than {MAXIMUM_STACK_BYTES}")
    if str(bound.attrs["mtriple"]).startswith("x86"):
        whole = tirx.SeqStmt([*_aligned_stack(), whole])
    attributes = tvm.ir.make_node("ir.DictAttrs", **{"global_symbol": name, "tirx.noalias": True, "target": bound})
    return tirx.PrimFunc([*pointers, begin, end], whole, tvm.ir.TupleType([]), attributes)


class CompiledKernels:
    """One relocatable object with many lowered functions; its texts are made when somebody reads them: LLVM runs again."""

    def __init__(self, functions: Iterable[Any], target: Mapping[str, Any]) -> None:
        bound = tvm.target.Target(dict(target))
        module = tvm.IRModule({str(function.attrs["global_symbol"]): function for function in functions})
        self._module = tirx.transform.LowerIntrin()(tirx.transform.BindTarget(bound)(module))
        self._built = tvm.get_global_func("target.build.llvm")(self._module, bound)
        with temporary_folder() as folder:
            path = folder / "kernels.o"
            self._built.write_to_file(str(path), "o")
            self.content = path.read_bytes()

    @cached_property
    def assembly(self) -> str:
        """LLVM's listing."""
        return str(self._built.inspect_source("asm"))

    @cached_property
    def tir(self) -> str:
        """The functions as TVM prints them."""
        return str(self._module.script())
