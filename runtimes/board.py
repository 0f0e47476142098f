"""Runs a generated library on a board at a serial port, as firmware that tells cycles, stack and hashes of outputs.

Only here are figures called measured, and only where the core's own cycle counter ran: emulators of boards speak the
same protocol, and their counter stands still.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import targets
from ..ir.errors import MachineError, UsageError
from . import artifact as artifacts
from . import openocd
from .board_firmware import Firmware
from .board_link import BoardReset, Identity, Link, Port, Round, fnv
from .runner import Layer, Measurement, Runner, Session

__all__ = ["RUNNER", "Board", "Loaded"]

CORES = {
    0xC20: "cortex-m0", 0xC60: "cortex-m0plus", 0xC23: "cortex-m3", 0xC24: "cortex-m4", 0xC27: "cortex-m7",
    0xD20: "cortex-m23", 0xD21: "cortex-m33", 0xD22: "cortex-m55",
}  # fmt: skip
"""By the part number in CPUID."""

COUNTERLESS = ("cortex-m0", "cortex-m0plus", "cortex-m23")
"""Cores that have no cycle counter on any chip: SysTick is their clock."""

READ_SECONDS = 0.02


def open_port(name: str, baud: int) -> Port:
    """The serial port of a name or URL that pyserial knows: /dev/ttyACM0, COM3, socket://host:port.

    Raises:
        UsageError: None was named.
        MachineError: pyserial is missing, or the port cannot be opened.
    """
    if not name:
        do = f"--port, with one of: {', '.join(_ports()) or 'none is there; connect the board'}"
        raise UsageError("no serial port is named", do=do)
    import serial

    try:
        port: Port = serial.serial_for_url(name, baudrate=baud, timeout=READ_SECONDS)
    except (OSError, ValueError) as error:
        raise MachineError("the serial port cannot be opened", where=[name], why=str(error)) from error
    return port


def _ports() -> list[str]:
    from serial.tools import list_ports

    return sorted(port.device for port in list_ports.comports())


class Loaded:
    """A conversation with a board that has the artifact's firmware.

    Attributes:
        device: The board and its core, as both tell.
        kind: "measured", or "emulated" where no cycle counter runs that such a core has; known after a run.
        device_ms: What the last inference took by the board's own clock.
        because: How the time was taken.
    """

    def __init__(self, artifact: Path, board: Board) -> None:
        """Build the firmware, write it where that is asked for, and find out who answers.

        Raises:
            UsageError: The target has no board, or other firmware or another core answers.
            MachineError: Nobody answers, or the firmware cannot be written.
        """
        self.library = artifacts.load(artifact)
        self.target = targets.get(self.library.target)
        self.firmware = Firmware(self.library, self.target)
        if board.flash:
            openocd.flash(self.target, self.firmware.image)
        self.port = board.connect(board.port, self.firmware.board.baud)
        try:
            self.link = Link(self.port)
            who = self.link.ping()
            core = self._core(who)
        except BaseException:
            self.port.close()
            raise
        self.device = f"{core} of {who.board}"
        self.kind = "emulated" if self.firmware.board.emulated else "measured"
        self.because = ""
        self.device_ms: float | None = None

    def _core(self, who: Identity) -> str:
        """The core's name, once it is the one that the firmware was made for."""
        core = CORES.get(who.cpuid >> 4 & 0xFFF, f"CPUID {who.cpuid:08x}")
        if who.build != self.firmware.build:
            why = f"it has build {who.build}, this artifact's is {self.firmware.build}"
            raise UsageError("other firmware is on the board", why=why, do="run again with --flash")
        if core != self.target.core.name:
            what = f"a {core} answers, the artifact is for a {self.target.core.name}"
            raise UsageError(what, do="compile for the board's part")
        return core

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference: stored values in and out."""
        return self.library.results(self.first(inputs)[0])[1]

    def first(self, inputs: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], Round]:
        """One inference on these inputs: its outputs, and what the board tells of it.

        Raises:
            BoardReset: The board began anew.
            MachineError: It is gone, or what it sent is not what it computed.
        """
        arrays = self.library.arrays(inputs)
        for number, array in enumerate(arrays):
            self.link.write(number, array)
        (told,) = self.link.run(1)
        outputs = [
            self.link.read(len(arrays) + number, (tensor.dtype, tensor.shape))
            for number, tensor in enumerate(self.library.outputs)
        ]
        if told.inputs != fnv(b"".join(array.tobytes() for array in arrays)):
            raise MachineError("the board computed on another input than was sent", do="check its memory and supply")
        if told.hash != fnv(b"".join(array.tobytes() for array in outputs)):
            raise MachineError("the board's outputs are not those that it hashed", do="check its memory and supply")
        self._believe(told)
        return outputs, told

    def again(self, told: Round, count: int) -> tuple[list[Round], BoardReset | None]:
        """More rounds on the same inputs, as many as are finished before the board is reset, if it is.

        Raises:
            MachineError: A round has other outputs than the first, or the board is gone.
        """
        rounds: list[Round] = []
        try:
            for each in self.link.run(count):
                if (each.hash, each.inputs) != (told.hash, told.inputs):
                    raise MachineError("a round gave another result than the first", do="check the board's supply")
                rounds.append(each)
        except BoardReset as error:
            return rounds, error
        return rounds, None

    def milliseconds(self, told: Round) -> float:
        """The time of a round at the clock that the board has after a reset."""
        return told.cycles * 1e3 / self.firmware.board.clock_hz

    def _believe(self, told: Round) -> None:
        """How much the time is worth: an emulator's counter stands still, and a real one does not."""
        board = self.firmware.board
        counter = "cycle counter" if told.cyccnt else "SysTick"
        clock = f"by {counter} at {board.clock_hz / 1e6:g} MHz, the clock after a reset"
        if board.clock_hz < self.target.clock_hz:
            clock += f"; at {self.target.clock_hz / 1e6:g} MHz flash adds wait states"
        if not told.cyccnt and self.target.core.name not in COUNTERLESS:
            self.kind = "emulated"
            clock += "; no DWT: the cycle counter stands still, as in an emulator, so this time is not called measured"
        self.because, self.device_ms = clock, self.milliseconds(told)

    def layers(self, inputs: Mapping[str, np.ndarray], runs: int) -> tuple[Layer, ...]:
        """None: the firmware times whole inferences."""
        del inputs, runs
        return ()

    def close(self) -> None:
        """Give the port back; the firmware stays on the board."""
        self.port.close()


@dataclass(frozen=True)
class Board:
    """The runner for a board at a serial port.

    Attributes:
        port: Its name, or a URL of pyserial.
        flash: Whether to write the firmware first, with OpenOCD.
        repeats: Inferences that are timed after the first.
        connect: Opens the port.
    """

    port: str = ""
    flash: bool = False
    repeats: int = 5
    connect: Callable[[str, int], Port] = field(default=open_port, repr=False)
    name: str = "board"
    backends: tuple[str, ...] = ("c",)
    kind: str = "measured"

    def why_not(self) -> str | None:
        """What is missing."""
        missing = [name for name, module in (("ziglang", "ziglang"), ("edgesmith[board]", "serial"))
                   if importlib.util.find_spec(module) is None]  # fmt: skip
        return f"pip install {' '.join(missing)}" if missing else None

    def open(self, artifact: Path) -> Session:
        """Build the firmware and find the board."""
        return Loaded(artifact, self)

    def run(self, artifact: Path, inputs: Mapping[str, np.ndarray]) -> Measurement:
        """One inference for its outputs, and more for their time; a reset in between leaves the finished ones."""
        session = Loaded(artifact, self)
        try:
            raw, told = session.first(inputs)
            rounds, reset = session.again(told, self.repeats)
        finally:
            session.close()
        times = [session.milliseconds(each) for each in (told, *rounds)]
        because = f"{len(times)} runs {session.because}"
        if reset:
            because = f"{len(times)} of {self.repeats + 1} runs, then the board was reset; {session.because}"
        outputs, stored = session.library.results(raw)
        return Measurement(
            self.name, session.device, session.kind, outputs, stored, (min(times), max(times)), session.kind, because,
            stack_high_water=max(each.stack for each in (told, *rounds)),
        )  # fmt: skip


RUNNER: Runner = Board()
