"""Bits chosen within budgets: limits hold on the artifact, pins hold, and what is measured decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qcompiler as qc
from qcompiler.cli.budget import CommandLineBudget
from qcompiler.errors import CompileError
from qcompiler.ir.graph import WEIGHTED
from qcompiler.loading import load_graph
from qcompiler.passes.activation_classes import activation_classes
from qcompiler.passes.graph_pass import run_passes
from qcompiler.pipeline import Settings, passes
from qcompiler.report import sqnr_db
from qcompiler.search import choose
from qcompiler.search.budget import size_notes
from qcompiler.search.evaluate import clearly_nearer, sample_distances, score_distance, top1_drop
from qcompiler.search.pareto import total_costs
from qcompiler.search.problem import Latencies, formulate, macs
from qcompiler.search.rivals import CLOSE, TRIED, pinned, rivals, uniform_bits, uniform_rival
from qcompiler.search.search import Choice, Loss, limits_of, search
from qcompiler.sensitivity.analyze import sensitivities
from qcompiler.targets.target import host_refusal, load_target
from tests.tuning.networks import network, samples

PAIRS = ("w8a8", "w4a8", "w2a8", "w8a4", "w4a4", "w2a4")


@pytest.fixture(scope="module")
def calibrated() -> Any:
    graph = load_graph(network(), torch.from_numpy(samples()[:1])).graph
    steps = passes(Settings(samples()))
    names = [step.name for step in steps]
    return run_passes(graph, steps[: names.index("allocate_bits")])


def test_a_limit_on_the_size_holds_on_the_artifact_and_is_used(tmp_path: Path) -> None:
    sizes = {}
    for share in (25, 40, 60, 100):
        artifact = qc.build(
            network(),
            calibration=samples(),
            budget=qc.Budget(size=f"{share}%", samples=16),
            target="x86-baseline",
            out=tmp_path / str(share),
            quality="fast",
        )
        facts = artifact.report().facts
        layers = facts["search"]["layers"]
        sizes[share] = facts["search"]["totals"]["weight_bytes"]
        assert sum(row.weight_bytes or 0 for row in artifact.report().layers) == sizes[share]
        found = [row.weight_bits for row in artifact.report().layers]
        assert sorted(row["weight_bits"] for row in layers.values()) == sorted(bits for bits in found if bits)
    whole = sizes[100]
    assert all(size <= whole * share / 100 for share, size in sizes.items())
    assert sizes[25] < sizes[40] < sizes[60] < whole


def searched(
    graph: Any,
    budget: qc.Budget,
    loss_of: Callable[[Mapping[str, int]], Loss] = lambda bits: Loss(),
    pins: Mapping[str, qc.Bits] | None = None,
    pairs: tuple[str, ...] = PAIRS,
) -> Choice:
    """A search on a few samples, with losses that ``loss_of`` makes up."""
    bits = budget.weight_bits
    table = sensitivities(graph, [samples()[: budget.samples]], budget.metric, weight_bits=bits, activation_bits=())
    problem = formulate(graph, table, bits, budget.activation_bits, pairs, pins or {})
    return search(graph.name, problem, table, budget, loss_of)


def test_the_best_of_all_assignments_is_chosen(calibrated: Any) -> None:
    """Against every assignment of the five layers, under two limits."""
    table = sensitivities(calibrated, [samples()[:16]], "mse", activation_bits=())
    layers = [node for node in calibrated.nodes if node.op in WEIGHTED]
    budget = qc.Budget(size="45%", bops="60%", samples=16, metric="mse")
    found = searched(calibrated, budget)
    elements = [calibrated.constant[node.inputs[1]].data.size for node in layers]
    work = [macs(calibrated, node) for node in layers]
    best = min(
        sum(table.weights[node.inputs[1]][b] for node, b in zip(layers, bits, strict=True))
        for bits in product((8, 4, 2), repeat=len(layers))
        if sum(-(-n * b // 8) for n, b in zip(elements, bits, strict=True)) <= int(0.45 * sum(elements))
        and sum(n * b * 8 for n, b in zip(work, bits, strict=True)) <= int(0.6 * 64 * sum(work))
    )
    assert found.allocation.totals["sensitivity"] == pytest.approx(best, rel=1e-9)


def test_pins_win(calibrated: Any) -> None:
    pins = {"stem": qc.Bits(weight=8), "head": qc.Bits(weight=2, activation=4)}
    found = searched(calibrated, qc.Budget(size="50%", samples=16), pins=pins)
    layers = {node.origin: node for node in calibrated.nodes if node.op in WEIGHTED}
    assert found.bits[layers["stem"].inputs[1]] == 8
    assert found.bits[layers["head"].inputs[1]] == 2
    problem = formulate(calibrated, found.table, (8, 4, 2), (8,), PAIRS, pins)
    assert {v.choices for v in problem.variables} == {("8",), ("2",), ("4",), ("8", "4", "2")}


def test_pairs_without_a_kernel_are_not_chosen(calibrated: Any) -> None:
    found = searched(calibrated, qc.Budget(size="50%", samples=16), pairs=("w8a8", "w4a8"))
    assert set(found.bits.values()) <= {4, 8}


def drop_by_count(bits: Mapping[str, int]) -> float:
    """A drop that grows with every tensor below 8 bits."""
    return sum({8: 0.0, 4: 0.4, 2: 2.0}[number] for number in bits.values())


def test_the_smallest_that_drops_little_enough(calibrated: Any) -> None:
    tried = []

    def drop(bits: Mapping[str, int]) -> Loss:
        tried.append(drop_by_count(bits))
        return Loss(tried[-1])

    sizes = []
    for most in (0.5, 1.3, 4.5, 100.0):
        found = searched(calibrated, qc.Budget(accuracy_drop=most, samples=16), drop)
        assert found.loss.drop == drop_by_count(found.bits) <= most
        sizes.append(found.allocation.totals["weight_bytes"])
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]
    assert len(tried) < 4 * 11


def test_a_drop_that_no_bits_keep_is_an_error(calibrated: Any) -> None:
    with pytest.raises(CompileError) as caught:
        searched(calibrated, qc.Budget(accuracy_drop=0.5, samples=16), lambda bits: Loss(3.0))
    assert str(caught.value) == (
        "BUDGET003 at Network\n"
        "  problem: the accuracy drops by 3.00 %, more than 0.5 %, with the best bits within the limits\n"
        "  remedy:  allow more bytes, time or loss"
    )


def test_the_smallest_with_little_enough_noise(calibrated: Any) -> None:
    def loss(bits: Mapping[str, int]) -> Loss:
        return Loss(sqnr_db=40.0 - 5.0 * drop_by_count(bits))

    sizes = []
    for least in (38.0, 30.0, 10.0):
        found = searched(calibrated, qc.Budget(sqnr_db=least, samples=16), loss)
        assert found.loss.sqnr_db is not None
        assert found.loss.sqnr_db >= least
        sizes.append(found.allocation.totals["weight_bytes"])
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(CompileError, match=r"the SQNR is 40.00 dB, less than 41 dB, with the best bits within the limits"):
        searched(calibrated, qc.Budget(sqnr_db=41.0, samples=16), loss)


def test_a_floor_on_the_sqnr_of_a_real_compilation() -> None:
    budget = qc.Budget(sqnr_db=25.0, samples=16)
    library = qc.compile(network(), calibration=samples(), budget=budget, target="native", progress=False)
    facts = library.report().facts["search"]
    with torch.no_grad():
        expected = network()(torch.from_numpy(samples())).numpy()
    assert sqnr_db(expected, library(samples())) == pytest.approx(facts["measured SQNR dB"], abs=0.05)
    assert 25.0 <= facts["measured SQNR dB"] < 40.0
    assert facts["totals"]["weight_bytes"] < 1488 / 2


class Unequal(nn.Module):
    """The channels between two layers have ranges from 1 to 30: how far they are equalized depends on the second one's bits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 1), nn.Linear(24, 5)
        with torch.no_grad():
            self.first.weight.mul_(torch.logspace(0, 1.5, 16).reshape(-1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))
        return y


@pytest.mark.parametrize("quality", ["fast", "good"])
def test_chosen_bits_give_what_the_same_bits_pinned_give(tmp_path: Path, quality: str) -> None:
    torch.manual_seed(0)
    model = Unequal().eval()
    given: dict[str, Any] = {"target": "x86-baseline", "progress": False, "quality": quality, "name": "net"}
    budget = qc.Budget(size="80%", samples=16, metric="mse")
    batches = (samples()[start : start + 16] for start in range(0, 96, 16))
    once = qc.build(model, calibration=batches, budget=budget, out=tmp_path / "once", **given)
    again = qc.build(model, calibration=samples(), budget=budget, out=tmp_path / "again", dump_ir=tmp_path / "dumps", **given)
    bits = {row.layer: qc.Bits(weight=row.weight_bits) for row in again.report().layers if row.weight_bits}
    assert len({b.weight for b in bits.values()}) == 2
    pinned = qc.build(model, calibration=samples(), bits=bits, out=tmp_path / "pinned", dump_ir=tmp_path / "other", **given)
    for artifact in (once, again):
        assert (artifact.folder / "net.o").read_bytes() == (pinned.folder / "net.o").read_bytes()
    assert [path.name for path in sorted((tmp_path / "dumps").glob("*"))] == [
        path.name for path in sorted((tmp_path / "other").glob("*"))
    ]


def test_activations_that_need_more_memory_than_there_is() -> None:
    """The limit is the workspace of the built library to the byte; more than that is refused before anything is measured."""
    given: dict[str, Any] = {"calibration": samples(), "target": "native", "progress": False}
    needed = qc.compile(network(), **given).description["workspace_bytes"]
    library = qc.compile(network(), budget=qc.Budget(size="60%", activation_memory=needed, samples=16), **given)
    assert library.description["workspace_bytes"] == needed
    with pytest.raises(CompileError) as caught:
        qc.compile(network(), budget=qc.Budget(size="60%", activation_memory=needed - 1), **given)
    assert str(caught.value) == (
        "BUDGET004 at network\n"
        f"  problem: the memory plan needs {needed:,} bytes for activations, more than {needed - 1:,}, whatever the bits of layers\n"
        "  remedy:  allow more, or take a smaller model or input"
    )


def test_a_size_counts_packed_codes_and_what_kernels_store_is_said() -> None:
    options: dict[str, Any] = {"calibration": samples(), "progress": False, "quality": "fast"}
    library = qc.compile(network(), budget=qc.Budget(size=800, samples=4, metric="mse"), **options)
    sizes, facts = library.description["sizes"], library.report().facts
    assert sizes["packed_code_bytes"] == facts["search"]["totals"]["weight_bytes"] == facts["packed code bytes"] <= 800
    assert sizes["weight_code_bytes"] == facts["weight code bytes"] > 800
    assert facts["notes"] == [
        f"the size is limited to 800 bytes of packed weight codes, of which there are {sizes['packed_code_bytes']}; "
        f"kernels, which pad channels to whole vectors, store {sizes['weight_code_bytes']:,}"
    ]
    assert size_notes(qc.Budget(size=800), 800, 800) == size_notes(qc.Budget(size="50%"), 800, 900) == []


def test_average_bits_are_a_size(calibrated: Any) -> None:
    table = sensitivities(calibrated, [samples()[:4]], "mse", activation_bits=())
    problem = formulate(calibrated, table, (8, 4, 2), (8,), PAIRS, {})
    (limit,) = limits_of(qc.Budget(average_bits=3.0), problem)
    assert limit.resource == "weight_bytes"
    assert limit.maximum == int(problem.at_8_bits["weight_bytes"] * 3 / 8)


def test_measured_drop_of_a_real_compilation() -> None:
    """Labels from the float model itself: what 2 bits everywhere lose is seen, and a limit keeps the choice above it."""
    library = qc.compile(
        network(), calibration=samples(), budget=qc.Budget(accuracy_drop=20.0, samples=16), quality="good", target="native"
    )
    facts = library.report().facts["search"]
    assert facts["measured drop %"] <= 20.0
    with torch.no_grad():
        classes = network()(torch.from_numpy(samples())).numpy().argmax(1)
    measured = 100.0 * float(np.mean(library(samples()).argmax(1) != classes))
    assert measured == pytest.approx(facts["measured drop %"], abs=2.1)
    shown = next(line for line in str(library.report()).splitlines() if line.startswith("search: "))
    assert f"weight_bytes {facts['totals']['weight_bytes']:,}" in shown
    assert "round_weights" in str(library.report())


@pytest.mark.parametrize(
    ("wishes", "problem", "remedy"),
    [
        ({"size": "10%"}, "size at most 10% of 1,488 bytes: the least possible is 25%", "raise size to 25%"),
        ({"size": 300}, "size at most 300 bytes: the least possible is 372 bytes", "raise size to 372 bytes"),
        ({"size": "0.25 KiB"}, "size at most 0.25 KiB: the least possible is 0.3632813 KiB", "raise size to 0.3632813 KiB"),
        ({"average_bits": 1.5}, "average_bits at most 1.5 bits: the least possible is 2 bits", "raise average_bits to 2 bits"),
        ({"size": 371, "average_bits": 3}, "size at most 371 bytes: the least possible is 372 bytes", "raise size to 372 bytes"),
        ({"bops": "12.5 %"}, "bops at most 12.5% of 3,249,152: the least possible is 25%", "raise bops to 25%"),
        ({"bops": 1000}, "bops at most 1,000: the least possible is 812,288", "raise bops to 812,288"),
    ],
)
def test_limits_that_cannot_be_kept_are_written_as_the_user_wrote_them(
    calibrated: Any, wishes: dict[str, Any], problem: str, remedy: str
) -> None:
    with pytest.raises(CompileError) as caught:
        searched(calibrated, qc.Budget(**wishes, samples=4, metric="mse"))
    assert str(caught.value) == (
        f"ALLOC002 at Network\n  problem: no assignment keeps this limit:\n           {problem}\n  remedy:  {remedy}"
    )
    name, _, least = remedy.removeprefix("raise ").partition(" to ")
    value = float(least.split()[0].replace(",", "")) if name == "average_bits" else least.replace(",", "").replace(" bytes", "")
    searched(calibrated, qc.Budget(**{name: value}, samples=4, metric="mse"))


def test_limits_that_clash_are_written_as_the_command_line_has_them(calibrated: Any) -> None:
    table = sensitivities(calibrated, [samples()[:4]], "mse", activation_bits=())
    problem = formulate(calibrated, table, (8, 4, 2), (8,), PAIRS, {}, made_up_latencies(calibrated))
    with pytest.raises(CompileError) as caught:
        search(calibrated.name, problem, table, CommandLineBudget(size="10%", latency_ms=0.011), lambda bits: Loss())
    assert str(caught.value) == (
        "ALLOC002 at Network\n"
        "  problem: no assignment keeps this limit:\n"
        "           --size at most 10% of 1,488 bytes: the least possible is 25%\n"
        "  remedy:  raise --size to 25%"
    )


def made_up_latencies(graph: Any) -> Latencies:
    """1,000 ns for every weight bit of a layer, 500 ns for the rest of the network."""
    classes = {name: group[0] for group in activation_classes(graph) for name in group}
    layers = {
        (classes[n.inputs[0]], n.inputs[1]): {(8, w): 1000.0 * w for w in (8, 4, 2)} for n in graph.nodes if n.op in WEIGHTED
    }
    return Latencies(layers, 500.0)


def test_latencies_are_a_limit_of_the_whole_network(calibrated: Any) -> None:
    table = sensitivities(calibrated, [samples()[:16]], "mse", activation_bits=())
    problem = formulate(calibrated, table, (8, 4, 2), (8,), PAIRS, {}, made_up_latencies(calibrated))
    budget = qc.Budget(latency_ms=0.0212)
    choice = search(calibrated.name, problem, table, budget, lambda bits: Loss())
    weights = [choice.bits[name] for name in problem.weights]
    assert choice.allocation.totals["latency_ns"] == 500 + 1000 * sum(weights) <= 0.97 * 21200
    assert sum(weights) == 20
    with pytest.raises(CompileError) as caught:
        search(calibrated.name, problem, table, qc.Budget(latency_ms=0.01), lambda bits: Loss())
    assert str(caught.value) == (
        "ALLOC002 at Network\n"
        "  problem: no assignment keeps this limit:\n"
        "           latency_ms at most 0.01 ms: the least possible is 0.01082475 ms\n"
        "  remedy:  raise latency_ms to 0.01082475 ms"
    )
    kept = search(calibrated.name, problem, table, qc.Budget(latency_ms=0.01082475), lambda bits: Loss())
    assert kept.allocation.totals["latency_ns"] == 10500


@pytest.mark.skipif(host_refusal(load_target("x86-baseline")) is not None, reason="kernels are measured on x86-64")
def test_measured_latencies_lead_to_a_library_that_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QC_CACHE", str(tmp_path / "cache"))
    options: dict[str, Any] = {"calibration": samples(), "target": "x86-baseline", "progress": False, "quality": "fast"}
    library = qc.compile(network(), budget=qc.Budget(latency_ms=100.0, size="60%", samples=16), **options)
    totals = library.report().facts["search"]["totals"]
    assert 0 < totals["latency_ns"] < 100e6
    assert list((tmp_path / "cache").iterdir())
    with pytest.raises(CompileError, match=r"latency_ms at most 1e-06 ms: the least possible is [\d.]+ ms\n"):
        qc.compile(network(), budget=qc.Budget(latency_ms=1e-6, samples=16), **options)


def test_uniform_bits_of_the_same_size_are_not_better() -> None:
    with torch.no_grad():
        expected = network()(torch.from_numpy(samples())).numpy()
    losses = {}
    for name, options in {"chosen": {"budget": qc.Budget(size="50%", samples=16)}, "uniform": {"bits": 4}}.items():
        library = qc.compile(network(), calibration=samples(), progress=False, **options)
        losses[name] = score_distance(expected, library(samples()))
    assert losses["chosen"] <= losses["uniform"]


def test_uniform_bits_are_tried_where_the_estimate_cannot_tell(calibrated: Any) -> None:
    budget = qc.Budget(size="50%", samples=16)
    table = sensitivities(calibrated, [samples()[:16]], weight_bits=(8, 4, 2), activation_bits=())
    problem = formulate(calibrated, table, (8, 4, 2), (8,), PAIRS, {})
    choice = search(calibrated.name, problem, table, budget, lambda bits: Loss())
    rival = uniform_rival(problem, budget, choice)
    fours = uniform_bits(problem, 4)
    far = total_costs(problem, fours)["sensitivity"] > CLOSE * float(choice.allocation.totals["sensitivity"])
    fewer = any(choice.bits[name] < fours[name] for name in fours)
    assert fewer
    assert rival == (None if far else fours)
    more = replace(choice, bits=fours | {next(iter(problem.weights)): 8})
    assert uniform_rival(problem, qc.Budget(size="95%"), more) is None
    assert uniform_rival(problem, qc.Budget(size="95%"), replace(choice, bits=fours)) is None
    assert pinned(problem, budget, fours, "net").totals["weight_bytes"] == total_costs(problem, fours)["weight_bytes"]


def test_rivals_fit_differ_and_nowhere_only_have_less(calibrated: Any) -> None:
    table = sensitivities(calibrated, [samples()[:16]], weight_bits=(8, 4, 2), activation_bits=())
    problem = formulate(calibrated, table, (8, 4, 2), (8,), PAIRS, {})
    counts = set()
    for share in (30, 40, 50, 60, 75, 90):
        budget = qc.Budget(size=f"{share}%", samples=16)
        choice = search(calibrated.name, problem, table, budget, lambda bits: Loss())
        others = rivals(problem, budget, choice, "net")
        counts.add(len(others))
        assert len(others) <= TRIED + 1
        for number, bits in enumerate(others):
            totals = total_costs(problem, bits)
            assert totals["weight_bytes"] <= problem.at_8_bits["weight_bytes"] * share / 100
            assert totals["sensitivity"] <= CLOSE * float(choice.allocation.totals["sensitivity"])
            for known in (choice.bits, *others[:number]):
                assert any(bits[name] > known[name] for name in bits)
    assert max(counts) >= TRIED
    assert rivals(problem, qc.Budget(accuracy_drop=1.0), choice, "net") == []
    assert rivals(problem, qc.Budget(size="50%", minimize="size", sensitivity=1.0), choice, "net") == []
    everything = qc.Budget(size="100%")
    choice = search(calibrated.name, problem, table, everything, lambda bits: Loss())
    assert set(choice.bits.values()) == {8}
    assert rivals(problem, everything, choice, "net") == []


@pytest.mark.parametrize(("distances", "best"), [((1.0, 3.0, 2.0), 0), ((3.0, 2.0, 1.0), 2), ((3.0, 1.0, 2.0), 1)])
def test_the_rival_that_is_nearest_when_run_is_taken(
    monkeypatch: pytest.MonkeyPatch, calibrated: Any, distances: tuple[float, ...], best: int
) -> None:
    run: list[dict[str, int]] = []

    def scores(shipped: Any, bits: Mapping[str, int]) -> Any:
        run.append(dict(bits))
        return np.full(8, distances[len(run) - 1])

    monkeypatch.setattr(choose._Shipped, "scores", scores)
    monkeypatch.setattr(choose, "sample_distances", lambda expected, found: found)
    settings, budget = Settings(samples(), quality="fast"), qc.Budget(size="65%", samples=16)
    found = choose.choose_bits(calibrated, calibrated, settings, budget, load_target("x86-baseline"), "NCHW")
    assert len(run) == TRIED + 1
    assert found.bits == run[best]
    assert {name: int(word) for name, word in found.allocation.choice.items()} == run[best]


def test_nearer_by_chance_is_not_clearly_nearer() -> None:
    noise = np.random.default_rng(0).normal(size=400)
    base = 10.0 + np.random.default_rng(1).normal(size=400)
    assert not clearly_nearer(base, base)
    assert not clearly_nearer(base, base + 0.2)
    assert not clearly_nearer(base, base - 0.05 + noise - noise.mean())
    assert clearly_nearer(base, base - 0.15 + noise - noise.mean())
    assert clearly_nearer(base, base - 1e-3)
    one = np.zeros(400)
    one[7] = 40.0  # a single sample
    assert not clearly_nearer(base + one, base)


def test_distances() -> None:
    scores = np.random.default_rng(0).normal(size=(50, 4))
    other = scores + 0.1 * np.random.default_rng(1).normal(size=(50, 4))
    p, q = (torch.log_softmax(torch.from_numpy(x), 1) for x in (scores, other))
    expected = float(torch.nn.functional.kl_div(q, p, reduction="batchmean", log_target=True))
    assert score_distance(scores, other) == pytest.approx(expected, rel=1e-9)
    assert score_distance(scores, scores + 3.0) == pytest.approx(0.0, abs=1e-12)
    assert score_distance(np.ones((2, 1, 3)), np.full((2, 1, 3), 1.5)) == pytest.approx(0.25)
    assert sample_distances(np.ones((2, 3, 1)), np.array([[[1], [1], [1]], [[2], [2], [1]]])).tolist() == [0.0, 2 / 3]


def test_drops() -> None:
    expected, found = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[0, 1, 3, 3]]
    assert top1_drop(expected, found, None, "net") == 25.0
    assert top1_drop(expected, found, np.array([0, 1, 3, 3]), "net") == -25.0
    with pytest.raises(CompileError) as caught:
        top1_drop(np.zeros((3, 1, 8, 8)), np.zeros((3, 1, 8, 8)), None, "net")
    assert str(caught.value) == (
        "SEARCH001 at net\n  problem: the first output has shape [N, 1, 8, 8]; accuracy is that of scores [N, classes]\n"
        "  remedy:  limit the sensitivity instead of accuracy_drop"
    )


def test_errors_of_the_driver() -> None:
    with pytest.raises(CompileError) as caught:
        qc.compile(network(), calibration=samples(), budget=qc.Budget(accuracy_drop=1.0, evaluation=(samples()[:8], np.zeros(7))))
    assert str(caught.value) == (
        "SEARCH003 at evaluation\n  problem: there are labels of shape [7] for 8 samples\n"
        "  remedy:  give one whole number for each sample"
    )
