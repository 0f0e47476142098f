"""Our kernels beside CMSIS-NN's: instructions of the same work on the same emulated cores, by the same compiler.

Run `python -m edgesmith.benchmarks.mcu --cmsis FOLDER [--target stm32f746 ...] [--only TEXT] [--save FILE]`. Every
result is compared with numpy before its instructions count. Without the folder of CMSIS-NN's sources, figures counted
elsewhere stand in, marked with an asterisk. `--models` adds whole transformers, as benchmarks/deployment.py has them,
and `--emx PROGRAM` the same through emx-onnx-cgen (benchmarks/emx.py).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgesmith.benchmarks import cmsis
from edgesmith.benchmarks.kernels import HERE, KERNELS, run
from edgesmith.benchmarks.mcu_cases import Contest, contests
from edgesmith.lowering.c import toolchain
from edgesmith.runtimes import isa
from edgesmith.runtimes.machine import Machine
from edgesmith.runtimes.qemu_call import Caller
from edgesmith.targets import Target, get

MODELS = ("vit_xs", "vit_mcu")
TARGETS = ["stm32f746", "stm32f427", "stm32f207", "corstone300", "esp32c3"]

CONVOLUTIONS = 1.4
"""How many times fewer instructions a convolution is to take than CMSIS-NN's."""


@dataclass(frozen=True)
class Line:
    """One kernel on one core: instructions per unit of work, and what was aimed for (None where nothing was).

    `counted`: whether the peer's figure comes from this run, not from the published table.
    """

    name: str
    unit: str
    target: str
    ours: float
    peer: float | None
    counted: bool
    goal: float | None

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached, None where there is none."""
        return None if self.goal is None else self.ours <= self.goal


def machine(
    target: Target, sources: Sequence[Path], entries: Sequence[str], flags: Sequence[str], folder: Path
) -> Machine | Caller:
    """Functions on an emulated core: in QEMU where no other emulator knows it."""
    if not isa.knows(target):
        return Caller(target, sources, entries, flags)
    elf = folder / f"{Path(sources[0]).stem}.elf"
    return Machine(target, toolchain.compile_elf(sources, target, elf, entries, flags=flags))


def lines(target: Target, found: list[Contest], sources: Path | None, folder: Path) -> Iterator[Line]:
    """Measure every contest on one core."""
    written = folder / "literal.c"
    written.write_text('#include "kernels.h"\n' + "".join(dict.fromkeys(contest.text for contest in found)))
    entries = sorted({contest.ours.function for contest in found})
    flags = (f"-I{KERNELS}", "-Wno-missing-prototypes")
    ours = machine(target, [HERE / "kernels.c", written], entries, flags, folder)
    counted = cmsis.available(sources) and target.core.zig_target.startswith("thumb")
    files = cmsis.files(sources, folder) if sources and counted else None
    peer = machine(target, *files, folder) if files else None
    published = cmsis.COUNTED.get(target.core.name, {})
    for contest in found:
        case = contest.ours
        mine = run(ours, case) / case.work
        theirs = published.get(case.name)
        if peer and contest.peer is not None:
            theirs = run(peer, contest.peer) / contest.peer.work
        goal = contest.goals.get(target.core.name)
        if goal is None and contest.convolution and theirs is not None:
            goal = theirs / CONVOLUTIONS
        yield Line(case.name, case.unit, target.name, mine, theirs, counted and contest.peer is not None, goal)


def show(line: Line) -> str:
    """One row of the table."""
    peer = "-" if line.peer is None else f"{line.peer:.3f}" + ("" if line.counted else "*")
    ratio = "-" if line.peer is None else f"{line.peer / line.ours:.2f}"
    goal = "-" if line.goal is None else f"{line.goal:.3f}"
    verdict = {None: "", True: "yes", False: "NO"}[line.met]
    name = f"{line.name} / {line.unit}"
    return f"{line.target:12}{name:44}{line.ours:10.3f}{peer:>12}{ratio:>8}{goal:>10}  {verdict}"


def main() -> None:
    """Print the table; keep it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", nargs="+", default=TARGETS)
    parser.add_argument("--cmsis", type=Path, help="folder of CMSIS-NN's sources")
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--models", action="store_true", help="compile and run whole models too (needs timm)")
    parser.add_argument("--emx", metavar="PROGRAM", help="emx-onnx-cgen's command, to run on the same models")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", type=Path, help="file to keep the figures in")
    options = parser.parse_args()
    if options.cmsis and not cmsis.available(options.cmsis):
        parser.error(f"{options.cmsis} holds no sources of CMSIS-NN")
    found = [contest for contest in contests() if options.only in contest.ours.name]
    measured: list[Line] = []
    if not options.json:
        head = f"{'core':12}{'kernel / unit':44}{'ours':>10}{'CMSIS-NN':>12}{'ratio':>8}{'goal':>10}"
        print(f"Executed instructions per unit of work; * counted elsewhere\n{head}  met")
    for name in options.target:
        with tempfile.TemporaryDirectory() as folder:
            for line in lines(get(name), found, options.cmsis, Path(folder)):
                measured.append(line)
                if not options.json:
                    print(show(line), flush=True)
    text = json.dumps([{**asdict(line), "met": line.met} for line in measured], indent=1)
    if options.json:
        print(text)
    if options.save:
        options.save.write_text(text + "\n")
    if options.models:
        whole_models(options.emx)


def whole_models(program: str | None) -> None:
    """Two transformers compiled and emulated, and the same by a peer's program where one is given."""
    from edgesmith.benchmarks import deployment, emx

    deployment.main(list(MODELS))
    if program:
        import timm_corpus  # deployment has made the corpus importable

        emx.report(program, [timm_corpus.export(name).model for name in MODELS])


if __name__ == "__main__":
    main()
