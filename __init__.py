"""edgesmith compiles ONNX vision transformers for phones and microcontrollers.

    model = edgesmith.load("model.onnx")
    artifact = edgesmith.compile(model, target="stm32f746", out="build")
    measurement = edgesmith.run(artifact, on="emulator")

Importing the package loads none of its parts; each name below brings its own when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .driver import compile, load, run
    from .driver.bench import bench
    from .driver.survey import check
    from .ir.errors import EdgesmithError
    from .ir.graph import Graph
    from .lowering.artifact import Artifact
    from .targets import Target

__version__ = "0.1.0"
__all__ = ["Artifact", "EdgesmithError", "Graph", "Target", "bench", "check", "compile", "load", "run"]

HOMES = {
    "Artifact": "lowering.artifact",
    "EdgesmithError": "ir.errors",
    "Graph": "ir.graph",
    "Target": "targets",
    "bench": "driver.bench",
    "check": "driver.survey",
    "compile": "driver",
    "load": "driver",
    "run": "driver",
}


def __getattr__(name: str) -> Any:
    """Fetch a public name from its home."""
    if name not in HOMES:
        raise AttributeError(f"module 'edgesmith' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    """Public names, for completion."""
    return [*__all__, "__version__"]
