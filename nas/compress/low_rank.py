"""Two small layers in place of a large one: the best factors for the inputs that the layer really gets.

W ~ A B with A [N, r] and B [r, K] pays off below r = N K / (N + K). The best approximation of W x is not that of W: the
decomposition is that of W S, where S S^T is the covariance of x (reduced-rank regression; ASVD and SVD-LLM do so for
language models, arXiv 2312.05821, 2403.07378).
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Array

__all__ = ["break_even", "factors"]

FLOOR = 1e-10
"""Share of the largest variance below which a direction counts as none."""


def break_even(outputs: int, inputs: int) -> int:
    """The largest rank at which two factors hold fewer weights than their product."""
    return (outputs * inputs - 1) // (outputs + inputs)


def factors(w: Array, covariance: Array, rank: int) -> tuple[Array, Array]:
    """A [N, rank] and B [rank, K] so that A B x is nearest to W x for x of this covariance."""
    variances, directions = np.linalg.eigh(covariance)
    deviations = np.sqrt(np.maximum(variances, FLOOR * max(float(variances[-1]), np.finfo(float).tiny)))
    u, s, vt = np.linalg.svd((w.astype(np.float64) @ directions) * deviations, full_matrices=False)
    half = np.sqrt(s[:rank])
    return u[:, :rank] * half, (half[:, None] * vt[:rank] / deviations) @ directions.T
