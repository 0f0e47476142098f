"""The compilers that know our targets, and a probe that believes what they make of code, not only what they claim."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...ir.errors import BudgetError, MachineError, UsageError
from ...targets import Target
from .. import zig

__all__ = ["CHOICE", "Compiler", "chosen", "find", "probe", "run"]

CHOICE = "EDGESMITH_COMPILER"
"""The environment variable that names the compiler for devices: zig, gcc, or the path of a GCC."""

GCC = {
    "thumb": ("arm-none-eabi-gcc", "gcc-arm-none-eabi"),
    "riscv32": ("riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf"),
}
"""GCC's command and its Debian package, by the architecture that zig's target begins with."""

EVIDENCE = {
    "fpu": ("__ARM_FP", "float es_fpu(float a, float b) { return a * b; }", r"\bvmul\.f32\b"),
    "dsp": (
        "__ARM_FEATURE_DSP",
        "#include <arm_acle.h>\nint es_dsp(int a, int b, int c) { return __smlad(a, b, c); }",
        r"\bsmlad\b",
    ),
    "mve": (
        "__ARM_FEATURE_MVE",
        "#include <arm_mve.h>\nint es_mve(int s, int8x16_t a, int8x16_t b) { return vmladavaq_s8(s, a, b); }",
        r"\bvmla(da)?va\.s8\b",
    ),
    "mul": ("__riscv_mul", "int es_mul(int a, int b) { return a * b; }", r"\bmul\b"),
}
"""By feature: the macro that announces it, code that needs it, and the instruction which that code has to become."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler: the start of its command line and the dialect of its flags ("zig" or "gcc")."""

    name: str
    command: tuple[str, ...]

    def target_flags(self, target: Target) -> tuple[str, ...]:
        """Flags that select the target's core, spelled for this compiler."""
        if self.name == "zig":
            return ("-target", target.core.zig_target, f"-mcpu={target.core.zig_cpu}")
        return target.core.gcc_flags

    def library_flags(self, target: Target) -> tuple[str, ...]:
        """What to link of the compiler's own functions: nothing, but where the core cannot multiply or divide."""
        if "soft" not in target.core.features:
            return ("-nostdlib",)
        return () if self.name == "zig" else ("-nostdlib", "-lgcc")


def find(target: Target | None = None, name: str = "") -> Compiler:
    """The compiler for a target: the one named, else the one that `$EDGESMITH_COMPILER` names, else zig.

    Without a target it is for this computer, and always zig.

    Raises:
        MachineError: It is not installed; says what to install.
        UsageError: There is no such compiler.
    """
    name = name or os.environ.get(CHOICE, "") or "zig"
    if name == "zig" or target is None:
        return Compiler("zig", zig.command())
    if name != "gcc":
        path = shutil.which(name)
        if path is None:
            raise UsageError(f"there is no compiler '{name}'", do="name zig, gcc or the path of a GCC")
        return Compiler("gcc", (path,))
    command, package = GCC[target.core.zig_target.partition("-")[0]]
    path = shutil.which(command)
    if path is None:
        raise MachineError(f"{command} is not on the path", do=f"apt install {package}")
    return Compiler("gcc", (path,))


@contextmanager
def chosen(name: str) -> Iterator[None]:
    """Let `find` take the compiler of this name for the block, and for the processes that it starts."""
    before = os.environ.get(CHOICE)
    os.environ[CHOICE] = name
    try:
        yield
    finally:
        os.environ.pop(CHOICE)
        os.environ.update({CHOICE: before} if before is not None else {})


def run(command: Sequence[str], *, what: str, where: Iterable[Path] = ()) -> str:
    """Run a compiler with its caches in our own folder; its standard output. Raises what its messages mean."""
    done = subprocess.run(command, capture_output=True, text=True, env=zig.environment(), check=False)
    if done.returncode == 0:
        return done.stdout
    lines = [line for line in done.stderr.splitlines() if re.search(r"error|undefined|overflowed|will not fit", line)]
    _raise_overflow(lines)
    undefined = sorted(set(re.findall(r"undefined (?:symbol: |reference to [`'])([\w.]+)", done.stderr)))
    do = "software arithmetic was asked for: use integers only" if any("aeabi" in name for name in undefined) else ""
    why = "\n".join(lines[:12]) or done.stderr[-2000:] or f"exit status {done.returncode}"
    raise MachineError(what, where=[*undefined, *map(str, where)], why=why, do=do)


def _raise_overflow(lines: Iterable[str]) -> None:
    """Raise the region that overflowed with the linker's figure, the only one that counts padding."""
    found = [re.search(r"region [`'](\w+)'?.*?overflowed by (\d+) bytes", line) for line in lines]
    # lld reports each section that ends outside: the last to be placed tells what all of them lack together.
    missing = max(((int(match[2]), match[1], match.string.strip()) for match in found if match), default=None)
    if missing is not None:
        do = "a smaller model, or a device with more of it"
        raise BudgetError(f"{missing[1]} is too small by {missing[0]} bytes", why=missing[2], do=do)


def probe(target: Target, compiler: Compiler | None = None) -> dict[str, str]:
    """The macros that the compiler predefines for a target, after checking that none of its features went missing.

    `cortex_m7` without an FPU suffix, for one, means soft float to zig, and nothing else ever says so. A macro is a
    claim: each feature's own instruction has to come out as well.

    Raises:
        MachineError: A feature the target promises is off.
    """
    return dict(_probe(target, compiler or find(target)))


@cache
def _probe(target: Target, compiler: Compiler) -> tuple[tuple[str, str], ...]:
    wanted = [(feature, *EVIDENCE[feature]) for feature in target.core.features if feature in EVIDENCE]
    start = [*compiler.command, *compiler.target_flags(target), "-O2", "-ffreestanding"]
    with tempfile.TemporaryDirectory() as folder:
        source, listing = Path(folder) / "probe.c", Path(folder) / "probe.s"
        source.write_text("")
        printed = run([*start, "-dM", "-E", str(source)], what=f"{compiler.name} knows no core for {target.name}")
        macros = tuple((name, value) for name, value in re.findall(r"#define (\w+) ?(.*)", printed))
        defined = {name for name, _ in macros}
        _refuse([f"{feature} ({macro})" for feature, macro, *_ in wanted if macro not in defined], target, compiler)
        source.write_text("\n".join(code for *_, code, _ in wanted) + "\n")
        run([*start, "-S", str(source), "-o", str(listing)], what=f"{compiler.name} fails on {target.name}'s features")
        made = listing.read_text(encoding="utf-8")
    _refuse([f"{feature} (in code)" for feature, *_, needed in wanted if not re.search(needed, made)], target, compiler)
    return macros


def _refuse(missing: Sequence[str], target: Target, compiler: Compiler) -> None:
    """Raise if features are missing."""
    if missing:
        raise MachineError(
            f"{compiler.name} would build {target.name} without: {', '.join(missing)}",
            where=[" ".join(compiler.target_flags(target))],
            why="the CPU string does not switch the feature on; the code would run many times slower in silence",
            do="correct [core] in the target's file, or use a compiler version that knows these flags",
        )
