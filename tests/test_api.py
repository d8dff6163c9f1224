"""The Python interface: options, defaults, and what is left behind when something fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import qcompiler as qc
from qcompiler.api import identifier, import_model, read_options
from qcompiler.calibrate import batches
from qcompiler.dump import read_dump
from qcompiler.loading import first_sample, required_inputs


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


DATA = np.random.default_rng(0).normal(size=(8, 3, 6, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_bits": 12}, "OPTION001 at output_bits\n  problem: output_bits is 12\n  remedy:  choose one of 8, 16, 32"),
        (
            {"input_layout": "CHWN"},
            "OPTION001 at input_layout\n  problem: input_layout is 'CHWN'\n  remedy:  choose one of 'NCHW', 'NHWC'",
        ),
        (
            {"observer": "kl"},
            "CALIB007 at observer\n  problem: there is no observer 'kl'\n  remedy:  choose one of minmax, mse, ",
        ),
        ({"observer": {"tail": "mse"}}, "CALIB008 at observer\n  problem: the pattern 'tail' names no layer\n"),
        ({"calibration": "none.npz"}, "SAMPLES001 at none.npz\n  problem: no samples can be read: No such file or directory\n"),
        ({"verify": "off"}, "OPTION001 at verify\n  problem: verify is 'off'\n  remedy:  choose one of True, False"),
        ({"batch_tile": 0}, "OPTION001 at batch_tile\n  problem: batch_tile is 0\n  remedy:  choose 1 to 64"),
        (
            {"name": "my net"},
            "OPTION002 at name\n  problem: 'my net' is not a C identifier\n  remedy:  use letters, digits and _",
        ),
        (
            {"bit": 4},
            "OPTION003 at options\n  problem: there is no option bit\n  remedy:  the options are calibration, target, bits, ",
        ),
        ({"target": "cuda"}, "TARGET001 at "),
        ({"calibration": None}, "IMPORT003 at "),
    ],
)
def test_bad_options_say_what_is_wrong(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(qc.CompileError) as caught:
        qc.build(Net(), out=tmp_path / "out", **{"calibration": DATA, **options})
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_missing_calibration_of_a_model_with_shapes(tmp_path: Path) -> None:
    program = torch.export.export(Net().eval(), (torch.from_numpy(DATA[:2]),))
    with pytest.raises(qc.CompileError, match="CALIB001"):
        qc.build(program, out=tmp_path / "out")


def test_models_of_every_kind_give_the_same_codes(tmp_path: Path) -> None:
    model = Net().eval()
    codes = np.random.default_rng(1).integers(0, 256, (3, 3, 6, 6), dtype=np.uint8)
    program = torch.export.export(model, (torch.from_numpy(DATA[:2]),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    results = [qc.compile(made, calibration=DATA).run_int(codes) for made in (model, torch.fx.symbolic_trace(model), program)]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_a_generator_of_samples_is_used_whole() -> None:
    def samples() -> Any:
        for image in DATA:
            yield image[None], 3

    model = Net().eval()
    whole, streamed = (qc.compile(model, calibration=data) for data in (DATA, samples()))
    assert whole.inputs == streamed.inputs
    assert streamed.report().facts["SQNR samples"] == 8


def test_files_and_observers_by_kind(tmp_path: Path) -> None:
    model = Net().eval()
    np.save(tmp_path / "data.npy", DATA)
    np.savez(tmp_path / "data.npz", images=DATA)
    codes = np.random.default_rng(1).integers(0, 256, (3, 3, 6, 6), dtype=np.uint8)
    wish = {"input": "minmax", "activation": "percentile:99.9", "conv": "entropy"}
    sources = (DATA, tmp_path / "data.npy", str(tmp_path / "data.npz"))
    results = [qc.compile(model, calibration=data, observer=wish).run_int(codes) for data in sources]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_names_become_c_identifiers(tmp_path: Path) -> None:
    assert [identifier(name) for name in ("ResNet-20 (v2)", "8bit", "", "éa")] == ["resnet_20_v2", "net_8bit", "net", "a"]
    artifact = qc.build(Net(), calibration=DATA, out=tmp_path / "a", name="Camera_1")
    assert "qc_Camera_1_run" in (artifact.folder / "net.h").read_text()


def test_dumps_can_be_built_from_any_stage(tmp_path: Path) -> None:
    first = qc.build(Net(), calibration=DATA, out=tmp_path / "a", dump_ir=tmp_path / "dumps")
    for path in sorted((tmp_path / "dumps").glob("*.qir")):
        again = qc.build(path, calibration=DATA, out=tmp_path / path.stem)
        assert again.description == first.description
        assert (again.folder / "libnet.so").read_bytes() == (first.folder / "libnet.so").read_bytes()
        assert again.report().facts["notes"] == []
    blind = qc.build(next((tmp_path / "dumps").glob("*-calibrate.qir")), out=tmp_path / "blind")
    assert blind.report().facts["notes"] == [
        "biases are not corrected for the rounding of weights: there were no calibration samples"
    ]
    for problem, text in (("DUMP001", None), ("DUMP002", "graph @g stage=odd () {")):
        path = tmp_path / f"{problem}.qir"
        if text:
            path.write_text(text)
        with pytest.raises(qc.CompileError, match=problem):
            read_dump(path)


def test_a_dump_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(qc.CompileError, match="DUMP003"):
        qc.build(Net(), calibration=DATA, out=tmp_path / "out", dump_ir=tmp_path / "file" / "dumps")


def test_a_target_without_a_kernel_for_the_bits(tmp_path: Path) -> None:
    text = Path(qc.__file__).parent.parent.joinpath("targets", "x86-avx2.toml").read_text()
    (tmp_path / "small.toml").write_text(text.replace('name = "x86-avx2"', 'name = "small"').replace('"w4a8", ', ""))
    with pytest.raises(qc.CompileError) as caught:
        qc.build(Net(), calibration=DATA, out=tmp_path / "out", target=str(tmp_path / "small.toml"), bits={"fc": 4})
    assert str(caught.value) == (
        "BITS004 at fc\n  problem: target 'small' has no kernel for w4a8\n  remedy:  choose one of w8a8, w2a8, w8a4, w4a4, w2a4"
    )


@pytest.mark.parametrize("data", [DATA[0], list(DATA), tuple(DATA), (x for x in DATA), [torch.from_numpy(x) for x in DATA]])
def test_samples_without_a_batch(data: Any) -> None:
    """What a module takes only with another axis in front is a sample, also by ``torch``'s layers that take both."""
    for channels in (3, 1):
        model = nn.Conv2d(channels, 2, 1)
        given = DATA[0, :1] if channels == 1 else data
        _, graph, samples = import_model(model, None, read_options({"calibration": given}))
        assert graph.inputs[0].type.shape == ("N", channels, 6, 6)
        assert next(batches(graph, samples))[0].shape[1:] == (channels, 6, 6)


def test_example_inputs_without_a_batch() -> None:
    with pytest.raises(qc.CompileError) as caught:
        qc.compile(Net(), DATA[0], calibration=DATA)
    assert str(caught.value) == (
        "IMPORT003 at Net\n  problem: axis 0, the batch, is missing from the example inputs of shape [3, 6, 6]\n"
        "  remedy:  pass example_inputs=x[None]: one sample is a batch of one"
    )
    with pytest.raises(qc.CompileError, match="expected input"):
        qc.compile(Net(), DATA[:, :2], calibration=DATA)


@pytest.mark.parametrize("data", [["a", "b"], np.array([DATA[0], None], dtype=object), [b"a"], np.zeros(3, "datetime64[s]")])
def test_samples_that_are_no_numbers(data: Any) -> None:
    with pytest.raises(qc.CompileError, match="CALIB005 at calibration\n  problem: a calibration sample has elements of type"):
        qc.compile(Net(), calibration=data)


@pytest.mark.parametrize("data", [[], [None], (), {}, iter(()), DATA[:0]])
def test_no_samples(data: Any) -> None:
    with pytest.raises(qc.CompileError, match="CALIB002 at calibration\n  problem: the calibration data has no samples"):
        import_model(Net(), None, read_options({"calibration": data}))


def test_first_sample_takes_nothing_away() -> None:
    for data in (DATA, torch.from_numpy(DATA), [DATA[:3], DATA[3:]], (DATA,), [(DATA, 1)], {"x": DATA}):
        example, same = first_sample(data, 1)
        assert np.array_equal(example[0].numpy(), DATA[:1])
        assert same is data
    example, rest = first_sample((DATA[i : i + 2] for i in range(0, 8, 2)), 1)
    assert np.array_equal(np.concatenate(list(rest)), DATA)
    assert required_inputs(Net()) == 1
    for order in ("ab", "ba"):
        named = {name: np.array([[ord(name)]]) for name in order}
        assert [int(x) for x in first_sample(named, 2, ["a", "b", "c"])[0]] == [97, 98]


def test_whole_numbers_of_samples_are_what_the_model_takes_them_for() -> None:
    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.linear = nn.Embedding(9, 4), nn.Linear(3, 4)

        def forward(self, indices: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return self.rows(indices).mean(1) + self.linear(x)

    def imported(model: nn.Module, calibration: object) -> list[str]:
        return [n.op for n in import_model(model.eval(), None, read_options({"calibration": calibration}))[1].nodes]

    indices, x = np.arange(20).reshape(4, 5) % 9, np.ones((4, 3), np.float32)
    rows = nn.Sequential(nn.Embedding(9, 4), nn.Flatten())
    typed = (indices, indices.astype(np.uint8), indices.astype(np.float32), torch.from_numpy(indices).int())
    for calibration in (*typed, {"input": indices}, DataLoader(indices, batch_size=2)):
        assert imported(rows, calibration) == ["embedding", "reshape"]
    for calibration in ((indices, x), (indices.astype(np.int16), x), [{"x": x, "indices": indices}]):
        assert imported(Scored(), calibration) == ["embedding", "mean", "linear", "add"]
    assert imported(Scored(), (indices / 1.0, x + 0.5)) == ["embedding", "mean", "linear", "add"]
    assert imported(nn.Linear(5, 2), indices) == ["linear"]
    with pytest.raises(qc.CompileError, match=r"aten\.group_norm\.default"):
        imported(nn.Sequential(nn.Linear(5, 2), nn.GroupNorm(1, 2)), indices)
    with pytest.raises(qc.CompileError, match=r"aten\.group_norm\.default"):
        imported(nn.Sequential(rows, nn.GroupNorm(1, 20)), indices.astype(np.uint8))
    with pytest.raises(qc.CompileError, match="same reduction dim"):
        imported(nn.Sequential(nn.Embedding(9, 4), nn.Linear(5, 2)), indices)


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qcompiler.backend.artifact.publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        qc.build(Net(), calibration=DATA, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
