"""From an ONNX file to an artifact: what every compile takes, and which stages a target's back end asks for."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.errors import UsageError
from .choices import choose
from .feeds import Source
from .front import Progress, Shapes, Values
from .library import Library, budget
from .queries import find_target, own_file
from .translation import Translation

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..lowering.artifact import Artifact
    from ..targets import Target

__all__ = ["compile", "load"]


def load(model: str | PathLike[str], shapes: Shapes | None = None, values: Values | None = None) -> Graph:
    """Read an ONNX model as a graph of recognised operators; `print(edgesmith.ir.text.show(graph))` shows it.

    Args:
        model: An `.onnx` file; it is only read.
        shapes: A full shape for each input with symbolic dimensions.
        values: Inputs that never change, by name: numbers or arrays.

    Raises:
        ModelError: The file cannot be used, or holds operators that are unknown here (all are named).
    """
    from .. import frontend

    return frontend.load(model, shapes, values)


def compile(
    model: str | PathLike[str] | Graph, target: str | Target, *, out: str | PathLike[str],
    calibration: Source | None = None, shapes: Shapes | None = None, values: Values | None = None,
    ram: int | None = None, dtype: str | None = None, check: bool = True, progress: Progress | None = None,
    **options: str | None,
) -> Artifact:  # fmt: skip
    """Turn a model into what a target runs, and prove that it computes what was meant.

    That is a C library that fits a device, or, for a target of another back end, one file in that back end's format.

    Args:
        model: An `.onnx` file, or what `load` returned.
        target: Name of a device, a path to a `.toml` file of your own, or a `Target`.
        out: Folder for the artifact. It appears when everything is done; an artifact that lay there is replaced.
        calibration: Typical inputs: a path to `.npz` or `.npy`, a mapping of arrays, or one array. Without, noise.
        shapes: A full shape for each input with symbolic dimensions; without, sizes are those of the calibration data.
        values: Inputs that never change, by name: numbers or arrays. They are no inputs of the result.
        ram: Bytes of RAM for arena, stack and statics of a C library instead of the target's own budget.
        dtype: Arithmetic, one of the back end's (`lowering.offer(name).dtypes`); its first if nothing is said.
        check: Also run the result on this computer, a library in the emulator too, and compare it with the reference:
            integers of C bit for bit, everything else within a bound that the manifest states.
        progress: Called with the name of each stage as it begins.
        options: The back end's own choices by name (`lowering.offer(name).options`); None leaves one at its default.

    Raises:
        ModelError: The model or the data cannot be used (exit code 3).
        BudgetError: It does not fit (4).
        MachineError: A tool or an extra is missing here (5).
        UsageError: An unknown target, an arithmetic or option that its back end does not have, or `out` holds
            something else than an artifact (2).
    """
    from ..lowering.artifact import check_vacant

    check_vacant(Path(out))
    device, own = find_target(target), own_file(target)
    choices = choose(device, dtype, options, check)
    say = progress or (lambda stage: None)
    job: Library | Translation
    if device.backend == "c":
        job = Library(device, choices, say, own, budget=budget(device, ram))
    else:
        if ram is not None:
            what = f"the {device.backend} back end of target '{device.name}' plans no memory: there is no RAM budget"
            raise UsageError(what, do="leave --ram out, or choose a device that C is compiled for")
        job = Translation(device, choices, say, own)
    job.read(model, shapes or {}, values or {}, calibration)
    return job.finish(Path(out))
