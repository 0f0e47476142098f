"""Lets tests import the plain modules of this folder by their names, and skips what has no torch and timm to run on."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _needs_torch(request: pytest.FixtureRequest) -> None:
    """Skip tests marked `corpus` where the packages that make it are missing, and say which; else keep to one core."""
    if request.node.get_closest_marker("corpus"):
        missing = [name for name in ("torch", "timm", "onnxscript") if find_spec(name) is None]
        if missing:
            pytest.skip(f"needs {', '.join(missing)} (extra: train)")
        import torch

        torch.set_num_threads(1)  # its threads wait busily for each other where cores are shared
