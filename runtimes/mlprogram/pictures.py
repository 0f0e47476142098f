"""Images as Core ML takes them, bytes in rows of pixels, made of the arrays that stand for them elsewhere."""

from __future__ import annotations

import numpy as np

from ...ir.errors import UsageError
from .program import Array

__all__ = ["pixels"]


def pixels(name: str, array: Array, colour: str) -> Array:
    """Bytes [H, W, C], in RGB where there are three channels.

    Args:
        name: Of the input, for the error.
        array: [1, C, H, W] in the program's order of colours with values to 255, or the bytes [H, W, C] themselves.
        colour: The program's order: "RGB", "BGR" or "GRAYSCALE".

    Raises:
        UsageError: The array is no image.
    """
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] in (1, 3):
        return array
    if array.ndim != 4 or array.shape[0] != 1 or array.shape[1] not in (1, 3):
        do = "give bytes of shape [H, W, C], or numbers to 255 of shape [1, C, H, W]"
        raise UsageError(f"input '{name}' is an image", where=[name], why=f"it was given {array.shape}", do=do)
    rows: Array = np.clip(np.round(array[0]), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return rows[..., ::-1] if colour == "BGR" else rows
