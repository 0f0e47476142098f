"""Truth: outputs at every rung from the model that came in to the program that goes out, held against the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..ir.errors import ModelError
from ..ir.graph import Array

__all__ = ["Ladder", "Rung", "cosine", "top1"]

Outputs = Sequence[Mapping[str, Array]]


@dataclass(frozen=True)
class Rung:
    """One comparison.

    Attributes:
        rung: What ran.
        samples: How many inputs it saw.
        max_error: Largest absolute difference of any output element from the first rung's.
        cosine: Mean over samples of the cosine between all outputs and the first rung's.
        top1: Share of samples whose largest output is that of the first rung; None where outputs are no scores.
        equal: Whether integers equal those of the rung before bit for bit; None between rungs of real numbers.
    """

    rung: str
    samples: int
    max_error: float | None = None
    cosine: float | None = None
    top1: float | None = None
    equal: bool | None = None

    def json(self) -> dict[str, Any]:
        """The parts for a manifest."""
        return asdict(self)


@dataclass
class Ladder:
    """Rungs in order; the first to come is what all others are held against."""

    reference: Outputs = ()
    rungs: list[Rung] = field(default_factory=list)

    def climb(self, rung: str, outputs: Outputs, equal: bool | None = None) -> Rung:
        """Compare real outputs (a mapping a sample) with the reference's for as many samples as there are.

        Raises:
            ModelError: An output is NaN or infinite: nothing can be compared with it.
        """
        if broken := sorted({name for one in outputs for name, array in one.items() if not np.isfinite(array).all()}):
            do = "check the weights and the normalisation of the inputs, or choose wider numbers with --dtype"
            raise ModelError("outputs are NaN or infinite on the data given", where=broken, why=f"in: {rung}", do=do)
        if not self.rungs:
            self.reference = outputs
            self.rungs.append(Rung(rung, len(outputs)))
        else:
            pairs = [(_flat(one), _flat(other)) for one, other in zip(outputs, self.reference, strict=False)]
            largest = max(float(np.abs(one - other).max()) for one, other in pairs)
            mean = float(np.mean([cosine(one, other) for one, other in pairs]))
            self.rungs.append(Rung(rung, len(pairs), largest, mean, top1(outputs, self.reference), equal))
        return self.rungs[-1]

    def json(self) -> list[dict[str, Any]]:
        """All rungs for a manifest."""
        return [rung.json() for rung in self.rungs]


def _flat(outputs: Mapping[str, Array]) -> Array:
    return np.concatenate([np.asarray(outputs[name], np.float64).ravel() for name in sorted(outputs)])


def cosine(one: Array, other: Array) -> float:
    """Cosine of the angle between two vectors; two zero vectors agree."""
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    if not norms:
        return float(np.array_equal(one, other))
    return float(np.dot(one, other) / norms)


def top1(outputs: Outputs, reference: Outputs) -> float | None:
    """Share of samples on which the first output has the same largest element; None unless it is a vector of scores."""
    name = next(iter(reference[0]))
    shape = reference[0][name].shape
    if shape[-1:] in ((), (1,)) or shape[-1] != reference[0][name].size:
        return None
    pairs = list(zip(outputs, reference, strict=False))
    return float(np.mean([int(one[name].argmax()) == int(other[name].argmax()) for one, other in pairs]))
