"""Direct convolution with a dot-product instruction: one schedule for every instruction set that has one.

A task copies the input rows it needs to a padded scratch (where there is padding, or where the instruction wants
another type than the stored codes), then walks vectors of output channels and tiles of pixels. The accumulators of
a tile stay in registers from the bias to the stored code.

Packed weights are unpacked to scratch, once for all pixels of a task, where they fit; else tap by tap, and the sums of all
pixels wait in scratch for the next tap; or, for few pixels, in registers, again for every tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final

import numpy as np
import tvm
from tvm import s_tir, te, tirx
from tvm_ffi import structural_map

from qcompiler.backend.kernel import ConvolutionSpec, Kernel, Scalar, physical_channels
from qcompiler.backend.prefetch import PIXELS, STEPS, STREAM
from qcompiler.backend.tir import task_count
from qcompiler.schedules.dot_product import DEPTH, DotProduct, description
from qcompiler.schedules.epilogue import apply_epilogue, epilogue_placeholders
from qcompiler.schedules.pack import PackedSteps, bias_adjustment, unpack_code
from qcompiler.schedules.tile import choose_tiling
from qcompiler.schedules.tile_ranking import rank_tilings
from qcompiler.schedules.tiling import STACK_BYTES, Problem, Tile, Tiling, divisors, refusal, scratch_bytes, tiling_text

_DENSE_CHANNELS: Final = 2
"""Up to so many input channels fill half a dot product at most."""
_INLINE_ACCUMULATORS: Final = 24
_INLINE_BLOCKS: Final = 3
"""Vectors of sums and of weights beside which unpacking in registers finds some for itself,"""
_MANY_PIXELS: Final = 7
"""which is worth it for tiles of so many pixels."""
_RESIDUAL_ACCUMULATORS: Final = 16
"""The long epilogue of a small tile overlaps with the next tile's dot products."""
_WIDER_TILINGS: Final = 2
"""So many tilings with more accumulators are worth a measurement where the model has that limit."""
_TOGETHER: Final = 4
"""Vectors of sums that become one of codes: of several pixels where these have fewer."""
MOST_TOGETHER: Final = 16
_FETCHED_AHEAD: Final = 128 << 10
"""Bytes of weights from which on they are not in the second-level cache when a layer begins, and take time to come."""
_WORTH_UNPACKING: Final = 16
"""Pixels of a task from which on weights are unpacked to scratch, not in registers;"""
_WORTH_UNPACKING_ONE: Final = 32
"""where scratch has those of one vector only, and registers need two instructions."""
_WORTH_KEEPING: Final = 28
"""Pixels of a task from which on its sums are kept while weights are unpacked to scratch tap by tap."""
_TAPS_TOGETHER: Final = 2
"""Vectors of a tile then, whose weights of a tap are one stream."""


@dataclass(frozen=True)
class _Plan:
    """All decisions about one kernel; ``tiling`` is the model's, within the limits of ``problem``."""

    spec: ConvolutionSpec
    instruction: DotProduct
    problem: Problem
    tiling: Tiling
    steps: PackedSteps
    copied: bool
    converted: bool  # weights are not stored as the instruction wants them
    inline: bool  # they are converted in the innermost loop, else into scratch, all of a tile's vectors or those of one tap
    dense: bool  # rows are copied without padding channels, and a step goes over the columns of the kernel too

    @property
    def lowered(self) -> int:
        """By how many places unpacked weights are moved down again, as the instruction does not take the smallest one else."""
        return self.spec.places if self.instruction.least_weight > -128 else 0

    def refusal(self, tiling: Tiling) -> str:
        """Why the kernel cannot be tiled so; "" if it can."""
        return refusal(self.problem, self.instruction, tiling)


@dataclass(frozen=True)
class _Part(_Plan):
    """The columns of the output from ``first`` on, as many as ``tile`` says."""

    first: int
    tile: Tile

    @property
    def walked_bytes(self) -> int:
        """Stored weights that a tile of pixels reads before the next tile does: all of its vectors, or those of one tap."""
        walks = self.steps.taps if self.problem.by_taps else 1
        return self.tile.blocks * math.prod(self.steps.stored_shape[1:]) // (self.steps.together * walks)

    @property
    def fetches_ahead(self) -> bool:
        """Whether there is time to fetch the next vectors' weights while those of a tile are in use."""
        tiles = self.tile.rows // self.tile.pixel_rows * (self.tile.columns // self.tile.pixel_columns)
        many = self.problem.weight_bytes >= _FETCHED_AHEAD
        adjacent = (self.tile.blocks,) if self.problem.by_taps else (1, self.tile.blocks)
        return many and tiles > 1 and self.steps.together in adjacent

    @property
    def streams(self) -> bool:
        """Whether weights are unpacked in the order in which they lie in memory."""
        packed = self.inline and self.steps.per_byte > 1
        return packed and self.steps.together > 1 and self.tile.blocks == self.steps.together


def serves(spec: ConvolutionSpec, instruction: DotProduct) -> bool:
    """Whether :func:`build` has a schedule for this convolution."""
    return _plan(spec, instruction) is not None


def tilings(spec: ConvolutionSpec, instruction: DotProduct) -> tuple[Tiling, ...]:
    """What :func:`build` may be told to do, the most promising: the model's choice first; empty where it does not serve."""
    plan = _plan(spec, instruction)
    if plan is None:
        return ()
    found = rank_tilings(plan.problem, instruction, plan.tiling)
    if not plan.inline and plan.problem.most_accumulators < instruction.accumulators:
        wider = replace(plan.problem, most_accumulators=instruction.accumulators)
        found += tuple(t for t in rank_tilings(wider, instruction, plan.tiling) if t not in found)[:_WIDER_TILINGS]
    return (plan.tiling, *(tiling for tiling in found if not plan.refusal(tiling)))


def refuses(spec: ConvolutionSpec, instruction: DotProduct, tiling: Tiling) -> str:
    """Why :func:`build` does not take a tiling for this convolution; "" if it does."""
    plan = _plan(spec, instruction)
    return "there is no direct schedule" if plan is None else plan.refusal(tiling)


def build(spec: ConvolutionSpec, instruction: DotProduct, schedule_name: str, tiling: Tiling = ()) -> Kernel:
    """The kernel of a convolution, tiled as the model chooses where ``tiling`` is empty.

    Raises ValueError where :func:`serves` is false, and for a tiling that does not fit.
    """
    plan = _plan(spec, instruction)
    if plan is None:
        raise ValueError(f"no direct schedule for {spec}")
    problem = plan.refusal(tiling) if tiling else ""
    if problem:
        raise ValueError(f"the tiling {tiling_text(tiling)} does not fit {spec}: {problem}")
    chosen = tiling or plan.tiling
    firsts = accumulate((tile.width for tile in chosen), initial=0)
    parts = [_Part(**vars(plan), first=first, tile=tile) for first, tile in zip(firsts, chosen, strict=False)]
    functions = []
    for part in parts:
        names, tensors = _expression(part)
        function = _schedule(part, te.create_prim_func(tensors))
        function = _start_from_bias(function, function.params[names.index("bias")], instruction.lanes)
        functions.append(_place_part(part, function, names))

    return Kernel(
        function=tuple(functions),
        arguments=names,
        tasks=sum(task_count(function) for function in functions),
        schedule=schedule_name,
        pack=lambda codes: plan.steps.pack(_columns_as_channels(codes) if plan.dense else codes),
        adjust_bias=bias_adjustment(instruction.x_offset, spec.places - plan.lowered),
    )


def _columns_as_channels(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Codes ``[CO, CI, KH, KW]`` as ``[CO, KW * CI, KH, 1]``: the order of a dense row."""
    outputs, inputs, height, width = codes.shape
    return codes.transpose(0, 3, 1, 2).reshape(outputs, width * inputs, height, 1)


def _place_part(plan: _Part, function: Any, names: tuple[str, ...]) -> Any:
    """Lets a part write its columns of the whole output (and read those of the whole residual)."""
    if plan.tile.width == plan.spec.out_width:
        return function
    whole = {}
    parameters = list(function.params)
    for index, name in enumerate(names):
        if name in ("residual", "y"):
            part = parameters[index]
            shape = (part.shape[0], part.shape[1], plan.spec.out_width, part.shape[3])
            whole[part] = parameters[index] = tirx.decl_buffer(shape, part.dtype, name=name)

    def shifted(indices: Any) -> list[Any]:
        return [indices[0], indices[1], indices[2] + plan.first, indices[3]]

    def store(node: Any) -> Any:
        return tirx.BufferStore(whole[node.buffer], node.value, shifted(node.indices)) if node.buffer in whole else node

    def load(node: Any) -> Any:
        return tirx.BufferLoad(whole[node.source], shifted(node.indices)) if node.source in whole else node

    def region(node: Any) -> Any:
        if node.source not in whole:
            return node
        starts = shifted([part.min for part in node.region])
        ranges = [tvm.ir.Range.from_min_extent(start, part.extent) for start, part in zip(starts, node.region, strict=True)]
        return tirx.BufferRegion(whole[node.source], ranges)

    callbacks = [(tirx.BufferStore, store), (tvm.ir.TensorLoad, load), (tvm.ir.TensorRegion, region)]
    return tirx.PrimFunc(parameters, structural_map(function.body, callbacks), function.ret_type, function.attrs)


def _start_from_bias(function: Any, bias: Any, lanes: int) -> Any:
    """Accumulators begin as the bias: a load in place of a zero, where TE only knows constants."""

    def start(block: Any) -> Any:
        if block.name_hint != "sums_init":
            return block
        store = block.body
        channel = store.indices[3] * lanes + store.indices[4]
        read = tirx.BufferRegion(bias, [tvm.ir.Range.from_min_extent(channel, 1)])
        body = tirx.BufferStore(store.buffer, tirx.BufferLoad(bias, [channel]), store.indices)
        return s_tir.SBlock(block.iter_vars, [read], block.writes, block.name_hint, body)

    body = structural_map(function.body, (s_tir.SBlock, start))
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)


def _flatten(spec: ConvolutionSpec) -> ConvolutionSpec:
    """A 1x1 convolution that moves by one pixel sees all pixels of the batch as one row."""
    if spec.kernel != (1, 1) or spec.strides != (1, 1) or any(spec.padding):
        return spec
    return replace(spec, batch=1, height=1, width=spec.batch * spec.height * spec.width, dilation=(1, 1))


def _plan(original: ConvolutionSpec, instruction: DotProduct) -> _Plan | None:
    """How to compute a convolution; None where this schedule does not serve."""
    inputs, outputs = original.in_channels // original.groups, original.out_channels // original.groups
    if physical_channels(original.out_channels) % instruction.lanes:
        return None
    if original.groups > 1 and (inputs % DEPTH or outputs % instruction.lanes):
        return None
    if original.groups > 1 and physical_channels(original.out_channels) != original.out_channels:
        return None  # which group a vector belongs to follows from its place among all stored ones
    spec = _flatten(original)
    whole = _problem(spec, instruction)
    found = _unpacking(spec, whole, instruction)
    if found is None:
        return None
    problem, inline = found
    tiling = choose_tiling(problem, instruction)
    if not tiling:
        return None
    taps, words = _taps(spec)
    if inline:
        per_byte = 8 // spec.weight_bits
        words = -(-words // per_byte) * per_byte
    together = _vectors_of_taps(whole) if problem.by_taps else _together(original, whole.blocks)
    steps = PackedSteps(whole.blocks, instruction.lanes, instruction.group, taps, words, spec.weight_bits, together)
    converted = inline or problem.unpacked_bytes > 0
    return _Plan(spec, instruction, problem, tiling, steps, whole.copied, converted, inline, _is_dense(spec))


def _unpacking(spec: ConvolutionSpec, whole: Problem, instruction: DotProduct) -> tuple[Problem, bool] | None:
    """The problem within the limits of the best way to unpack weights, and whether that is in registers; None if no way fits."""
    plain = instruction.weight_dtype == "int8"
    if plain and spec.weight_bits == 8:
        return whole, False
    taps, words = _taps(spec)
    per_byte = 8 // spec.weight_bits
    step_bytes = instruction.lanes * DEPTH * np.dtype(instruction.weight_dtype).itemsize

    def pixels(problem: Problem) -> int:
        """Of a task whose weights are unpacked to scratch; 0 where they do not fit."""
        tiling = choose_tiling(problem, instruction)
        fits = sum(scratch_bytes(problem, tile) for tile in tiling) <= STACK_BYTES
        return max((tile.rows * tile.columns for tile in tiling), default=0) if fits else 0

    all_bytes = (whole.steps + per_byte) * step_bytes
    attempts = [replace(whole, most_blocks=most, unpacked_bytes=all_bytes) for most in (32, 2, 1)]
    scratch = next((attempt for attempt in attempts if pixels(attempt)), None)
    few = plain and (scratch is None or scratch.most_blocks == 1)
    if few and taps > 1 and words % per_byte == 0 and spec.groups == 1 and not _is_dense(spec):
        by_taps = replace(whole, most_accumulators=instruction.accumulators, unpacked_bytes=words * step_bytes, by_taps=True)
        side_by_side = _vectors_of_taps(whole)
        if pixels(by_taps) >= _WORTH_KEEPING and all(t.blocks == side_by_side for t in choose_tiling(by_taps, instruction)):
            return by_taps, False
    if words == 1 and per_byte > 1:  # nothing to unpack together in registers
        return None if scratch is None else (scratch, False)
    if scratch is not None and pixels(scratch) >= (_WORTH_UNPACKING_ONE if few else _WORTH_UNPACKING):
        return scratch, False
    if spec.groups > 1 and words % per_byte:
        return None
    wide = replace(whole, most_accumulators=_INLINE_ACCUMULATORS, most_blocks=_INLINE_BLOCKS)
    many = min((tile.pixel_rows * tile.pixel_columns for tile in choose_tiling(wide, instruction)), default=0) >= _MANY_PIXELS
    return (wide if many and plain and words % per_byte == 0 else whole), True


def _together(spec: ConvolutionSpec, blocks: int) -> int:
    """Blocks of outputs whose weights lie side by side: the same for any batch, so that kernels of one layer share them.

    A layer without pixels reads every weight once, from memory, for many blocks at a time: one stream is fast, many are not.
    """
    if (spec.height, spec.width, *spec.kernel, spec.groups) != (1, 1, 1, 1, 1):
        return 1
    return max(value for value in divisors(blocks) if value <= MOST_TOGETHER)


def _vectors_of_taps(problem: Problem) -> int:
    """Vectors whose weights of a tap lie side by side, where they are unpacked tap by tap."""
    return math.gcd(_TAPS_TOGETHER, problem.blocks)


def _is_dense(spec: ConvolutionSpec) -> bool:
    """Whether there are so few channels that a dot product holds several columns of the kernel."""
    return spec.in_channels <= _DENSE_CHANNELS and spec.groups == 1 and spec.dilation[1] == 1 and spec.kernel[1] > 1


def _taps(spec: ConvolutionSpec) -> tuple[int, int]:
    """Taps, and dot products for each."""
    if _is_dense(spec):
        return spec.kernel[0], -(-spec.kernel[1] * spec.in_channels // DEPTH)
    return spec.kernel[0] * spec.kernel[1], -(-spec.in_channels // spec.groups // DEPTH)


def _problem(spec: ConvolutionSpec, instruction: DotProduct) -> Problem:
    dense = _is_dense(spec)
    taps, words = _taps(spec)
    steps = taps * words
    blocks = physical_channels(spec.out_channels) // instruction.lanes
    return Problem(
        out_height=spec.out_height,
        out_width=spec.out_width,
        blocks=blocks,
        lanes=instruction.lanes,
        steps=steps,
        weight_bytes=blocks * steps * instruction.lanes * DEPTH * spec.weight_bits // 8,
        copied=any(spec.padding) or instruction.convert is not None or dense,
        stride=spec.strides[0],
        reach=(spec.dilation[0] * (spec.kernel[0] - 1), spec.dilation[1] * (spec.kernel[1] - 1)),
        column_stride=spec.strides[1],
        channel_bytes=(spec.in_channels if dense else words * DEPTH * spec.groups) * np.dtype(instruction.x_dtype).itemsize,
        row_bytes=words * DEPTH * np.dtype(instruction.x_dtype).itemsize if dense else 0,
        group_blocks=blocks // spec.groups,
        most_accumulators=_RESIDUAL_ACCUMULATORS if spec.epilogue.residual else instruction.accumulators,
        together=_together(spec, blocks),
    )


def _expression(plan: _Part) -> tuple[tuple[str, ...], list[Any]]:
    """Names and tensors of the kernel's arguments, the output last."""
    spec, steps, instruction = plan.spec, plan.steps, plan.instruction
    lanes, group = steps.lanes, steps.group
    top, left, bottom, right = spec.padding
    shape = (spec.batch, spec.out_height, plan.tile.width, physical_channels(spec.out_channels))
    x = te.placeholder((spec.batch, spec.height, spec.width, physical_channels(spec.in_channels)), "uint8", name="x")
    arguments = epilogue_placeholders(spec.epilogue, shape)
    rows = x
    if plan.copied:
        convert = instruction.convert or (lambda code: code)

        def padded(n: Any, h: Any, w: Any, c: Any) -> Any:
            code = x[n, h - top, w - left, c]
            inside = [h >= top] * (top > 0) + [h < spec.height + top] * (bottom > 0)
            inside += [w >= left] * (left > 0) + [w < spec.width + left] * (right > 0 or plan.dense)
            if inside:
                code = tirx.if_then_else(tirx.all(*inside), code, arguments.scalars[Scalar.X_ZERO].astype("uint8"))
            return convert(code)

        height, width = spec.height + top + bottom, spec.width + left + right
        if plan.dense:
            depth = spec.in_channels
            row_bytes = width * depth + steps.words * DEPTH  # the last step of a row reads beyond it, for weights of 0
            rows = te.compute((spec.batch, height, row_bytes), lambda n, h, b: padded(n, h, b // depth, b % depth), name="rows")
        else:
            rows = te.compute((spec.batch, height, width, steps.words * DEPTH * spec.groups), padded, name="rows")
    weights = te.placeholder(steps.stored_shape, "int8" if spec.weight_bits == 8 else "uint8", name="weights")

    def stored(v: Any, s: Any, *lane: Any) -> Any:
        if spec.weight_bits == 8:
            return weights[(*steps.place(v, s), *lane)]
        code = unpack_code(weights[(*steps.place(v, s // steps.per_byte), *lane)], s % steps.per_byte, spec.weight_bits)
        return code >> plan.lowered if plan.lowered else code

    weight: Callable[..., Any] = stored
    if plan.converted:
        count = (steps.blocks, steps.stored * steps.per_byte, *steps.step_shape)
        weight = te.compute(count, lambda *place: stored(*place).astype(instruction.weight_dtype), name="unpacked")
    columns = 1 if plan.dense else spec.kernel[1]
    kh, kw = te.reduce_axis((0, spec.kernel[0]), "kh"), te.reduce_axis((0, columns), "kw")
    word = te.reduce_axis((0, steps.words), "word")
    groups = [te.reduce_axis((0, DEPTH // group), "outer")] if group < DEPTH else []
    inner = te.reduce_axis((0, group), "inner")

    def product(n: Any, h: Any, w: Any, v: Any, lane: Any) -> Any:
        row = h * spec.strides[0] + kh * spec.dilation[0]
        column = (w + plan.first) * spec.strides[1]
        outer = groups[0] if groups else 0
        depth = word * DEPTH + outer * group + inner
        if plan.dense:
            value = rows[n, row, column * spec.in_channels + depth].astype("int32")
        else:
            first = v // (steps.blocks // spec.groups) * steps.words * DEPTH if spec.groups > 1 else 0
            value = rows[n, row, column + kw * spec.dilation[1], first + depth].astype("int32")
        code = weight(v, (kh * columns + kw) * steps.words + word, outer, lane, inner).astype("int32")
        return te.sum(value * code, axis=[kh, kw, word, *groups, inner])

    sums = te.compute((*shape[:3], steps.blocks, lanes), product, name="sums")

    def code(n: Any, h: Any, w: Any, c: Any) -> Any:
        accumulator = sums[n, h, w, c // lanes, c % lanes]
        if plan.lowered:
            accumulator = accumulator << plan.lowered
        return apply_epilogue(spec.epilogue, arguments, accumulator, c, (n, h, w, c), spec.places)

    y = te.compute(shape, code, name="y")
    return arguments.ordered(x, weights, y)


def _schedule(plan: _Part, function: Any) -> Any:
    tile, instruction = plan.tile, plan.instruction
    sch = s_tir.Schedule(tvm.IRModule({"main": function}))
    out, sums = sch.get_sblock("y"), sch.get_sblock("sums")
    n, h, w, c = sch.get_loops(out)
    h_task, h_tile, h_pixel = sch.split(h, [None, tile.rows // tile.pixel_rows, tile.pixel_rows])
    w_task, w_tile, w_pixel = sch.split(w, [None, tile.columns // tile.pixel_columns, tile.pixel_columns])
    c_task, c_tile, c_block, c_lane = sch.split(c, [None, tile.task_blocks // tile.blocks, tile.blocks, instruction.lanes])
    sch.reorder(n, h_task, w_task, c_task, c_tile, h_tile, w_tile, h_pixel, w_pixel, c_block, c_lane)
    task = sch.fuse(n, h_task, w_task, c_task)
    sch.compute_at(sums, c_tile if plan.problem.by_taps else w_tile, preserve_unit_loops=True)
    if plan.copied:
        _schedule_rows(sch, task, plan)
    if plan.converted and not plan.inline and not plan.problem.by_taps:
        unpacked = sch.get_sblock("unpacked")
        sch.compute_at(unpacked, c_tile, preserve_unit_loops=True)
        _schedule_unpacked(sch, unpacked, plan)
    tiles, walk = _schedule_sums(sch, sums, plan)
    if plan.fetches_ahead:
        for loop in tiles or (h_tile, w_tile):
            sch.annotate(loop, PIXELS, 1)
        for loop in walk:
            sch.annotate(loop, STEPS, plan.walked_bytes)
    if plan.streams:
        sch.annotate(walk[-1], STREAM, math.prod(plan.steps.stored_shape[2:]))
    if plan.spec.epilogue.short:  # several vectors become one
        together = (
            math.gcd(tile.pixel_columns, _TOGETHER // tile.blocks) if tile.blocks == plan.problem.blocks <= _TOGETHER else 1
        )
        w_pixel, w_together = sch.split(w_pixel, [None, together])
        sch.vectorize(sch.fuse(w_together, c_block, c_lane))
    else:
        sch.unroll(c_block)
        sch.vectorize(c_lane)
    for loop in (h_pixel, w_pixel):
        sch.unroll(loop)
    return sch.mod["main"]


def _schedule_rows(sch: Any, task: Any, plan: _Part) -> None:
    """The padded copy: vectors of channels, or bytes where few are copied; the border peeled off the inner loops."""
    rows = sch.get_sblock("rows")
    sch.compute_at(rows, task, preserve_unit_loops=True)
    loops = sch.get_loops(rows)[1:]
    channel = loops[-1]
    if plan.dense:
        sch.annotate(channel, "pragma_loop_partition_hint", True)
        return
    size = int(sch.get(channel).extent)
    vector = max(value for value in (64, 48, 32, 16, 12, 8, 4) if size % value == 0)
    _, channel_inner = sch.split(channel, [None, vector])
    sch.vectorize(channel_inner)
    if any(plan.spec.padding):
        sch.annotate(loops[-2], "pragma_loop_partition_hint", True)


def _schedule_sums(sch: Any, sums: Any, plan: _Part) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Steps outside, the register tile unrolled inside, the innermost loops one instruction.

    The loops over the tiles, which are here where weights come tap by tap, and those over the steps of a walk.
    """
    steps, instruction, tile, by_taps = plan.steps, plan.instruction, plan.tile, plan.problem.by_taps
    count = 10 if steps.group < DEPTH else 9
    n, h, w, v, lane, kh, kw, word, *dot_loops = sch.get_loops(sums)[-count:]
    factor = max(value for value in (1, 2, 4) if steps.words % value == 0)
    if plan.inline and steps.per_byte > 1:
        factor = steps.per_byte
    word_outer, word_inner = sch.split(word, [None, factor])
    tiles: tuple[Any, ...] = ()
    if by_taps:
        h_tile, h = sch.split(h, [None, tile.pixel_rows])
        w_tile, w = sch.split(w, [None, tile.pixel_columns])
        tiles = h_tile, w_tile
    vector_first = plan.inline and tile.pixel_rows * tile.pixel_columns < 4
    if vector_first:  # a vector of weights is unpacked just before its use: unpacking all first needs too many registers
        sch.reorder(kh, kw, word_outer, v, word_inner, n, h, w, lane, *dot_loops)
    else:
        sch.reorder(kh, kw, *tiles, word_outer, word_inner, n, h, w, v, lane, *dot_loops)
    if plan.inline or by_taps:
        unpacked = sch.get_sblock("unpacked")
        sch.compute_at(unpacked, kw if by_taps else v if vector_first else word_outer, preserve_unit_loops=True)
        _schedule_unpacked(sch, unpacked, plan)
    initial = sch.decompose_reduction(sums, kh)
    for loop in (word_inner, n, h, w, v):
        sch.unroll(loop)
    *tile_loops, initial_v, initial_lane = sch.get_loops(initial)[-5:]
    for loop in (initial_v,) if by_taps else (*tile_loops, initial_v):
        sch.unroll(loop)
    sch.vectorize(initial_lane)
    sch.tensorize(lane, intrinsic_name(instruction))
    return tiles, (word_outer,) if by_taps else (kh, kw, word_outer)


def _schedule_unpacked(sch: Any, unpacked: Any, plan: _Part) -> None:
    """Whole vectors of one stored step, its codes one after another; in the order of memory where they come tap by tap."""
    v, s, o, i, j = sch.get_loops(unpacked)[-5:]
    vector = sch.fuse(o, i, j)
    s_outer, s_inner = sch.split(s, [None, plan.steps.per_byte])
    if plan.problem.by_taps:
        sch.reorder(s_outer, v, s_inner)
    sch.unroll(s_inner)
    sch.unroll(v)
    sch.vectorize(vector)


def intrinsic_name(instruction: DotProduct) -> str:
    """The registered name of an instruction's tensor intrinsic, registered on first use."""
    meaning = description(instruction.lanes, instruction.group, instruction.x_dtype, instruction.weight_dtype)
    s_tir.TensorIntrin.register(instruction.name, meaning, instruction.implementation, override=True)
    return instruction.name
