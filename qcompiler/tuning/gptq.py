"""Closed-form rounding of weights: each weight's error is made up for by those that are not rounded yet.

GPTQ (Frantar et al., arXiv 2210.17323): for a row of weights w on inputs X the error ``(w - q) H (w - q)^T``, ``H = X X^T``, is
kept small by rounding one column after the other, those with the largest inputs first, and moving what is lost to the rest
through the Cholesky factor of H's inverse. Three things are added here:

- X are the inputs as the already rounded layers give them, while the row aims at what it gives on exact inputs: first the row is
  refitted, ``w <- w (X_exact X^T + d I) (H + d I)^-1``.
- H and the cross products are centred: what rounding does to the mean is the bias's business.
- The scale of a row is the one of :data:`SHRINKS` that leaves the least error after rounding, not before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

from qcompiler.ir.graph import Node
from qcompiler.passes.weight_codes import code_limits

if TYPE_CHECKING:
    from torch import Tensor

DAMPING: Final = 0.01  # of the mean of H's diagonal
ROUNDING: Final = 1e-5  # of the inputs' mean square: products are summed in float32 before they are centred
SHRINKS: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4)
"""Candidates for a row's scale: shares of the one that represents its largest weight."""
POSITIONS: Final = 128
"""Positions that statistics are taken from, for each weight in a row: many more than weights, and not all of a large image."""
LEAST_POSITIONS: Final = 1 << 12
BLOCK: Final = 32
ATTEMPTS: Final = 10
"""So many tenfold dampings leave no matrix of finite numbers indefinite."""


@dataclass(frozen=True)
class Statistics:
    """Of a layer's inputs, by groups: ``rounded`` = X X^T and ``cross`` = X_exact X^T, centred, float64 ``[G, K, K]``.

    ``exact_mean`` and ``rounded_mean``: float64 ``[G, K]``.
    """

    rounded: Tensor
    cross: Tensor
    exact_mean: Tensor
    rounded_mean: Tensor


def columns(node: Node, x: Tensor, weight_shape: torch.Size, most: int) -> Tensor:
    """What the rows of weights are multiplied with, ``[G, K, positions]``: about ``most`` positions, evenly spread."""
    if node.op == "linear":
        return x.reshape(-1, x.shape[-1]).T[None]
    if x.ndim == 5:
        x = x.transpose(1, 2).flatten(0, 1)
    top, left, bottom, right = node["padding"]
    padded = functional.pad(x, (left, right, top, bottom))
    height, width = node.output.type.shape[-2:]
    assert isinstance(height, int)
    assert isinstance(width, int)
    sparser = max(1, math.isqrt(len(x) * height * width // most))
    strides = tuple(stride * sparser for stride in node["strides"])
    patches = functional.unfold(padded, tuple(weight_shape[2:]), dilation=node["dilation"], stride=strides)
    groups = node["groups"]
    depth = patches.shape[1] // groups
    return patches.reshape(len(x), groups, depth, -1).permute(1, 2, 0, 3).reshape(groups, depth, -1)


def measure(node: Node, exact: Sequence[Tensor], rounded: Sequence[Tensor], weight_shape: torch.Size) -> Statistics:
    """The statistics of a layer's inputs, given in chunks ``[n, ...]``; the same positions of both."""
    count, sums = 0, None
    share = max(LEAST_POSITIONS, POSITIONS * math.prod(weight_shape[1:])) // len(exact) + 1
    for a, b in zip(exact, rounded, strict=True):
        x, y = (columns(node, part, weight_shape, share) for part in (a, b))
        count += x.shape[2]
        found = [y @ y.transpose(1, 2), x @ y.transpose(1, 2), x.sum(2), y.sum(2)]
        found = [tensor.to(torch.float64) for tensor in found]
        sums = found if sums is None else [total + tensor for total, tensor in zip(sums, found, strict=True)]
    assert sums is not None
    products, cross, exact_mean, rounded_mean = (tensor / count for tensor in sums)
    products = products - rounded_mean[:, :, None] * rounded_mean[:, None, :]
    cross = cross - exact_mean[:, :, None] * rounded_mean[:, None, :]
    return Statistics(products, cross, exact_mean, rounded_mean)


def round_rows(weight: Tensor, statistics: Statistics, bits: int) -> tuple[Tensor, Tensor]:
    """``[O, ...]`` weights on their codes' grid, and the scale of each row, both float64."""
    low, high = code_limits(bits)
    h = statistics.rounded
    groups, depth = h.shape[:2]
    rows = weight.to(torch.float64).reshape(groups, -1, depth)
    variance, square = h.diagonal(dim1=1, dim2=2).mean(1), statistics.rounded_mean.square().mean(1)
    damping = DAMPING * variance + ROUNDING * (variance + square) + 1e-30
    eye = torch.eye(depth, dtype=torch.float64)
    for _ in range(ATTEMPTS):
        damped = h + damping[:, None, None] * eye
        order, upper, failed = _inverse_factor(damped)
        if not failed.any():
            break
        damping = torch.where(failed, 10.0 * damping, damping)  # float32 left more noise than was expected
    else:
        raise ValueError("the inputs of a layer are not finite")
    target = torch.linalg.solve(damped, rows @ (statistics.cross + damping[:, None, None] * eye), left=False)
    limit = torch.maximum(target.abs().amax(2), 2.0**-12 * target.abs().amax((1, 2), keepdim=True)[:, :, 0]).clamp(min=1e-30)
    shrinks = torch.tensor(SHRINKS if bits < 8 else SHRINKS[:1], dtype=torch.float64)
    scales = (limit[:, :, None] * shrinks / high).reshape(groups, -1)  # [G, rows x candidates]
    wide = target.repeat_interleave(len(shrinks), dim=1)
    rounded = _rounded_columns(wide, scales, order, upper, (low, high))
    error = rounded - wide
    loss = ((error @ damped) * error).sum(2).reshape(groups, -1, len(shrinks))
    best = loss.argmin(2)
    chosen = rounded.reshape(groups, -1, len(shrinks), depth)
    chosen = chosen.gather(2, best[:, :, None, None].expand(-1, -1, 1, depth))[:, :, 0]
    scale = scales.reshape(groups, -1, len(shrinks)).gather(2, best[:, :, None])[:, :, 0]
    return chosen.reshape(weight.shape), scale.reshape(-1)


def _inverse_factor(damped: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Columns ``[G, K]``, the largest inputs first; the inverse's Cholesky factor in that order; ``[G]`` where there is none."""
    order = damped.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    permuted = damped.gather(1, order[:, :, None].expand_as(damped)).gather(2, order[:, None, :].expand_as(damped))
    lower, failed = torch.linalg.cholesky_ex(permuted)
    upper, failed_too = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return order, upper, (failed != 0) | (failed_too != 0)


def _rounded_columns(rows: Tensor, scales: Tensor, order: Tensor, upper: Tensor, limits: tuple[int, int]) -> Tensor:
    """``[G, R, K]`` rows rounded column by column in the order of ``order``."""
    depth = rows.shape[2]
    sorted_rows = rows.gather(2, order[:, None, :].expand_as(rows)).clone()
    result = torch.empty_like(sorted_rows)
    errors = torch.empty_like(sorted_rows)
    for start in range(0, depth, BLOCK):  # what a block loses reaches the columns after it in one matrix product
        end = min(start + BLOCK, depth)
        for column in range(start, end):
            found = sorted_rows[:, :, column]
            result[:, :, column] = torch.floor(found / scales + 0.5).clamp_(*limits).mul_(scales)
            errors[:, :, column] = (found - result[:, :, column]) / upper[:, None, column, column]
            sorted_rows[:, :, column + 1 : end] -= errors[:, :, column, None] * upper[:, None, column, column + 1 : end]
        sorted_rows[:, :, end:] -= errors[:, :, start:end] @ upper[:, start:end, end:]
    return torch.empty_like(rows).scatter_(2, order[:, None, :].expand_as(rows), result)
