"""An artifact: a folder that appears whole or not at all, with a manifest that knows every file in it by its hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ir.errors import UsageError

__all__ = ["FORMAT", "MANIFEST", "Artifact", "check_vacant", "digest", "load", "seal", "staging"]

FORMAT = 1
MANIFEST = "manifest.json"
DIGEST_DIGITS = 16


@dataclass(frozen=True)
class Artifact:
    """What a compile left on disk: the folder, and its manifest as read from there."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The model's name, as prefix of every C symbol."""
        return str(self.manifest["name"])

    @property
    def target(self) -> str:
        """Name of the target it was compiled for."""
        return str(self.manifest["target"])

    @property
    def memory(self) -> Mapping[str, Any]:
        """Bytes of RAM: planned, measured, lower bound, budget; empty where the back end plans none."""
        return dict(self.manifest.get("memory", {}))

    @property
    def flash(self) -> Mapping[str, Any]:
        """Bytes of flash by section and place; empty likewise."""
        return dict(self.manifest.get("flash", {}))

    @property
    def verification(self) -> list[Mapping[str, Any]]:
        """The rungs of the ladder from the model that came in to the code that went out."""
        return list(self.manifest["verification"])

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.folder / "report.html"


def load(folder: Path | str) -> Artifact:
    """Open an artifact.

    Raises:
        UsageError: The folder is none, was written by another version, or its files are not those that were written.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    if manifest.get("format") != FORMAT:
        why = f"it has format {manifest.get('format')}, this version reads {FORMAT}"
        what = "the artifact was written by another version"
        raise UsageError(what, where=[str(folder)], why=why, do="compile again")
    if changed := _changed(folder, manifest):
        raise UsageError("files of the artifact were added, changed or removed", where=changed, do="compile again")
    return Artifact(folder, manifest)


def seal(folder: Path, manifest: Mapping[str, Any]) -> Artifact:
    """Write the manifest, with the hash of every file that lies in the folder by now; the last step of a compile."""
    whole = {"format": FORMAT, **manifest, "files": _hashes(folder)}
    (folder / MANIFEST).write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Artifact(folder, whole)


def digest(data: bytes) -> str:
    """Short name of some bytes, to tell whether others are the same: the first 64 bits of their SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]


def check_vacant(out: Path) -> None:
    """Refuse a place where writing an artifact would destroy something that is not an untouched artifact."""
    if not out.exists() and not out.is_symlink():
        return
    do = "choose another folder, or remove it yourself"
    if not out.is_dir() or out.is_symlink():
        raise UsageError("the output is not a folder", where=[str(out)], do=do)
    if not any(out.iterdir()):
        return
    if not (out / MANIFEST).is_file():
        raise UsageError("the output folder holds other files than an artifact", where=[str(out)], do=do)
    if changed := _changed(out, _manifest(out)):
        raise UsageError("the output folder holds an artifact that was changed by hand", where=changed, do=do)


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its place when the block ends well, and vanishes when it does not.

    An artifact that lay there before is kept until the new one is complete.

    Raises:
        UsageError: `out` holds something that is not an untouched artifact.
    """
    out = out.absolute()
    check_vacant(out)
    made = _make_folders(out.parent)
    stage = out.parent / f".{out.name}.{os.getpid()}.new"
    shutil.rmtree(stage, ignore_errors=True)
    try:
        _make_stage(stage)
        yield stage
        check_vacant(out)
        _swap(stage, out)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # somebody else found a use for it meanwhile
                folder.rmdir()
        raise


def _make_stage(stage: Path) -> None:
    try:
        stage.mkdir()
    except OSError as error:
        raise UsageError("the output folder cannot be made", where=[str(stage.parent)], why=str(error)) from error


def _swap(stage: Path, out: Path) -> None:
    """Move `stage` to `out`; what lay there goes only when that worked."""
    if not out.exists():
        stage.rename(out)
        return
    old = stage.with_suffix(".old")
    out.rename(old)
    try:
        stage.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder with its parents; those that were missing, the deepest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("the output folder cannot be made", where=[str(folder)], why=str(error)) from error
    return missing


def _manifest(folder: Path) -> dict[str, Any]:
    """The parsed manifest of an artifact."""
    path = folder / MANIFEST
    if not path.is_file():
        do = "give a folder that `edgesmith compile` wrote"
        raise UsageError("not an artifact: there is no manifest.json", where=[str(folder)], do=do)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError("manifest.json cannot be read", where=[str(path)], why=str(error)) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise UsageError("manifest.json is not that of an artifact", where=[str(path)], do="compile again")
    return manifest


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path, of every file but the manifest."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _changed(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Files that are not as the manifest has them."""
    recorded, found = manifest["files"], _hashes(folder)
    return sorted(path for path in {*recorded, *found} if recorded.get(path) != found.get(path))
