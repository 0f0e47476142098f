"""How a test calls the C kernels: here, where undefined behaviour traps, and on emulated cores."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesmith.ir import integer_layout
from edgesmith.lowering.c import toolchain
from edgesmith.runtimes.qemu_board import COMMAND
from edgesmith.targets import get

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = (f"-I{Path(toolchain.__file__).with_name('kernels')}", "-Wno-missing-prototypes")
Call = Callable[..., None]


def host_call(folder: Path) -> Call:
    """Calls into a shared object that traps on undefined behaviour."""
    flags = (*FLAGS, "-fsanitize=undefined", "-fsanitize-trap=undefined")
    library = ctypes.CDLL(str(toolchain.compile_shared([SOURCE], folder / "kernels.so", flags=flags)))

    def call(name: str, *arguments: Any) -> None:
        values = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else int(a) for a in arguments]
        getattr(library, name)(*values)

    vars(call)["narrow"] = False
    return call


def device_call(folder: Path, target: str, strict: bool = False, names: tuple[str, ...] = ()) -> Call:
    """Calls into an emulated device; arrays are copied there and back. `strict` faults on misaligned LDRD.

    The emulator's memory callbacks, which `strict` needs, corrupt registers around conditional stores in an IT block
    (seen on the M4 model), so whole kernels run without. `names`: what to keep of the program, all if nothing is said.
    """
    from edgesmith.runtimes import isa
    from edgesmith.runtimes.machine import Machine
    from edgesmith.runtimes.qemu_call import Caller

    every = {line.split("(")[0].split()[-1] for line in SOURCE.read_text().splitlines() if "void t_" in line}
    names = names or tuple(sorted(every))
    if isa.knows(get(target)):
        elf = toolchain.compile_elf([SOURCE], get(target), folder / f"{Path(target).stem}.elf", names, flags=FLAGS)
        machine: Machine | Caller = Machine(get(target), elf, strict=strict)
    else:
        machine = Caller(get(target), [SOURCE], names, FLAGS)

    def call(name: str, *arguments: Any) -> None:
        machine.release()
        places = [machine.buffer(a.nbytes) if isinstance(a, np.ndarray) else int(a) for a in arguments]
        arrays = [(p, a) for p, a in zip(places, arguments, strict=True) if isinstance(a, np.ndarray)]
        for place, array in arrays:
            machine.write(place, array)
        machine.call(name, *places)
        for place, array in arrays:
            array.reshape(-1)[:] = machine.read(place, array.size, str(array.dtype))

    vars(call)["narrow"] = "mve" in get(target).core.features
    return call


def pack_tile(call: Call, x: np.ndarray) -> np.ndarray:
    """The tile of int8 or int16 rows as the core behind `call` has it: narrow where it multiplies bytes."""
    wide = integer_layout.pack_tile(x)
    rows, k = x.shape
    if not vars(call)["narrow"] or x.dtype != np.int8 or k <= 4:
        return wide
    tile = np.pad(x, ((0, -rows % 3), (0, -k % 16))).reshape(-1, 3, (k + 15) // 16, 4, 4)[..., [0, 2, 1, 3]]
    groups = np.ascontiguousarray(tile.transpose(0, 2, 1, 3, 4)).view(np.int16).reshape(-1)
    return np.pad(groups, (0, wide.size - groups.size))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("host", marks=pytest.mark.compiler),
        pytest.param("stm32f746", marks=pytest.mark.emulator),
        pytest.param("stm32f427", marks=pytest.mark.emulator),
        pytest.param("rp2040", marks=pytest.mark.emulator),
        pytest.param("corstone300", marks=pytest.mark.skipif(not shutil.which(COMMAND), reason=f"needs {COMMAND}")),
    ],
)
def call(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Call:
    """How to run a kernel: here, on Cortex-M7, M4, M0+ and M55."""
    folder = tmp_path_factory.mktemp("kernels")
    return host_call(folder) if request.param == "host" else device_call(folder, request.param)
