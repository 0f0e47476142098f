"""Whole vision transformers on an emulated STM32F746, beside the figures that peers reach on the same networks.

Run `python benchmarks/deployment.py [names...]` with the extra `train` installed: it exports the models, compiles each
in a process of its own, and prints what came out next to what was aimed for. Every figure comes from the run but the
peers' and the goals, which are marked.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from spending import spend

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "corpus"))

KIB = 1024
CODE_GOAL = 40
AROUND = ("softmax", "norms", "activations", "residual sums")
AROUND_GOAL = 0.12
"""Share of instructions, at most, that is for what stands around products."""


@dataclass(frozen=True)
class Case:
    """A model, how it is compiled, and what was aimed for: KiB of RAM, M instructions, cosine.

    `external`: MiB of external flash instead of the discovery board's 16, for weights that need a larger chip.
    """

    name: str
    model: str
    stream: str
    ram: int
    instructions: float | None = None
    cosine: float | None = None
    samples: int = 4
    peer: str = ""
    external: int = 16


CASES = (
    Case(
        "vit_xs", "vit_xs", "int16", 24, 20, 0.999, 32,
        "TFLite Micro + CMSIS-NN: 89.2 KiB, 113.4 M, 238 KiB of code, cosine 0.997",
    ),
    Case("vit_mcu", "vit_mcu", "int16", 52, 115, 0.99, 32, "TFLite Micro + CMSIS-NN: 212.0 KiB, 383.5 M, 0.941-0.957"),
    Case("deit_tiny int8", "deit_tiny_patch16_224", "int8", 128),
    Case("deit_tiny int8, 104 KiB", "deit_tiny_patch16_224", "int8", 104),
    Case("deit_tiny int16", "deit_tiny_patch16_224", "int16", 152),
    Case("deit_small int8, 32 MiB QSPI", "deit_small_patch16_224", "int8", 208, external=32),
)


@dataclass(frozen=True)
class Figures:
    """What one compile gave; CPU `seconds` and `mebibytes` are those of the whole `edgesmith compile` process.

    `around`: the share of instructions for softmax, norms, activations and residual sums.
    """

    manifest: dict[str, object]
    cosine: float
    seconds: float
    mebibytes: float
    around: float


def measure(case: Case, folder: Path) -> Figures:
    """Export, compile by the command line, and compare with ONNX Runtime on inputs that calibration did not see."""
    import timm_corpus

    import edgesmith
    from edgesmith.runtimes import ort

    model = timm_corpus.export(case.model).model
    noise = np.random.default_rng(0)
    shape = edgesmith.load(model).inputs[0].shape
    arrays = noise.standard_normal((8 + case.samples, *shape)).astype(np.float32)
    np.save(folder / "calibration.npy", arrays[:8].reshape(-1, *shape[1:]))
    out = folder / "out"
    device = board(case, folder)
    command = [sys.executable, "-m", "edgesmith", "compile", str(model), "--target", device, "-o", str(out)]
    command += ["--stream", case.stream, "--ram", f"{case.ram}K", "--calibration", str(folder / "calibration.npy")]
    spent = spend(command)
    if spent.code:
        raise RuntimeError(f"{case.name}: the compile ended with exit code {spent.code}")
    held_out = arrays[8:].reshape(-1, *shape[1:])
    got = next(iter(edgesmith.run(out, on="host", inputs=held_out, runs=case.samples).outputs.values()))
    name = edgesmith.load(model).inputs[0].name
    exact = [next(iter(one.values())) for one in ort.reference(model, [{name: x[None]} for x in held_out])]
    manifest = json.loads((out / "manifest.json").read_text())
    profile = edgesmith.run(out, profile=True).profile
    assert profile is not None
    around = sum(profile["kinds"].get(kind, 0) for kind in AROUND) / profile["instructions"]
    return Figures(manifest, mean_cosine(got, np.stack(exact)), spent.seconds, spent.mebibytes, around)


def board(case: Case, folder: Path) -> str:
    """The discovery board, or a file that describes it with a larger external flash."""
    if case.external == Case.external:
        return "stm32f746"
    text = (ROOT / "targets" / "stm32f746.toml").read_text(encoding="utf-8")
    small, large = (f"size = {mib * KIB * KIB:_}" for mib in (Case.external, case.external))
    assert text.count(small) == 1
    path = folder / "stm32f746_large.toml"
    path.write_text(text.replace(small, large), encoding="utf-8")
    return str(path)


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Mean cosine of logits, sample by sample."""
    a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    return float(np.mean((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def row(case: Case, found: Figures) -> list[str]:
    """One line of the table, goals in brackets."""
    memory, flash, cost = (found.manifest[key] for key in ("memory", "columns", "cost"))
    assert isinstance(memory, dict) and isinstance(flash, dict) and isinstance(cost, dict)
    equal = memory["arena_bytes"] == memory["arena_measured"]
    instructions, macs = cost["instructions"], cost["macs"]
    return [
        case.name,
        f"{memory['total'] / KIB:.1f} (<= {case.ram})",
        f"{memory['arena_bytes']:,} {'=' if equal else '!='} {memory['arena_measured']:,}",
        f"{memory['stack_bytes']:,}",
        f"{instructions / 1e6:,.1f}" + (f" (<= {case.instructions:.0f})" if case.instructions else ""),
        f"{instructions / macs:.3f}",
        f"{found.around:.1%} (<= {AROUND_GOAL:.0%})",
        f"{flash['code_flash'] / KIB:.1f} (<= {CODE_GOAL})",
        f"{found.cosine:.5f}" + (f" (>= {case.cosine})" if case.cosine else ""),
        f"{found.seconds:.0f} s CPU, {found.mebibytes:.0f} MiB",
        case.peer,
    ]


def main(names: list[str]) -> None:
    """Measure the cases named, or all."""
    table = Table(title="STM32F746, emulated; goals in brackets", show_lines=True)
    heads = ("model", "RAM, KiB", "arena planned, painted", "stack", "M instructions", "per MAC", "around", "code, KiB")
    for head in heads:
        table.add_column(head, overflow="fold")
    for head in ("cosine of logits", "compile", "published or measured elsewhere"):
        table.add_column(head, overflow="fold")
    for case in CASES:
        if names and case.name not in names and case.model not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            table.add_row(*row(case, measure(case, Path(folder))))
    Console(width=190).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
