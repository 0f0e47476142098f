"""Latency models of phones: fits them to published figures, and shows how far they are off on families left out.

    python benchmarks/latency.py judge [TARGET...]     the figures in the targets' files, by fits without their family
    python benchmarks/latency.py fit TARGET...         write fitted costs and errors into the targets' files
    python benchmarks/latency.py amounts MODEL...      workload of ONNX files, or of networks of timm and torchvision

A figure is a line of a target's file: the network's name, its family, milliseconds, and its workload as `amounts`
prints it, which counts the graph in the form in which the target's back end writes it.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from edgesmith import frontend, lowering, targets
from edgesmith.ir.passes.pipelines import run_pipeline
from edgesmith.ir.passes.recognise import RECOGNISE
from edgesmith.ir.workload import AMOUNTS, workload
from edgesmith.nas.latency import PRIOR, TRUST, Fit, leave_out
from edgesmith.targets.estimate import Estimate

OUT = Console()
INTEGER_SHARE, INTEGER_TRUST = 1 / 3, 0.1
"""Int8 costs are sought around a third of the same device's float costs, more firmly: there are fewer figures."""


def models() -> list[str]:
    """Targets that have a latency model."""
    return [name for name in targets.names() if targets.get(name).estimates]


def refit(device: targets.Target) -> list[tuple[Estimate, Fit]]:
    """Fit each of a device's models anew; int8 starts from what floats cost there."""
    fits: list[tuple[Estimate, Fit]] = []
    for each in device.estimates:
        if "int8" in each.dtypes and fits:
            prior = {name: cost * INTEGER_SHARE for name, cost in fits[0][1].microseconds.items()}
            fits.append((each, leave_out(each.figures, prior, INTEGER_TRUST)))
        else:
            fits.append((each, leave_out(each.figures, PRIOR, TRUST)))
    return fits


def judge(names: Sequence[str]) -> None:
    """Print every figure beside its estimate by a fit without the network's family."""
    for name in names or models():
        for estimate, made in refit(targets.get(name)):
            table = Table("network", "family", "ms", "estimate", "error", title=f"{name}, {', '.join(estimate.dtypes)}")
            for figure, error in zip(estimate.figures, made.left_out, strict=True):
                middle = figure.milliseconds * (1 + error)
                row = (figure.model, figure.family, f"{figure.milliseconds:.2f}", f"{middle:.2f}", f"{error:+.0%}")
                table.add_row(*row)
            for figure in estimate.others:
                middle = estimate.milliseconds(dict(zip(AMOUNTS, figure.workload, strict=True)))
                error = middle / figure.milliseconds - 1
                table.add_row(
                    figure.model, "(not fitted)", f"{figure.milliseconds:.2f}", f"{middle:.2f}", f"{error:+.0%}"
                )
            OUT.print(table)
            OUT.print(summary(estimate, made))


def summary(estimate: Estimate, made: Fit) -> str:
    """What the errors come to, in words."""
    known = np.array([figure.milliseconds for figure in estimate.figures])
    rank = spearmanr(known, known * (1 + made.left_out)).statistic
    families = len({figure.family for figure in estimate.figures})
    text = (
        f"{len(known)} figures of {families} families, each left out: median error {made.median_error:.1%}, "
        f"worst {made.worst_error:.0%}, within 10 % {made.within(0.1):.0%}, within 15 % {made.within(0.15):.0%}, "
        f"Spearman {rank:.3f}"
    )
    return f"{text}; not fitted: {estimate.apart}" if estimate.apart else text


def fit(names: Sequence[str]) -> None:
    """Write costs, band and errors into the targets' files; the rest of each file stays as it is."""
    for name in names:
        path = targets.FOLDER / f"{name}.toml"
        parts = re.split(r"(?m)^(?=\[)", path.read_text(encoding="utf-8"))
        places = [place for place, part in enumerate(parts) if part.startswith("[estimate.")]
        for place, (_, made) in zip(places, refit(targets.get(name)), strict=True):
            costs = ", ".join(f"{amount} = {cost:.4g}" for amount, cost in made.microseconds.items())
            low, high = made.band
            new = {
                "microseconds": f"{{ {costs} }}",
                "low": f"{low:.2f}",
                "high": f"{high:.2f}",
                "median_error": f"{made.median_error:.3f}",
                "worst_error": f"{made.worst_error:.2f}",
            }
            for key, value in new.items():
                parts[place] = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", parts[place])
        path.write_text("".join(parts), encoding="utf-8")
    judge(names)


def amounts(names: Sequence[str]) -> None:
    """Print the workload of each network as Core ML's and as TFLite's passes leave it."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(name) if name.endswith(".onnx") else export(name, Path(folder) / "model.onnx")
            for backend, dtype in (("coreml", "float16"), ("tflite", "float32")):
                graph = frontend.imported(path)
                run_pipeline(graph, [*RECOGNISE, *lowering.load(backend).passes(dtype)])
                row = ", ".join(f"{amount:.5g}" for amount in workload(graph).values())
                OUT.print(f"{name} {backend} [{row}]", soft_wrap=True)


def export(name: str, path: Path) -> Path:
    """Write a network with random weights, its branches merged where timm can; `torchvision/NAME` is torchvision's."""
    import timm
    import torch
    import torchvision
    from timm.utils.model import reparameterize_model

    if name.startswith("torchvision/"):
        model, side = getattr(torchvision.models, name.partition("/")[2])(weights=None), 224
    else:
        model = reparameterize_model(timm.create_model(name, pretrained=False))
        config: Any = model.default_cfg
        side = config["input_size"][-1]
    with torch.inference_mode():
        torch.onnx.export(model.eval(), (torch.zeros(1, 3, side, side),), str(path), opset_version=17, dynamo=False)
    return path


def main() -> None:
    """Do what the first argument says."""
    verbs = {"judge": judge, "fit": fit, "amounts": amounts}
    if len(sys.argv) < 2 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    verbs[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    main()
