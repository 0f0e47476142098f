"""Where the instructions of a program go, by layer, kind of work, function and basic block, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import UsageError

if TYPE_CHECKING:
    from ..lowering.artifact import Artifact
    from ..runtimes import Runner

__all__ = ["profiled", "require_countable"]


def require_countable(artifact: Artifact, on: Runner) -> None:
    """Refuse to profile where nobody counts instructions.

    Raises:
        UsageError: The artifact is no C library, or the runner is not the emulator.
    """
    if artifact.manifest["backend"] != "c" or on.name != "emulator":
        what = f"the {on.name} does not count instructions"
        raise UsageError(what, do="profile a C library on the emulator; times by operator are in `edgesmith bench`")


def profiled(artifact: Artifact, stored: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The profile of one inference on the emulator, as `docs/json.md` has it."""
    from ..runtimes.emulator import Program
    from ..runtimes.profile import profile

    program = Program(artifact.folder, debug=True)
    found = profile(program, program.library.arrays(stored))
    return found.json([step["macs"] for step in artifact.manifest["steps"]])
