"""Writes the app that measures one Core ML package on an iPhone: sources, the package, its inputs, the protocol."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import ModelError, UsageError
from .coreml import UNITS
from .mlprogram import Program, located, pixels, read

__all__ = ["BUNDLE", "Protocol", "digest", "write_benchmark"]

Array = np.ndarray[Any, np.dtype[Any]]

SOURCES = Path(__file__).parent / "swift"
BUNDLE = "org.edgesmith.benchmark"
MODEL = "model.mlpackage"
VECTORS = "vectors.npz"
OLDEST = {"CoreML5": "16.0", "CoreML6": "16.0", "CoreML7": "17.0", "CoreML8": "18.0"}
"""The system that has a program's operations; the app itself needs iOS 16."""

DTYPES = {"fp32": "float32", "fp16": "float16", "int32": "int32"}


@dataclass(frozen=True)
class Protocol:
    """How an app measures; the defaults are those of MobileOne (Vasu et al., 2022, section 4.1 and its app).

    Attributes:
        rounds: How often the model is loaded anew.
        inferences: How many are timed in each round.
        warmup: How many run before them in each round; at least one.
        dropped: How many of the fastest, and of the slowest, of a round are left out of its mean.
        units: Compute units that Core ML may use, one of `coreml.UNITS`.
    """

    rounds: int = 20
    inferences: int = 50
    warmup: int = 1
    dropped: int = 10
    units: str = "all"

    def check(self) -> None:
        """Refuse what measures nothing.

        Raises:
            UsageError: No round or inference is left.
        """
        if self.units not in UNITS:
            raise UsageError(f"there are no compute units '{self.units}'", do=f"use one of {', '.join(UNITS)}")
        if min(self.rounds, self.inferences, self.warmup) < 1 or not 0 <= 2 * self.dropped < self.inferences:
            why = f"{self.inferences} inferences, {self.dropped} dropped at either end, {self.rounds} rounds"
            raise UsageError("the protocol leaves nothing to measure", why=why)


def digest(package: Path) -> str:
    """SHA-256 over names and bytes of a package's files, so that a result is known to be of this package."""
    sum_ = hashlib.sha256()
    for file in sorted(path for path in package.rglob("*") if path.is_file()):
        data = file.read_bytes()
        sum_.update(f"{file.relative_to(package).as_posix()}\0{len(data)}\0".encode() + data)
    return sum_.hexdigest()


def write_benchmark(
    artifact: Path,
    folder: Path,
    inputs: Mapping[str, Array] | None = None,
    protocol: Protocol | None = None,
    team: str = "",
) -> Path:
    """Write a Swift package that Xcode opens as an app; the same artifact gives the same bytes.

    Args:
        artifact: Folder of an artifact for Core ML, or a bare `.mlpackage`.
        folder: The `.swiftpm` folder to make; it must not exist.
        inputs: What is fed, by input name. Without: the artifact's first sample, or else noise.
        protocol: What is measured; without, `Protocol()`.
        team: Identifier of the Apple developer team that signs the app; without, it is chosen in Xcode.

    Returns:
        The folder.

    Raises:
        UsageError: The folder exists, or the protocol measures nothing.
        ModelError: The package cannot be read, or the app has no inputs of its kinds.
    """
    protocol = protocol or Protocol()
    protocol.check()
    package = located(artifact)
    program = read(package)
    if not package.is_dir():
        raise ModelError("only packages can be measured", where=[str(package)], do="convert it to a .mlpackage")
    if folder.exists():
        raise UsageError("the app's folder exists", where=[str(folder)], do="choose another, or remove it yourself")
    feeds = inputs if inputs is not None else _sample(artifact, program)
    stored = [_stored(program, number, name, feeds) for number, name in enumerate(program.inputs)]
    stage = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(stage, ignore_errors=True)
    try:
        _write(stage, program, package, stored, protocol, team)
        stage.rename(folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return folder


def _write(
    stage: Path,
    program: Program,
    package: Path,
    stored: list[tuple[dict[str, Any], bytes]],
    protocol: Protocol,
    team: str,
) -> None:
    resources = stage / "Sources" / "Resources"
    resources.mkdir(parents=True)
    shutil.copytree(package, resources / MODEL)
    for entry, data in stored:
        (resources / entry["file"]).write_bytes(data)
    settings = {"model": MODEL, "digest": digest(package), **asdict(protocol), "inputs": [entry for entry, _ in stored]}
    (resources / "benchmark.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for source in sorted(SOURCES.glob("*.swift")):
        text = source.read_text(encoding="utf-8")
        if source.name == "Package.swift":
            words = {"@IOS@": OLDEST.get(program.opset, "18.0"), "@BUNDLE@": BUNDLE, "@TEAM@": team}
            lines = [line for line in text.splitlines(keepends=True) if team or "@TEAM@" not in line]
            text = "".join(lines)
            for word, meaning in words.items():
                text = text.replace(word, meaning)
        place = stage / source.name if source.name == "Package.swift" else stage / "Sources" / source.name
        place.write_text(text, encoding="utf-8")


def _sample(artifact: Path, program: Program) -> Mapping[str, Array]:
    """The first sample that the compile kept, or noise."""
    kept = artifact / VECTORS
    if artifact != located(artifact) and kept.is_file():
        with np.load(kept, allow_pickle=False) as file:
            return {name: file[f"in.{name}"][0] for name in program.inputs if f"in.{name}" in file}
    return {}


def _stored(program: Program, number: int, name: str, feeds: Mapping[str, Array]) -> tuple[dict[str, Any], bytes]:
    """One input as benchmark.json has it, and the bytes of its file."""
    type, feature = program.inputs[name], program.features.get(name)
    if type.shape is None or None in type.shape or type.dtype not in DTYPES:
        raise ModelError("the app feeds inputs of fixed shapes only", where=[name], why=f"it is {type}")
    shape = [size for size in type.shape if size is not None]
    entry = {"name": name, "kind": "array", "file": f"input{number}.bin", "dtype": DTYPES[type.dtype], "shape": shape}
    array = feeds[name] if name in feeds else _noise(shape, type.dtype)
    if feature is not None and feature.kind == "image":
        found = _stored_pixels(pixels(name, array, feature.colour))
        return {**entry, "kind": "image", "dtype": "uint8", "shape": list(found.shape)}, found.tobytes()
    if list(array.shape) != shape:
        raise UsageError(f"input '{name}' has shape {array.shape}, the program expects {type}")
    return entry, np.ascontiguousarray(array, np.dtype(DTYPES[type.dtype]).newbyteorder("<")).tobytes()


def _noise(shape: list[int], dtype: str) -> Array:
    """Numbers that are the same each time: whole ones for integers, standard normal ones otherwise."""
    draw = np.random.default_rng(0)
    return np.zeros(shape, np.int32) if dtype == "int32" else draw.standard_normal(shape).astype(np.float32)


def _stored_pixels(array: Array) -> Array:
    """Bytes [H, W, C] as Core Video has them: gray, or BGRA."""
    if array.shape[-1] == 1:
        return np.ascontiguousarray(array)
    opaque = np.full((*array.shape[:2], 1), 255, np.uint8)
    return np.concatenate([array[..., ::-1], opaque], -1)
