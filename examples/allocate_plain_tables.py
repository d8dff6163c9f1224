"""Choosing bits from plain tables: HAWQ-V3's problem, two choices a layer, one limit, layers that share their bits.

python examples/allocate_plain_tables.py

The network is ResNet-18 at 224 x 224, without its first and last layer. Sizes and multiply-accumulates are its own; the traces of
the Hessian are made up, of the usual magnitudes. (Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", ICML 2021.)
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from qcompiler.allocate import Variable, allocate, pareto
from qcompiler.errors import CompileError

BITS = (8, 4)  # the preferred first
TRACES = (0.46, 0.21, 0.32, 0.13, 0.23, 0.11, 0.35, 0.12, 0.08, 0.15, 0.06, 0.20, 0.07, 0.05, 0.06, 0.02, 0.04, 0.01, 0.005)


def convolutions() -> Iterator[tuple[str, int, int]]:
    """Name, weights and multiply-accumulates of each layer."""
    for stage, (channels, size) in enumerate([(64, 56), (128, 28), (256, 14), (512, 7)], start=1):
        for block in range(2):
            inputs = channels // 2 if stage > 1 and block == 0 else channels
            kernels = {"conv1": 9 * inputs, "conv2": 9 * channels} | ({"downsample.0": inputs} if inputs < channels else {})
            for name, taps in kernels.items():
                yield f"layer{stage}.{block}.{name}", channels * taps, channels * taps * size**2


def main() -> None:
    """Solve at three levels of two limits, sweep one of them, ask for too much."""
    sensitivity, weight_bytes, bops = {}, {}, {}
    for (name, weights, macs), trace in zip(convolutions(), TRACES, strict=True):
        steps = [1.0 / (2 ** (bits - 1) - 1) for bits in BITS]  # of weights in [-1, 1]
        sensitivity[name] = [trace * weights * step**2 / 12.0 for step in steps]  # trace * |W - Q(W)|^2
        weight_bytes[name] = [weights * bits // 8 for bits in BITS]
        bops[name] = [macs * bits**2 for bits in BITS]  # activations have the bits of the weights
    variables = [Variable(name, tuple(map(str, BITS))) for name in sensitivity]
    costs = {"sensitivity": sensitivity, "weight_bytes": weight_bytes, "bops": bops}
    ties = [(name, name.replace("downsample.0", "conv1")) for name in sensitivity if "downsample" in name]  # they share an input

    found = {}
    for resource in ("weight_bytes", "bops"):
        high, low = (sum(row[k] for row in costs[resource].values()) for k in range(2))
        for level in (0.75, 0.5, 0.25):
            limit = int(low + level * (high - low))
            found[f"{resource}\n{level:.0%}"] = allocate(variables, costs, limits={resource: limit}, ties=ties)
    table = Table("layer", *found, title="bits within a limit between all 4 and all 8 bits", title_justify="left")
    for name in sensitivity:
        table.add_row(name, *(a.choice[name] for a in found.values()))
    table.add_section()
    table.add_row("sensitivity", *(f"{a.objective:.2f}" for a in found.values()))
    table.add_row("weights, MB", *(f"{a.totals['weight_bytes'] / 1e6:.2f}" for a in found.values()))
    table.add_row("giga-BOPS", *(f"{a.totals['bops'] / 1e9:.1f}" for a in found.values()))
    table.add_row("status", *(a.status for a in found.values()))
    table.add_row("seconds", *(f"{a.seconds:.3f}" for a in found.values()))
    console = Console(width=120)
    console.print(table)

    console.print("\nwhat a smaller network costs, MB and sensitivity:")
    for point in pareto(variables, costs, ties=ties, resource="weight_bytes", points=6):
        console.print(f"{point.totals['weight_bytes'] / 1e6:8.2f} {point.objective:8.2f}", highlight=False)

    console.print("\ntoo much at once:")
    try:
        allocate(variables, costs, limits={"weight_bytes": 6_000_000, "sensitivity": 100}, ties=ties, where="resnet18 (budget)")
    except CompileError as error:
        console.print(str(error), highlight=False)


if __name__ == "__main__":
    main()
