"""Latency models of phones: fits them to published figures, and shows how far they are off on families left out.

    python benchmarks/latency.py judge [TARGET...]     the figures in the targets' files, by fits without their family
    python benchmarks/latency.py fit TARGET...         write fitted costs and errors into the targets' files
    python benchmarks/latency.py amounts MODEL...      workload of ONNX files, or of networks of timm and torchvision

A figure is a line of a target's file: the network's name, its family, milliseconds, and its workload as `amounts`
prints it, which counts the graph in the form in which the target's back end writes it. Targets that share networks name
a file of their workloads, in targets/workloads, and have names and milliseconds only.
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
from edgesmith.ir.workload import workload
from edgesmith.nas.latency import FEW, HEXAGON, NEURAL_ENGINE, Fit, refit
from edgesmith.targets.estimate import Errors, Estimate

OUT = Console()
ERRORS = ("low", "high", "median_error", "worst_error")


def models() -> list[str]:
    """Targets that have a latency model."""
    return [name for name in targets.names() if targets.get(name).estimates]


def judge(names: Sequence[str]) -> None:
    """Print every figure beside its estimate by a fit without the network's family, and what the errors come to."""
    for name in names or models():
        estimates = targets.get(name).estimates
        for estimate, made in zip(estimates, refit(estimates), strict=True):
            table = Table("network", "family", "ms", "estimate", "error", title=f"{name}, {', '.join(estimate.dtypes)}")
            for figure, error in zip(estimate.figures, made.left_out, strict=True):
                middle = figure.milliseconds * (1 + error)
                row = (figure.model, figure.family, f"{figure.milliseconds:.2f}", f"{middle:.2f}", f"{error:+.0%}")
                table.add_row(*row)
            OUT.print(table)
            for kind, which in kinds(estimate).items():
                OUT.print(f"{kind}: {summary(estimate, made, which)}", soft_wrap=True)


def kinds(estimate: Estimate) -> dict[str, list[bool]]:
    """Which figures are of each kind of network: all, those that attend and do not, and each use with five or more."""
    figures = estimate.figures
    found = {"all": [True] * len(figures)}
    if estimate.attending:
        found["attending"] = attending(estimate)
        found["not attending"] = [not each for each in found["attending"]]
    for use in sorted({figure.use for figure in figures} - {""}):
        which = [figure.use == use for figure in figures]
        if sum(which) >= FEW:
            found[use] = which
    return found


def attending(estimate: Estimate) -> list[bool]:
    """Which networks attend."""
    place = list(estimate.microseconds).index("attentions")
    return [figure.workload[place] > 0 for figure in estimate.figures]


def summary(estimate: Estimate, made: Fit, which: Sequence[bool]) -> str:
    """What the errors of the figures that `which` marks come to, in words."""
    figures = [figure for figure, chosen in zip(estimate.figures, which, strict=True) if chosen]
    errors = made.left_out[np.array(which)]
    known, sizes = np.array([figure.milliseconds for figure in figures]), np.abs(errors)
    return (
        f"{len(figures)} figures of {len({figure.family for figure in figures})} families, each left out: "
        f"median error {np.median(sizes):.1%}, worst {sizes.max():.0%}, within 10 % {np.mean(sizes <= 0.1):.0%}, "
        f"within 15 % {np.mean(sizes <= 0.15):.0%}, Spearman {spearmanr(known, known * (1 + errors)).statistic:.3f}"
    )


def fit(names: Sequence[str]) -> None:
    """Write costs, bands and errors into the targets' files; the rest of each file stays as it is."""
    for name in names:
        path = targets.FOLDER / f"{name}.toml"
        parts = re.split(r"(?m)^(?=\[)", path.read_text(encoding="utf-8"))
        places = [place for place, part in enumerate(parts) if part.startswith("[estimate.")]
        estimates = targets.get(name).estimates
        for place, estimate, made in zip(places, estimates, refit(estimates), strict=True):
            costs = ", ".join(f"{amount} = {cost:.4g}" for amount, cost in made.microseconds.items())
            new = {"microseconds": f"{{ {costs} }}", "errors": written(made.errors())}
            if estimate.attending:
                which = attending(estimate)
                new["errors"] = written(made.errors([not each for each in which]))
                new["attending"] = written(made.errors(which))
            for key, value in new.items():
                parts[place] = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", parts[place])
        path.write_text("".join(parts), encoding="utf-8")
    judge(names)


def written(errors: Errors) -> str:
    """As a table of TOML."""
    return "{ " + ", ".join(f"{key} = {getattr(errors, key):.3f}" for key in ERRORS) + " }"


def amounts(names: Sequence[str]) -> None:
    """Print the workload of each network as Core ML's and as TFLite's passes leave it."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(name) if name.endswith(".onnx") else export(name, Path(folder) / "model.onnx")
            for backend, dtype, costs in (("coreml", "float16", NEURAL_ENGINE), ("tflite", "float32", HEXAGON)):
                graph = frontend.imported(path)
                run_pipeline(graph, [*RECOGNISE, *lowering.load(backend).passes(dtype)])
                found = workload(graph)
                row = ", ".join(f"{found[amount]:.5g}" for amount in costs)
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
