"""Runs compiled TVM libraries with TVM's runtime: here, or on a device behind an RPC tracker.

A library is code. One in an artifact is loaded only if its hash is that of the manifest; a bare file that the caller
names is held against what such a library must look like, and then trusted. With EDGESMITH_TVM_DEVICE=HOST:PORT/KEY the
library is sent to a device that waits with that key at that tracker. A library runs on the number of threads that it
was compiled for, or on TVM_NUM_THREADS where that is less; a device's server has a TVM_NUM_THREADS of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..ir.errors import MachineError, ModelError, UsageError
from ..lowering import artifact as artifacts
from ..lowering.tvm.build import ABOUT, KERNEL, MAIN
from ..lowering.tvm.tune import address
from . import timing
from .runner import Layer, Measurement, Runner, Session

__all__ = ["DEVICE", "RUNNER", "Local", "Remote", "Tvm"]

Array = np.ndarray[Any, np.dtype[Any]]

DEVICE = "EDGESMITH_TVM_DEVICE"
INSTALL = "pip install edgesmith[tvm]"
SYMBOL = "__tvm_ffi__library_bin"
"""Where a library keeps the model; what lacks it is none of TVM's."""

MACHINES = {"x86_64": ("EM_X86_64",), "aarch64": ("EM_AARCH64",), "arm64": ("EM_AARCH64",)}
"""ELF's names for processors, by Python's."""

CPU = Path("/proc/cpuinfo")

TRACKER_SECONDS = 10
SESSION_SECONDS = 600
"""After this long without a call, a device is free for others."""


class Local:
    """A session in this process."""

    def __init__(self, file: Path) -> None:
        """Load a library that was found to be one.

        Raises:
            ModelError: TVM refuses it, or it is no model of ours.
            MachineError: It needs vectors that this processor does not have.
        """
        tvm = _tvm()
        self.file = file
        try:
            self._library = tvm.runtime.load_module(str(file))
            vm = tvm.relax.VirtualMachine(self._library, tvm.cpu())
            self.about = json.loads(str(vm[ABOUT]()))
        except Exception as error:  # TVM raises all kinds, which share only this base
            raise ModelError("TVM cannot load the library", where=[str(file)], why=_first(error)) from error
        _require_vectors(self.about["vectors"], file)
        self._threads = int(self.about.get("threads", 1))
        number = _gather(self._threads)
        self.device = f"TVM {metadata.version('apache-tvm')}, {'one thread' if number == 1 else f'{number} threads'}"
        self._main = vm[MAIN]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference."""
        tvm = _tvm()
        given = [tvm.runtime.tensor(array) for array in _in_order(self.about, self.file, inputs)]
        _gather(self._threads)
        try:
            results = self._main(*given)
        except Exception as error:  # as above
            raise ModelError("TVM cannot run the model", where=[str(self.file)], why=_first(error)) from error
        return _named(self.about, [result.numpy() for result in results])

    def layers(self, inputs: Mapping[str, Array], runs: int) -> tuple[Layer, ...]:
        """Time by kernel, with the names of the layers that they are; each call pays for being watched."""
        tvm = _tvm()
        given = [tvm.runtime.tensor(array) for array in _in_order(self.about, self.file, inputs)]
        began = 0.0
        times: list[float] = []

        def watch(function: object, name: str, before: bool, result: object, *arguments: object) -> int:
            nonlocal began
            if name.startswith(KERNEL):
                if before:
                    began = time.perf_counter()
                else:
                    times.append((time.perf_counter() - began) * 1e3)
            return 0

        vm = tvm.relax.VirtualMachine(self._library, tvm.cpu())
        vm.set_instrument(watch)
        _gather(self._threads)
        for _ in range(runs):
            vm[MAIN](*given)
        names = self.about["layers"]
        rows = (times[at :: len(names)] for at in range(len(names)))
        return tuple(Layer(name, kind, median(row)) for (name, kind), row in zip(names, rows, strict=True))

    def close(self) -> None:
        """Free the runtime's memory; the code stays, as nothing can unload it safely."""
        del self._main, self._library


class Remote:
    """A session on a device behind a tracker; it has no times by kernel."""

    def __init__(self, file: Path, place: tuple[str, int, str]) -> None:
        """Ask the tracker for a device, and send it the library.

        Raises:
            MachineError: There is no such tracker, no free device, or it is gone.
        """
        tvm, (host, port, self.key) = _tvm(), place
        rpc = importlib.import_module("tvm.rpc")
        self.file = file
        self.device = f"{self.key} behind {host}:{port}, TVM {metadata.version('apache-tvm')}"
        try:
            socket.create_connection((host, port), TRACKER_SECONDS).close()  # TVM itself would try for a minute
            tracker = rpc.connect_tracker(host, port)
            free = tracker.summary()["queue_info"].get(self.key, {}).get("free", 0)
        except Exception as error:  # TVM raises all kinds, which share only this base
            raise MachineError(f"there is no RPC tracker at {host}:{port}", why=_first(error)) from error
        if not free:
            do = f"start `python -m tvm.exec.rpc_server --tracker={host}:{port} --key={self.key}` on it, or wait"
            raise MachineError(f"no device with the key '{self.key}' is free", where=[f"{host}:{port}"], do=do)
        try:
            self._session = tracker.request(self.key, session_timeout=SESSION_SECONDS)
            self._session.upload(str(file))
            library = self._session.load_module(file.name)
            self._cpu = self._session.cpu()
            self._vm = tvm.relax.VirtualMachine(library, self._cpu)
            self.about = json.loads(str(self._vm[ABOUT]()))
        except Exception as error:  # as above
            raise self._gone(error) from error

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference there."""
        arrays = _in_order(self.about, self.file, inputs)
        tvm = _tvm()
        try:
            self._vm.set_input(MAIN, *(tvm.runtime.tensor(array, self._cpu) for array in arrays))
            self._vm.invoke_stateful(MAIN)
            results = self._vm.get_outputs(MAIN)
            found = [result.numpy() for result in results]
        except Exception as error:  # as above
            raise self._gone(error) from error
        return _named(self.about, found)

    def _gone(self, error: Exception) -> MachineError:
        do = "start its server again; what was measured before is kept"
        return MachineError(f"the device '{self.key}' does not answer", why=_first(error), do=do)

    def layers(self, inputs: Mapping[str, Array], runs: int) -> tuple[Layer, ...]:
        """None: a device tells the time of whole runs only."""
        return ()

    def close(self) -> None:
        """Give the device back."""
        del self._vm, self._cpu, self._session


@dataclass(frozen=True)
class Tvm:
    """The runner for libraries of the tvm back end."""

    name: str = "tvm"
    backends: tuple[str, ...] = ("tvm",)
    kind: str = "measured"

    def why_not(self) -> str | None:
        """What is missing."""
        return None if importlib.util.find_spec("tvm") else INSTALL

    def open(self, artifact: Path) -> Session:
        """Load a library from an artifact whose hashes are right, or a bare one.

        Raises:
            UsageError: It is neither, or what the environment says of a device is wrong.
            ModelError: The file is no library of TVM's.
            MachineError: TVM is missing, the library is for another processor, or the device is gone.
        """
        if missing := self.why_not():
            raise MachineError("TVM is not installed", do=missing)
        file = _file(artifact)
        machine = _examine(file)
        place = address(os.environ.get(DEVICE, ""))
        if place is not None:
            return Remote(file, place)
        if machine not in MACHINES.get(platform.machine(), ()) or platform.system() != "Linux":
            what, why = "the library is for another computer", f"{machine}; here is {platform.machine()}"
            do = f"set {DEVICE}=HOST:PORT/KEY to run it on a device, or compile with --no-check"
            raise MachineError(what, where=[str(file)], why=why, do=do)
        return Local(file)

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """Run the model a few times."""
        return timing.run(self, artifact, inputs)


@cache
def _tvm() -> Any:
    """TVM, without PyTorch: its bridge would load it wherever it is installed, for seconds and nothing."""
    # Its pool of threads is as large as this says when the first kernel runs; bound to cores, it would bind the caller.
    os.environ.setdefault("TVM_NUM_THREADS", str(os.cpu_count() or 1))
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        tvm = importlib.import_module("tvm")
        importlib.import_module("tvm.relax")
    except Exception as error:  # a pair that does not fit fails in many ways
        raise MachineError("TVM cannot be loaded", why=_first(error), do=INSTALL) from error
    finally:
        if absent:
            del sys.modules["torch"]
    return tvm


def _gather(threads: int) -> int:
    """Have so many threads of TVM's pool share the kernels that follow; how many it has."""
    if threads == 1:
        return 1
    tvm = _tvm()
    tvm.get_global_func("runtime.config_threadpool")(-1, threads)
    return int(tvm.get_global_func("runtime.NumThreads")())


def _file(artifact: Path) -> Path:
    """The library of an artifact whose files are those that were written, or a bare one."""
    if not artifact.is_dir():
        if not artifact.is_file():
            raise UsageError("there is no such file", where=[str(artifact)])
        return artifact
    found = artifacts.load(artifact)
    if found.manifest.get("backend") != "tvm":
        why = f"it was compiled for the back end {found.manifest.get('backend')}"
        raise UsageError("the artifact holds no library for TVM", where=[str(artifact)], why=why)
    return artifact / str(found.manifest["file"]["name"])


def _examine(file: Path) -> str:
    """The processor that a library is for, after checking, without loading it, that it is complete and TVM's."""
    from elftools.common.exceptions import ELFError, ELFParseError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    what, size = "the file is no library that the tvm back end wrote", file.stat().st_size
    try:
        with file.open("rb") as stream:
            elf = ELFFile(stream)
            ends = [each["p_offset"] + each["p_filesz"] for each in elf.iter_segments()]
            table = elf.get_section_by_name(".dynsym")
            names = [symbol.name for symbol in table.iter_symbols()] if isinstance(table, SymbolTableSection) else []
            machine, kind = str(elf["e_machine"]), str(elf["e_type"])
    except (ELFError, ELFParseError, ValueError, KeyError, UnicodeDecodeError, AssertionError) as error:
        raise ModelError(what, where=[str(file)], why=_first(error) or type(error).__name__) from error
    if max(ends, default=0) > size:
        raise ModelError(what, where=[str(file)], why="its end is missing", do="compile again")
    if kind != "ET_DYN" or SYMBOL not in names:
        raise ModelError(what, where=[str(file)], why=f"{kind} without {SYMBOL}")
    return machine


def _require_vectors(name: str, file: Path) -> None:
    """Refuse code with vectors that this processor is known to lack: it would end this process."""
    text = CPU.read_text(encoding="utf-8") if CPU.is_file() else ""
    flags = {word for line in text.splitlines() if line.startswith("flags") for word in line.split()}
    if flags and name in ("avx2", "avx512f") and name not in flags:
        raise MachineError(f"the library needs {name}, which this processor lacks", where=[str(file)])


def _in_order(about: Mapping[str, Any], file: Path, inputs: Mapping[str, Array]) -> list[Array]:
    """The inputs as the library takes them."""
    wanted = {port["name"]: port for port in about["inputs"]}
    if set(inputs) != set(wanted):
        why = f"got {', '.join(sorted(inputs)) or 'none'}"
        raise UsageError(f"{file.name} takes the inputs {', '.join(wanted)}", why=why)
    if wrong := [name for name, port in wanted.items() if np.shape(inputs[name]) != tuple(port["shape"])]:
        why = ", ".join(f"{np.shape(inputs[name])} for {tuple(wanted[name]['shape'])}" for name in wrong)
        raise UsageError("input has the wrong shape", where=wrong, why=why)
    return [np.asarray(inputs[name], port["dtype"], order="C") for name, port in wanted.items()]


def _named(about: Mapping[str, Any], arrays: list[Array]) -> dict[str, Array]:
    return {port["name"]: array for port, array in zip(about["outputs"], arrays, strict=True)}


def _first(error: Exception) -> str:
    """The last line of an error's text: TVM puts its own stack before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


RUNNER: Runner = Tvm()
