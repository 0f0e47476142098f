"""ML Programs (Core ML's `.mlpackage`) read and evaluated without Core ML: bytes to program, program to numbers."""

from __future__ import annotations

from .arithmetic import MODES, Mode
from .compare import Comparison, Row, compare
from .evaluator import evaluate
from .package import located, read
from .pictures import pixels
from .program import Operation, Program, TensorType

__all__ = [
    "MODES", "Comparison", "Mode", "Operation", "Program", "Row", "TensorType", "compare", "evaluate", "located",
    "pixels", "read",
]  # fmt: skip
