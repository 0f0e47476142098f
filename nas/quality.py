"""What a compressed network is worth: how far its answers are from the original's, or how often they are right.

All figures are of outputs [samples, ...]; a divergence of 0 is equality.
"""

from __future__ import annotations

import numpy as np

from ..ir.errors import UsageError
from ..ir.graph import Array

__all__ = ["DIVERGENCES", "accuracy", "angle", "divergence_of", "jensen_shannon", "labels_for"]


def angle(wanted: Array, found: Array) -> float:
    """Mean angle between the outputs of a sample, as a share of a half turn: 0 to 1. A zero vector is at right angles.

    Outputs are taken about their own mean: what all classes have in common decides nothing.
    """
    a, b = (_centred(each) for each in (wanted, found))
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.where(length > 0, (a * b).sum(axis=1) / np.maximum(length, np.finfo(np.float64).tiny), 0.0)
    return float(np.mean(np.arccos(np.clip(cosine, -1.0, 1.0))) / np.pi)


def jensen_shannon(wanted: Array, found: Array) -> float:
    """Mean Jensen-Shannon divergence, in bits (0 to 1), of the distributions that the outputs are logits of."""
    p, q = (_softmax(each) for each in (wanted, found))
    middle = (p + q) / 2
    return float(np.mean((_relative(p, middle) + _relative(q, middle)) / 2))


DIVERGENCES = {"angle": angle, "js": jensen_shannon}
"""By name; both see logits as classes do."""


def divergence_of(name: str, wanted: Array, found: Array) -> float:
    """A divergence by its name.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in DIVERGENCES:
        raise UsageError(f"there is no divergence '{name}'", do=f"choose {' or '.join(DIVERGENCES)}")
    return DIVERGENCES[name](wanted, found)


def accuracy(labels: Array, found: Array) -> float:
    """The share of samples whose greatest output is that of their label."""
    return float(np.mean(found.reshape(len(found), -1).argmax(axis=1) == labels))


def labels_for(labels: Array, samples: int, classes: int) -> Array:
    """Labels as whole numbers, held against what they are for.

    Raises:
        UsageError: There are more or fewer than samples, they are no whole numbers, or name classes that are not.
    """
    array = np.asarray(labels)
    do = f"give one whole number from 0 to {classes - 1} for each sample"
    if array.shape != (samples,):
        raise UsageError(f"labels have shape {array.shape}, there are {samples} samples", do=do)
    if array.dtype.kind not in "iu":
        raise UsageError(f"labels are {array.dtype}, not whole numbers", do=do)
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < classes:
        raise UsageError(f"labels run from {array.min()} to {array.max()}, the model has {classes} classes", do=do)
    return array.astype(np.int64)


def _centred(x: Array) -> Array:
    flat = x.reshape(len(x), -1).astype(np.float64)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def _softmax(x: Array) -> Array:
    flat = x.reshape(len(x), -1).astype(np.float64)
    powers = np.exp(flat - flat.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _relative(p: Array, q: Array) -> Array:
    """Kullback-Leibler divergence in bits, row by row."""
    terms = np.where(p > 0, p * np.log2(np.maximum(p, 1e-300) / np.maximum(q, 1e-300)), 0.0)
    return np.asarray(terms.sum(axis=1))
