"""How runners read what the C back end writes: the only file that knows the manifest and the entry's signature.

`manifest.json`: {"name", "target", "inputs": [{"name", "dtype", "shape", "scale", "zero_point"}], "outputs": [alike],
"symbols": {"run", "arena", "step"?}, "harness": ["file.c"]?, "steps"?, "stack_bytes"?}. `src/` holds the
sources. The entry is `int run(const in0 *, ..., out0 *, ...)` and returns 0; a library that only takes pixels through a
callback brings an entry of that form among its harness files, all of it in section `.es_harness`, which no budget or
count includes.
`step` has two arguments more, the first and the last of the `steps` to run; those say what they leave in the arena.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import targets
from ..ir.errors import UsageError
from ..targets import Target

__all__ = ["Artifact", "Piece", "Step", "Tensor", "load", "stack_bytes"]

PLENTY = 8192


@dataclass(frozen=True)
class Tensor:
    """An input or output of the program: real = scale * (stored - zero_point); scale is None for floats."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: np.ndarray | None = None
    zero_point: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of one array."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def stored(self, array: np.ndarray) -> np.ndarray:
        """The array as the program takes it: real values are quantised (half to even), stored ones pass through."""
        if int(np.prod(array.shape)) != int(np.prod(self.shape)):
            raise UsageError("input has the wrong shape", where=[self.name], why=f"{array.shape} for {self.shape}")
        array = array.reshape(self.shape)
        if array.dtype == np.dtype(self.dtype):
            return np.ascontiguousarray(array)
        if self.scale is None or array.dtype.kind != "f":
            raise UsageError("input has the wrong type", where=[self.name], why=f"{array.dtype} for {self.dtype}")
        limits = np.iinfo(self.dtype)
        levels = np.rint(array.astype(np.float64) / self.scale) + self.zero_point
        stored: np.ndarray = np.clip(levels, limits.min, limits.max).astype(self.dtype)
        return stored

    def real(self, array: np.ndarray) -> np.ndarray:
        """Stored values as float32 real values."""
        if self.scale is None:
            return array
        real: np.ndarray = ((array.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)
        return real


@dataclass(frozen=True)
class Piece:
    """Bytes of the arena that a step makes; `digest` is that of the reference's, for the first sample kept."""

    name: str
    offset: int
    nbytes: int
    digest: str | None = None


@dataclass(frozen=True)
class Step:
    """One of the parts that a program runs in order, and the ONNX nodes it came from."""

    name: str
    kind: str
    sources: tuple[str, ...]
    outputs: tuple[Piece, ...]


@dataclass(frozen=True)
class Artifact:
    """A generated library on disk."""

    folder: Path
    name: str
    target: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    run: str
    arena: str
    sources: tuple[Path, ...]
    stack_bytes: int
    step: str = ""
    steps: tuple[Step, ...] = ()
    reads: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The inputs in the entry's order, as stored values; raises `UsageError` for missing or surplus names."""
        wanted = [tensor.name for tensor in self.inputs]
        if set(inputs) != set(wanted):
            why = f"got {', '.join(sorted(inputs)) or 'none'}"
            raise UsageError(f"{self.name} takes the inputs {', '.join(wanted)}", why=why)
        return [tensor.stored(np.asarray(inputs[tensor.name])) for tensor in self.inputs]

    def results(self, raw: list[np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Output arrays by name: as real values, and as stored."""
        pairs = list(zip(self.outputs, raw, strict=True))
        return {t.name: t.real(array) for t, array in pairs}, {t.name: array for t, array in pairs}


def load(folder: Path) -> Artifact:
    """Read a generated library's manifest."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise UsageError("not an artifact of the C back end: it has no manifest.json", where=[str(folder)])
    manifest = json.loads(path.read_text(encoding="utf-8"))
    sources = sorted((folder / "src").glob("*.c")) + [folder / name for name in manifest.get("harness", ())]
    try:
        symbols, own = manifest["symbols"], manifest.get("target_file")
        target = str(folder / own) if own else manifest["target"]
        return Artifact(
            folder, manifest["name"], target, tuple(map(_tensor, manifest["inputs"])),
            tuple(map(_tensor, manifest["outputs"])), symbols["run"], symbols["arena"], tuple(sources),
            manifest.get("stack_bytes") or stack_bytes(targets.get(target)), symbols.get("step", ""),
            tuple(map(_step, manifest.get("steps", ()))), manifest.get("reads", {}),
        )  # fmt: skip
    except KeyError as error:
        raise UsageError("manifest.json lacks a key", where=[str(path)], why=f"{error}") from error


def stack_bytes(target: Target) -> int:
    """Bytes to keep for the stack: plenty, but no more than a quarter of what a small device has."""
    return PLENTY if target.ram is None else min(PLENTY, target.ram.size // 4)


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    scale = entry.get("scale")
    array = None if scale is None else np.asarray(scale, np.float64)
    return Tensor(entry["name"], entry["dtype"], tuple(entry["shape"]), array, entry.get("zero_point") or 0)


def _step(entry: Mapping[str, Any]) -> Step:
    pieces = [
        Piece(made["name"], made["offset"], Tensor("", made["dtype"], tuple(made["shape"])).nbytes, made.get("digest"))
        for made in entry["outputs"]
    ]
    return Step(entry["name"], entry["kind"], tuple(entry["sources"]), tuple(pieces))
