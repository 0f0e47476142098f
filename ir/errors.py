"""Every error a user can meet: what happened, where, why, and what to do; the exit code says whose turn it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class EdgesmithError(Exception):
    """Base of all errors that are part of the contract with the user.

    Args:
        what: One sentence: what went wrong.
        where: Names from the user's own file (ONNX nodes, tensors, paths) that it is about.
        why: The reason, when it is not plain from `what`.
        do: What the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: Iterable[str] = (), why: str = "", do: str = "") -> None:
        """Keep the four parts; the message is their sum."""
        self.what, self.where, self.why, self.do = what, tuple(where), why, do
        super().__init__(self.text())

    def text(self) -> str:
        """All parts on their own lines, the empty ones left out."""
        shown = [f"'{name}'" for name in self.where[:12]]
        if len(self.where) > 12:
            shown.append(f"and {len(self.where) - 12} more")
        lines = [self.what]
        lines += [f"  where: {', '.join(shown)}"] if shown else []
        lines += [f"  why: {self.why}"] if self.why else []
        lines += [f"  do: {self.do}"] if self.do else []
        return "\n".join(lines)

    def json(self) -> dict[str, object]:
        """The same parts for programs."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": list(self.where),
            "why": self.why,
            "do": self.do,
            "exit_code": self.exit_code,
        }


class UsageError(EdgesmithError):
    """The command line or call is wrong (exit code 2, as every shell tool has it)."""

    exit_code = 2


class ModelError(EdgesmithError):
    """The model or its calibration data cannot be used as it is: "your model" (exit code 3)."""

    exit_code = 3


class Unsupported(ModelError):  # noqa: N818  (what it says of a model, not of a failure)
    """The model is sound, but holds operators that some stage does not know; names all of them at once."""


class ShapeError(ModelError):
    """Operand types do not fit an operator."""


class BudgetError(EdgesmithError):
    """The model is fine but does not fit the target: "your budget" (exit code 4)."""

    exit_code = 4


class MachineError(EdgesmithError):
    """A tool, library or device is missing on this computer: "your machine" (exit code 5)."""

    exit_code = 5


class InternalError(EdgesmithError):
    """A stage broke one of its own promises; never the user's fault (exit code 1)."""
