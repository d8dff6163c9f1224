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
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final

import numpy as np
import tvm
from tvm import s_tir, te, tirx
from tvm_ffi import structural_map

from qcompiler.backend.kernel import ConvolutionSpec, Kernel, Scalar, physical_channels
from qcompiler.backend.prefetch import PIXELS, STEPS, STREAM
from qcompiler.backend.tir import task_count
from qcompiler.schedules.convolution_plan import Part, Plan, plan_convolution
from qcompiler.schedules.dot_product import DEPTH, DotProduct, description
from qcompiler.schedules.epilogue import apply_epilogue, epilogue_placeholders
from qcompiler.schedules.pack import bias_adjustment, unpack_code
from qcompiler.schedules.tile_ranking import rank_tilings
from qcompiler.schedules.tiling import Tiling, tiling_text

_WIDER_TILINGS: Final = 2
"""So many tilings with more accumulators are worth a measurement where the model has that limit."""
_TOGETHER: Final = 4
"""Vectors of sums that become one of codes: of several pixels where these have fewer."""


def serves(spec: ConvolutionSpec, instruction: DotProduct) -> bool:
    """Whether :func:`build` has a schedule for this convolution."""
    return plan_convolution(spec, instruction) is not None


def tilings(spec: ConvolutionSpec, instruction: DotProduct) -> tuple[Tiling, ...]:
    """What :func:`build` may be told to do, the most promising: the model's choice first; empty where it does not serve."""
    plan = plan_convolution(spec, instruction)
    if plan is None:
        return ()
    found = rank_tilings(plan.problem, instruction, plan.tiling)
    if not plan.inline and plan.problem.most_accumulators < instruction.accumulators:
        wider = replace(plan.problem, most_accumulators=instruction.accumulators)
        found += tuple(t for t in rank_tilings(wider, instruction, plan.tiling) if t not in found)[:_WIDER_TILINGS]
    return (plan.tiling, *(tiling for tiling in found if not plan.refusal(tiling)))


def refuses(spec: ConvolutionSpec, instruction: DotProduct, tiling: Tiling) -> str:
    """Why :func:`build` does not take a tiling for this convolution; "" if it does."""
    plan = plan_convolution(spec, instruction)
    return "there is no direct schedule" if plan is None else plan.refusal(tiling)


def build(spec: ConvolutionSpec, instruction: DotProduct, schedule_name: str, tiling: Tiling = ()) -> Kernel:
    """The kernel of a convolution, tiled as the model chooses where ``tiling`` is empty.

    Raises ValueError where :func:`serves` is false, and for a tiling that does not fit.
    """
    plan = plan_convolution(spec, instruction)
    if plan is None:
        raise ValueError(f"no direct schedule for {spec}")
    problem = plan.refusal(tiling) if tiling else ""
    if problem:
        raise ValueError(f"the tiling {tiling_text(tiling)} does not fit {spec}: {problem}")
    chosen = tiling or plan.tiling
    firsts = accumulate((tile.width for tile in chosen), initial=0)
    parts = [Part(**vars(plan), first=first, tile=tile) for first, tile in zip(firsts, chosen, strict=False)]
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
        pack=lambda codes: _pack(plan, codes),
        adjust_bias=bias_adjustment(instruction.x_offset, spec.places - plan.lowered),
    )


def _pack(plan: Plan, codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    spread = plan.windows.spread(codes)
    return plan.steps.pack(_columns_as_channels(spread) if plan.dense else spread)


def _columns_as_channels(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Codes ``[CO, CI, KH, KW]`` as ``[CO, KW * CI, KH, 1]``: the order of a dense row."""
    outputs, inputs, height, width = codes.shape
    return codes.transpose(0, 3, 1, 2).reshape(outputs, width * inputs, height, 1)


def _place_part(plan: Part, function: Any, names: tuple[str, ...]) -> Any:
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


def _expression(plan: Part) -> tuple[tuple[str, ...], list[Any]]:
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
            rows = te.compute((spec.batch, height, width, plan.windows.channels), padded, name="rows")
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
            first = plan.windows.first(v, tirx.min)
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


def _schedule(plan: Part, function: Any) -> Any:
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


def _schedule_rows(sch: Any, task: Any, plan: Part) -> None:
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


def _schedule_sums(sch: Any, sums: Any, plan: Part) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
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


def _schedule_unpacked(sch: Any, unpacked: Any, plan: Part) -> None:
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
