"""What the codes of C libraries' weights save and cost: bytes of flash, and instructions with and without a multiplier.

Run `python benchmarks/codes.py MODEL.onnx [--codes int4 shift ...]`: bytes of the coded matrices with their own
metadata, and of all constants: those, biases, multipliers and tables. Nothing is compiled or run for them.
`--count TARGET` also compiles, and counts instructions on the emulated device; `--count multiplierless` on an RV32E
core with as much memory as the model takes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import edgesmith
from edgesmith import targets
from edgesmith.ir.graph import Array, Graph
from edgesmith.ir.memory import plan
from edgesmith.ir.passes.pipelines import INTEGER, run_pipeline
from edgesmith.ir.passes.quantise import QuantOptions, convert
from edgesmith.ir.passes.quantise.calibrate import Calibration, calibrate
from edgesmith.lowering.c.constants import Constants
from edgesmith.lowering.c.lower import emitted

CODES = ("int8", "int4", "shift", "ternary")
GOALS = {"int4": 0.55, "shift": 0.55}
"""Share of int8's bytes, at most."""
FASTER = 3.0
"""How many times fewer instructions shifts are to take than products where there is no multiplier."""
MULTIPLIERLESS = "multiplierless"
ROOM = 1024
"""How many times the memory of the chip a multiplier-less core is given."""


@dataclass
class Pool(Constants):
    """Constants that know which of them are matrices."""

    matrices: set[str] = field(default_factory=set)

    def matrix(self, w: Array, code: str, what: str, reads: int = 1, blocks: int = 1) -> str:
        """Keep a weight."""
        expression = super().matrix(w, code, what, reads, blocks)
        self.matrices.add(expression)
        return expression


def seen(model: Path) -> tuple[Graph, Calibration]:
    """The model ready for integers, and the ranges of one sample of noise: bytes do not depend on them."""
    graph = edgesmith.load(model)
    run_pipeline(graph, INTEGER)
    noise = np.random.default_rng(0)
    sample = {each.name: noise.standard_normal(each.shape).astype(each.dtype) for each in graph.inputs}
    return graph, calibrate(graph, sample)


def constants(graph: Graph, calibration: Calibration, code: str, stream: str) -> tuple[int, int]:
    """Bytes of coded matrices, and of all constants."""
    made = convert(graph, calibration, QuantOptions(stream=stream, code=code)).graph
    pool = Pool("k")
    emitted(plan(made, effort=0), pool)
    items = pool.items.values()
    return sum(len(item.data) for item in items if item.expression in pool.matrices), pool.nbytes


def multiplierless(folder: Path) -> str:
    """A file that describes an RV32E core with plenty of memory."""
    text = (targets.FOLDER / "ch32v003.toml").read_text(encoding="utf-8")
    for region in targets.get("ch32v003").regions:
        assert text.count(f"size = {region.size:_}") == 1
        text = text.replace(f"size = {region.size:_}", f"size = {region.size * ROOM}")
    path = folder / "rv32e.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def instructions(model: Path, target: str, code: str, stream: str) -> tuple[int, int]:
    """Of one inference on an emulated target, and the bytes of its code."""
    with tempfile.TemporaryDirectory() as folder:
        own = multiplierless(Path(folder)) if target == MULTIPLIERLESS else target
        made = edgesmith.compile(model, own, out=Path(folder) / "out", check=False, weights=code, stream=stream)
        profile = edgesmith.run(made.folder, profile=True).profile
        assert profile is not None
        return profile["instructions"], made.manifest["flash"]["code"]


def sizes(model: Path, codes: Sequence[str], stream: str) -> Table:
    """Two rows a code; goals in brackets."""
    table = Table("weights", "what", "bytes", "of int8's")
    graph, calibration = seen(model)
    first: tuple[int, int] | None = None
    for code in codes:
        found = constants(graph, calibration, code, stream)
        first = first or found
        goal = f" (<= {GOALS[code]})" if code in GOALS else ""
        for what, size, whole in zip(("matrices with their metadata", "all constants"), found, first, strict=True):
            table.add_row(code, what, f"{size:,}", f"{size / whole:.3f}{goal}")
    return table


def counts(model: Path, codes: Sequence[str], stream: str, target: str) -> Table:
    """One row a code; the goal in brackets."""
    table = Table("weights", "code, bytes", "M instructions", "int8's over these")
    first = 0
    for code in codes:
        spent, size = instructions(model, target, code, stream)
        first = first or spent
        goal = f" (>= {FASTER:.0f})" if code == "shift" and target == MULTIPLIERLESS else ""
        table.add_row(code, f"{size:,}", f"{spent / 1e6:,.1f}", f"{first / spent:.2f}{goal}")
    return table


def main() -> None:
    """Bytes; instructions where asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--codes", nargs="+", default=list(CODES[1:]), choices=CODES[1:])
    parser.add_argument("--stream", default="int8", choices=("int8", "int16"))
    parser.add_argument("--count", metavar="TARGET", help=f"count instructions too, on a device or `{MULTIPLIERLESS}`")
    options = parser.parse_args()
    codes = ("int8", *options.codes)
    Console().print(sizes(options.model, codes, options.stream))
    if options.count:
        Console().print(counts(options.model, codes, options.stream, options.count))


if __name__ == "__main__":
    main()
