"""Arrays from the user's files, in the form that the model's inputs have; what does not fit is said plainly."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..ir.errors import ModelError

if TYPE_CHECKING:
    from ..ir.graph import Array, Graph, Value

__all__ = ["Input", "Source", "inputs_of", "read", "samples", "synthetic"]

Source = str | PathLike[str] | Mapping[str, "Array"] | np.ndarray


INTEGERS = ("int32", "int64")
"""Element types of inputs that are numbers of things, such as tokens; all others are float32."""


class Input:
    """What the model takes under one name, and how pixels become it: (pixel / 255 - mean) / std by channel."""

    def __init__(
        self, name: str, shape: Sequence[int], mean: Sequence[float] = (), std: Sequence[float] = (),
        dtype: str = "float32", kinds: int = 0,
    ) -> None:  # fmt: skip
        """Keep the parts; `mean` and `std` are empty where the model does not say, `kinds` counts integers from 0."""
        self.name, self.shape, self.mean, self.std = name, tuple(shape), tuple(mean), tuple(std)
        self.dtype, self.kinds = dtype, kinds

    def json(self) -> dict[str, object]:
        """The parts for a manifest."""
        parts = {"name": self.name, "shape": list(self.shape), "mean": list(self.mean), "std": list(self.std)}
        return parts | ({"dtype": self.dtype, "kinds": self.kinds} if self.dtype in INTEGERS else {})

    def arrays(self, array: Array) -> list[Array]:
        """One array of the input's shape per sample; bytes are pixels, everything else is values as they are.

        Raises:
            ModelError: Wrong shape or type, no samples, NaN or infinity.
        """
        if self.dtype in INTEGERS and array.dtype.kind not in "iu":
            what = f"'{self.name}' takes integers, not {array.dtype} values"
            raise ModelError(what, do=f"give {self.dtype}")
        if array.dtype == np.uint8 and self.dtype not in INTEGERS:
            array = self._normalised(self._channels_first(array))
        if array.dtype.kind not in "fi" and self.dtype not in INTEGERS:
            what = f"'{self.name}' cannot be read from {array.dtype} values"
            raise ModelError(what, do="give float32, or uint8 pixels")
        array = array.astype(self.dtype)
        if array.shape == self.shape[1:]:
            array = array[None]
        if array.shape[1:] != self.shape[1:] or len(array) % max(self.shape[0], 1):
            wanted = ", ".join(["N", *map(str, self.shape[1:])])
            raise ModelError(
                "the data has another shape than the model's input",
                where=[self.name],
                why=f"it is {list(array.shape)}, the model takes [{wanted}]",
                do="resize the images, or bind the model to their size with --shape",
            )
        if not array.size:
            raise ModelError("the data holds no samples", where=[self.name])
        if not np.isfinite(array).all():
            raise ModelError("the data holds NaN or infinity", where=[self.name], do="look at what wrote it")
        return list(array.reshape(-1, *self.shape))

    def _channels_first(self, pixels: Array) -> Array:
        """Pixels as [N, C, H, W], from that, [N, H, W, C], [N, H, W] or a single one of these."""
        if len(self.shape) != 4:
            return pixels
        channels, height, width = self.shape[1:]
        for single in (pixels, pixels[None]):
            if single.shape[1:] == (height, width) and channels == 1:
                return single[:, None]
            if single.shape[1:] == (height, width, channels) and single.shape[1:] != self.shape[1:]:
                return single.transpose(0, 3, 1, 2)
            if single.shape[1:] == self.shape[1:]:
                return single
        return pixels

    def _normalised(self, pixels: Array) -> Array:
        if not self.mean or not self.std:
            raise ModelError(
                f"the data for '{self.name}' is uint8, and the model does not say how pixels become its input",
                do="give float32 as the model takes it, or put edgesmith.mean and edgesmith.std into its metadata",
            )
        shape = (-1, *[1] * (pixels.ndim - 2)) if pixels.ndim > 1 else (-1,)
        mean, std = (np.reshape(np.asarray(part, np.float32), shape) for part in (self.mean, self.std))
        normalised: Array = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return normalised


def inputs_of(graph: Graph) -> list[Input]:
    """Inputs of an imported graph, with the normalisation in its metadata (`edgesmith.mean`, `edgesmith.std`).

    Raises:
        ModelError: The normalisation makes no sense, or an input is a single number, empty, or of another type.
    """
    taken = ("float32", *INTEGERS)
    if other := [value for value in graph.inputs if value.dtype not in taken]:
        why = ", ".join(f"'{value.name}' is of type {value.dtype}" for value in other)
        do = "export the model with float32 inputs"
        raise ModelError(f"inputs are {', '.join(taken)}", where=[value.name for value in other], why=why, do=do)
    if empty := [value.name for value in graph.inputs if 0 in value.shape]:
        raise ModelError("an input holds nothing: one of its sizes is 0", where=empty, do="export it with other sizes")
    if single := [value.name for value in graph.inputs if not value.shape]:
        what = "an input without axes has no place for samples"
        raise ModelError(what, where=single, do="export it with a batch axis")
    mean, std = (_numbers(graph.metadata.get(f"edgesmith.{key}", "")) for key in ("mean", "std"))
    if any(value <= 0 for value in std):
        raise ModelError("the model's metadata edgesmith.std is not positive", where=[str(std)])
    return [Input(v.name, v.shape, mean, std, v.dtype, kinds(v)) for v in graph.inputs]


def kinds(value: Value) -> int:
    """How many integers, from 0 on, an input of integers is sure to take; 0 of an input of real numbers.

    Those that all rows have which it picks, or to which it is compared; 0 and 1 if nothing tells.
    """
    from ..ir.ops.logic import Cast, Equal
    from ..ir.ops.shape import Expand, Gather, Reshape, Slice, Transpose

    if value.dtype not in INTEGERS:
        return 0
    found, pending = list[int](), [value]
    while pending:
        for node, index in pending.pop().uses:
            other = next((v for v in node.inputs if v is not None and v.data is not None), None)
            if isinstance(node.op, Gather) and index == 1:
                found.append(node.input(0).shape[node.op.axis])
            elif isinstance(node.op, Equal) and other is not None and other.array.size > 1:
                found.append(int(other.array.max()) + 1)
            elif isinstance(node.op, Cast | Expand | Gather | Reshape | Slice | Transpose) and index == 0:
                pending += [made for made in node.outputs if made.type.numpy.kind == "i"]
    return max(1, min(found, default=2))


def check_batch(graph: Graph) -> None:
    """Refuse a model that takes several samples: one input with a single sample says that all have one.

    What the others' first axis counts then, such as layers of a recurrent state, is no samples.

    Raises:
        ModelError: Names the inputs.
    """
    many = [value for value in graph.inputs if value.shape[:1] != (1,)]
    if many and len(many) == len(graph.inputs):
        why = ", ".join(f"'{value.name}' is {value.shape}" for value in many)
        do = "export it with batch 1, or with a symbolic batch axis"
        raise ModelError("the model takes more than one sample at a time", where=[v.name for v in many], why=why, do=do)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in re.findall(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", text))


def read(source: Source) -> dict[str, Array]:
    """Arrays by name of an `.npz`, `.npy` (its name is ""), mapping or array; files are only read, and never unpickled.

    Raises:
        ModelError: The file is missing or holds something else than plain arrays.
    """
    if isinstance(source, np.ndarray):
        return {"": source}
    if isinstance(source, Mapping):
        return {name: np.asarray(array) for name, array in source.items()}
    path = Path(source)
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = "" if path.exists() else "there is no such file"
        raise ModelError(
            "the data cannot be read", where=[str(path)], why=why or str(error),
            do="save it with numpy.save or numpy.savez, as plain arrays",
        ) from error  # fmt: skip


def samples(source: Source, inputs: Sequence[Input], key: str) -> list[dict[str, Array]]:
    """One mapping of the model's input names to arrays per sample.

    An array is found under its input's name; for a model with one input also under `key`, or as the only array.

    Raises:
        ModelError: The data does not fit the inputs.
    """
    found = read(source)
    if len(inputs) == 1 and inputs[0].name not in found:
        only = found.get(key, next(iter(found.values())) if len(found) == 1 else None)
        found = {inputs[0].name: only} if only is not None else found
    names = ", ".join(f"'{name}'" for name in found) or "none"
    if missing := [each.name for each in inputs if each.name not in found]:
        raise ModelError("the data lacks inputs of the model", where=missing, why=f"it holds the arrays {names}")
    columns = [each.arrays(found[each.name]) for each in inputs]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(f"{each.name}: {len(column)}" for each, column in zip(inputs, columns, strict=True))
        raise ModelError("the inputs have different numbers of samples", why=counts)
    return [dict(zip([each.name for each in inputs], row, strict=True)) for row in zip(*columns, strict=True)]


def synthetic(inputs: Sequence[Input], count: int) -> list[dict[str, Array]]:
    """Smooth noise, the same every time: it shows that things run, and says nothing about accuracy."""
    from ..ir.passes.quantise.calibrate import synthetic as noise

    def column(each: Input) -> Array:
        if each.dtype in INTEGERS:
            return np.random.default_rng(0).integers(0, each.kinds, (count, *each.shape)).astype(each.dtype)
        return noise(each.shape, count * each.shape[0]).reshape(-1, *each.shape)

    columns = [column(each) for each in inputs]
    return [{each.name: column[i] for each, column in zip(inputs, columns, strict=True)} for i in range(count)]
