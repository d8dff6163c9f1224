"""Layers rounded one at a time: on their grid, with the mean kept, and better than nearest codes; searches judge by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from qcompiler.interpret import run_float
from qcompiler.ir.graph import WEIGHTED, Graph, Stage
from qcompiler.report import sqnr_db
from qcompiler.sensitivity.analyze import sensitivities
from qcompiler.tuning.single_layers import rounded_layers
from tests.tuning.networks import Array, allocated, samples


def outputs(graph: Graph, changed: dict[str, torch.Tensor] | None = None) -> Array:
    x = torch.from_numpy(samples(64, seed=5))
    found: Array = run_float(graph, [x], constants=changed)[0].numpy()
    return found


def test_every_layer_at_every_number_of_bits() -> None:
    graph = allocated("w8a8")
    found = rounded_layers(graph, [samples()], (4, 2))
    layers = [node for node in graph.nodes if node.op in WEIGHTED]
    assert set(found) == {(node.inputs[1], bits) for node in layers for bits in (4, 2)}
    for node in layers:
        for bits in (4, 2):
            changed = found[node.inputs[1], bits]
            assert set(changed) == set(node.inputs[1:])
            for row in changed[node.inputs[1]].reshape(len(changed[node.inputs[1]]), -1):
                assert len(row.unique()) <= 1 << bits


def test_less_is_lost_than_by_nearest_codes_and_sensitivities_say_so() -> None:
    graph = replace(allocated("w8a8"), stage=Stage.CALIBRATED)
    found = rounded_layers(graph, [samples()], (4, 2))
    nearest = sensitivities(graph, [samples()], "sqnr", weight_bits=(4, 2), activation_bits=())
    shipped = sensitivities(graph, [samples()], "sqnr", weight_bits=(4, 2), activation_bits=(), rounded=found)
    exact = outputs(graph)
    for (name, bits), changed in found.items():
        loss = 10.0 ** (-sqnr_db(exact, outputs(graph, dict(changed))) / 10.0)
        assert np.isclose(shipped.weights[name][bits], loss, rtol=0.5)  # of other samples
        assert shipped.weights[name][bits] < nearest.weights[name][bits]
