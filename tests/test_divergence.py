"""A wrong result is traced to the step that made it, on this computer and on the device; all being well, to none."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgesmith
from edgesmith import runtimes
from edgesmith.cli import console
from edgesmith.driver import execution
from edgesmith.ir.errors import InternalError
from edgesmith.lowering import artifact as artifacts
from edgesmith.lowering.c import lower
from edgesmith.lowering.c.constants import literal
from edgesmith.runtimes import divergence, host, series

pytestmark = [pytest.mark.compiler, pytest.mark.emulator]
RUNNERS = ["host", "emulator"]


@pytest.fixture(scope="module")
def sample(fashion, tmp_path_factory):
    """The trained network, whole."""
    out = tmp_path_factory.mktemp("sample") / "out"
    data = np.load(fashion / "images.npz")["images"][:4]
    return edgesmith.compile(fashion / "model.onnx", "stm32f746", out=out, calibration=data, check=False)


def heaviest(folder: Path, name: str, step: int) -> str:
    """The largest constant that this step reads and no other: its weights."""
    text = (folder / "src" / f"{name}.c").read_text()
    rows = dict(re.findall(r"_constants step_(\d+) = \{(.*?)\};", text, re.DOTALL))
    used = {int(number): set(re.findall(rf"\b({name}_k\d+)\.values", row)) for number, row in rows.items()}
    own = used.pop(step) - set().union(*used.values())
    sizes = re.findall(rf"({name}_k\d+) {{ char bytes\[(\d+)\]", (folder / "src" / f"{name}_weights.h").read_text())
    return max((int(size), constant) for constant, size in sizes if constant in own)[1]


def flip(path: Path, constant: str) -> None:
    """Turn the sign of a constant's first byte, in the C file that defines it."""
    text = path.read_text()
    start = text.index("{\n", text.index(f"union {constant} {constant} = ")) + 2
    end = text.index("};\n", start)
    data = bytearray(b"".join(ast.literal_eval(f"b{line}") for line in text[start:end].splitlines()))
    data[0] ^= 0x80
    path.write_text(text[:start] + literal(bytes(data)) + text[end:])


def tampered(artifact: artifacts.Artifact, step: int, folder: Path) -> Path:
    """A copy with one bit of a step's weights wrong, sealed anew so that nothing but a run can tell."""
    shutil.copytree(artifact.folder, folder)
    flip(folder / "src" / f"{artifact.name}_weights.c", heaviest(folder, artifact.name, step))
    artifacts.seal(folder, {key: part for key, part in artifact.manifest.items() if key not in ("format", "files")})
    return folder


def weighty(artifact: artifacts.Artifact) -> list[int]:
    """Steps with weights, of different kinds: the first, one in the middle, the last."""
    steps = [number for number, step in enumerate(artifact.manifest["steps"]) if step["macs"]]
    return [steps[0], steps[len(steps) // 2], steps[-1]]


@pytest.mark.parametrize("on", RUNNERS)
def test_an_intact_program_follows_the_reference_step_by_step(sample, on):
    program = series.program(on, sample.folder)
    kept, _ = execution.load_vectors(sample.folder)
    known = [piece.digest for step in program.library.steps for piece in step.outputs]
    assert len(known) >= len(program.library.steps) > 5 and all(known)
    assert divergence.first(program, program.library.arrays(kept[0])) is None
    assert divergence.first(program, program.library.arrays(kept[1])) is not None  # digests are of the first
    outcome = edgesmith.run(sample, on=on, runs=2, check=True)
    assert (outcome.equal, outcome.divergence, outcome.json()["divergence"]) == (2, None, None)


@pytest.mark.parametrize("which", range(3), ids=["first", "middle", "last"])
@pytest.mark.parametrize("on", RUNNERS)
def test_one_bit_of_one_weight_is_found_at_its_step(sample, on, which, tmp_path):
    step = weighty(sample)[which]
    folder = tampered(sample, step, tmp_path / "tampered")
    outcome = edgesmith.run(folder, on=on, check=True)
    assert outcome.equal == 0
    found, wanted = outcome.divergence, sample.manifest["steps"][step]
    assert (found.step, found.name, found.kind, list(found.sources)) == (
        step, wanted["name"], wanted["kind"], wanted["sources"],
    )  # fmt: skip
    assert set(found.values) <= {made["name"] for made in wanted["outputs"]} and found.values
    assert json.loads(json.dumps(outcome.json()))["divergence"]["step"] == step


def test_one_s_own_inputs_are_followed_on_both_machines(sample, fashion, tmp_path, monkeypatch):
    step = weighty(sample)[1]
    wrong, real = tampered(sample, step, tmp_path / "tampered"), series.program
    monkeypatch.setattr(series, "program", lambda on, folder: real(on, sample.folder if on == "host" else folder))
    monkeypatch.setattr(type(runtimes.load("host")), "open", lambda self, folder: host.Loaded(sample.folder))
    images = np.load(fashion / "images.npz")["images"][5:6]
    outcome = edgesmith.run(wrong, on="emulator", inputs=images, check=True)
    assert (outcome.equal, outcome.against, outcome.divergence.step) == (0, "host", step)
    with console.OUT.capture() as said:
        console.run(outcome.json())
    assert f"first to differ  step {step}," in said.get() and outcome.divergence.sources[0] in said.get()


def test_a_compile_that_fails_names_the_step(tiny, typical, tmp_path, monkeypatch):
    real = lower.lower

    def careless(graph, plan, target, folder, *rest):
        part = real(graph, plan, target, folder, *rest)
        flip(folder / "src" / "tiny_weights.c", heaviest(folder, "tiny", len(part["steps"]) - 1))
        return part

    monkeypatch.setattr(lower, "lower", careless)
    with pytest.raises(InternalError, match=r"first divergence: step \d, rows 'y' \(from head\)"):
        edgesmith.compile(tiny, "host", out=tmp_path / "out", calibration=typical)
    assert not (tmp_path / "out").exists()


def test_the_command_ends_in_an_error_when_samples_differ(sample, tmp_path):
    from click.testing import CliRunner

    from edgesmith.cli import commands

    wrong = tampered(sample, 3, tmp_path / "tampered")
    found = CliRunner().invoke(commands, ["run", str(wrong), "--on", "host", "--check"])
    assert found.exit_code == InternalError.exit_code and "different" in found.output
    assert CliRunner().invoke(commands, ["run", str(sample.folder), "--on", "host", "--check"]).exit_code == 0
