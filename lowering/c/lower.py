"""From a graph and its memory plan to a folder of C: the library, its harness and its self-test."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...ir import interpret
from ...ir.errors import BudgetError, Unsupported
from ...ir.graph import Array, Graph, Value
from ...ir.memory import Group, Plan, streams
from ...targets import Target
from ..artifact import digest
from . import packaging
from .call import Call
from .constants import C_TYPES, Constants
from .files import HARNESS, HEADER, LIBRARY, SELFTEST, WEIGHTS_HEADER, WEIGHTS_SOURCE
from .steps import emitter, joined, unknown
from .steps.float_elementwise import literal
from .text import comment, render

KERNELS = Path(__file__).parent / "kernels"
CODE_RESERVE = 64 * 1024
"""Bytes of internal flash kept for code when constants are placed; the linker has the last word."""

LONGEST = 64
"""Characters of a model's name that symbols and files begin with; file systems take 255."""

C_HEADERS = {
    "assert", "complex", "ctype", "errno", "fenv", "float", "inttypes", "iso646", "limits", "locale", "math", "setjmp",
    "signal", "stdalign", "stdarg", "stdatomic", "stdbool", "stddef", "stdint", "stdio", "stdlib", "stdnoreturn",
    "string", "tgmath", "threads", "time", "uchar", "wchar", "wctype",
}  # fmt: skip
"""Headers of the C library (C11, 7.1.2)."""

MARGIN = 1e-5
"""How far floats of the self-test may be off, as a share of the output's largest: sums are taken in another order."""


@dataclass(frozen=True)
class Vector:
    """A stored run: arrays by input name, and what the reference computes from them.

    Attributes:
        inputs: Arrays by input name.
        outputs: Arrays by output name.
        digests: `artifact.digest` of the bytes of every integer result on the way, by value name; floats have none,
            as C may take their sums in another order.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    digests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, inputs: Mapping[str, Array]) -> Vector:
        """Run the reference once, and keep all of it that a program can be compared with."""
        outputs: dict[str, Array] = {}
        digests: dict[str, str] = {}
        wanted = {value.name for value in graph.outputs}
        for value, array in interpret.trace(graph, inputs):
            if value.producer is not None and value.type.numpy.kind != "f":
                digests[value.name] = digest(np.ascontiguousarray(array, value.dtype).tobytes())
            if value.name in wanted:
                outputs[value.name] = array
        return cls(inputs, {value.name: outputs[value.name] for value in graph.outputs}, digests)


def lower(
    graph: Graph, plan: Plan, target: Target, folder: Path, name: str, vector: Vector, packages: Sequence[str] = ()
) -> dict[str, Any]:
    """Write the C library of a planned graph into `folder`.

    Args:
        graph: Integer ops, channels last, or float ops as the passes `FLOAT_C` leave them; the graph that was planned.
        plan: Its memory plan.
        target: The device; decides what goes to external flash.
        folder: An empty folder.
        name: Prefix of every symbol and file.
        vector: What the self-test runs and expects.
        packages: Names of the packagings to write as well.

    Returns:
        The manifest's part: name, inputs, outputs, symbols, harness, steps, reads.

    Raises:
        Unsupported: Groups without a kernel, all named.
        BudgetError: The constants do not fit the target's flash.
    """
    prefix = symbol(name)
    constants = Constants(prefix)
    calls, refused = emitted(plan, constants)
    if refused:
        raise joined(refused)
    external = place_constants(constants, target)
    context = _context(graph, plan, prefix, calls)
    _write_sources(folder, context, constants, external)
    _write_tests(folder, context, vector)
    packaging.write(folder, packages, context)
    return {
        "name": prefix,
        "inputs": [_port(value) for value in graph.inputs],
        "outputs": [_port(value) for value in graph.outputs],
        "symbols": {"run": f"{prefix}_harness", "arena": f"{prefix}_arena", "step": f"{prefix}_harness_step"},
        "harness": ["test/harness.c"],
        "steps": [
            _step(plan, step.group, written["function"], vector.digests)
            for step, written in zip(plan.steps, context["steps"], strict=True)
        ],
        "reads": reads(plan, constants, external),
    }


def symbol(name: str) -> str:
    """A C identifier made from a model's name.

    Files are named after it: no header of ours or of C's may have the name already, as these lie on the same path.
    """
    cleaned = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()[:LONGEST].rstrip("_") or "model"
    taken = cleaned in C_HEADERS or (KERNELS / f"{cleaned}.h").exists()
    return f"m_{cleaned}" if taken or cleaned[0].isdigit() or re.match("es(_|$)", cleaned) else cleaned


def code_reserve(target: Target) -> int:
    """Bytes of a device's internal flash kept for code: no more than half of what a small one has."""
    internal = target.flash_budget or 0
    return CODE_RESERVE if internal > CODE_RESERVE else internal // 2


def place_constants(constants: Constants, target: Target) -> set[str]:
    """Which constants go to external flash; none on a target without budgets.

    Raises:
        BudgetError: They fit neither.
    """
    internal, reserve = target.flash_budget, code_reserve(target)
    if internal is None or constants.nbytes <= internal - reserve:
        return set()
    external = constants.place(internal - reserve)
    room = target.external_flash_budget or 0
    need = sum(len(item.data) for item in constants.items.values() if item.name in external)
    if need > room:
        have = f"{internal} bytes of internal flash and {room} of external flash"
        do = "a smaller model, or a target with more flash"
        what = f"the weights take {constants.nbytes} bytes and do not fit {target.name}"
        raise BudgetError(what, why=f"it has {have}, {reserve} of them kept for code", do=do)
    return external


def emitted(plan: Plan, constants: Constants) -> tuple[list[Call], list[Unsupported]]:
    """The code of every step; what nobody writes and what an emitter refuses, all of it."""
    calls: list[Call] = []
    refused = unknown([step.group for step in plan.steps])
    for step in plan.steps:
        group = step.group
        emit = emitter(group)
        if emit is None or unknown([group]):
            continue
        kind = group.kind if group.kind != "single" else type(group.nodes[0].op).__name__.lower()
        calls.append(Call(kind, plan, step, constants))
        try:
            emit(calls[-1])
        except Unsupported as error:
            refused.append(error)
    return calls, refused


def _context(graph: Graph, plan: Plan, prefix: str, calls: Sequence[Call]) -> dict[str, Any]:
    functions: dict[tuple[object, ...], tuple[str, Call]] = {}
    steps = []
    for index, call in enumerate(calls):
        key = call.signature()
        if key not in functions:
            functions[key] = (f"{call.kind}_{len(functions)}", call)
        steps.append({"index": index, "function": functions[key][0], "call": call, "name": comment(call.step.name)})
    return {
        "prefix": prefix, "upper": prefix.upper(), "arena": plan.arena_bytes, "steps": steps,
        "functions": [{"name": name, "call": call} for name, call in functions.values()],
        "pixels": any(call.pixels for call in calls), "inputs": [_place(plan, v) for v in graph.inputs],
        "outputs": [_place(plan, v) for v in graph.outputs], "kernels": "kernels.h",
        "real": any(v.dtype == "float32" for v in graph.outputs),
    }  # fmt: skip


def _place(plan: Plan, value: Value) -> dict[str, Any]:
    offset = None if value.name in plan.streamed else plan.buffer(value.name).offset
    row = int(np.prod(value.shape[2:], dtype=np.int64))
    quant = value.type.quant
    scale = quant.scale if quant else None
    return {
        "name": symbol(value.name), "type": C_TYPES[value.dtype], "offset": offset, "bytes": value.type.nbytes,
        "size": value.type.size, "row": row, "shape": value.shape,
        "scale": repr(float(np.float32(scale))) if isinstance(scale, float) else None,
        "zero": quant.zero_point if quant else 0,
    }  # fmt: skip


def _port(value: Value) -> dict[str, Any]:
    quant = value.type.quant
    return {
        "name": value.name, "dtype": value.dtype, "shape": list(value.shape),
        "scale": None if quant is None else quant.scale, "zero_point": None if quant is None else quant.zero_point,
    }  # fmt: skip


def _step(plan: Plan, group: Group, function: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """What a step makes and where, so that a run can be compared with the reference step by step."""
    made = [
        {
            "name": value.name, "offset": plan.buffer(value.name).offset, "dtype": value.dtype,
            "shape": list(value.shape), "digest": digests.get(value.name),
        }
        for value in group.outputs
    ]  # fmt: skip
    return {
        "name": group.name, "kind": group.kind, "function": function, "sources": list(group.sources), "outputs": made,
        "macs": group.macs,
    }  # fmt: skip


def reads(plan: Plan, constants: Constants, external: set[str]) -> dict[str, Any]:
    """Bytes that one inference reads: constants by where they lie, and operands of products by their arena offset."""
    weights = dict.fromkeys(("flash", "external_flash"), 0)
    for item in constants.items.values():
        weights["external_flash" if item.name in external else "flash"] += len(item.data) * item.reads
    operands = [
        {"offset": step.piece(each.piece), "bytes": step.schedule.piece(each.piece).bytes, "held": each.held,
         "read": each.read}
        for step in plan.steps for each in streams(step.group, step.schedule)
    ]  # fmt: skip
    return {**weights, "operands": operands}


def _write_sources(folder: Path, context: dict[str, Any], constants: Constants, external: set[str]) -> None:
    source = folder / "src"
    source.mkdir(parents=True)
    for kernel in sorted(KERNELS.glob("*.h")):
        (source / kernel.name).write_bytes(kernel.read_bytes())
    prefix = context["prefix"]
    (source / f"{prefix}.h").write_text(render(HEADER, **context), encoding="ascii")
    (source / f"{prefix}.c").write_text(render(LIBRARY, **context), encoding="ascii")
    declared = render(WEIGHTS_HEADER, **context, declarations=constants.declarations())
    (source / f"{prefix}_weights.h").write_text(declared, encoding="ascii")
    with (source / f"{prefix}_weights.c").open("w", encoding="ascii") as file:
        file.write(render(WEIGHTS_SOURCE, **context))
        file.writelines(constants.definitions(external))


def _write_tests(folder: Path, context: dict[str, Any], vector: Vector) -> None:
    test = folder / "test"
    test.mkdir()
    (test / "harness.c").write_text(render(HARNESS, **context), encoding="ascii")
    stored = Constants(f"{context['prefix']}_test")
    inputs = [stored.add(array, f"input {name}") for name, array in vector.inputs.items()]
    outputs = [stored.add(array, f"expected {name}") for name, array in vector.outputs.items()]
    vectors = stored.declarations() + "".join(stored.definitions(set()))
    margins = [literal(MARGIN * float(np.max(np.abs(array), initial=0.0))) for array in vector.outputs.values()]
    text = render(SELFTEST, **context, given=inputs, expected=outputs, margins=margins, vectors=vectors)
    (test / "selftest.c").write_text(text, encoding="ascii")
