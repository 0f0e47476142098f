"""A program as a C library for a processor without an operating system: kernels in an object, and C that calls them.

TVM's runtime needs a system and megabytes, so nothing of it is left: a kernel takes plain pointers, one of them to its
scratch memory, and the places of all results in one arena are planned here.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.memory import offsets
from . import child
from .build import identifier, symbols
from .kernels.body import Body, Buffer
from .kernels.spec import Kernel
from .machine import Machine
from .program import Program

__all__ = ["Bare", "Library", "library"]

OBJECT, ROOMS = "kernels.o", "rooms.json"
BOUNDARY = 16
"""Bytes; where buffers begin, in the arena and among the weights. No vector of a small processor is larger."""

C_TYPES = {"float32": "float", "int32": "int32_t", "int16": "int16_t", "int8": "int8_t", "uint8": "uint8_t"}


@dataclass(frozen=True)
class Library:
    """Files of a library in a folder, and the bytes that it needs.

    Attributes:
        source: The C file, beside its header and the weights that it includes.
        object: The kernels; to be linked with it.
        entry: The function: pointers to all inputs, then to all outputs, each in order.
        arena: Bytes of RAM for results and scratch memory; statics of the C file.
        weights: Bytes of constants.
    """

    source: Path
    object: Path
    entry: str
    arena: int
    weights: int


class Room(Body):
    """A body whose memory is given to the function: pieces of one buffer, none of which is used twice.

    Registers are pieces too, as TVM would ask its runtime for them; LLVM sees that nobody else reads them.
    """

    def __init__(self, pointer: Any) -> None:
        """Take pieces from a pointer on."""
        super().__init__()
        self.pointer, self.bytes = pointer, 0

    def scratch(self, size: int, dtype: str = "float32") -> Buffer:
        """A piece."""
        return self._piece(size, dtype, np.dtype(dtype).itemsize)

    def registers(self, count: int, lanes: int, dtype: str = "float32") -> Buffer:
        """A piece of vectors."""
        return self._piece(count, self.kind(dtype, lanes), np.dtype(dtype).itemsize * lanes)

    def _piece(self, count: int, kind: str, item: int) -> Buffer:
        """Its place counts items, of which those of any kind begin on a boundary."""
        first = self.bytes
        self.bytes += rounded(count * item)
        return self._build.decl_buffer((count,), kind, data=self.pointer, elem_offset=first // item)


@dataclass(frozen=True)
class Bare:
    """The job of a child: an object file with all kernels, and the bytes of scratch memory of each.

    `prefix` begins their names, so that two libraries go into one program.
    """

    program: Program
    prefix: str

    def do(self, folder: Path) -> None:
        """Compile."""
        import tvm

        machine = self.program.machine
        made, rooms = {}, {}
        for call, name in zip(self.program.calls, symbols(self.program), strict=True):
            if name not in made:
                kinds = [kind.dtype for kind in self.program.kinds(call)]
                sizes = [kind.size for kind in self.program.kinds(call)]
                made[name], rooms[name] = plain(call.kernel, self.prefix + name, sizes, kinds, machine)
        target = tvm.target.Target(machine.tvm())
        module = tvm.ir.transform.Sequential(passes(target))(tvm.IRModule(made))
        lowered = tvm.s_tir.pipeline.finalize_host_passes()(module)
        tvm.get_global_func("target.build.llvm")(lowered, target).write_to_file(str(folder / OBJECT), "o")
        (folder / ROOMS).write_text(json.dumps(rooms), encoding="utf-8")


def plain(kernel: Kernel, name: str, sizes: list[int], kinds: list[str], machine: Machine) -> tuple[Any, int]:
    """A kernel as a function of pointers, the result's and its scratch memory's last; the bytes of that memory."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder

    with IRBuilder() as made:
        with builder.prim_func(s_tir=True):
            builder.func_name(name)
            builder.func_attr({"tirx.noalias": True, "global_symbol": name})
            pointers = [builder.arg(f"x{at}", builder.handle(kind)) for at, kind in enumerate(kinds)]
            room = Room(builder.arg("room", builder.handle("void")))
            buffers = [
                builder.decl_buffer((size,), kind, data=pointer)
                for size, kind, pointer in zip(sizes, kinds, pointers, strict=True)
            ]
            kernel.emit(room, buffers[:-1], buffers[-1], machine)
    return made.get(), room.bytes


def passes(target: Any) -> list[Any]:
    """What TVM does to functions for a processor, without what wraps them for its own calls."""
    from tvm import s_tir, tirx

    scheduled, flat = s_tir.transform, tirx.transform
    return [
        flat.BindTarget(target), scheduled.CanonicalizeLoop(), scheduled.LowerInitBlock(),
        scheduled.PlanAndUpdateBufferAllocationLocation(), scheduled.ConvertBlocksToOpaque(),
        scheduled.CompactBufferAllocation(), scheduled.LowerMatchBuffer(), scheduled.StmtSimplify(),
        scheduled.LowerOpaqueBlock(), flat.FlattenBuffer(), flat.NarrowDataType(32), scheduled.LoopPartition(),
        flat.VectorizeLoop(True), flat.StorageRewrite(), scheduled.HoistIfThenElse(), flat.UnrollLoop(),
        scheduled.RenormalizeSplitPattern(), flat.StmtSimplify(), flat.RemoveNoOp(), scheduled.RewriteUnsafeSelect(),
        flat.CommonSubexprElim(),
    ]  # fmt: skip


def library(program: Program, folder: Path, name: str) -> Library:
    """Compile a program for a processor on one thread into files of a folder that is there.

    Args:
        program: Lowered for the processor's triple, such as thumbv7em-none-eabihf.
        folder: Where `NAME.c`, `NAME.h`, `NAME.bin` (weights) and `NAME.o` go.
        name: Begin of all names that the library defines.

    Raises:
        MachineError: TVM is missing, or its compiler crashed or took too long.
    """
    name = identifier(name)
    with tempfile.TemporaryDirectory() as work:
        child.run(Bare(program, f"{name}_"), Path(work), child.LIMIT_SECONDS)
        rooms = json.loads((Path(work) / ROOMS).read_text(encoding="utf-8"))
        (folder / f"{name}.o").write_bytes((Path(work) / OBJECT).read_bytes())
    places, weights = _weights(program, f"{name}_weights")
    (folder / f"{name}.bin").write_bytes(weights)
    arena, total = _arena(program, rooms)
    ports = [f"{identifier(port.name)}_{at}" for at, port in enumerate((*program.inputs, *program.outputs))]
    kinds = [f"const {C_TYPES[port.dtype]} *" for port in program.inputs]
    kinds += [f"{C_TYPES[port.dtype]} *" for port in program.outputs]
    head = f"void {name}_run({', '.join(map(str.__add__, kinds, ports))})"
    given, taken = ports[: len(program.inputs)], ports[len(program.inputs) :]
    places.update(arena)
    places.update({port.slot: f"(void *){each}" for port, each in zip(program.inputs, given, strict=True)})
    places.update({port.slot: each for port, each in zip(program.outputs, taken, strict=True)})
    copies = [
        f"    for (int at = 0; at < {math.prod(port.shape)}; ++at) {each}[at] = {places[port.slot]}[at];"
        for port, each in zip(program.outputs, taken, strict=True) if places[port.slot] != each
    ]  # fmt: skip
    about = f"/* {program.name} for {program.machine.triple}. Inputs, then outputs, each in order and on 4 bytes. */"
    header = f"{about}\n#pragma once\n#include <stdint.h>\n\n{head};\n"
    (folder / f"{name}.h").write_text(header, encoding="utf-8")
    (folder / f"{name}.c").write_text(_source(program, name, head, places, copies, total), encoding="utf-8")
    return Library(folder / f"{name}.c", folder / f"{name}.o", f"{name}_run", total, len(weights))


def _source(
    program: Program, name: str, head: str, places: Mapping[str, str], copies: Sequence[str], arena: int
) -> str:
    """The C file: weights, arena, and the calls in order."""
    calls = [(*call.operands, call.result, _room(at)) for at, call in enumerate(program.calls)]
    names = [f"{name}_{symbol}" for symbol in symbols(program)]
    width = dict(zip(names, map(len, calls), strict=True))
    return "\n".join([
        f'#include "{name}.h"', "",
        *(f"void {each}({', '.join(['void *'] * width[each])});" for each in width), "",
        f'__asm__(".section .rodata.{name}_weights,\\"a\\"\\n.balign {BOUNDARY}\\n{name}_weights:\\n"',
        f'        ".incbin \\"{name}.bin\\"\\n.previous\\n");',
        f"extern uint8_t {name}_weights[];",
        f"static _Alignas({BOUNDARY}) uint8_t arena[{max(arena, 1)}];", "",
        f"{head} {{",
        *(f"    {each}({', '.join(places[slot] for slot in slots)});"
          for each, slots in zip(names, calls, strict=True)),
        *copies, "}", "",
    ])  # fmt: skip


def _weights(program: Program, name: str) -> tuple[dict[str, str], bytes]:
    """Where each constant lies, and all of them."""
    places, whole = {}, bytearray()
    for slot, array in program.constants.items():
        places[slot] = f"{name} + {len(whole)}"
        whole += np.ascontiguousarray(array).tobytes()
        whole += bytes(rounded(len(whole)) - len(whole))
    return places, bytes(whole)


def _arena(program: Program, rooms: Mapping[str, int]) -> tuple[dict[str, str], int]:
    """Where each result and the scratch memory of each call lie, and the bytes of all; outputs lie with the caller."""
    outside = {port.slot for port in (*program.inputs, *program.outputs)}
    blocks: dict[str, offsets.Rectangle] = {}
    for at, (call, name) in enumerate(zip(program.calls, symbols(program), strict=True)):
        blocks[_room(at)] = offsets.Rectangle(rounded(rooms[name]), at, at)
        for slot in (*call.operands, call.result):
            if slot not in program.constants and slot not in outside:
                kind = program.buffers[slot]
                size = rounded(kind.size * np.dtype(kind.dtype).itemsize)
                first = blocks[slot].first if slot in blocks else at
                blocks[slot] = offsets.Rectangle(size, first, at)
    steps = range(len(program.calls))
    bound = max((sum(r.bytes for r in blocks.values() if r.first <= at <= r.last) for at in steps), default=0)
    placed = offsets.place([(each,) for each in blocks.values()], bound)
    return {slot: f"arena + {at}" for slot, at in zip(blocks, placed.offsets, strict=True)}, placed.bytes


def _room(step: int) -> str:
    """The name of a call's scratch memory among the places; no buffer has it."""
    return f"room {step}"


def rounded(size: int) -> int:
    """Up to the next boundary."""
    return math.ceil(size / BOUNDARY) * BOUNDARY
