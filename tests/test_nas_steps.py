"""What a table of steps says of whole programs is what they take as compiled and emulated."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.memory import plan
from edgesmith.ir.passes.pipelines import INTEGER, run_pipeline
from edgesmith.ir.passes.quantise import QuantOptions, quantise
from edgesmith.lowering.c import toolchain
from edgesmith.lowering.c.constants import Constants
from edgesmith.lowering.c.lower import emitted, lower
from edgesmith.nas.costs import steps
from edgesmith.nas.costs.steps import StepTable, blank
from edgesmith.nas.families import assemble, parts

pytestmark = [pytest.mark.compiler, pytest.mark.emulator]

HYBRID = {
    "image": 16, "channels": 1, "classes": 10, "norm": "RepNorm", "stem": 8, "early": 16, "early_depth": 1,
    "early_ratio": (1,), "width": 32, "local_depth": 2, "local_ratio": (2, 2), "kernel": (3, 5), "depth": 2,
    "mixer": ("softmax", "none"), "heads": (2, 2), "ratio": (1, 2),
}  # fmt: skip
VIT = {
    "image": 32, "channels": 1, "classes": 10, "stem": "conv", "patch": 8, "width": 48, "depth": 3,
    "norm": "LayerNorm", "mixer": ("softmax", "pool", "softmax"), "heads": (2, 1, 2), "ratio": (2, 1, 2),
    "primitive": ("int4", "shift", "int4"),
}  # fmt: skip


def planned(family: str, genome):
    graph = assemble(family, parts(family, genome, {}))
    (image,) = graph.inputs
    data = {image.name: np.random.default_rng(1).standard_normal((2, *image.shape[1:])).astype(np.float32)}
    run_pipeline(graph, INTEGER)
    made = quantise(graph, data, QuantOptions(stream="int8"))
    return made, plan(made)


def whole(made, found, device):
    """Instructions, cycles, bound on the stack, the stack that a run touched, code: of the program itself."""
    from edgesmith.runtimes import cycles
    from edgesmith.runtimes.machine import Machine
    from edgesmith.runtimes.stack import stack_bound

    with tempfile.TemporaryDirectory() as place:
        part = lower(made, found, device, Path(place), "net", blank(made))
        sources, path = sorted((Path(place) / "src").glob("*.c")), Path(place) / "net.elf"
        toolchain.compile_elf(sources, device, path, ["net_run"])
        code, bound = toolchain.section_sizes(path, device).code, stack_bound(path, "net_run").bytes
        entries = list(part["symbols"].values())
        toolchain.compile_elf([*sources, Path(place) / part["harness"][0]], device, path, entries)
        machine = Machine(device, path)
    draw = np.random.default_rng(3)
    pointers = [machine.place(draw.integers(-90, 90, v.shape).astype(v.dtype)) for v in made.inputs]
    result = machine.call(part["symbols"]["run"], *pointers, *(machine.buffer(v.type.nbytes) for v in made.outputs))
    band = cycles.estimate(machine, result, {}).cycles if cycles.has_rules(device) else None
    return result.instructions, band, bound, result.stack, code


@pytest.mark.parametrize(
    ("family", "genome", "name"), [("hybrid", HYBRID, "stm32f411"), ("vit", VIT, "stm32f746"), ("vit", VIT, "esp32c3")]
)
def test_sums_over_steps_are_those_of_the_program(family: str, genome, name: str) -> None:
    device = targets.get(name)
    made, found = planned(family, genome)
    calls, _ = emitted(found, Constants("net"))
    said = StepTable(device).of(found, calls)
    instructions, band, bound, touched, code = whole(made, found, device)
    assert said.instructions == pytest.approx(instructions, rel=0.01)
    assert said.code == pytest.approx(code, rel=0.03)
    assert max(bound, touched) <= said.stack <= bound + 256
    assert (said.cycles is None) == (band is None)
    if band is not None:
        assert said.cycles == pytest.approx(band, rel=0.01)


def test_steps_are_measured_once_and_a_spoilt_entry_anew(tmp_path: Path, monkeypatch) -> None:
    _, found = planned("hybrid", HYBRID)
    calls, _ = emitted(found, Constants("net"))
    calls = [call for call in calls if call.group.kind == "conv"][:1]
    told: list[str] = []

    def fresh() -> StepTable:
        table = StepTable(targets.get("stm32f411"), told.append)
        monkeypatch.setitem(table.__dict__, "_folder", tmp_path)
        return table

    first = fresh().of(found, calls)
    (entry,) = tmp_path.iterdir()
    assert len(told) == 1 and fresh().of(found, calls) == first and len(told) == 1
    kept = entry.read_bytes()
    entry.write_bytes(kept[: len(kept) // 2])
    assert fresh().of(found, calls) == first and len(told) == 2 and entry.read_bytes() == kept


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    from edgesmith.ir.errors import MachineError

    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be kept"):
        steps._write(tmp_path / "file" / "entry.json", steps.StepCosts(1, None, 1, 1, 1, 1, {}))
