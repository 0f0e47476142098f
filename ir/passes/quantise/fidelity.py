"""How far an integer graph is from its float source: value by value, and at the outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ...graph import Array
from ...interpret import trace
from .convert import Quantised, cosine


@dataclass(frozen=True)
class Rung:
    """One value: its name, the integers it became, its signal-to-noise ratio in dB and its cosine; worst sample."""

    name: str
    op: str
    dtype: str
    snr: float
    cosine: float


@dataclass(frozen=True)
class Fidelity:
    """All values in order of execution, the first below the threshold, and the outputs.

    Attributes:
        rungs: One per float value that has an integer twin.
        first_below: Name of the first value whose cosine is under the threshold, or "".
        cosines: Cosine of the outputs, one per sample.
        agreement: Share of samples whose greatest output is the same.
    """

    rungs: tuple[Rung, ...]
    first_below: str
    cosines: tuple[float, ...]
    agreement: float

    @property
    def cosine(self) -> float:
        """The outputs' cosine over all samples: the mean."""
        return float(np.mean(self.cosines))

    def text(self) -> str:
        """The ladder as lines of text."""
        lines = [f"{'value':<40} {'op':<14} {'as':<6} {'SNR dB':>7} {'cosine':>9}"]
        lines += [f"{r.name[:40]:<40} {r.op:<14} {r.dtype:<6} {r.snr:7.1f} {r.cosine:9.6f}" for r in self.rungs]
        below = self.first_below or "none"
        lines.append(f"first below the threshold: {below}")
        lines.append(
            f"outputs of {len(self.cosines)} samples: cosine {self.cosine:.6f} (worst {min(self.cosines):.6f}), "
            f"same greatest output in {self.agreement:.1%}"
        )
        return "\n".join(lines)


def report(quantised: Quantised, inputs: Iterable[Mapping[str, Array]], threshold: float = 0.99) -> Fidelity:
    """Compare every twin on the given samples.

    Args:
        quantised: From `quantise`.
        inputs: Float feeds of the source graph, one mapping per sample.
        threshold: The cosine below which a value is named in `first_below`.
    """
    signal: dict[str, list[tuple[float, float]]] = {}
    cosines, agreed = [], []
    for feeds in inputs:
        real = {v.name: a for v, a in trace(quantised.source, feeds) if v.name in quantised.twins and not v.is_constant}
        integers = {id(v): a for v, a in trace(quantised.graph, quantised.feeds(feeds)) if not v.is_constant}
        for name, expected in real.items():
            made = quantised.real(name, integers[id(quantised.twins[name][0])])
            signal.setdefault(name, []).append((snr(expected, made), cosine(expected, made)))
        outputs = [v.name for v in quantised.source.outputs]
        pairs = [(real[n], quantised.real(n, integers[id(quantised.twins[n][0])])) for n in outputs]
        cosines.append(min(cosine(a, b) for a, b in pairs))
        agreed.append(all(np.argmax(a) == np.argmax(b) for a, b in pairs))
    rungs = tuple(_rung(quantised, name, seen) for name, seen in signal.items())
    first = next((r.name for r in rungs if r.cosine < threshold), "")
    return Fidelity(rungs, first, tuple(cosines), float(np.mean(agreed)))


def _rung(quantised: Quantised, name: str, seen: list[tuple[float, float]]) -> Rung:
    value = quantised.twins[name][0]
    producer = quantised.source.value(name).producer
    op = "input" if producer is None else type(producer.op).__name__
    return Rung(name, op, value.dtype, min(s for s, _ in seen), min(c for _, c in seen))


def snr(expected: Array, made: Array) -> float:
    """Signal-to-noise ratio in dB; 200 for no noise."""
    power = float(np.square(expected, dtype=np.float64).sum())
    noise = float(np.square(expected.astype(np.float64) - made).sum())
    return 200.0 if noise == 0 else min(200.0, 10 * float(np.log10(max(power, 1e-300) / noise)))
