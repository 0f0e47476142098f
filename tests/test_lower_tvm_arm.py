"""Runs libraries for 64-bit Arm in qemu: their machine code, called in order, against the numpy reference."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Reshape, Transpose
from edgesmith.ir.ops.shift import MatShift, ShiftLinear, pack
from edgesmith.lowering.tvm import child
from edgesmith.lowering.tvm.build import symbols
from edgesmith.lowering.tvm.lower import lower
from edgesmith.lowering.tvm.machine import Machine

LOADER = Path(__file__).with_name("tvm_loader.c")
QEMU, LIBRARIES = "qemu-aarch64", "/usr/aarch64-linux-gnu"
CODES = {"i": 0, "u": 1, "f": 2}
BOUND = 1e-5


def network():
    """A little of everything: dense and depthwise convolutions, tokens, attention, shifts of both kinds."""
    graph, draw = Graph("net"), np.random.default_rng(1)

    def weight(*shape):
        return graph.constant((draw.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32))

    x = graph.input("image", Type("float32", (1, 3, 20, 20)))
    x = graph.add(Gelu(), graph.add(Conv((2, 2), (1, 1, 1, 1)), x, weight(16, 3, 3, 3), weight(16)))
    x = graph.add(Conv((1, 1), (1, 1, 1, 1), (1, 1), 16), x, weight(16, 1, 3, 3))
    x = graph.add(Transpose((0, 2, 1)), graph.add(Reshape((1, 16, 100)), x))
    y = graph.add(LayerNorm(), x, weight(16), weight(16))
    x = graph.add(Add(), graph.add(Attention(2, 0.35), *(graph.add(Linear(), y, weight(16, 16)) for _ in "qkv")), x)
    codes, scale = graph.constant(pack(2 ** draw.integers(0, 7, (24, 16)))), weight(24)
    graph.output(graph.add(MatShift(), graph.input("rows", Type("int8", (7, 16))), codes), "sums")
    x = graph.add(Mean((1,)), graph.add(ShiftLinear(), x, codes, scale))
    graph.output(graph.add(Softmax(), graph.add(Linear(), x, weight(10, 24), weight(10))), "odds")
    return graph, {"image": draw.standard_normal((1, 3, 20, 20)).astype(np.float32),
                   "rows": draw.integers(-128, 128, (7, 16)).astype(np.int8)}  # fmt: skip


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
    pytest.importorskip("tvm", reason="pip install edgesmith[tvm]")
    if shutil.which(QEMU) is None or not Path(LIBRARIES).is_dir():
        pytest.skip("apt install qemu-user libc6-arm64-cross")
    graph, feeds = network()
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
        bound = 0 if name == "sums" else BOUND * np.abs(wanted).max()
        assert np.abs(found - wanted).max() <= bound, name
