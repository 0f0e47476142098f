"""What works on this computer, and for what does not: why, and what to install. Plain data; printing is for others."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata

from .. import runtimes, targets
from ..ir.errors import EdgesmithError
from ..lowering.c import toolchain
from . import counting

__all__ = ["Check", "examine"]


@dataclass(frozen=True)
class Check:
    """One tool: whether it works, its version, what it is needed for, and if it does not work why and what to do."""

    name: str
    works: bool
    version: str
    needed_for: str
    why: str = ""
    do: str = ""


# (module, package as pip knows it, what for)
PACKAGES = (
    ("onnx", "onnx", "reading models"),
    ("onnxruntime", "onnxruntime", "the reference runner, evaluation of models"),
    ("networkx", "networkx", "the graph's algorithms"),
    ("ortools", "ortools", "planning memory to the proven optimum"),
    ("jinja2", "jinja2", "generating C"),
    ("ziglang", "ziglang", "compiling for devices and for this computer"),
    ("unicorn", "unicorn", "emulating Cortex-M devices"),
    ("elftools", "pyelftools", "reading linked files"),
    ("capstone", "capstone", "listing machine code, the static stack bound"),
    ("torch", "torch", "exporting models, training the sample"),
    ("timm", "timm", "real vision transformers to export"),
)

# (command, arguments that print a version, Debian package, what for)
COMMANDS = (
    ("openocd", ("--version",), "openocd", "writing firmware to boards (or pip install openocd-esp32)"),
    ("arm-none-eabi-gcc", ("--version",), "gcc-arm-none-eabi", "a second compiler for Cortex-M"),
    ("riscv64-unknown-elf-gcc", ("--version",), "gcc-riscv64-unknown-elf", "a second compiler for RISC-V"),
    ("qemu-system-arm", ("--version",), "qemu-system-arm", "emulating a Cortex-M55, and a second opinion on others"),
)


def _package(module: str, package: str, purpose: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(package, False, "", purpose, "the Python package is not installed", f"pip install {package}")
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        version = "unknown"
    return Check(package, True, version, purpose)


def _command(name: str, arguments: tuple[str, ...], package: str, purpose: str) -> Check:
    path = shutil.which(name)
    if path is None:
        return Check(name, False, "", purpose, "the command is not on the path", f"apt install {package}")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=20)
    lines = (done.stdout + done.stderr).strip().splitlines()
    why = "" if done.returncode == 0 else f"it ends with status {done.returncode}"
    return Check(name, done.returncode == 0, lines[0] if lines else "", purpose, why)


def _attempt(name: str, purpose: str, action: Callable[[], object]) -> Check:
    """A check that does the thing itself."""
    try:
        action()
    except EdgesmithError as error:
        return Check(name, False, "", purpose, f"{error.what} {error.why}".strip(), error.do)
    return Check(name, True, "", purpose)


def examine(*, build: bool = False) -> list[Check]:
    """All checks; with `build`, also compile for every target and build the emulator's counters (seconds, once)."""
    checks = [_package(*row) for row in PACKAGES] + [_command(*row) for row in COMMANDS]
    for name in runtimes.names():
        missing = runtimes.load(name).why_not()
        why = "packages it builds on are missing" if missing else ""
        purpose = "running ONNX models for comparison" if name == "ort" else "running artifacts"
        checks.append(Check(f"runner {name}", not missing, "", purpose, why, missing or ""))
    if build:
        checks.append(_attempt("native counters", "counting at full speed in the emulator", counting.library))
        for name in targets.names():
            target = targets.get(name)
            if target.core.zig_target:
                checks.append(_attempt(f"compile for {name}", "this device", partial(toolchain.probe, target)))
    return checks
