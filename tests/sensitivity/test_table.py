"""The table's JSON."""

from __future__ import annotations

from qcompiler.sensitivity.table import SensitivityTable


def test_json_round_trip() -> None:
    table = SensitivityTable("kl", {"w": {2: 0.1, 8: 1e-30}}, {"x": {4: 1 / 3}}, {"w": {2: 0.01}}, samples=64, seconds=1.5)
    read = SensitivityTable.from_json(table.to_json())
    assert read == table
    assert read.seconds == 1.5
    assert list(read.weights["w"]) == [2, 8]
