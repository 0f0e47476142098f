"""Calibration: what every value of a float graph looks like on sample inputs, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...errors import ModelError
from ...graph import Array, Graph, Value
from ...interpret import trace
from ...ops.attention import Attention
from ...ops.conv import Conv
from .legalise_integer import prepare

BINS = 2048
SYNTHETIC_SAMPLES = 8
SMALLEST_REACH = 2.0**-110  # BINS / reach must not overflow float32
Progress = Callable[[int, int], None]
Samples = Array | Mapping[str, Array]


@dataclass
class Statistics:
    """Extremes of one value, a histogram of BINS bins over [-reach, reach), and extremes per channel where asked for.

    `lows`, `highs` and `power` are the extremes and the summed squares of each index along one axis, `rows` how many;
    `peaks` holds the greatest magnitudes of each index, sample by sample.
    `reach` is a power of two and doubles when needed, so that two bins merge into one exactly.
    """

    low: float = 0.0
    high: float = 0.0
    reach: float = SMALLEST_REACH
    counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    lows: Array | None = None
    highs: Array | None = None
    power: Array | None = None
    rows: int = 0
    peaks: list[Array] = field(default_factory=list)

    @property
    def largest(self) -> float:
        """Greatest magnitude seen."""
        return max(-self.low, self.high)

    @property
    def channels(self) -> Array | None:
        """The magnitude to expect of each channel, where it was asked for: the greatest seen and two deviations.

        The extremes of one channel generalise worse than those of a tensor, the more so the more samples differ in
        them. A single sample says nothing of that: a quarter is added.
        """
        if not self.peaks:
            return None
        peaks = np.stack(self.peaks)
        spread = peaks.std(axis=0) if len(peaks) > 1 else peaks[0] / 8
        return np.asarray(peaks.max(axis=0) + 2 * spread)

    def observe(self, x: Array, axis: int | None = None) -> None:
        """Add one array; with `axis` also the extremes of each index along it."""
        if not x.size:
            return
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self._grow(self.largest)
        bins = np.floor(x.reshape(-1) * (BINS / 2 / self.reach)).astype(np.int64) + BINS // 2
        self.counts += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
        if axis is not None:
            rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.float64)
            zeros = np.zeros(x.shape[axis])
            self.lows = np.minimum(zeros if self.lows is None else self.lows, rows.min(axis=0))
            self.highs = np.maximum(zeros if self.highs is None else self.highs, rows.max(axis=0))
            self.power = (zeros if self.power is None else self.power) + np.einsum("ij,ij->j", rows, rows)
            self.rows += len(rows)
            self.peaks.append(np.abs(rows).max(axis=0))

    def centres(self) -> Array:
        """The number each bin stands for."""
        return (np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach

    def _grow(self, largest: float) -> None:
        if largest > self.reach and not self.counts.any():
            self.reach = max(self.reach, 2.0 ** math.ceil(math.log2(largest)))
        while largest > self.reach:
            merged = np.zeros_like(self.counts)
            merged[BINS // 4 : -BINS // 4] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts, self.reach = merged, self.reach * 2


@dataclass
class Calibration:
    """What `quantise` needs to know of a float graph.

    Attributes:
        graph: The float graph as prepared for integers; its values are those of `values`.
        values: Statistics by value name.
        samples: The feeds they come from.
        warnings: What the user should know.
    """

    graph: Graph
    values: dict[str, Statistics]
    samples: list[dict[str, Array]]
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Statistics:
        """The statistics of a value."""
        return self.values[name]


def calibrate(graph: Graph, data: Samples | None = None, progress: Progress | None = None) -> Calibration:
    """Prepare a float graph for integers, run it on every sample and collect statistics of all real values.

    Args:
        graph: A float graph of batch 1, after its exact passes; left as it is.
        data: Samples along the first axis: one array for a graph of one input, or one per input name. None: smooth
            synthetic images, with a warning in the result, since ranges then only fit inputs of that kind.
        progress: Called with (samples done, samples in all).

    Raises:
        Unsupported: Operators without an integer form, all of them by name.
        ModelError: The arrays do not fit the inputs, are not real numbers, or hold NaN or infinity.
    """
    warnings: tuple[str, ...] = ()
    graph = prepare(graph)
    if data is None:
        data = {value.name: synthetic(value.shape, SYNTHETIC_SAMPLES) for value in graph.inputs}
        warnings = (
            f"no calibration data: ranges come from {SYNTHETIC_SAMPLES} synthetic images of zero mean and unit "
            "variance; give real inputs (32 to 512 of them) for a network that will be deployed",
        )
    samples = list(_samples(graph, data))
    axes = {id(v): -1 for n in graph.nodes if isinstance(n.op, Attention) for v in (*n.inputs[:3], *n.outputs)}
    axes |= {id(n.inputs[0]): 1 for n in graph.nodes if isinstance(n.op, Conv)}
    values: dict[str, Statistics] = {}
    for done, feeds in enumerate(samples, 1):
        for value, array in trace(graph, feeds):
            if not value.is_constant and array.dtype.kind == "f":
                _check_finite(value, array)
                values.setdefault(value.name, Statistics()).observe(array, axes.get(id(value)))
        if progress is not None:
            progress(done, len(samples))
    return Calibration(graph, values, samples, warnings)


def synthetic(shape: tuple[int, ...], count: int, seed: int = 0) -> Array:
    """`count` seeded inputs of zero mean and unit variance: [count, *shape[1:]] float32.

    Images are sums of plane waves whose energy falls with frequency, as in photographs, under a little noise; any other
    shape is plain noise. Source: Field, Relations between the statistics of natural images, 1987 (the 1/f law).
    """
    rng = np.random.default_rng(seed)
    full = (count, *shape[1:])
    noise = rng.standard_normal(full)
    if len(shape) == 4:
        rows, cols = np.meshgrid(*(np.linspace(0, 1, n) for n in shape[2:]), indexing="ij")
        smooth = np.zeros(full)
        for _ in range(24):
            frequency = rng.uniform(0.5, 12, 2) * rng.choice([-1, 1], 2)
            phase = rng.uniform(0, 2 * np.pi, (count, shape[1], 1, 1))
            weight = rng.standard_normal((count, shape[1], 1, 1)) / np.hypot(*frequency)
            smooth += weight * np.cos(2 * np.pi * (frequency[0] * rows + frequency[1] * cols) + phase)
        noise = smooth / smooth.std() + 0.1 * noise
    axes = tuple(range(1, len(full)))
    spread = noise.std(axis=axes, keepdims=True)
    return np.asarray((noise - noise.mean(axis=axes, keepdims=True)) / np.maximum(spread, 1e-6), np.float32)


def _samples(graph: Graph, data: Samples) -> Iterable[dict[str, Array]]:
    if not isinstance(data, Mapping):
        if len(graph.inputs) != 1:
            names = [value.name for value in graph.inputs]
            raise ModelError("one calibration array was given for several inputs", where=names, do="give one per name")
        data = {graph.inputs[0].name: data}
    arrays = {value.name: _checked(value, data) for value in graph.inputs}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ModelError(f"calibration arrays hold different numbers of samples: {counts}")
    for i in range(next(iter(counts.values()), 0)):
        yield {name: array[i : i + 1] for name, array in arrays.items()}


def _checked(value: Value, data: Mapping[str, Array]) -> Array:
    """The samples for one input, [n, *shape[1:]] of its dtype."""
    if value.name not in data:
        raise ModelError("calibration data lacks an input", where=[value.name], do=f"give arrays of {value.shape[1:]}")
    array = np.asarray(data[value.name])
    if value.type.numpy.kind == "f" and array.dtype.kind != "f":
        raise ModelError(
            f"calibration data is {array.dtype}, the network expects real numbers",
            where=[value.name],
            do="apply the same normalisation as in training, then convert to float32",
        )
    if value.shape[:1] != (1,):
        raise ModelError(f"the input has shape {value.shape}", where=[value.name], do="export the model with batch 1")
    if array.ndim != len(value.shape) or array.shape[1:] != value.shape[1:] or not len(array):
        raise ModelError(
            f"calibration data has shape {array.shape}, expected (samples, {', '.join(map(str, value.shape[1:]))})",
            where=[value.name],
            do="stack at least one sample along the first axis",
        )
    if not np.all(np.isfinite(array)):
        raise ModelError("calibration data holds NaN or infinity", where=[value.name], do="remove the broken samples")
    return array.astype(value.dtype, copy=False)


def _check_finite(value: Value, array: Array) -> None:
    if np.all(np.isfinite(array)):
        return
    where = value.producer.sources if value.producer and value.producer.sources else (value.name,)
    raise ModelError(
        "the network computes NaN or infinity on the calibration data",
        where=where,
        why="its ranges cannot be measured",
        do="check the weights and the normalisation of the inputs",
    )
