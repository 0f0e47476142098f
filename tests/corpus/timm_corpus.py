"""Exports models that nobody here wrote to ONNX, with the answers torch gives; kept in a folder between runs.

    python tests/corpus/timm_corpus.py [--exporter legacy|dynamo] [names...]

The folder is $EDGESMITH_CORPUS, or `edgesmith/corpus` in the user's cache. Every case is three files of one stem: the
model, the golden arrays and the record.
"""

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from reference_vit import SHAPES, make_vit
from torch import Tensor, nn
from woken_timm import make_timm, pictures

Exporter = Literal["legacy", "dynamo"]

OPSETS: dict[Exporter, int] = {"legacy": 17, "dynamo": 18}
RECIPE = 1
"""To be raised with any change of weights or pictures: it outdates what is in the folder."""

TIMM = (
    "test_vit",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit_small_patch16_224",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "mobilevit_xxs",
    "mobileone_s0",
    "poolformer_s12",
    "levit_128s",
    "mobilenetv4_conv_small",
    "repvit_m0_9",
)
FAMILIES = (
    "vit_tiny_r_s16_p8_224",
    "test_vit3",
    "mobilevit_xs",
    "mobilevitv2_100",
    "fastvit_t8",
    "repvit_m1",
    "tnt_s_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "maxvit_pico_rw_256",
    "hiera_tiny_224",
    "edgenext_x_small",
    "xcit_nano_12_p16_224",
    "efficientvit_b0",
    "pvt_v2_b0",
    "convnext_atto",
    "convnextv2_atto",
    "mobilenetv3_small_050",
    "mobilenetv4_hybrid_medium",
    "eva02_tiny_patch14_224",
    "cait_xxs24_224",
    "gmlp_ti16_224",
    "swiftformer_xs",
)
"""One of each further family of blocks: windows, mask units, channels as tokens, shared keys, gates, rotations."""
NAMES = (*SHAPES, *TIMM)


@dataclass(frozen=True)
class Case:
    """One exported model; `x` and `y` are torch's input and output, each with its batch of one.

    Attributes:
        model: The ONNX file.
        x: Input, float32 [1, C, H, W].
        y: Output of torch in float32.
        exact: Output of torch in float64 on the same weights.
        record: Figures on the case: `nodes`, `operators`, `parameters`, `fp32_noise`, `y_moves`, `ort_difference` ...
    """

    model: Path
    x: np.ndarray
    y: np.ndarray
    exact: np.ndarray
    record: dict[str, Any]

    @property
    def tolerance(self) -> float:
        """Largest `relative_difference` from `y` that rounding explains."""
        return max(1e-4, 20 * self.record["fp32_noise"])


def relative_difference(value: np.ndarray, reference: np.ndarray) -> float:
    """Largest distance of two arrays in units of the reference's largest magnitude."""
    return float(np.abs(value - reference).max() / np.abs(reference).max())


def corpus_folder() -> Path:
    """Give the folder in which cases are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("EDGESMITH_CORPUS", cache / "edgesmith" / "corpus"))


def makers() -> dict[str, Any]:
    """Give what a case's weights and graph depend on besides its own options."""
    packages = ("torch", "timm", "onnx", "onnxscript")
    return {"recipe": RECIPE, **{name: version(name) for name in packages}}


def export(
    name: str,
    exporter: Exporter = "legacy",
    folder: Path | None = None,
    *,
    fused_attn: bool = False,
    reparam: bool = False,
    opset: int | None = None,
) -> Case:
    """Give the case `name`, from the folder if these versions of the packages have made it already.

    Args:
        name: One of timm's architectures, or `vit_xs` or `vit_mcu`.
        exporter: Which of torch's two exporters writes the file.
        folder: Where cases are kept; `corpus_folder()` unless told.
        fused_attn: Attention as torch's one function (timm only).
        reparam: Merge the parallel branches of training first (timm only).
        opset: Of the default domain; `OPSETS[exporter]` unless told.

    Raises:
        AssertionError: ONNX Runtime does not get torch's answer from the file: the case is no judge of anyone.
    """
    opset = opset or OPSETS[exporter]
    options = [option for option, on in (("fused", fused_attn), ("reparam", reparam)) if on]
    stem = "-".join([name, *options, f"{exporter}{opset}"])
    folder = folder or corpus_folder()
    kept = read_case(folder, stem)
    if kept is not None:
        return kept
    model, x = make_vit(name) if name in SHAPES else make_timm(name, fused_attn=fused_attn, reparam=reparam)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fresh, torch.no_grad():
        write_case(Path(fresh), stem, model, x, exporter, opset)
        for suffix in (".onnx", ".npz", ".json"):  # the record goes last: with it the case is complete
            (Path(fresh) / (stem + suffix)).replace(folder / (stem + suffix))
    case = read_case(folder, stem)
    assert case is not None
    return case


def read_case(folder: Path, stem: str) -> Case | None:
    """Give the case `stem` if the folder has it from the packages at hand, else None."""
    record_file = folder / f"{stem}.json"
    if not record_file.exists():
        return None
    record = json.loads(record_file.read_text())
    if record["made_by"] != makers():
        return None
    with np.load(folder / f"{stem}.npz") as arrays:
        return Case(folder / f"{stem}.onnx", arrays["x"], arrays["y"], arrays["exact"], record)


def write_case(folder: Path, stem: str, model: nn.Module, x: Tensor, exporter: Exporter, opset: int) -> None:
    """Export `model`, run it in torch and in ONNX Runtime, and write the three files of the case."""
    started = time.monotonic()
    path = folder / f"{stem}.onnx"
    write_onnx(model, x, path, exporter, opset)
    seconds = time.monotonic() - started
    y = model(x).numpy()
    other = model(pictures(1, x.shape[1], x.shape[2], seed=1)).numpy()
    exact = copy.deepcopy(model).train().double().eval()(x.double()).numpy()
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    record = {
        "nodes": len(proto.graph.node),
        "operators": sorted({node.op_type for node in proto.graph.node}),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "fp32_noise": relative_difference(y, exact),
        "y_moves": relative_difference(other, y),
        "ort_difference": relative_difference(run_ort(path, x.numpy()), y),
        "export_seconds": round(seconds, 1),
        "made_by": makers(),
    }
    case = Case(path, x.numpy(), y, exact, record)
    assert record["ort_difference"] <= case.tolerance, f"{stem}: ONNX Runtime is off by {record['ort_difference']:.1e}"
    np.savez(folder / f"{stem}.npz", x=case.x, y=case.y, exact=case.exact)
    (folder / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")


def write_onnx(model: nn.Module, x: Tensor, path: Path, exporter: Exporter, opset: int) -> None:
    """Write what one of torch's exporters makes of `model` at the shape of `x`, weights inside the file."""
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"], "opset_version": opset}
    if exporter == "legacy":
        torch.onnx.export(model, (x,), str(path), dynamo=False, **names)
    else:
        torch.onnx.export(model, (x,), str(path), dynamo=True, external_data=False, verbose=False, **names)


def run_ort(path: Path, x: np.ndarray) -> np.ndarray:
    """Give the first output of an ONNX file for its only input, by ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def lines(names: list[str], exporters: list[Exporter]) -> Iterator[str]:
    """Export one case after the other; yield a line of figures on each."""
    total = len(names) * len(exporters)
    for index, (exporter, name) in enumerate(((e, n) for e in exporters for n in names), 1):
        record = export(name, exporter).record
        yield (
            f"[{index:2}/{total}] {name:34} {exporter:7}"
            f"{record['nodes']:5} nodes {len(record['operators']):3} operators"
            f"{record['parameters'] / 1e6:7.2f} M parameters  noise {record['fp32_noise']:.0e}"
            f"  ort {record['ort_difference']:.0e}  moves {record['y_moves']:.2f}  {record['export_seconds']:5.1f} s"
        )


def main() -> None:
    """Fill the folder; what is there already is left as it is."""
    parser = argparse.ArgumentParser(description="Export the corpus, both exporters, into $EDGESMITH_CORPUS.")
    parser.add_argument("names", nargs="*", default=NAMES, help="architectures; default: the whole corpus")
    parser.add_argument("--exporter", choices=OPSETS, help="one of the two exporters only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"into {corpus_folder()}")
    for line in lines(list(options.names), [options.exporter] if options.exporter else list(OPSETS)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
