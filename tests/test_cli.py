"""The command line, through the program that users start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from qcompiler import InternalError, cli
from qcompiler.cli.compile import check_against_reference
from qcompiler.targets.target import available_targets

COMMANDS = ("compile", "build", "pareto", "profile", "export", "run", "inspect", "targets")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def small_model() -> onnx.ModelProto:
    """A convolution, a ReLU, a global mean and a linear layer on [N, 3, 8, 8]."""
    generator = np.random.default_rng(0)
    weights = {
        "conv.weight": generator.normal(0, 0.3, (8, 3, 3, 3)),
        "conv.bias": generator.normal(0, 0.1, 8),
        "head.weight": generator.normal(0, 0.5, (4, 8)),
        "head.bias": generator.normal(0, 0.1, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="mean"),
        helper.make_node("Flatten", ["c"], ["d"], name="flat"),
        helper.make_node("Gemm", ["d", "head.weight", "head.bias"], ["y"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.onnx, inputs.npy, and what ``build --dump-ir`` made of them."""
    folder = tmp_path_factory.mktemp("cli")
    onnx.save(small_model(), folder / "net.onnx")
    np.save(folder / "inputs.npy", np.random.default_rng(1).normal(0, 1, (16, 3, 8, 8)).astype(np.float32))
    (folder / "photos").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    (folder / "spec.toml").write_text("size = 8\nmean = 0.5\nstd = 0.25\n", encoding="utf-8")
    done = invoke(
        *("build", folder / "net.onnx", "--calibration", folder / "inputs.npy"),
        *("--out", folder / "build", "--dump-ir", folder / "dumps", "--name", "small"),
    )
    assert done.exit_code == 0, done.output
    (folder / "build.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def dumped(work: Path, step: str) -> Path:
    """The dump that a pass left."""
    return next((work / "dumps").glob(f"*-{step}.qir"))


def test_build_writes_the_artifact_and_says_so(work: Path) -> None:
    written = {path.name for path in (work / "build").iterdir()}
    assert written == {"net.o", "libnet.a", "libnet.so", "net.h", "net.json", "net.report.json"}
    text = (work / "build.txt").read_text(encoding="utf-8")
    assert f"written to {work / 'build'}/: net.o, libnet.a, libnet.so, net.h, net.json, net.report.json" in text
    assert "SQNR dB" in text
    assert "qc_small_run" in (work / "build" / "net.h").read_text(encoding="utf-8")
    assert {"net.tir", "net.s"} < {path.name for path in (work / "dumps").iterdir()}


def test_build_for_another_cpu_with_bits_as_json(work: Path, tmp_path: Path) -> None:
    done = invoke(
        *("build", work / "net.onnx", "--calibration", work / "inputs.npy", "--target", "x86-baseline", "--json"),
        *("--bits", "w4a8", "--pin", "head=8", "--out", tmp_path / "out", "--no-pool"),
    )
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["files"] == ["net.o", "libnet.a", "libnet.so", "net.h", "net.json", "net.report.json"]
    assert {row["layer"]: row["weight_bits"] for row in data["layers"] if row["weight_bits"]} == {"conv": 4, "head": 8}
    assert data["facts"]["target"] == "x86-baseline"


def test_tune_reaches_what_is_built_and_what_is_measured(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qcompiler.backend.tile_table import TileTable
    from qcompiler.cost import tile_cache

    searched: list[list[str]] = []

    def search(traces: Any, known: TileTable, *_: Any) -> TileTable:
        searched.append([trace.name for trace in traces])
        return TileTable(known.target)

    monkeypatch.setenv("QC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tile_cache, "search_tiles", search)
    dump = dumped(work, "quantize")
    for tune in ("off", "cached", "full"):
        done = invoke("build", dump, "--tune", tune, "--batch-tile", 2, "--out", tmp_path / tune)
        assert done.exit_code == 0, done.output
    assert searched == [["batch 2", "batch 1"]]
    arguments = ("profile", dumped(work, "calibrate"), "--seconds", 0, "--cache", tmp_path / "cache")
    done = invoke(*arguments, "--tune", "full")
    assert done.exit_code == 0, done.output
    assert searched[1:] == [["w8a8", "w4a8", "w2a8"]]
    done = invoke(*arguments, "--tune", "yes")
    assert done.exit_code == 1
    assert "problem: tune is 'yes'" in done.stderr


def test_a_limit_that_cannot_be_kept_is_called_by_its_option(work: Path, tmp_path: Path) -> None:
    done = invoke(
        *("build", work / "net.onnx", "--calibration", work / "inputs.npy", "--quality", "fast", "--metric", "mse", "--json"),
        *("--size", "80", "--pin", "head=8", "--out", tmp_path / "out"),
    )
    assert done.exit_code == 1, done.output
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "ALLOC002"
    assert error["problem"].splitlines()[1:] == ["--size at most 80 bytes: the least possible is 86 bytes"]
    assert error["remedy"] == "raise --size to 86 bytes"


def test_compile_checks_and_reports(work: Path) -> None:
    done = invoke("compile", work / "net.onnx", "--calibration", work / "inputs.npy", "--input-layout", "NHWC")
    assert done.exit_code == 0, done.output
    assert "output codes equal the reference's on 2 random samples" in done.stdout
    assert "latency:" in done.stdout
    done = invoke("compile", dumped(work, "quantize"), "--json")  # a dump needs no calibration
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["checked_samples"] == 2
    assert data["latency_ms"] > 0


def test_calibration_on_a_folder_of_images(work: Path, tmp_path: Path) -> None:
    done = invoke(
        *("build", work / "net.onnx", "--calibration", work / "photos", "--preprocess", work / "spec.toml", "--json"),
        *("--observer", "input=percentile:99.9", "--observer", "conv=entropy", "--out", tmp_path / "out"),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["facts"]["SQNR samples"] == 3


def test_run_prints_classes_and_saves_the_output(work: Path, tmp_path: Path) -> None:
    done = invoke(
        "run", work / "build", work / "inputs.npy", "--output", tmp_path / "y.npy", "--top", 2, "--threads", 2, "--json"
    )
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    y = np.load(tmp_path / "y.npy")
    assert data["shape"] == [16, 4]
    assert y.shape == (16, 4)
    assert y.dtype == np.float32
    assert data["top"] == np.argsort(-y, axis=1, kind="stable")[:, :2].tolist()
    lines = invoke("run", work / "build", work / "inputs.npy").stdout.splitlines()
    assert len(lines) == 16
    assert lines[3].startswith(f"3: {data['top'][3][0]} (")


def test_run_takes_arrays_by_name_and_integers(work: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((2, 3, 8, 8), np.int64), labels=np.zeros(2))
    assert invoke("run", work / "build", tmp_path / "x.npz").exit_code == 0


def test_inspect_artifact_dump_and_model(work: Path) -> None:
    report = invoke("inspect", work / "build")
    assert report.exit_code == 0
    assert "SQNR dB" in report.stdout
    assert json.loads(invoke("inspect", work / "build", "--json").stdout)["name"] == "small"
    dump = invoke("inspect", dumped(work, "quantize"))
    assert dump.exit_code == 0
    assert dump.stdout.startswith("graph @small stage=integer")
    model = json.loads(invoke("inspect", work / "net.onnx", "--json").stdout)
    assert model["stage"] == "float"
    assert model["nodes"][0]["layer"] == "conv"


def test_targets(work: Path) -> None:
    rows = json.loads(invoke("targets", "--json").stdout)
    assert [row["name"] for row in rows] == list(available_targets())
    assert sum(row["native"] for row in rows) == 1
    assert all(row["runs_here"] for row in rows if row["native"])
    text = invoke("targets").stdout
    assert all(name in text for name in available_targets())


def test_a_model_from_a_python_function(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_model_of_test_cli.py").write_text("from torch import nn\ndef make():\n    return nn.Conv2d(3, 4, 3).eval()\n")
    monkeypatch.chdir(tmp_path)
    done = invoke("compile", "my_model_of_test_cli:make", "--calibration", work / "inputs.npy", "--json")
    assert done.exit_code == 0, done.output


PROBLEMS = {
    "CLI001": (
        ["compile", "no_such_module:make"],
        "the model cannot be made: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "CLI002": (["compile", "net.onnx", "--preprocess", "spec.toml"], "there are no images to preprocess"),
    "SAMPLES001": (["compile", "net.onnx", "--calibration", "nothing.npy"], "no samples can be read: No such file or directory"),
    "SAMPLES002": (["compile", "net.onnx", "--calibration", "photos"], "this is a folder; images in it need to be preprocessed"),
    "SAMPLES004": (
        ["compile", "net.onnx", "--calibration", "dumps", "--preprocess", "spec.toml"],
        "there are no images in this folder",
    ),
    "SAMPLES005": (
        ["compile", "net.onnx", "--calibration", "photos", "--preprocess", "none.toml"],
        "the file cannot be read: No such file or directory",
    ),
    "CLI006": (
        ["compile", "net.onnx", "--calibration", "inputs.npy", "--observer", "mse", "--observer", "input=minmax"],
        "'mse' is for all tensors, but there are others",
    ),
    "CALIB007": (["compile", "net.onnx", "--calibration", "inputs.npy", "--observer", "kl"], "there is no observer 'kl'"),
    "CALIB008": (
        ["compile", "net.onnx", "--calibration", "inputs.npy", "--observer", "tail=mse"],
        "the pattern 'tail' names no layer",
    ),
    "CLI003": (["compile", "net.onnx", "--calibration", "inputs.npy", "--pin", "conv"], "'conv' has no ="),
    "CLI004": (["run", "build", "wrong.npz"], "there are the arrays ['a', 'b'], but not x"),
    "CLI005": (["run", "build", "inputs.npy", "--output", "no/such/folder/y.npy"], "the output cannot be written: "),
    "CALIB001": (["compile", "net.onnx"], "no calibration data was given"),
    "TARGET001": (["build", "net.onnx", "--target", "z80", "--out", "o"], "there is no such target"),
    "RUN001": (["run", "dumps", "inputs.npy"], "net.json cannot be read"),
    "RUN002": (["compile", "net.onnx", "--calibration", "inputs.npy", "--target", "arm64"], "the library is for aarch64"),
    "REPORT001": (["inspect", "dumps"], "there is no net.report.json"),
    "DUMP001": (["inspect", "nothing.qir"], "the dump cannot be read"),
    "BITS001": (["compile", "net.onnx", "--calibration", "inputs.npy", "--bits", "3"], "3 weight bits have no integer kernel"),
    "OPTION001": (["compile", "net.onnx", "--output-bits", "12"], "output_bits is 12"),
}


@pytest.mark.parametrize("code", PROBLEMS)
def test_problems_of_the_input_exit_with_1(work: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.chdir(work)
    np.savez("wrong.npz", a=np.zeros(1), b=np.zeros(1))
    arguments, problem = PROBLEMS[code]
    done = invoke(*arguments)
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    assert done.stderr.startswith(f"{code} at ")
    assert f"\n  problem: {problem}" in done.stderr
    assert "\n  remedy:  " in done.stderr
    as_json = invoke(*arguments, "--json")
    assert as_json.exit_code == 1
    error = json.loads(as_json.stdout)["error"]
    assert error["code"] == code
    assert set(error) == {"code", "where", "problem", "remedy"}


@pytest.mark.parametrize(
    "arguments", [["compile"], ["build", "net.onnx"], ["no-such-command"], ["run", "a", "b", "--threads", "0"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


@pytest.mark.parametrize("error", [InternalError("rule 7 broke at %conv"), ZeroDivisionError("of our own")])
def test_our_own_mistakes_exit_with_3(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("qcompiler.report.read_report", fail)
    done = invoke("inspect", ".")
    assert done.exit_code == 3
    assert str(error) in done.stderr
    assert "a mistake of qcompiler" in done.stderr


def test_a_library_that_differs_from_the_reference_is_found(work: Path) -> None:
    from qcompiler import Library

    class Wrong(Library):
        def run_int(self, *codes: Any, threads: int = 1) -> Any:
            return super().run_int(*codes, threads=threads) ^ 1

    with pytest.raises(InternalError, match=r"output 0 of small differs from the reference in 8 codes"):
        check_against_reference(Wrong(work / "build"), work / "dumps")


def test_help_teaches() -> None:
    text = invoke("--help").stdout
    assert all(command in text for command in COMMANDS)
    assert "Exit codes: 0 done, 1 a problem of the input, 2 wrong usage, 3 a mistake" in " ".join(text.split())
    assert invoke().stdout.strip() == text.strip()
    for command in COMMANDS:
        done = invoke(command, "--help")
        assert done.exit_code == 0
        assert f" qcompiler {command} " in done.stdout.replace("\n", " ").replace("Usage: root", "Usage: qcompiler"), command


def test_the_console_script(work: Path) -> None:
    start = [sys.executable, "-c", "from qcompiler.cli import main; main()"]
    done = subprocess.run([*start, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "0.1.0\n")
    done = subprocess.run([*start, "run", "build", "inputs.npy"], cwd=work, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 16
    assert done.stderr == ""
