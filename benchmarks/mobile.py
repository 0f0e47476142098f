"""Phones: operators, latency and cost of conversion, ours beside what the best converter makes of the same model.

Run `python benchmarks/mobile.py [sections...] --peers FOLDER` with the extras `train`, `coreml`, `tflite` and `tvm`
installed. FOLDER is where the peers' files are, or are made at first use (see benchmarks/peers.py: hours and 7 GB);
without it, ours is held against the goals and the raw model alone. Every section is a process of its own.

Models come from timm with weights drawn anew, the latencies from `edgesmith.bench`: two contenders take turns on the
same inputs with one thread, and the figure is the ratio of their median CPU times. Below 1, ours is faster.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import peers
from rich.console import Console
from rich.table import Table
from spending import spend

import edgesmith

CORPUS = Path(__file__).resolve().parent.parent / "tests" / "corpus"
sys.path.insert(0, str(CORPUS))

COREML = {"efficientformer_l1": 140, "vit_tiny_patch16_224": 200, "efficientformerv2_s0": 190, "repvit_m1_0": 199,
          "fastvit_t8": 87, "mobileone_s1": 90}  # fmt: skip
STRAYS = ("batch_norm", "erf", "shape", "gather")
TFLITE = {"efficientformer_l1": 160, "vit_tiny_patch16_224": 400}
LITERT = ("efficientformer_l1", "vit_tiny_patch16_224", "efficientformerv2_s0", "mobilevit_xxs", "repvit_m0_9")
ORT = (*LITERT, "deit_tiny_patch16_224", "poolformer_s12", "levit_128s", "mobilenetv4_conv_small", "mobileone_s0")
TVM = ("vit_tiny_patch16_224",)
COST = {"vit_tiny_patch16_224": (5, None), "vit_base_patch16_224": (60, 4096)}
"""CPU seconds and MiB that a conversion may take at most."""

TARGETS = {"coreml": "iphone13", "tflite": "android", "tvm": "tvm-cpu", "onnx": "onnx"}


@dataclass(frozen=True)
class Figure:
    """One number of the table.

    Attributes:
        model: Its name in timm.
        what: What is counted, or whose time is divided by whose.
        value: The number; None where it could not be had.
        most: The goal: it should not be above this.
        least: Likewise below this.
        note: What else belongs to it: both times, the interval, or why there is none.
    """

    model: str
    what: str
    value: float | None
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the goal is reached; nothing where there is no goal or no number."""
        if self.value is None or (self.most is None and self.least is None):
            return ""
        high = self.most is not None and self.value > self.most
        low = self.least is not None and self.value < self.least
        return "missed" if high or low else "reached"

    @property
    def goal(self) -> str:
        """The goal in words."""
        return f"<= {self.most:g}" if self.most is not None else f">= {self.least:g}" if self.least is not None else ""


@dataclass(frozen=True)
class Bench:
    """What every section is given: a folder for our artifacts, the peers' folder, rounds and minutes to spend."""

    work: Path
    folder: Path | None
    rounds: int
    tune: int

    def ours(self, name: str, target: str, dtype: str | None = None, **options: Any) -> Path:
        """Compile a model; the artifact's folder."""
        case = exported(name)
        out = self.work / "-".join((name, target, dtype or "", *options.values()))
        if not out.exists():
            data = {edgesmith.load(case.model).inputs[0].name: samples(case.x.shape, 1)}
            edgesmith.compile(case.model, target, out=out, dtype=dtype, calibration=data, **options)
        return out

    def theirs(self, tool: str, name: str) -> peers.Made:
        """A peer's file of the same model."""
        if self.folder is None:
            return peers.Made(None, "no --peers folder is given")
        return peers.make(tool, name, exported(name).model, self.folder)

    def ratio(self, model: str, what: str, one: Path, other: Path, most: float | None = None) -> Figure:
        """Median CPU time of one over the other's, interleaved."""
        found = edgesmith.bench(one, runs=self.rounds, vs=other)
        ratio, (first, second) = found.ratios["cpu"], found.sides
        assert first.cpu_ms and second.cpu_ms
        note = f"{first.cpu_ms.median:.2f} / {second.cpu_ms.median:.2f} ms, 95 % in {ratio.low:.3f} to {ratio.high:.3f}"
        return Figure(model, what, ratio.value, most, note=note)


def exported(name: str) -> Any:
    """The case of the corpus: file, picture and answer."""
    import timm_corpus

    return timm_corpus.export(name, "legacy")


def samples(shape: tuple[int, ...], seed: int, count: int = 8) -> np.ndarray:
    """Pictures [count, C, H, W]."""
    from woken_timm import pictures

    return np.asarray(pictures(count, shape[1], shape[2], seed))


def counts(bench: Bench) -> Iterator[Figure]:
    """Operators of the emitted files, constants apart."""
    from edgesmith.runtimes import litert_file
    from edgesmith.runtimes.mlprogram import package

    for name, most in COREML.items():
        program = package.read(bench.ours(name, "iphone15") / "model.mlpackage")
        found = program.counts()
        yield Figure(name, "Core ML operations, float16", sum(found.values()), most)
        strays = sum(number for kind, number in found.items() if kind.startswith(STRAYS))
        yield Figure(name, "of them stray", strays, 0)
        yield counted(name, "onnxsim --emit-coreml", bench, lambda path: sum(package.read(path).counts().values()))
    for name, most in TFLITE.items():
        path = bench.ours(name, "android") / "model.tflite"
        yield Figure(name, "TFLite operators", len(litert_file.read(path).operators), most)
        for tool in ("onnx2tf", "litert_torch"):
            yield counted(name, tool, bench, lambda path: len(litert_file.read(path).operators))


def counted(name: str, tool: str, bench: Bench, count: Callable[[Path], int]) -> Figure:
    """Operators in a peer's file."""
    made = bench.theirs("onnxsim_coreml" if "coreml" in tool else tool, name)
    return Figure(name, f"of {tool}", None if made.path is None else count(made.path), note=made.why)


def litert(bench: Bench) -> Iterator[Figure]:
    """TFLite files on LiteRT with XNNPACK: float32 against converters, then our own arithmetics against each other."""
    yield from against(bench, LITERT, "android", ("onnx2tf", "litert_torch"), worst=1.0, mean=0.97)
    for name in LITERT:
        floats, dynamic = bench.ours(name, "android"), bench.ours(name, "android", "dynamic")
        yield bench.ratio(name, "dynamic int8 / float32", dynamic, floats, 0.45)
        mixed = bench.ours(name, "android", "int8")
        yield bench.ratio(name, "int8 / dynamic int8", mixed, dynamic, 1.0)
        yield Figure(name, "int8: cosine with float, held-out pictures", agreement(mixed, name), least=0.99)


def onnx(bench: Bench) -> Iterator[Figure]:
    """Optimised ONNX on ONNX Runtime, all of its own optimisations on, against the raw and the simplified model."""
    yield from against(bench, ORT, "onnx", ("raw", "onnxsim", "onnxslim"), worst=1.0, mean=0.97)


def tvm(bench: Bench) -> Iterator[Figure]:
    """TVM's machine code, out of the box and tuned, against ONNX Runtime and TVM's own untuned import."""
    import untuned

    for name in TVM:
        plain = bench.ours(name, "tvm-cpu")
        yield bench.ratio(name, "ours, not tuned / ONNX Runtime", plain, exported(name).model)
        imported = bench.work / f"{name}-untuned.so"
        untuned.build(exported(name).model, imported)
        yield bench.ratio(name, "ours, not tuned / TVM's import, not tuned", plain, imported, 1 / 8)
        if bench.tune:
            tuned = bench.ours(name, "tvm-cpu", tune=str(bench.tune))
            yield bench.ratio(name, f"ours, tuned {bench.tune} minutes / ONNX Runtime", tuned, exported(name).model, 2)


def against(bench: Bench, names: Iterable[str], target: str, tools: tuple[str, ...], worst: float,
            mean: float) -> Iterator[Figure]:  # fmt: skip
    """Ours against each peer, the best of them per model, and the mean of that."""
    best = {}
    for name in names:
        ratios = []
        for tool in tools:
            made = peers.Made(exported(name).model) if tool == "raw" else bench.theirs(tool, name)
            if made.path is None:
                yield Figure(name, f"ours / {tool}", None, note=made.why)
                continue
            ours = bench.ours(name, target)
            try:
                figure = bench.ratio(name, f"ours / {tool}", ours, made.path)
            except edgesmith.EdgesmithError as error:
                yield Figure(name, f"ours / {tool}", None, note=str(error).splitlines()[0])
                continue
            yield figure
            ratios.append(figure.value or 0.0)
        if ratios:
            best[name] = max(ratios)
            yield Figure(name, "ours / best", best[name], worst)
    if best:
        yield Figure("all", "ours / best, geometric mean", float(np.exp(np.mean(np.log(list(best.values()))))), mean)


def agreement(artifact: Path, name: str) -> float:
    """Mean cosine of outputs with ONNX Runtime's on pictures that calibration did not see."""
    from edgesmith.runtimes import ort

    case = exported(name)
    held_out = samples(case.x.shape, 2)
    got = next(iter(edgesmith.run(artifact, inputs=held_out, runs=len(held_out)).outputs.values()))
    name = edgesmith.load(case.model).inputs[0].name
    wanted = [next(iter(one.values())) for one in ort.reference(case.model, [{name: x[None]} for x in held_out])]
    a, b = got.reshape(len(got), -1), np.stack(wanted).reshape(len(got), -1)
    return float(np.mean((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def cost(bench: Bench) -> Iterator[Figure]:
    """CPU seconds and peak memory of the whole `edgesmith compile` process."""
    for name, (seconds, mebibytes) in COST.items():
        for backend, target in TARGETS.items():
            out = bench.work / f"cost-{name}-{target}"
            command = [sys.executable, "-m", "edgesmith", "compile", str(exported(name).model), "--target", target]
            spent = spend([*command, "--no-check", "--json", "-o", str(out)])
            if spent.code:
                yield Figure(name, f"{backend}: CPU seconds", None, seconds, note=f"exit code {spent.code}")
                continue
            yield Figure(name, f"{backend}: CPU seconds", spent.seconds, seconds)
            yield Figure(name, f"{backend}: peak memory, MiB", spent.mebibytes, mebibytes)


SECTIONS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "counts": counts, "litert": litert, "onnx": onnx, "tvm": tvm, "cost": cost,
}  # fmt: skip


def show(title: str, figures: Iterable[Figure]) -> None:
    """The table for people."""
    table = Table(title=title)
    for head in ("model", "what", "figure", "goal", "", "more"):
        table.add_column(head, overflow="fold")
    for each in figures:
        value = "-" if each.value is None else f"{each.value:.4g}"
        colour = {"missed": "red", "reached": "green"}.get(each.verdict, "default")
        table.add_row(each.model, each.what, value, each.goal, f"[{colour}]{each.verdict}[/]", each.note)
    Console(width=150).print(table)


@click.command(help=__doc__)
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)))
@click.option("--peers", "folder", type=click.Path(path_type=Path), help="Where the peers' files are or shall be.")
@click.option("--rounds", default=30, show_default=True, help="Of each pair that is timed.")
@click.option("--tune", default=0, show_default=True, help="Minutes that TVM's schedules are searched.")
@click.option("--save", type=click.Path(path_type=Path), help="Add every figure to this file, a JSON object a line.")
def main(sections: tuple[str, ...], folder: Path | None, rounds: int, tune: int, save: Path | None) -> None:
    """Measure the sections named, or all, each in a process of its own: the vendors' libraries do not like company."""
    if len(sections) != 1:
        for section in sections or SECTIONS:
            subprocess.run([sys.executable, __file__, section, *sys.argv[1 + len(sections) :]], check=False)
        return
    console = Console(stderr=True)
    figures = []
    with tempfile.TemporaryDirectory() as work:
        for figure in SECTIONS[sections[0]](Bench(Path(work), folder, rounds, tune)):
            figures.append(figure)
            console.print(f"{figure.model}: {figure.what}: {figure.value} {figure.verdict}", highlight=False)
            if save:
                with save.open("a", encoding="utf-8") as file:
                    print(json.dumps({"section": sections[0], **asdict(figure)}), file=file)
    show(str(SECTIONS[sections[0]].__doc__), figures)


if __name__ == "__main__":
    main()
