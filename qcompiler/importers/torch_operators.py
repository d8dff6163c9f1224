"""The aten operators, as ``torch.export`` writes them and after its decompositions, by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from qcompiler.importers import emit
from qcompiler.importers.builder import UNKNOWN, Ending, FixedBatchError, Known, Layer, UnsupportedError
from qcompiler.ir.graph import BATCH, Dim, Value


class Symbolic:
    """A number that depends on the batch size."""


SYMBOLIC: Final = Symbolic()


@dataclass(frozen=True)
class Call:
    """One call: its arguments by the names of torch's schema, the shape that torch gives the result, the constant batch."""

    layer: Layer
    arguments: dict[str, Any]
    shape: tuple[Dim | str, ...]
    batch: int | None

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def x(self) -> Any:
        """The first operand."""
        return self.arguments["self"] if "self" in self.arguments else self.arguments["input"]


Result = Value | Ending | tuple[object, ...]
Handler = Callable[[Call], Result]


def _pair(x: int | Sequence[int]) -> tuple[int, int]:
    values = (x,) if isinstance(x, int) else tuple(x)
    return (values[0], values[-1])


def _symmetric(padding: int | Sequence[int]) -> tuple[int, ...]:
    return _pair(padding) * 2


def _conv2d(c: Call) -> Value:
    padding: Any = c["padding"]
    if isinstance(padding, str):
        padding = "SAME_UPPER" if padding == "same" else (0, 0)
    if not isinstance(padding, str):
        padding = _symmetric(padding)
    strides, dilation = _pair(c["stride"]), _pair(c["dilation"])
    return emit.convolution(c.layer, c.x, c["weight"], c["bias"], strides, padding, dilation, c["groups"])


def _convolution(c: Call) -> Value:
    if c["transposed"]:
        raise UnsupportedError("transposed convolutions are not supported")
    return _conv2d(c)


def _batch_norm(c: Call) -> Value:
    if c.arguments.get("training", False):
        raise UnsupportedError("it normalizes by the statistics of its batch; call model.eval() before the export")
    constants = [c["weight"], c["bias"], c["running_mean"], c["running_var"]]
    return emit.batch_norm(c.layer, c.x, constants, c["eps"])


def _linear(c: Call) -> Value:
    weight, bias = emit.known(c["weight"], "the weight"), emit.optional_known(c["bias"], "the bias")
    return emit.linear(c.layer, c.x, weight, bias)


def _addmm(c: Call) -> Value:
    weight, bias = emit.known(c["mat2"], "the weight"), emit.known(c.x, "the bias")
    weight = Known(emit.scaled(weight, c["alpha"]).data.T, weight.name)
    return emit.linear(c.layer, c["mat1"], weight, emit.scaled(bias, c["beta"]))


def _matmul(c: Call) -> Value:
    weight = emit.known(c["mat2"] if "mat2" in c.arguments else c["other"], "the second operand")
    return emit.linear(c.layer, c.x, Known(weight.data.T, weight.name), None)


def _clip(low: float | str | None, high: float | str | None) -> Handler:
    def handler(c: Call) -> Value:
        limits = [c[limit] if isinstance(limit, str) else limit for limit in (low, high)]
        return emit.clip(c.layer, c.x, *limits)

    return handler


def _add(c: Call) -> Value:
    other, alpha = c["other"], c["alpha"]
    if isinstance(other, int | float):
        other = c.layer.known(np.array(other, np.float32), "other")
    if isinstance(other, Known):
        other = emit.scaled(other, alpha)
    elif alpha != 1:
        raise UnsupportedError(f"alpha={alpha} is supported for constants only")
    return emit.add(c.layer, c.x, other)


def _max_pool2d(c: Call) -> Value:
    strides = _pair(c["stride"] or c["kernel_size"])
    padding, dilation = _symmetric(c["padding"]), _pair(c["dilation"])
    return emit.max_pool(c.layer, c.x, _pair(c["kernel_size"]), strides, padding, dilation, c["ceil_mode"])


def _avg_pool2d(c: Call) -> Value:
    if c["divisor_override"] is not None:
        raise UnsupportedError(f"divisor_override={c['divisor_override']} is not supported")
    strides = _pair(c["stride"] or c["kernel_size"])
    padding = _symmetric(c["padding"])
    return emit.average_pool(c.layer, c.x, _pair(c["kernel_size"]), strides, padding, c["ceil_mode"], c["count_include_pad"])


def _adaptive(c: Call) -> tuple[Value, tuple[int, int]]:
    """The operand and the window that divides it into the wanted positions."""
    x = emit.value(c.x)
    size, wanted = emit.image(x), _pair(c["output_size"])
    if size[0] % wanted[0] or size[1] % wanted[1]:
        raise UnsupportedError(f"{size[0]}x{size[1]} does not divide evenly into {wanted[0]}x{wanted[1]}")
    return x, (size[0] // wanted[0], size[1] // wanted[1])


def _adaptive_avg_pool2d(c: Call) -> Value:
    x, window = _adaptive(c)
    if _pair(c["output_size"]) == (1, 1):
        return emit.mean(c.layer, x, (2, 3), keepdims=True)
    return emit.average_pool(c.layer, x, window, window, (0, 0, 0, 0), False, False)


def _adaptive_max_pool2d(c: Call) -> tuple[object, ...]:
    x, window = _adaptive(c)
    return emit.max_pool(c.layer, x, window, window, (0, 0, 0, 0), (1, 1), False), UNKNOWN


def _mean(c: Call) -> Value:
    return emit.mean(c.layer, c.x, c.arguments.get("dim") or None, c.arguments.get("keepdim", False))


def _pad(c: Call) -> Value:
    if c.arguments.get("mode", "constant") != "constant":
        raise UnsupportedError(f"only constant padding is supported, not mode {c['mode']!r}")
    rank, counts = len(emit.value(c.x).type.shape), list(c["pad"])
    before, after = [0] * rank, [0] * rank
    for pair in range(len(counts) // 2):
        before[rank - 1 - pair], after[rank - 1 - pair] = counts[2 * pair : 2 * pair + 2]
    return emit.pad(c.layer, c.x, before, after, c["value"] or 0.0)


def _slice(c: Call) -> Value:
    stop = c["end"]
    if isinstance(c["start"], Symbolic) or (isinstance(stop, Symbolic) and c["dim"] != 0):
        raise FixedBatchError("it slices by a number that depends on the batch")
    if isinstance(stop, Symbolic):
        if c.shape[0] != BATCH:
            raise FixedBatchError("it slices the batch")
        stop = None
    if c["dim"] == 0 and c.batch is not None and stop == c.batch:
        stop = None
    return emit.cropped(c.layer, c.x, [c["dim"]], [c["start"]], [stop], [c["step"]])


def _reshape(c: Call) -> Value:
    if any(isinstance(d, str) and d != BATCH for d in c.shape):
        shape = ",".join(map(str, c.shape))
        raise FixedBatchError(f"its result [{shape}] does not keep the batch in front")
    return emit.reshape(c.layer, c.x, [d if isinstance(d, int) else BATCH for d in c.shape], c.batch)


def _squeeze(c: Call) -> Value:
    x = emit.value(c.x)
    axes = c.arguments.get("dim")
    rank = len(x.type.shape)
    given = (axes,) if isinstance(axes, int) else axes or range(rank)
    if c.batch == 1 and any(a % rank == 0 for a in given):
        raise FixedBatchError("it takes the batch of 1 away")
    return _reshape(c)


def _permute(c: Call) -> Value:
    return emit.permuted(c.layer, c.x, c["dims"])


def _transpose(c: Call) -> Value:
    x = emit.value(c.x)
    rank = len(x.type.shape)
    order = list(range(rank))
    a, b = (emit.axis_of(x, c[d]) for d in ("dim0", "dim1")) if "dim0" in c.arguments else (0, rank - 1)
    order[a], order[b] = b, a
    return emit.permuted(c.layer, x, order)


def _dropout(c: Call) -> Value:
    if c["train"]:
        raise UnsupportedError("it drops values at random; call model.eval() before the export")
    return c.layer.emit("identity", [emit.value(c.x)])


def _native_dropout(c: Call) -> tuple[object, ...]:
    return _dropout(c), UNKNOWN


def _same(c: Call) -> Value:
    x = emit.value(c.x)
    dtype = str(c.arguments.get("dtype") or "torch.float32")
    if dtype not in ("torch.float32", "6"):
        raise UnsupportedError(f"it converts activations to {dtype.removeprefix('torch.')}")
    return x


def _softmax(function: Literal["softmax", "log_softmax"]) -> Handler:
    def handler(c: Call) -> Ending:
        return emit.ending(c.layer, c.x, function, c["dim"])

    return handler


def _first(handler: Handler) -> Handler:
    """The operator also returns tensors that inference does not need."""

    def both(c: Call) -> Result:
        return (handler(c), UNKNOWN, UNKNOWN)

    return both


def _table(entries: dict[str, Handler]) -> dict[str, Handler]:
    return {f"aten.{name}": handler for names, handler in entries.items() for name in names.split()}


OPERATORS: Final[dict[str, Handler]] = _table(
    {
        "conv2d.default conv2d.padding": _conv2d,
        "convolution.default _convolution.default": _convolution,
        "batch_norm.default": _batch_norm,
        "_native_batch_norm_legit_no_training.default": _first(_batch_norm),
        "linear.default": _linear,
        "addmm.default": _addmm,
        "mm.default matmul.default": _matmul,
        "relu.default relu_.default": _clip(0.0, None),
        "relu6.default relu6_.default": _clip(0.0, 6.0),
        "hardtanh.default hardtanh_.default": _clip("min_val", "max_val"),
        "clamp.default clamp_.default clip.default clip_.default": _clip("min", "max"),
        "clamp_min.default clamp_min_.default": _clip("min", None),
        "clamp_max.default clamp_max_.default": _clip(None, "max"),
        "add.Tensor add_.Tensor add.Scalar add_.Scalar": _add,
        "max_pool2d.default": _max_pool2d,
        "max_pool2d_with_indices.default": _first(_max_pool2d),
        "avg_pool2d.default": _avg_pool2d,
        "adaptive_avg_pool2d.default _adaptive_avg_pool2d.default": _adaptive_avg_pool2d,
        "adaptive_max_pool2d.default": _adaptive_max_pool2d,
        "mean.dim mean.default": _mean,
        "pad.default constant_pad_nd.default": _pad,
        "slice.Tensor slice_copy.Tensor": _slice,
        "view.default view_copy.default reshape.default _unsafe_view.default _reshape_copy.default": _reshape,
        "flatten.using_ints unflatten.int unsqueeze.default unsqueeze_copy.default": _reshape,
        "squeeze.default squeeze.dim squeeze.dims squeeze_copy.default squeeze_copy.dim squeeze_copy.dims": _squeeze,
        "permute.default permute_copy.default": _permute,
        "t.default t_copy.default transpose.int transpose_copy.int": _transpose,
        "dropout.default dropout_.default feature_dropout.default alpha_dropout.default": _dropout,
        "native_dropout.default": _native_dropout,
        "clone.default contiguous.default detach.default detach_.default detach_copy.default alias.default": _same,
        "alias_copy.default lift_fresh_copy.default _to_copy.default to.dtype to.device to.dtype_layout": _same,
        "softmax.int _softmax.default": _softmax("softmax"),
        "log_softmax.int _log_softmax.default": _softmax("log_softmax"),
    }
)

IGNORED: Final = (
    "aten._assert_tensor_metadata.default",
    "aten._assert_scalar.default",
    "aten.sym_constrain_range_for_size.default",
)

_TRAINING: Final = "it normalizes by the statistics of its batch; call model.eval() before the export"
REASONS: Final = {
    "aten._native_batch_norm_legit_functional.default": _TRAINING,
    "aten._native_batch_norm_legit.default": _TRAINING,
    "aten._native_batch_norm_legit.no_stats": _TRAINING,
    "aten.instance_norm.default": "not supported: it normalizes by the statistics of its input",
}
