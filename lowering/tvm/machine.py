"""What a target's `format` table says of its processor: LLVM's names for it, its vectors, zig's name for linking."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...ir.errors import UsageError

__all__ = ["Machine"]

KNOWN = {"mtriple", "mcpu", "features", "zig", "threads"}
WIDTHS = {"avx512f": (16, 32), "avx2": (8, 16), "neon": (4, 32), "sse2": (4, 16)}
"""Lanes of 32 bits and number of the vector registers that a feature brings, the widest first."""

IMPLIED = {
    "x86-64-v4": "avx512f", "skylake-avx512": "avx512f", "icelake-server": "avx512f", "znver4": "avx512f",
    "x86-64-v3": "avx2", "haswell": "avx2", "skylake": "avx2", "znver2": "avx2", "znver3": "avx2",
}  # fmt: skip
"""Features of processors whose LLVM names do not say them; others need `features`."""

CACHE = 32 * 1024
"""Bytes of first-level data cache that schedules count on; every core of the last ten years has them."""


@dataclass(frozen=True)
class Machine:
    """A processor, the system it runs, and the threads that share the work of a kernel."""

    triple: str
    cpu: str = ""
    features: tuple[str, ...] = ()
    zig: str = ""
    threads: int = 1

    @classmethod
    def of(cls, format: Mapping[str, Any]) -> Machine:
        """Read a target's table: `mtriple` (required), `mcpu`, `features` ("+avx2"), `zig` (the triple), `threads` (1).

        Raises:
            UsageError: Something is missing, unknown or of the wrong type.
        """
        what = "the target's [format] does not describe a processor for the tvm back end"
        if unknown := sorted(set(format) - KNOWN):
            raise UsageError(what, why=f"unknown keys {', '.join(unknown)}", do=f"use {', '.join(sorted(KNOWN))}")
        triple, features = format.get("mtriple"), tuple(format.get("features", ()))
        if not isinstance(triple, str) or not re.fullmatch(r"\w+(-\w+){1,3}", triple):
            raise UsageError(what, why=f"mtriple is {triple!r}", do='give LLVM\'s triple, such as "x86_64-linux-gnu"')
        wrong = [each for each in features if not (isinstance(each, str) and re.fullmatch(r"[+-][\w.-]+", each))]
        if wrong:
            raise UsageError(what, why=f"features {wrong}", do='begin each with + or -, as in "+avx2"')
        found = cls(triple, str(format.get("mcpu", "")), features, str(format.get("zig", triple)))
        return found.shared(str(format.get("threads", 1)))

    def shared(self, threads: str) -> Machine:
        """The same with so many threads; raises `UsageError` for what is no number of threads."""
        if not re.fullmatch(r"[1-9]\d?", threads):
            raise UsageError(f"threads={threads} is no number of threads", do="give a number from 1 to 99")
        return dataclasses.replace(self, threads=int(threads))

    @property
    def architecture(self) -> str:
        """First part of the triple."""
        return self.triple.split("-")[0]

    @property
    def best(self) -> str:
        """The widest vector extension."""
        given = {each[1:] for each in self.features if each[0] == "+"}
        base = {"x86_64": "sse2", "aarch64": "neon"}.get(self.architecture, "")
        found = given | {base, IMPLIED.get(self.cpu, "")}
        return next((name for name in WIDTHS if name in found), "")

    @property
    def lanes(self) -> int:
        """float32 numbers in a vector register; 1 without vectors."""
        return WIDTHS[self.best][0] if self.best else 1

    @property
    def registers(self) -> int:
        """Number of vector registers."""
        return WIDTHS[self.best][1] if self.best else 16

    @property
    def link(self) -> list[str]:
        """Flags by which zig links a shared object for it; zig has no C library for Android, whose loader finds it."""
        libraries = ["-nostdlib"] if "android" in self.zig else ["-lm"]
        return ["-target", self.zig, "-shared", "-s", "-O2", *libraries]

    def tvm(self) -> dict[str, Any]:
        """TVM's description of the target."""
        known: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.cpu, "mattr": [*self.features]}
        # Else it calls the C library with floats in integer registers, whatever the triple says.
        known["mfloat-abi"] = "hard" if self.triple.endswith("hf") else ""
        return {key: value for key, value in known.items() if value}
