"""What ships is run beside the reference; planted mistakes are found, named, and leave what shows them again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qcompiler as qc
from qcompiler.backend import lower, memory_plan
from qcompiler.dump import read_dump
from qcompiler.ir.graph import Node
from qcompiler.ops import pooling
from qcompiler.ops.operator import Operand
from qcompiler.targets.target import host_architecture
from qcompiler.verification import runner
from tests.tools import EMULATOR, need, need_compiler

Array = np.ndarray[Any, Any]
DATA = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)


class Net(nn.Module):
    """Two branches, whose values live at the same time, and a pool."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 8, 3, padding=1)
        self.peak = nn.MaxPool2d(3, 1, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        return self.fc((torch.relu(self.left(x)) + self.peak(x)).mean((2, 3)))


def facts(artifact: Any) -> dict[str, Any]:
    return json.loads((artifact.folder / "net.report.json").read_text(encoding="utf-8"))["facts"]


def plant_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's maxima become one more: every library has a wrong pool."""
    right = pooling.MaxPool2d.run_integer

    def wrong(self: Any, node: Node, operands: Sequence[Operand], arrays: Sequence[Array]) -> Array:
        return np.minimum(right(self, node, operands, arrays) + 1, 255)

    monkeypatch.setattr(pooling.MaxPool2d, "run_integer", wrong)


@pytest.mark.parametrize(("batch_tile", "layout"), [(1, "NCHW"), (3, "NHWC")])
def test_what_is_right_is_said_to_be(tmp_path: Path, batch_tile: int, layout: str) -> None:
    artifact = qc.build(Net(), calibration=DATA, out=tmp_path / "net", batch_tile=batch_tile, input_layout=layout)
    assert facts(artifact)["verified"] == "4 samples run here have the reference's codes"
    assert facts(artifact)["notes"] == []


def test_off_leaves_a_note(tmp_path: Path) -> None:
    artifact = qc.build(Net(), calibration=DATA, out=tmp_path / "net", verify=False)
    assert facts(artifact)["verified"] == ""
    assert facts(artifact)["notes"] == ["the library was not run beside its reference: verify is off"]


def test_a_target_that_nothing_runs_leaves_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "host_refusal", lambda target: f"this machine is no {target.name}")
    artifact = qc.build(Net(), calibration=DATA, out=tmp_path / "net", target="x86-baseline")
    assert facts(artifact)["notes"] == ["the library was not run beside its reference: this machine is no x86-baseline"]


def test_a_dump_without_samples_is_run_on_random_codes(tmp_path: Path) -> None:
    qc.build(Net(), calibration=DATA, out=tmp_path / "net", dump_ir=tmp_path / "dumps")
    artifact = qc.build(max((tmp_path / "dumps").glob("*.qir")), out=tmp_path / "again")
    assert facts(artifact)["verified"] == "1 sample run here has the reference's codes"


def test_a_wrong_kernel_is_named_and_shown_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_in_the_reference(monkeypatch)
    with pytest.raises(qc.InternalError) as caught:
        qc.build(Net(), calibration=DATA, out=tmp_path / "net", dump_ir=tmp_path / "dumps")
    first, command, _ = str(caught.value).splitlines()
    assert re.search(r"differs from the reference at layer peak: [\d,]+ of 2,048 codes differ, the first at \[0, ", first)
    assert not (tmp_path / "net").exists()
    dump = tmp_path / "dumps" / "mismatch" / "layer.qir"
    assert f"qcompiler build {dump} --calibration {dump.with_name('inputs.npz')}" in command
    assert [node.op for node in read_dump(dump).nodes] == ["max_pool2d"]
    with pytest.raises(qc.InternalError, match="at layer peak: "):
        qc.build(dump, calibration=dump.with_name("inputs.npz"), out=tmp_path / "again", dump_ir=tmp_path / "dumps2")


def test_a_wrong_plan_is_found_where_every_kernel_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = memory_plan.plan_memory

    def wrong(lifetimes: Any) -> Any:
        found = right(lifetimes)
        return replace(found, offsets=dict.fromkeys(found.offsets, 0))

    monkeypatch.setattr(lower, "plan_memory", wrong)
    with pytest.raises(qc.InternalError, match=r"differs from the reference at layer (left|peak|fc|stem|.*mean.*)"):
        qc.build(Net(), calibration=DATA, out=tmp_path / "net", dump_ir=tmp_path / "dumps")
    assert "conv2d" in (tmp_path / "dumps" / "mismatch" / "layer.qir").read_text(encoding="utf-8")


@pytest.mark.arm64
def test_under_the_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(EMULATOR)
    need_compiler("arm64-dotprod")
    if host_architecture() == "aarch64":
        pytest.skip("this host needs no emulator")
    artifact = qc.build(Net(), calibration=DATA, out=tmp_path / "net", target="arm64-dotprod", batch_tile=2, input_layout="NHWC")
    assert facts(artifact)["verified"].startswith("1 sample run under qemu-aarch64")
    plant_in_the_reference(monkeypatch)
    with pytest.raises(qc.InternalError, match="at layer peak: "):
        qc.build(Net(), calibration=DATA, out=tmp_path / "wrong", target="arm64-dotprod", dump_ir=tmp_path / "dumps")
