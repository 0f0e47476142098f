"""emx-onnx-cgen, which makes C of ONNX files, as a peer on whole models: our compiler, our emulator, output checked.

Run `python -m edgesmith.benchmarks.emx PROGRAM MODEL.onnx ...`, where PROGRAM is its command, best installed by pip in
an environment of its own. It keeps every intermediate value on the stack: what it needs is painted on a Cortex-M7 to
which 48 MiB of RAM are given, and reported beside the executed instructions of its single-precision code.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import edgesmith
from edgesmith.benchmarks.kernels import HERE, KERNELS
from edgesmith.lowering.c import toolchain
from edgesmith.runtimes import ort
from edgesmith.runtimes.machine import Machine
from edgesmith.targets import Target, get

LIBRARY = """\
#include "float.h"
#include "memory.h"
float expf(float x) { return es_expf(x); }
float erff(float x) { return es_erff(x); }
float sqrtf(float x) { return __builtin_sqrtf(x); }
float fmaxf(float a, float b) { return a > b ? a : b; }
float fminf(float a, float b) { return a < b ? a : b; }
"""
"""The mathematics that a C library would bring: ours, as a compiler for bare metal has none."""

HEADERS = {
    "math.h": "float expf(float); float erff(float); float sqrtf(float); float fmaxf(float, float);\n"
    "float fminf(float, float);\n#define INFINITY __builtin_inff()\n#define NAN __builtin_nanf(\"\")\n",
    "string.h": "#include <stddef.h>\nvoid *memcpy(void *, const void *, size_t);\n"
    "void *memset(void *, int, size_t);\n",
    "stdio.h": "", "stdlib.h": "",
}  # fmt: skip
RAM, STACK, FLASH = 48 << 20, 40 << 20, 16 << 20


def roomy(folder: Path) -> Target:
    """The Cortex-M7 with memory for anything."""
    text = (HERE.parent / "targets" / "stm32f746.toml").read_text(encoding="utf-8")
    for small, large in (("size = 262_144", f"size = {RAM}"), ("size = 1_048_576", f"size = {FLASH}")):
        assert text.count(small) == 1
        text = text.replace(small, large)
    path = folder / "roomy.toml"
    path.write_text(text, encoding="utf-8")
    return get(str(path))


def plain(model: Path, out: Path) -> Path:
    """The model with its constant parts computed: the peer wants sizes that no operator makes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return out


def compiled(program: str, model: Path, target: Target, folder: Path) -> Path:
    """The peer's C of a model, linked with the little that it calls."""
    made, library, headers = folder / "peer.c", folder / "library.c", folder / "headers"
    options = ("--large-weight-threshold", "0", "--large-temp-threshold", str(RAM), "--no-restrict-arrays")
    command = [program, "compile", *options, "--model-name", "peer", str(plain(model, folder / "plain.onnx"))]
    subprocess.run([*command, str(made)], check=True, capture_output=True)
    library.write_text(LIBRARY)
    headers.mkdir()
    for name, text in HEADERS.items():
        (headers / name).write_text(text)
    flags = (f"-I{headers}", f"-I{KERNELS}", "-w")
    return toolchain.compile_elf([made, library], target, folder / "peer.elf", ["peer"], stack=STACK, flags=flags)


def measure(program: str, model: Path, folder: Path) -> tuple[int, int, int, float]:
    """Instructions of one inference, bytes of stack, bytes of code, and the largest error against ONNX Runtime."""
    target = roomy(folder)
    elf = compiled(program, model, target, folder)
    given = edgesmith.load(model).inputs[0]
    x = np.random.default_rng(0).standard_normal(given.shape).astype(np.float32)
    (outputs,) = ort.reference(model, [{given.name: x}])
    expected = next(iter(outputs.values()))
    machine = Machine(target, elf)
    source, out = machine.buffer(x.nbytes), machine.buffer(expected.nbytes)
    machine.write(source, x)
    result = machine.call("peer", source, out)
    error = float(np.abs(machine.read(out, expected.size, "float32") - expected.reshape(-1)).max())
    if error > 1e-3 * float(np.abs(expected).max()):
        raise AssertionError(f"{model.name}: the peer is off by {error:g}")
    return result.instructions, result.stack, toolchain.section_sizes(elf, target).code, error


def report(program: str, models: Sequence[Path]) -> None:
    """Print one line per model."""
    print(f"{'emx-onnx-cgen, float32':28}{'M instructions':>16}{'stack, KiB':>12}{'code, KiB':>11}{'error':>10}")
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            count, stack, code, error = measure(program, model, Path(folder))
        print(f"{model.stem:28}{count / 1e6:16.1f}{stack / 1024:12,.0f}{code / 1024:11.1f}{error:10.1e}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("models", nargs="+", type=Path)
    options = parser.parse_args()
    report(options.program, options.models)
