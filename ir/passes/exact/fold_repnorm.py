"""The re-parameterised batch norm of SLAB disappears into the layers around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ops.norm import RepNorm
from ...rewrite import P, Rule
from ..base import Pass
from .fold_batchnorm import fold_norm


@dataclass(frozen=True)
class FoldRepnorm(Pass):
    """Fold RepNorm, BatchNorm(x) + eta * x = a * x + c with a = g / s + eta, c = b - g * mean / s.

        RepNorm -> Linear, Linear, ...            becomes    Linears with w a and b + w c
        Linear -> RepNorm                         becomes    Linear with a w and a b + c
        RepNorm -> Mean over tokens -> Linear     becomes    Mean -> Linear with w a and b + w c
        RepNorm -> Concat of channels -> Linear   becomes    Concat -> Linear, only those columns changed

    Legal as `FoldBatchnorm` states; a zero-padded Conv after it is refused. Source: Guo et al., SLAB, section 3.2
    (their release scales the patch embedding's bias by g / s instead of a, which loses eta * b).
    """

    rules: ClassVar[tuple[Rule, ...]] = (Rule("fold_repnorm", P(RepNorm), fold_norm),)
