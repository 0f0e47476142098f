"""Runs a program operation by operation, and holds every result against the type that the program declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ...ir.errors import ModelError, Unsupported
from .arithmetic import Mode, half
from .ops import RULES
from .program import Array, Feature, Operation, Program, Reference, TensorType
from .schema import DATA_TYPES

__all__ = ["check", "evaluate", "prepared", "step", "trace"]

NUMPY = {name: dtype if dtype not in ("float16", "float64") else "float32" for name, dtype, _ in DATA_TYPES.values()}
"""The numpy type of values by MIL's name: all real numbers are kept as float32, halves among them."""

Feeds = Mapping[str, Array]


def check(program: Program) -> None:
    """Refuse a program that holds what cannot be evaluated, all of it named at once.

    Raises:
        Unsupported: Operations, or parameters of them, have no rule.
        ModelError: An operation reads a value before it is made.
    """
    unknown = {each.kind for each in program.operations if each.kind not in RULES}
    ruled = [(each.kind, RULES[each.kind], {*each.operands}) for each in program.operations if each.kind not in unknown]
    unknown |= {f"{kind} with {name}" for kind, rule, given in ruled for name in given - {*rule.parameters}}
    unknown |= {f"{kind} without {name}" for kind, rule, given in ruled for name in rule.needed - given}
    unknown |= {f"{each.kind} with blocks" for each in program.operations if each.nested}
    if unknown:
        what = "the program holds operations that are not evaluated here"
        raise Unsupported(what, where=sorted(unknown), do="run it on a Mac")
    known = {*program.inputs, *program.constants}
    for each in program.operations:
        if early := [name for name in each.reads if name not in known]:
            raise ModelError("the program reads values that nothing makes before", where=early, why=f"in '{each.name}'")
        known.update(name for name, _ in each.outputs)
    if missing := [name for name in program.outputs if name not in known]:
        raise ModelError("the program does not make its outputs", where=missing)


def evaluate(program: Program, feeds: Feeds, mode: Mode) -> dict[str, Array]:
    """Outputs by name.

    Args:
        program: What to run.
        feeds: Arrays by input name; an image as [1, C, H, W] with values to 255, or as uint8 [H, W, 3] in RGB.
        mode: What is rounded.

    Raises:
        Unsupported: Operations without a rule; all are named.
        ModelError: A feed is missing or does not fit, or the program contradicts itself.
    """
    check(program)
    return {name: array for name, array in trace(program, feeds, mode) if name in program.outputs}


def trace(program: Program, feeds: Feeds, mode: Mode) -> Iterator[tuple[str, Array]]:
    """Yield name and array of every input and result in order; arrays are dropped after their last reader."""
    last = {name: index for index, each in enumerate(program.operations) for name in each.reads}
    live: dict[str, Array] = {}
    for name, type in program.inputs.items():
        array = prepared(name, type, feeds, program.features.get(name))
        live[name] = half(array) if mode.rounds(type.dtype) else array
        yield name, live[name]
    constants = {*program.constants} & {*program.outputs}
    yield from ((name, constant(program, name, mode)) for name in sorted(constants))
    for index, operation in enumerate(program.operations):
        values = {name: live[name] if name in live else constant(program, name, mode) for name in operation.reads}
        for name, array in step(operation, values, mode):
            if last.get(name, -1) > index:
                live[name] = array
            yield name, array
        for name in operation.reads:
            if last[name] == index:
                live.pop(name, None)


def constant(program: Program, name: str, mode: Mode) -> Array:
    """A constant as operations read it."""
    return widened(program.constants[name], mode)


def widened(array: Array, mode: Mode) -> Array:
    """Stored halves as float32; all real numbers rounded where the mode says so."""
    if array.dtype.kind != "f":
        return array
    wide = array.astype(np.float32, copy=False)
    return half(wide) if mode.rounds("fp16" if array.dtype == np.float16 else "fp32") else wide


def step(operation: Operation, values: Feeds, mode: Mode) -> Iterator[tuple[str, Array]]:
    """Name and array of each result of one operation.

    Raises:
        ModelError: It cannot be computed on these operands, or gives another type than it declares.
    """
    dtypes = [type.dtype for _, type in operation.outputs if type is not None]
    rounds = any(mode.rounds(dtype) for dtype in dtypes)
    operands = {
        name: tuple(values[each.name] if isinstance(each, Reference) else widened(each, mode) for each in group)
        for name, group in operation.operands.items()
    }
    try:
        made = RULES[operation.kind](mode.arithmetic(rounds), operands)
    except (ValueError, IndexError, TypeError, KeyError, MemoryError) as error:
        raise _refused(operation, f"{type(error).__name__}: {error}") from error
    results: Sequence[Array] = made if isinstance(made, tuple) else (made,)
    if len(results) != len(operation.outputs):
        raise _refused(operation, f"it makes {len(results)} values and declares {len(operation.outputs)}")
    for (name, declared), array in zip(operation.outputs, results, strict=True):
        yield name, np.asarray(array) if declared is None else _settled(operation, declared, np.asarray(array), mode)


def _settled(operation: Operation, declared: TensorType, array: Array, mode: Mode) -> Array:
    """A result in the type the program declares, rounded as the mode has it."""
    wanted = np.dtype(NUMPY[declared.dtype])
    if (wanted.kind == "f") != (array.dtype.kind == "f"):
        raise _refused(operation, f"it gives {array.dtype} and declares {declared}")
    sizes = declared.shape
    if sizes is not None and (
        len(sizes) != array.ndim or any(size not in (None, real) for size, real in zip(sizes, array.shape, strict=True))
    ):
        raise _refused(operation, f"it gives shape {array.shape} and declares {declared}")
    array = array.astype(wanted, copy=False)
    return half(array) if mode.rounds(declared.dtype) else array


def _refused(operation: Operation, why: str) -> ModelError:
    return ModelError(f"operation '{operation.kind}' cannot be evaluated", where=[operation.name], why=why)


def prepared(name: str, type: TensorType, feeds: Feeds, feature: Feature | None) -> Array:
    """A feed as the program's input.

    Raises:
        ModelError: It is missing or has another shape.
    """
    if name not in feeds:
        raise ModelError(f"no array was given for input '{name}'", do=f"give one of type {type}")
    array = np.asarray(feeds[name])
    if feature and feature.kind == "image" and array.dtype == np.uint8 and array.ndim == 3:
        channels = array[..., ::-1] if feature.colour == "BGR" else array
        array = channels.transpose(2, 0, 1)[None]
    sizes: Iterable[int | None] = type.shape if type.shape is not None else array.shape
    if len(tuple(sizes)) != array.ndim or any(a not in (None, b) for a, b in zip(sizes, array.shape, strict=True)):
        raise ModelError(f"input '{name}' has shape {array.shape}, the program expects {type}")
    return array.astype(NUMPY[type.dtype], copy=False)
