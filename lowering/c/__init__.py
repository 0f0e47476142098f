"""The C back end: a generated library of kernels, weights and one entry function."""

from __future__ import annotations

from collections.abc import Mapping

from .. import Option

__all__ = ["DTYPES", "OPTIONS"]

DTYPES = ("int8", "float32")

OPTIONS: Mapping[str, Option] = {
    "stream": Option("auto", ("auto", "int8", "int16"), "Precision of the tokens between blocks of an int8 program."),
    "image": Option("callback", ("callback", "buffer"),
                    "Ask for pixels patch by patch where the model allows it, or hold the image in RAM."),
}  # fmt: skip
