"""The C back end: a generated library of kernels, weights and one entry function."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.passes.quantise.fit_codes import CODES
from .. import Option

__all__ = ["DTYPES", "OPTIONS"]

DTYPES = ("int8", "float32")

OPTIONS: Mapping[str, Option] = {
    "stream": Option("auto", ("auto", "int8", "int16"), "Precision of the tokens between blocks of an int8 program."),
    "weights": Option("int8", CODES, "What an int8 program's weights are stored in: fewer bits save flash, and time "
                      "where the core has no multiplier."),
    "image": Option("callback", ("callback", "buffer"),
                    "Ask for pixels patch by patch where the model allows it, or hold the image in RAM."),
    "schedules": Option("chosen", ("chosen", "all"), "Also build and emulate the others, from fastest to smallest, and "
                        "print RAM beside instructions."),
    "package": Option("", (), "Build systems to write the library for as well, separated by commas: arduino, cmake, "
                      "esp-idf, make, zephyr."),
}  # fmt: skip
