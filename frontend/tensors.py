"""Weights from a file's tensors: sizes are believed only when the bytes are there, and stay in the model's folder."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from ..ir.errors import ModelError
from ..ir.graph import Array
from .model import dtype_of

LIMIT = 2**31
"""Elements of one weight: beyond what protobuf stores, and far beyond any edge device."""


def decode(tensor: TensorProto, folder: Path) -> Array:
    """The array of a tensor, wherever its bytes lie.

    Raises:
        ModelError: Its size is absurd, its bytes are missing or lie outside `folder`, or it holds NaN or infinity.
    """
    count = math.prod(tensor.dims)
    if min(tensor.dims, default=0) < 0 or max(count, *tensor.dims, 0) > LIMIT:
        raise ModelError(f"the weight '{tensor.name}' has the impossible size {list(tensor.dims)}", where=[tensor.name])
    if tensor.data_type == TensorProto.STRING or dtype_of(tensor.data_type) == "undefined":
        raise ModelError(f"the weight '{tensor.name}' holds no numbers", where=[tensor.name])
    if external_data_helper.uses_external_data(tensor):
        array = _external(tensor, count, folder)
    else:
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"the weight '{tensor.name}' cannot be read",
                where=[tensor.name],
                why=str(error),
                do="export the model again",
            ) from error
    check_finite(tensor.name, array)
    return array


def check_finite(name: str, array: Array) -> None:
    """Refuse NaN everywhere, and infinity but for single numbers (bounds of Clip, borders of MaxPool)."""
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array) if array.size > 1 else np.isnan(array)
    if bad.any():
        kind = "NaN" if np.isnan(array).any() else "infinite"
        raise ModelError(
            f"the weight '{name}' holds {int(bad.sum())} {kind} numbers",
            where=[name],
            why="no integer stands for them, so the model cannot be quantised",
            do="check the training checkpoint and export again",
        )


def _external(tensor: TensorProto, count: int, folder: Path) -> Array:
    try:
        info = external_data_helper.ExternalDataInfo(tensor)
        file = _confined(tensor.name, str(info.location), folder)
    except (OSError, TypeError, ValueError) as error:  # numbers that are none, names that no file can have
        what = f"where the weight '{tensor.name}' lies cannot be read"
        raise ModelError(what, where=[tensor.name], why=str(error), do="export the model again") from error
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    offset, needed = int(info.offset or 0), count * dtype.itemsize
    length = needed if info.length is None else int(info.length)
    if length != needed or offset < 0 or offset + length > file.stat().st_size:
        raise ModelError(
            f"the weight '{tensor.name}' does not fit its data file '{info.location}'",
            where=[tensor.name, str(file)],
            why=f"{needed} bytes are needed at {offset}; {length} are declared, the file has {file.stat().st_size}",
            do="copy the data file again, or export the model again",
        )
    return np.fromfile(file, dtype, count, offset=offset).reshape(tuple(tensor.dims))


def _confined(name: str, location: str, folder: Path) -> Path:
    """The data file, if it lies in the model's folder and no link leads out."""
    parts = PurePosixPath(location.replace("\\", "/")).parts
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    file = folder / location
    inside = file.resolve().is_relative_to(folder.resolve()) if not absolute else False
    if not location or absolute or ".." in parts or not inside:
        raise ModelError(
            f"the weight '{name}' lies outside the model's folder: '{location}'",
            where=[name],
            why="data files are read from the model's own folder only",
            do="put the data file beside the model and export again with a plain file name",
        )
    if not file.is_file():
        raise ModelError(
            f"the data file '{location}' of the weight '{name}' is missing",
            where=[name, str(file)],
            do="copy it beside the model",
        )
    return file
