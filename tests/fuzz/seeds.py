"""Small models to start from: ONNX's own cases of every operator, whole networks, and files that once broke it."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
FOUND = Path(__file__).parent / "found"
LARGEST = 700_000
"""Bytes of a seed: larger ones are slower to spoil and show nothing more."""


@cache
def seeds() -> tuple[bytes, ...]:
    """All of them, in an order that does not change."""
    sys.path.insert(0, str(TESTS / "corpus"))
    sys.path.insert(0, str(TESTS))
    from conftest import tiny_network
    from onnx_cases import cases

    models = [tiny_network(), tiny_network("batch"), *(case.model for case in cases())]
    files = [*sorted(FOUND.glob("*.onnx")), TESTS.parent / "samples" / "fashion" / "model.onnx"]
    made = [*(model.SerializeToString() for model in models), *(file.read_bytes() for file in files)]
    return tuple(content for content in made if len(content) <= LARGEST)
