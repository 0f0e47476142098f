"""Runs libraries for 64-bit Arm in qemu: their machine code, called in order, against the numpy reference."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.interpret import run
from edgesmith.lowering.tvm import child
from edgesmith.lowering.tvm.build import symbols
from edgesmith.lowering.tvm.lower import lower
from edgesmith.lowering.tvm.machine import Machine

SHARED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tvm_libraries.py"))))
LOADER = Path(__file__).with_name("tvm_loader.c")
QEMU, LIBRARIES = "qemu-aarch64", "/usr/aarch64-linux-gnu"
CODES = {"i": 0, "u": 1, "f": 2}


def plan(program, feeds, folder):
    """What the loader reads: buffers, calls of kernels, outputs."""
    lines, number = [], {}
    known = {**program.constants, **{port.slot: feeds[port.name] for port in program.inputs}}
    for slot, buffer in program.buffers.items():
        number[slot], path, kind = len(number), "-", np.dtype(buffer.dtype)
        if slot in known:
            path = folder / slot
            path.write_bytes(np.ascontiguousarray(known[slot], kind).tobytes())
        lines.append(f"b {buffer.size} {CODES[kind.kind]} {kind.itemsize * 8} {path}")
    for call, name in zip(program.calls, symbols(program), strict=True):
        slots = (*call.operands, call.result)
        lines.append(f"c __tvm_ffi_{name} {len(slots)} {' '.join(str(number[slot]) for slot in slots)}")
    lines += [f"o {number[port.slot]} {folder / port.name}" for port in program.outputs]
    (folder / "plan").write_text("\n".join(lines) + "\n")
    return folder / "plan"


@pytest.mark.tvm
@pytest.mark.parametrize("target", ["tvm-cpu-aarch64", "tvm-cpu-android"])
def test_arm_libraries_compute_the_same(target, tmp_path):
    """Linux's C library loads the one for Android too, which asks for none of its own; Android itself is not here."""
    SHARED.needs_tvm()
    if shutil.which(QEMU) is None or not Path(LIBRARIES).is_dir():
        pytest.skip("apt install qemu-user libc6-arm64-cross")
    graph, feeds = SHARED.network()
    program = lower(graph, Machine.of(targets.get(target).format))[0]
    child.build(program, tmp_path / "model.so")
    loader = tmp_path / "loader"
    command = [*child.zig.command(), "-target", "aarch64-linux-gnu.2.28", "-O2", "-w", "-rdynamic", str(LOADER), "-o"]
    subprocess.run([*command, str(loader)], check=True, env=child.zig.environment())
    command = [QEMU, "-L", LIBRARIES, str(loader), str(tmp_path / "model.so"), str(plan(program, feeds, tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for name, wanted in run(graph, feeds).items():
        found = np.frombuffer((tmp_path / name).read_bytes(), wanted.dtype).reshape(wanted.shape)
        bound = 0 if name == "sums" else SHARED.BOUND * np.abs(wanted).max()
        assert np.abs(found - wanted).max() <= bound, name
