"""Whole small networks through both forms of torch's programs."""

from __future__ import annotations

import pytest
import torch

from qcompiler.importers.load import import_model
from tests.importers.check import check_graph
from tests.importers.networks import NETWORKS, network
from tests.importers.test_torch import BATCH, ops, run


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, decomposed: bool) -> None:
    model = network(name)
    program = torch.export.export(model, (torch.randn(2, *NETWORKS[name][1]),), dynamic_shapes=(BATCH,))
    check_graph(import_model(program.run_decompositions() if decomposed else program), run(model))


@pytest.mark.parametrize("name", NETWORKS)
def test_network_of_one_batch_size(name: str) -> None:
    model = network(name)
    check_graph(import_model(torch.export.export(model, (torch.randn(2, *NETWORKS[name][1]),))), run(model))


def test_operators_of_a_shuffle_unit() -> None:
    model = network("shufflenet")
    found = ops(import_model(model, torch.randn(1, *NETWORKS["shufflenet"][1])))
    assert [found.count(op) for op in ("slice", "concat", "take", "transpose", "reshape")] == [4, 2, 2, 0, 0]
