"""Runs in a process of its own, as a script: what of LiteRT may crash natively, and must not take a measurement along.

`try FILE`: load a file of unknown origin and run it once, on zeros.
`profile FILE FEEDS.npz RUNS THREADS`: print the microseconds of each operator as JSON. Python's interface does not tell
them, the C interface in the same wheel does, by structures whose layout only fits the versions named here.
"""

from __future__ import annotations

import ctypes
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

VERSIONS = ("2.2.", "2.3.")
"""Beginnings of the wheel's versions whose C interface this is."""

OPERATOR, DELEGATED = 2, 8
"""Kinds of events: an operator of the file, or of the library that took over a part of it."""

DELEGATES = ("TfLiteXNNPackDelegate", "XNNPackDelegate")
"""Operators that stand for a part taken over; what happens within is reported on its own."""

Handle = ctypes.c_void_p
CPU = 1


class Event(ctypes.Structure):
    """ProfiledEventData of litert_profiler_event.h."""

    _fields_ = [
        ("tag", ctypes.c_void_p), ("kind", ctypes.c_int), ("start_us", ctypes.c_uint64), ("us", ctypes.c_uint64),
        ("memory", ctypes.c_uint64 * 6), ("node", ctypes.c_uint64), ("other", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]  # fmt: skip


class Profiler:
    """A file loaded through the C interface, which profiles itself."""

    def __init__(self, file: Path, threads: int) -> None:
        """Load and compile the file."""
        import ai_edge_litert

        self._library = ctypes.CDLL(str(Path(str(ai_edge_litert.__file__)).with_name("libLiteRt.so")))
        self._environment, self._model, options = Handle(), Handle(), Handle()
        self._compiled, self._signature, self._profiler = Handle(), Handle(), Handle()
        self._do("CreateEnvironment", 0, None, ctypes.byref(self._environment))
        self._do("CreateModelFromFile", self._environment, str(file).encode(), ctypes.byref(self._model))
        self._do("CreateOptions", ctypes.byref(options))
        self._do("SetOptionsHardwareAccelerators", options, CPU)
        self._add(options, b"runtime_options_string", b"enable_profiling = true\n")
        self._add(options, b"xnnpack", b"num_threads = %d\n" % threads)
        self._do("CreateCompiledModel", self._environment, self._model, options, ctypes.byref(self._compiled))
        self._do("GetModelSignature", self._model, ctypes.c_size_t(0), ctypes.byref(self._signature))
        self._do("CompiledModelGetProfiler", self._compiled, ctypes.byref(self._profiler))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")

    def _do(self, name: str, *arguments: Any) -> None:
        if status := self._library[f"LiteRt{name}"](*arguments):
            raise RuntimeError(f"LiteRt{name} returned {status}")

    def _add(self, options: Handle, name: bytes, text: bytes) -> None:
        """Attach options as text; the library frees the copy it is given."""
        system, added = ctypes.CDLL(None), Handle()
        system.strdup.restype = ctypes.c_void_p
        free = ctypes.cast(system.free, Handle)
        self._do("CreateOpaqueOptions", name, Handle(system.strdup(text)), free, ctypes.byref(added))
        self._do("AddOpaqueOptions", options, added)

    def _count(self, name: str, of: Handle, kind: Any = ctypes.c_size_t) -> int:
        count = kind()
        self._do(name, of, ctypes.byref(count))
        return int(count.value)

    def _buffers(self, side: str) -> Any:
        """Memory for all inputs or outputs, of the kind that the compiled model wants."""
        found = []
        for number in map(ctypes.c_size_t, range(self._count(f"GetNumSignature{side}s", self._signature))):
            tensor, wanted, buffer, form = Handle(), Handle(), Handle(), (ctypes.c_uint8 * 512)()
            self._do(f"GetSignature{side}TensorByIndex", self._signature, number, ctypes.byref(tensor))
            self._do("GetRankedTensorType", tensor, form)
            name = f"GetCompiledModel{side}BufferRequirements"
            self._do(name, self._compiled, ctypes.c_size_t(0), number, ctypes.byref(wanted))
            self._do("CreateManagedTensorBufferFromRequirements", self._environment, form, wanted, ctypes.byref(buffer))
            found.append(buffer)
        return (Handle * len(found))(*found)

    def fill(self, feeds: dict[str, np.ndarray]) -> None:
        """Copy the inputs."""
        for number, buffer in enumerate(self._inputs):
            name, place = ctypes.c_char_p(), Handle()
            self._do("GetSignatureInputName", self._signature, ctypes.c_size_t(number), ctypes.byref(name))
            array = feeds[(name.value or b"").decode()] if len(feeds) > 1 else next(iter(feeds.values()))
            size = self._count("GetTensorBufferPackedSize", Handle(buffer))
            if size != array.nbytes:
                raise RuntimeError(f"input {number} has {size} bytes, not {array.nbytes}")
            self._do("LockTensorBuffer", Handle(buffer), ctypes.byref(place), 1)
            ctypes.memmove(place, array.ctypes.data, array.nbytes)
            self._do("UnlockTensorBuffer", Handle(buffer))

    def run(self) -> None:
        """One inference."""
        first, takes, gives = map(ctypes.c_size_t, (0, len(self._inputs), len(self._outputs)))
        self._do("RunCompiledModel", self._compiled, first, takes, self._inputs, gives, self._outputs)

    def operators(self) -> list[tuple[str, int, int, int]]:
        """Kind, sort of event, number and microseconds of each operator of one more inference, in order."""
        self._do("ResetProfiler", self._profiler)
        self._do("StartProfiler", self._profiler)
        self.run()
        self._do("StopProfiler", self._profiler)
        count = self._count("GetNumProfilerEvents", self._profiler, ctypes.c_int)
        # Twice the room, so that a version with longer events is found out and not obeyed.
        events = (Event * (2 * count))()
        self._do("GetProfilerEvents", self._profiler, count, events)
        kinds = {1 << bit for bit in range(9)}
        strange = any(each.kind not in kinds or not each.tag for each in events[:count])
        if strange or any(each.tag or each.kind for each in events[count:]):
            raise RuntimeError("its events are laid out in another way")
        found = []
        for each in events[:count]:
            kind = ctypes.string_at(each.tag).decode("utf-8", "replace")
            if each.kind in (OPERATOR, DELEGATED) and kind not in DELEGATES:
                found.append((kind.removeprefix("Delegate/"), each.kind, each.node, each.us))
        return found


def attempt(file: Path) -> None:
    """Load a file and run it once; an error that Python is told of is not for here."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(file), num_threads=1)
        interpreter.allocate_tensors()
        interpreter.invoke()
    except (RuntimeError, ValueError):
        return


def profile(file: Path, feeds: Path, runs: int, threads: int) -> dict[str, Any]:
    """Microseconds by operator and run, or why not."""
    version = metadata.version("ai-edge-litert")
    if not version.startswith(VERSIONS):
        known = ", ".join(f"{each}x" for each in VERSIONS)
        return {"why": f"the C interface of ai-edge-litert {version} is not known here, only that of {known}"}
    try:
        profiler = Profiler(file, threads)
        with np.load(feeds, allow_pickle=False) as arrays:
            profiler.fill({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        profiler.run()
        return {"runs": [profiler.operators() for _ in range(runs)]}
    except (AttributeError, OSError, RuntimeError) as error:
        return {"why": f"the C interface of ai-edge-litert {version} refuses: {error}"}


def main() -> None:
    """Do what the arguments say."""
    verb, file, *others = sys.argv[1:]
    if verb == "try":
        attempt(Path(file))
    else:
        print(json.dumps(profile(Path(file), Path(others[0]), int(others[1]), int(others[2]))))


if __name__ == "__main__":
    main()
