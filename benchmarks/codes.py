"""What the codes of C libraries' weights save and cost: bytes of flash, and instructions with and without a multiplier.

Run `python benchmarks/codes.py MODEL.onnx [--target stm32f746] [--codes int4 shift ...]`. Bytes are those of all
constants of a library: weights with their multipliers for groups, biases, scales and tables. Instructions are exact;
`--multiplierless` counts them on an RV32E core with as much memory as the model takes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

import edgesmith
from edgesmith import targets

CODES = ("int8", "int4", "shift", "ternary")
GOALS = {"int4": 0.55, "shift": 0.55}
"""Share of int8's bytes, at most."""
FASTER = 3.0
"""How many times fewer instructions shifts are to take than products where there is no multiplier."""
ROOM = 1024
"""How many times the memory of the chip a multiplier-less core is given."""


def multiplierless(folder: Path) -> str:
    """A file that describes an RV32E core with plenty of memory."""
    text = (targets.FOLDER / "ch32v003.toml").read_text(encoding="utf-8")
    for region in targets.get("ch32v003").regions:
        assert text.count(f"size = {region.size:_}") == 1
        text = text.replace(f"size = {region.size:_}", f"size = {region.size * ROOM}")
    path = folder / "rv32e.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def main() -> None:
    """One row a code; goals in brackets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", default="stm32f746")
    parser.add_argument("--multiplierless", action="store_true", help="an RV32E core instead of --target")
    parser.add_argument("--codes", nargs="+", default=list(CODES[1:]), choices=CODES[1:])
    parser.add_argument("--bytes", action="store_true", help="bytes alone, without a run in the emulator")
    options = parser.parse_args()
    table = Table("weights", "constants, bytes", "of int8's", "code, bytes", "M instructions", "int8's over these")
    with tempfile.TemporaryDirectory() as folder:
        target = multiplierless(Path(folder)) if options.multiplierless else options.target
        first: tuple[int, int] | None = None
        for code in ("int8", *options.codes):
            made = edgesmith.compile(options.model, target, out=Path(folder) / code, weights=code, check=False)
            flash = made.manifest["flash"]
            profile = None if options.bytes else edgesmith.run(made.folder, profile=True).profile
            spent = profile["instructions"] if profile else 0
            first = first or (flash["weights"], spent)
            share, ratio = flash["weights"] / first[0], first[1] / spent if spent else 0.0
            goal = f" (<= {GOALS[code]})" if code in GOALS else ""
            faster = f" (>= {FASTER:.0f})" if code == "shift" and options.multiplierless else ""
            counted = [f"{spent / 1e6:,.1f}", f"{ratio:.2f}{faster}"] if spent else ["-", "-"]
            table.add_row(code, f"{flash['weights']:,}", f"{share:.3f}{goal}", f"{flash['code']:,}", *counted)
    Console().print(table)


if __name__ == "__main__":
    main()
