"""The end of every convolution: int32 accumulators to output codes, in TVM expressions.

The formulas are those of :mod:`qcompiler.arith`; here they only meet the arguments of a kernel: int32 arrays
with one value per stored output channel, the scalars, and the other operand of a fused addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import te

from qcompiler import arith
from qcompiler.backend import short_form
from qcompiler.backend.kernel import CHANNEL_ARGUMENTS, SCALARS, Epilogue, Scalar
from qcompiler.backend.tir import TIR


@dataclass(frozen=True)
class EpilogueArguments:
    """Placeholders that an epilogue reads; ``None`` where its form has no such argument."""

    residual: Any
    bias: Any
    multiplier: Any
    pre_shift: Any
    lower: Any
    upper: Any
    scalars: Any

    def bounds(self, epilogue: Epilogue, channel: Any) -> tuple[Any, Any, Any]:
        """First shift (None for 0), lower and upper of a narrow form."""
        return self.pre_shift[channel] if epilogue.pre_shifted else None, self.lower[channel], self.upper[channel]

    def ordered(self, x: Any, weights: Any, y: Any) -> tuple[tuple[str, ...], list[Any]]:
        """Names and tensors of a whole kernel in the order of the calling convention."""
        named = {
            "x": x,
            "residual": self.residual,
            "weights": weights,
            "bias": self.bias,
            "multiplier": self.multiplier,
            "pre_shift": self.pre_shift,
            "lower": self.lower,
            "upper": self.upper,
            "scalars": self.scalars,
            "y": y,
        }
        present = {name: tensor for name, tensor in named.items() if tensor is not None}
        return tuple(present), list(present.values())


def epilogue_placeholders(epilogue: Epilogue, shape: tuple[int, ...]) -> EpilogueArguments:
    """Arguments for an output of physical ``shape`` ``[batch, height, width, stored channels]``."""

    def per_channel(name: str) -> Any:
        return te.placeholder((shape[-1],), "int32", name=name)

    return EpilogueArguments(
        residual=te.placeholder(shape, epilogue.residual, name="residual") if epilogue.residual else None,
        **{name: per_channel(name) if name in epilogue.channel_arguments else None for name in CHANNEL_ARGUMENTS},
        scalars=te.placeholder((SCALARS,), "int32", name="scalars"),
    )


def apply_epilogue(
    epilogue: Epilogue, arguments: EpilogueArguments, accumulator: Any, channel: Any, place: tuple[Any, ...], places: int
) -> Any:
    """The output code of one element: ``accumulator`` is its int32 sum with the bias in it, ``place`` its four indices.

    The sum is moved left by ``places``; short forms have that in their first shift.
    """
    scalars = arguments.scalars
    multiplier = arguments.multiplier[channel]
    shift, zero = scalars[Scalar.SHIFT], scalars[Scalar.Y_ZERO]
    low, high = scalars[Scalar.LO], scalars[Scalar.HI]
    if places and not epilogue.short:
        accumulator = accumulator >> places
    if arguments.residual is None:
        if epilogue.short:
            return short_form.codes(accumulator, multiplier, epilogue, shift, zero)
        if epilogue.narrow:
            bounds = arguments.bounds(epilogue, channel)
            if epilogue.saturated:
                value = arith.requantize_saturated(accumulator, multiplier, *bounds, zero, TIR)
            else:
                value = arith.requantize_narrow(accumulator, multiplier, *bounds, shift, zero, low, high, TIR)
        else:
            value = arith.requantize(accumulator, multiplier, shift, zero, low, high, TIR)
        return value.astype(epilogue.out_dtype)
    other_zero, factor = scalars[Scalar.RESIDUAL_ZERO], scalars[Scalar.RESIDUAL_MULTIPLIER]
    if epilogue.short:
        added = short_form.Added(arguments.residual[place], other_zero, factor)
        return short_form.codes(accumulator, multiplier, epilogue, shift, zero, added)
    other = arguments.residual[place].astype("int32")
    if epilogue.narrow:
        bounds = arguments.bounds(epilogue, channel)
        value = arith.requantize_add_folded(
            accumulator, multiplier, *bounds, other, other_zero, factor, shift, zero, low, high, TIR
        )  # fmt: skip
    else:
        value = arith.requantize_add(accumulator, multiplier, other - other_zero, factor, shift, zero, low, high, TIR)
    return value.astype(epilogue.out_dtype)
