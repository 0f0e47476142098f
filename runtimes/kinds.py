"""What instructions are for, by the kernel that they were written in: products, softmax, norms, moves of data.

A kernel's kind is that of the header it stands in, but for those named in `APART`. Arithmetic that every kernel
stands on (`core.h`) counts for whoever uses it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..lowering.c.lower import KERNELS

__all__ = ["HEADERS", "KINDS", "OTHER", "PRODUCTS", "is_shared", "kernels", "kind"]

LAYERS, PRODUCTS, OTHER = "linear layers", "attention products", "loops and calls"

HEADERS = {
    "attention": PRODUCTS, "codes": LAYERS, "conv": "convolutions", "core": "", "depthwise": "convolutions",
    "dot": LAYERS, "elementwise": "elementwise", "float": LAYERS, "float_image": "convolutions", "helium": "",
    "narrow": "", "float_math": "activations", "matmul": LAYERS, "memory": "data movement", "norm": "norms",
    "pack": "data movement", "pool": "pooling", "resize": "resizing", "scale": LAYERS, "softmax": "softmax",
    "table": "activations", "tile": "data movement",
}  # fmt: skip
"""Kind of the functions in each header of the kernels; "" where it is their caller's."""

APART = {
    "es_add": "residual sums", "es_store_sum": "residual sums", "es_tabled": "activations",
    "es_exponential": "softmax", "es_exponentials": "softmax", "es_exponentials4": "softmax",
    "es_curves": "activations", "es_inverse": "softmax",
    "es_affine": "norms", "es_mean": "pooling",
    "es_clear": "data movement", "es_copy": "data movement", "es_rescale": "data movement",
    "es_attention_f32": PRODUCTS, "es_norm_f32": "norms", "es_softmax_f32": "softmax", "es_pool_f32": "pooling",
    "es_blend_f32": "resizing", "es_pick_f32": "resizing", "es_clampf": "", "es_sqrtf": "", "es_rsqrtf": "",
    "es_bits_of": "", "es_float_of": "", "memcpy": "data movement", "memset": "data movement",
}  # fmt: skip
"""Functions that do another kind of work than their header says; "" as there."""

KINDS = tuple(dict.fromkeys([LAYERS, PRODUCTS, *filter(None, [*HEADERS.values(), *APART.values()]), OTHER]))
"""All kinds, products first."""

INSIDE = {
    ("es_attention", LAYERS): PRODUCTS, ("es_attention_f32", LAYERS): PRODUCTS, ("es_conv", LAYERS): "convolutions",
    ("es_attention_f32", "activations"): "softmax", ("es_softmax_f32", "activations"): "softmax",
}  # fmt: skip
"""What a kind of work is for inside of a function."""


def kind(chain: Sequence[str]) -> str:
    """The kind of an instruction, by the functions that it was inlined through, the innermost last."""
    found = next((each for name in reversed(chain) if (each := kernels().get(name, ""))), OTHER)
    return next((INSIDE[name, found] for name in chain if (name, found) in INSIDE), found)


def is_shared(name: str) -> bool:
    """Whether a function is called by many steps: a kernel that is not inlined, or the compiler's own arithmetic."""
    return name in kernels() or name.startswith("__")


@cache
def kernels() -> dict[str, str]:
    """The kind of every function that the kernels define."""
    found: dict[str, str] = {}
    for header in sorted(Path(KERNELS).glob("*.h")):
        text = header.read_text(encoding="ascii")
        names = re.findall(r"^(?:ES_\w+|static|__attribute__)[^;{}]*?\b(es_\w+)\([^;{}]*\)\s*\{", text, re.MULTILINE)
        found |= dict.fromkeys(names, HEADERS.get(header.stem, ""))
    return found | APART
