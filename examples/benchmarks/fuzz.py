"""Random graphs, 50 to a library, on every target, bit for bit against the reference.

Run from the repository's root:

    python -m examples.benchmarks.fuzz --count 300             # every graph on every target
    python -m examples.benchmarks.fuzz --count 10000 --rotate  # every library on one target, in turn
    python -m examples.benchmarks.fuzz --cover --count 3000 --start 0  # choose the graphs of the tests again

A mismatch or an error is printed with the seed that makes the graph again, and its dump is kept in ``--keep``.
"""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from qcompiler.errors import CompileError
from qcompiler.ir.graph import Graph
from qcompiler.targets.target import available_targets, host_refusal, load_target
from tests.wall.many import build_many, mismatches, random_integer_graph
from tests.wall.reach import cover, write


@dataclass
class Tally:
    """What happened on one target; ``seconds`` of all processes together."""

    graphs: int = 0
    nodes: int = 0
    mismatches: int = 0
    errors: int = 0
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Sum up."""
        self.graphs += other.graphs
        self.nodes += other.nodes
        self.mismatches += other.mismatches
        self.errors += other.errors
        self.seconds += other.seconds
        self.failed += other.failed


def runnable(names: list[str] | None) -> list[str]:
    """The targets that this machine runs, itself or under qemu."""
    chosen = names or list(available_targets())
    return [n for n in chosen if load_target(n).architecture == "aarch64" or host_refusal(load_target(n)) is None]


def run_chunk(seeds: range, targets: list[str], keep: Path) -> dict[str, Tally]:
    """Build the graphs of ``seeds`` into one library a target and compare; every fourth one works on two samples at once."""
    import torch

    torch.set_num_threads(1)
    tallies: dict[str, Tally] = {}
    tile = 2 if seeds[0] // len(seeds) % 4 == 0 else 1
    try:
        graphs = [random_integer_graph(seed) for seed in seeds]
    except Exception:
        return {"(quantization)": _error(seeds, keep, "quantization")}
    for target in targets:
        start = time.perf_counter()
        tally = tallies[target] = Tally(len(graphs), sum(len(graph.nodes) for graph in graphs))
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = mismatches(graphs, build_many(graphs, target, Path(folder) / "library", tile))
        except Exception:
            tally.add(_error(seeds, keep, target))
            found = []
        for mismatch in found:
            seed = seeds[mismatch.index]
            (keep / f"{seed}.qir").write_text(mismatch.text, encoding="utf-8")
            tally.failed.append(f"seed {seed}: {mismatch.wrong} elements of {mismatch.output} differ")
        tally.mismatches += len({m.index for m in found})
        tally.seconds += time.perf_counter() - start
    return tallies


def _error(seeds: range, keep: Path, what: str) -> Tally:
    text = traceback.format_exc()
    (keep / f"{seeds[0]}-{what.strip('()')}.txt").write_text(text, encoding="utf-8")
    return Tally(errors=1, failed=[f"seeds {seeds[0]} to {seeds[-1]}: {text.strip().splitlines()[-1][:200]}"])


def quantized(seed: int) -> Graph | None:
    """The random graph of a seed; None where it computes numbers that are not finite."""
    try:
        return random_integer_graph(seed)
    except CompileError:
        return None


def choose_seeds(seeds: range, jobs: int) -> None:
    """Quantize the graphs of ``seeds``, and keep the fewest that reach every kind of kernel for the tests."""
    with ProcessPoolExecutor(jobs) as pool:
        graphs = dict(zip(seeds, pool.map(quantized, seeds, chunksize=50), strict=True))
    chosen, forms = cover({seed: graph for seed, graph in graphs.items() if graph is not None})
    write(chosen, forms)
    print(f"{len(chosen)} graphs reach {sum(map(len, forms.values())):,} kinds of kernels on {len(forms)} targets")


def chunks(start: int, count: int, size: int) -> Iterator[range]:
    """Consecutive seeds, ``size`` at a time."""
    for first in range(start, start + count, size):
        yield range(first, min(first + size, start + count))


def main(
    count: Annotated[int, typer.Option(help="How many graphs.")] = 300,
    start: Annotated[int, typer.Option(help="The first seed.")] = 1_000_000,
    each: Annotated[int, typer.Option(help="Graphs in a library.")] = 50,
    target: Annotated[list[str] | None, typer.Option(help="A target; may be repeated. All that run here by default.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    rotate: Annotated[bool, typer.Option(help="Build each library for one target, in turn, instead of for all.")] = False,
    choose: Annotated[bool, typer.Option("--cover", help="Choose the graphs of the tests; compare nothing.")] = False,
    keep: Annotated[Path, typer.Option(help="Folder for what fails.")] = Path("fuzz-failures"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare; exit code 1 if anything fails."""
    if choose:
        choose_seeds(range(start, start + count), jobs)
        return
    keep.mkdir(parents=True, exist_ok=True)
    targets = runnable(target)
    console = Console()
    totals = {name: Tally() for name in targets}
    begin = time.perf_counter()
    with ProcessPoolExecutor(jobs) as pool:
        parts = list(chunks(start, count, each))
        chosen = [[targets[i % len(targets)]] if rotate else targets for i in range(len(parts))]
        futures = [pool.submit(run_chunk, seeds, names, keep) for seeds, names in zip(parts, chosen, strict=True)]
        done = track(
            as_completed(futures), "libraries", len(futures), console=Console(stderr=True), disable=not console.is_terminal
        )
        for future in done:
            for name, tally in future.result().items():
                totals.setdefault(name, Tally()).add(tally)
    if as_json:
        print(json.dumps({name: asdict(tally) for name, tally in totals.items()}, indent=1))
    else:
        table = Table("target", "graphs", "operators", "mismatches", "errors", "seconds")
        for name, tally in totals.items():
            numbers = (tally.graphs, tally.nodes, tally.mismatches, tally.errors)
            table.add_row(name, *(f"{n:,}" for n in numbers), f"{tally.seconds:.0f}")
        console.print(table)
        console.print(f"{count:,} graphs in {time.perf_counter() - begin:.0f} s", highlight=False)
        for line, times in Counter(line for tally in totals.values() for line in tally.failed).most_common(20):
            console.print(f"{line} ({times} targets)", highlight=False)
    if any(tally.mismatches or tally.errors for tally in totals.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
