"""ML Programs (Core ML's `.mlpackage`) read and evaluated without Core ML: bytes to program, program to numbers."""

from __future__ import annotations

from .arithmetic import MODES, Mode
from .evaluator import evaluate
from .package import located, read
from .program import Operation, Program, TensorType

__all__ = ["MODES", "Mode", "Operation", "Program", "TensorType", "evaluate", "located", "read"]
