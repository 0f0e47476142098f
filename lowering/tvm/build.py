"""A program becomes a Relax module, machine code and a shared object; TVM's compiler can crash, so a child does it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .kernels.body import Body
from .kernels.spec import Kernel
from .machine import Machine
from .program import Buffer, Program

__all__ = ["ABOUT", "KERNEL", "MAIN", "RESULT", "Build", "export", "function", "identifier", "module", "symbols"]

RESULT = "model.so"
MAIN, ABOUT = "main", "about"
"""Functions of the library: the model, and what it says of itself (JSON)."""

KERNEL = "k_"
"""Begin of the names of all kernels."""


def function(kernel: Kernel, name: str, kinds: tuple[Buffer, ...], machine: Machine) -> Any:
    """A kernel as a function of TIR on flat buffers of those kinds, the result last."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder

    with IRBuilder() as made:
        with builder.prim_func(s_tir=True):
            builder.func_name(name)
            builder.func_attr({"tirx.noalias": True})
            given = [builder.arg(f"x{at}", builder.buffer((k.size,), k.dtype)) for at, k in enumerate(kinds)]
            kernel.emit(Body(machine.threads), given[:-1], given[-1], machine)
    return made.get()


def module(program: Program) -> Any:
    """A Relax module: each different kernel once, and a main function that calls them in order."""
    from tvm import ir, relax

    block = relax.BlockBuilder()
    kernels: dict[str, Any] = {}
    inputs = [
        relax.Var(f"{identifier(p.name)}_{at}", _tensor(p.shape, p.dtype)) for at, p in enumerate(program.inputs)
    ]
    with block.function(MAIN, inputs):
        values: dict[str, Any] = {}
        for port, given in zip(program.inputs, inputs, strict=True):
            values[port.slot] = block.emit(_reshaped(given, (program.buffers[port.slot].size,), port.dtype))
        for call, name in zip(program.calls, symbols(program), strict=True):
            kinds = program.kinds(call)
            if name not in kernels:
                kernels[name] = block.add_func(function(call.kernel, name, kinds, program.machine), name)
            operands = [_value(program, slot, values) for slot in call.operands]
            out = _tensor((kinds[-1].size,), kinds[-1].dtype)
            values[call.result] = block.emit(relax.call_tir(kernels[name], operands, out_ty=out))
        shaped = [block.emit(_reshaped(values[p.slot], p.shape, p.dtype)) for p in program.outputs]
        block.emit_func_output(relax.Tuple(shaped))
    with block.function(ABOUT, []):
        block.emit_func_output(ir.StringImm(json.dumps(program.about())))
    return block.get()


def symbols(program: Program) -> tuple[str, ...]:
    """Name of each call's kernel in the library; equal kernels are one."""
    known: dict[object, str] = {}
    taken: dict[str, int] = {}
    for call in program.calls:
        key = (call.kernel, program.kinds(call))
        if key not in known:
            known[key] = _fresh(call.kernel.label, taken)
    return tuple(known[call.kernel, program.kinds(call)] for call in program.calls)


@dataclass(frozen=True)
class Build:
    """The job of a child: a shared object named `RESULT`.

    Attributes:
        program: What to compile.
        link: Start of the linker's command line.
    """

    program: Program
    link: tuple[str, ...]

    def do(self, folder: Path) -> None:
        """Compile and link."""
        import tvm

        target = tvm.target.Target(self.program.machine.tvm())
        export(tvm.compile(module(self.program), target=target), folder / RESULT, self.link)


def export(library: Any, path: Path, link: Sequence[str]) -> None:
    """Link what TVM compiled to a shared object."""

    def linked(output: str, objects: list[str], options: object = None, **more: object) -> None:
        subprocess.run([*link, "-o", output, *objects], check=True)

    linked.output_format = "so"  # type: ignore[attr-defined]
    library.export_library(str(path), fcompile=linked)


def _value(program: Program, slot: str, values: dict[str, Any]) -> Any:
    """A buffer's Relax value; a constant becomes one at its first use."""
    from tvm import relax

    if slot not in values:
        array = program.constants[slot]
        values[slot] = relax.const(array, array.dtype.name)  # without its type, int64 becomes int32
    return values[slot]


def _reshaped(value: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """The same storage under another shape: Relax's own reshape would be a copy here."""
    from tvm import relax

    return relax.call_pure_packed("vm.builtin.reshape", value, relax.ShapeExpr(shape), ty_args=[_tensor(shape, dtype)])


def _tensor(shape: tuple[int, ...], dtype: str) -> Any:
    from tvm import relax

    return relax.TensorType(shape, dtype)


def identifier(name: str) -> str:
    """A name as C and TVM take it."""
    found = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return f"_{found}" if found[:1].isdigit() else found


def _fresh(label: str, names: dict[str, int]) -> str:
    """The label, numbered where others have it too."""
    label = label[:80]
    names[label] = names.get(label, 0) + 1
    return f"{KERNEL}{label}" if names[label] == 1 else f"{KERNEL}{label}_{names[label]}"
