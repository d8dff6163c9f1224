"""Our libraries and their peers as functions from a batch of float images to float outputs, all from one float model.

Whatever takes long to make (quantized models, libraries) is kept in the case's folder, so that it is made once for any number of
threads. Peers are imported where they are used: one that is not installed is left out.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch

import qcompiler as qc
from examples.benchmarks.cases import Array, Case
from qcompiler.codes import quantize


@dataclass(frozen=True)
class Engine:
    """``run``: one inference of the case's batch, as it is timed; ``outputs``: its results as floats ``[batch, ...]``."""

    run: Callable[[], Any]
    outputs: Callable[[], Array]


@dataclass(frozen=True)
class Setup:
    """A case on ``threads`` threads; ``folder`` keeps what is made of it, ``target`` is that of our libraries."""

    case: Case
    threads: int
    folder: Path
    target: str

    def kept(self, name: str, make: Callable[[Path], None]) -> Path:
        """The file ``name``, made where it is not there yet."""
        path = self.folder / name
        if not path.exists():
            make(path)
        return path

    def float_onnx(self) -> Path:
        """The model as an ONNX file of this batch."""

        def make(path: Path) -> None:
            if isinstance(self.case.source, torch.nn.Module):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    torch.onnx.export(self.case.source, (torch.from_numpy(self.case.x),), path, dynamo=False, opset_version=17)
                return
            proto = onnx.load(self.case.source)
            for port in (*proto.graph.input, *proto.graph.output):
                port.type.tensor_type.shape.dim[0].ClearField("dim_param")
                port.type.tensor_type.shape.dim[0].dim_value = self.case.batch
            onnx.save(proto, path)

        return self.kept("float.onnx", make)

    def quantized_onnx(self) -> Path:
        """Static QDQ by ONNX Runtime as its documentation says: weights per channel, activations u8, weights s8."""

        def make(path: Path) -> None:
            from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
            from onnxruntime.quantization.shape_inference import quant_pre_process

            prepared = self.folder / "prepared.onnx"
            try:
                quant_pre_process(self.float_onnx(), prepared)
            except Exception as error:
                print(f"symbolic shape inference failed ({error}); going on without it", file=sys.stderr)
                quant_pre_process(self.float_onnx(), prepared, skip_symbolic_shape=True)

            class Reader(CalibrationDataReader):  # type: ignore[misc]
                def __init__(self, name: str, batches: Iterator[Array]) -> None:
                    self.items: Iterator[Mapping[str, Array]] = ({name: batch} for batch in batches)

                def get_next(self) -> Mapping[str, Array] | None:
                    return next(self.items, None)

            quantize_static(
                prepared,
                path,
                Reader(onnx.load(prepared).graph.input[0].name, self.case.batches()),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )

        return self.kept("int8.onnx", make)


def ours(setup: Setup, bits: str) -> qc.Library:
    """Our library of the model."""
    folder = setup.kept(bits, lambda path: _build(setup, path, bits))
    return qc.Library(folder)


def _build(setup: Setup, folder: Path, bits: str) -> None:
    """Nearest weight codes: how they are rounded changes no time."""
    qc.build(
        setup.case.source,
        calibration=setup.case.calibration,
        target=setup.target,
        bits=bits,
        quality="fast",
        out=folder,
        progress=False,
    )


def _engine(run: Callable[[], Array]) -> Engine:
    return Engine(run, run)


def integers(bits: str) -> Callable[[Setup], Engine]:
    """Our library from codes to codes: what the C function computes."""

    def build(setup: Setup) -> Engine:
        library = ours(setup, bits)
        port = library.inputs[0]
        codes = quantize(setup.case.x, port.scale, port.zero, 0, (1 << port.bits) - 1, port.dtype)
        return Engine(lambda: library.run_int(codes, threads=setup.threads), lambda: library(setup.case.x))

    return build


def floats(bits: str) -> Callable[[Setup], Engine]:
    """Our library with quantization and dequantization in Python."""

    def build(setup: Setup) -> Engine:
        library = ours(setup, bits)
        return _engine(lambda: library(setup.case.x, threads=setup.threads))

    return build


def onnx_runtime(quantized: bool) -> Callable[[Setup], Engine]:
    """ONNX Runtime's CPU provider with all optimizations."""

    def build(setup: Setup) -> Engine:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = setup.threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")  # at the end of a run: others have their turn
        path = setup.quantized_onnx() if quantized else setup.float_onnx()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return _engine(lambda: session.run(None, {name: setup.case.x})[0])

    return build


def openvino(kind: str) -> Callable[[Setup], Engine]:
    """OpenVINO's CPU plugin: the float model, the QDQ model, or the float model quantized by NNCF with its defaults."""

    def build(setup: Setup) -> Engine:
        from openvino import Core, convert_model, save_model

        core = Core()
        if kind == "nncf":

            def make(path: Path) -> None:
                import nncf

                dataset = nncf.Dataset(list(setup.case.batches()))
                model = nncf.quantize(convert_model(setup.float_onnx()), dataset, target_device=nncf.TargetDevice.CPU)
                save_model(model, path)

            model = core.read_model(setup.kept("nncf.xml", make))
        else:
            model = core.read_model(setup.quantized_onnx() if kind == "qdq" else setup.float_onnx())
        settings = {
            "INFERENCE_NUM_THREADS": setup.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        request = core.compile_model(model, "CPU", settings).create_infer_request()

        def run() -> Array:
            request.infer({0: setup.case.x}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data)

        return _engine(run)

    return build


def executorch(setup: Setup) -> Engine:
    """ExecuTorch with XNNPACK: int8, weights per channel."""
    from executorch.extension.pybindings import portable_lib

    def make(path: Path) -> None:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from executorch.exir import to_edge_transform_and_lower
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        example = (torch.from_numpy(setup.case.x),)
        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(torch.export.export(setup.case.module, example).module(), quantizer)
        for batch in setup.case.batches():
            prepared(torch.from_numpy(batch))
        exported = torch.export.export(convert_pt2e(prepared), example)
        program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
        path.write_bytes(program.buffer)

    portable_lib._unsafe_reset_threadpool(setup.threads)
    program = portable_lib._load_for_executorch(str(setup.kept("int8.pte", make)))
    return _engine(lambda: program.forward((torch.from_numpy(setup.case.x),))[0].numpy())


def litert(setup: Setup) -> Engine:
    """LiteRT with XNNPACK on a file of :mod:`examples.benchmarks.export_tflite`, from codes to codes."""
    from ai_edge_litert.interpreter import Interpreter

    path = Path(os.environ["QC_TFLITE"]) / f"{setup.case.model}-b{setup.case.batch}.tflite"
    interpreter = Interpreter(str(path), num_threads=setup.threads)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = source["quantization"]
    codes = quantize(np.ascontiguousarray(setup.case.x.transpose(0, 2, 3, 1)), scale, zero, -128, 127, "int8")

    def run() -> Array:
        interpreter.set_tensor(source["index"], codes)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(result["index"]))

    def outputs() -> Array:
        scale, zero = result["quantization"]
        return (run().astype(np.float32) - zero) * scale

    return Engine(run, outputs)


ENGINES: Final[Mapping[str, Callable[[Setup], Engine]]] = {
    "ours, w8a8, codes": integers("w8a8"),
    "ours, w8a8, float in and out": floats("w8a8"),
    "ours, w4a8, codes": integers("w4a8"),
    "OpenVINO int8, NNCF": openvino("nncf"),
    "OpenVINO int8, QDQ": openvino("qdq"),
    "ONNX Runtime int8": onnx_runtime(quantized=True),
    "ExecuTorch int8": executorch,
    "LiteRT int8": litert,
    "OpenVINO fp32": openvino("float"),
    "ONNX Runtime fp32": onnx_runtime(quantized=False),
}
OURS: Final = tuple(name for name in ENGINES if name.startswith("ours"))
PEERS: Final = tuple(name for name in ENGINES if "int8" in name)
"""Those that ours is compared with."""
PACKAGES: Final = (
    "qcompiler",
    "apache-tvm",
    "torch",
    "numpy",
    "onnxruntime",
    "openvino",
    "nncf",
    "executorch",
    "ai-edge-litert",
)
