"""Where a program first leaves its reference: step by step, by digests of what each step leaves in the arena."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..lowering.artifact import digest
from . import emulator, host, qemu

__all__ = ["Divergence", "digests", "first"]

Program = emulator.Program | host.Program | qemu.Firmware


@dataclass(frozen=True)
class Divergence:
    """The first step whose results differ: its own inputs were right, so the fault lies in it.

    Attributes:
        step: Its number, from 0.
        name: Its name in the manifest.
        kind: "attention", "ffn", "single", ...
        sources: Names of the ONNX nodes it came from.
        values: Those of its results that differ.
    """

    step: int
    name: str
    kind: str
    sources: tuple[str, ...]
    values: tuple[str, ...]

    def __str__(self) -> str:
        """A line for people."""
        ends = dict.fromkeys((*self.sources[:1], *self.sources[-1:]))
        origin = f" (from {' to '.join(ends)})" if ends else ""
        return f"step {self.step}, {self.kind} '{self.name}'{origin}"

    def json(self) -> dict[str, Any]:
        """The parts as plain data."""
        return {key: list(part) if isinstance(part, tuple) else part for key, part in asdict(self).items()}


def first(
    program: Program, arrays: Sequence[np.ndarray], wanted: Iterable[Sequence[str | None]] | None = None
) -> Divergence | None:
    """Run a program until a step's results differ from what they should be; None when none does.

    Args:
        program: What runs.
        arrays: Its inputs as stored values, in the entry's order.
        wanted: The `digests` of another program on the same inputs. Without, those of the manifest, which hold for the
            first sample kept in the artifact. A digest of None is not compared.
    """
    steps = program.library.steps
    truth = wanted if wanted is not None else [[piece.digest for piece in step.outputs] for step in steps]
    for number, (step, found, right) in enumerate(zip(steps, digests(program, arrays), truth, strict=False)):
        pairs = zip(step.outputs, found, right, strict=True)
        values = tuple(piece.name for piece, got, known in pairs if known not in (None, got))
        if values:
            return Divergence(number, step.name, step.kind, step.sources, values)
    return None


def digests(program: Program, arrays: Sequence[np.ndarray]) -> Iterator[list[str]]:
    """Digests of all that each step makes, as the program goes along."""
    for made in program.steps(arrays):
        yield [digest(data) for data in (made[0] if isinstance(made, tuple) else made)]
