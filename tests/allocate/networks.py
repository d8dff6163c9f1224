"""Two layers, and networks of any size."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from qcompiler.allocate import Limit, Variable

from .brute_force import Problem

TWO = [Variable("conv1", ("8", "4")), Variable("conv2", ("8", "4"))]
COSTS: dict[str, dict[str, list[Any]]] = {
    "sensitivity": {"conv1": [0.1, 0.9], "conv2": [0.1, 0.2]},
    "weight_bytes": {"conv1": [1000, 500], "conv2": [2000, 1000]},
}
RESOURCES = ("weight_bytes", "latency_ns", "bops", "energy")


def layers(count: int, limits: int, seed: int = 0, level: float = 0.5) -> Problem:
    """A network of ``count`` layers with 6 choices each, limited halfway between the least and the most."""
    draw = random.Random(seed)
    pairs = [(w, a) for w in (8, 4, 2) for a in (8, 4)]
    variables = [Variable(f"layer{i:04}", tuple(f"w{w}a{a}" for w, a in pairs)) for i in range(count)]
    costs: dict[str, dict[str, list[Any]]] = {resource: {} for resource in ("sensitivity", *RESOURCES[:limits])}
    for v in variables:
        weights, macs = int(10 ** draw.uniform(3, 6.3)), int(10 ** draw.uniform(5, 8))
        of_weights, of_inputs = 10 ** draw.uniform(-3, 1), 10 ** draw.uniform(-3, 1)
        speed = {bits: draw.uniform(0.5, 1.05) for bits in (2, 4)} | {8: 1.0}
        rows = {
            "sensitivity": [
                of_weights * 4.0 ** (3 - w) * (1 + 0.2 * draw.random()) + of_inputs * 4.0 ** (2 - a) for w, a in pairs
            ],
            "weight_bytes": [weights * w // 8 for w, _ in pairs],
            "latency_ns": [macs / 50 * speed[w] * (0.6 + 0.05 * a) for w, a in pairs],
            "bops": [macs * w * a for w, a in pairs],
            "energy": [int(macs * (w + a) ** 1.5 * draw.uniform(0.8, 1.2)) for w, a in pairs],
        }
        for resource in costs:
            costs[resource][v.name] = rows[resource]

    def between(rows: Sequence[Sequence[float]]) -> float:
        least, most = (sum(map(end, rows)) for end in (min, max))
        return least + (most - least) * level

    found = {resource: between(list(costs[resource].values())) for resource in RESOURCES[:limits]}
    return {"variables": variables, "unary_costs": costs, "limits": [Limit(r, maximum) for r, maximum in found.items()]}
