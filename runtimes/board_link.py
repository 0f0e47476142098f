"""The computer's end of the serial line to `firmware/board.c`: checked lines, asked again until an answer fits.

Noise, lost bytes and what a board says unasked are lines whose checksum does not fit, and are passed over. Every
command may be repeated without harm. A greeting in the midst of a conversation means that the board was reset.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..ir.errors import MachineError

__all__ = ["BoardReset", "Identity", "Link", "Port", "Round", "checksum", "fnv"]

CHUNK = 64
"""Bytes of an array in a line; the firmware's line holds 256 characters."""

LONGEST_LINE = 512
ANSWER = re.compile(r"RES (\w{8}) (\w{8}) cyccnt=(\w{8}) systick=(\w{8}):(\w{8}) hash=(\w{8}) in=(\w{8}) stack=(\w{8})")


class Port(Protocol):
    """A serial port, as pyserial has it."""

    def read(self, size: int = 1) -> bytes:
        """Up to that many bytes; fewer, or none, where no more come in the port's own short time."""

    def write(self, data: bytes, /) -> int | None:
        """Send."""

    def close(self) -> None:
        """Give it back."""


class BoardReset(MachineError):  # noqa: N818  (what happened, as the firmware tells it)
    """The board began anew in the midst of a conversation; whatever it held is lost."""


@dataclass(frozen=True)
class Identity:
    """Who answered: the core by its CPUID, the firmware's build, and the board that it was built for."""

    cpuid: int
    build: str
    board: str


@dataclass(frozen=True)
class Round:
    """One inference as the board tells it: both clocks in core cycles, hashes of what went in and out, bytes of stack.

    `cyccnt` is 0 where the core has no running cycle counter.
    """

    cyccnt: int
    systick: int
    hash: int
    inputs: int
    stack: int

    @property
    def cycles(self) -> int:
        """The cycle counter's figure, its wraps at 2^32 told by SysTick; SysTick's own where there is no counter."""
        if not self.cyccnt:
            return self.systick
        return self.cyccnt + round((self.systick - self.cyccnt) / 2**32) * 2**32


def checksum(data: bytes) -> int:
    """CRC-16 of a line, with polynomial 0x1021, beginning with 0xFFFF."""
    state = 0xFFFF
    for byte in data:
        state ^= byte << 8
        for _ in range(8):
            state = ((state << 1) ^ (0x1021 if state & 0x8000 else 0)) & 0xFFFF
    return state


def fnv(data: bytes) -> int:
    """FNV-1a, 32 bits."""
    state = 0x811C9DC5
    for byte in data:
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    return state


@dataclass
class Link:
    """A conversation with a board.

    Attributes:
        port: The line.
        seconds: How long an answer to a short command may take before it is asked again.
        tries: How often a command is sent before the board is given up.
        patience: How long the first inference may take; later ones are held to the longest so far.
    """

    port: Port
    seconds: float = 1.0
    tries: int = 6
    patience: float = 120.0
    _rest: bytes = field(default=b"", init=False)
    _tag: int = field(default=0, init=False)

    def ping(self) -> Identity:
        """Ask who is there; greetings are no news yet.

        Raises:
            MachineError: Nobody answers.
        """
        found = self._ask("PING", re.compile(r"PONG (\w{8}) (\w+) (.+)"), greeted=True)
        return Identity(int(found[1], 16), found[2], found[3])

    def write(self, buffer: int, array: np.ndarray) -> None:
        """Send an input, unless the board has it already.

        Raises:
            MachineError: The board is gone, or keeps something else than was sent.
        """
        data = np.ascontiguousarray(array).tobytes()
        if self._sum(buffer) == fnv(data):
            return
        for offset in range(0, len(data), CHUNK):
            piece = data[offset : offset + CHUNK]
            answer = re.compile(f"OK {buffer:08x} {offset:08x} {len(piece):08x}")
            self._ask(f"PUT {buffer:x} {offset:x} {piece.hex()}", answer)
        if self._sum(buffer) != fnv(data):
            raise MachineError("the board keeps another input than was sent", do="check its memory and its supply")

    def read(self, buffer: int, like: tuple[str, tuple[int, ...]]) -> np.ndarray:
        """Fetch an array of that (dtype, shape)."""
        dtype, shape = like
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        data = b""
        while len(data) < size:
            count = min(CHUNK, size - len(data))
            answer = re.compile(f"DATA {buffer:08x} {len(data):08x} ([0-9a-f]{{{2 * count}}})")
            data += bytes.fromhex(self._ask(f"GET {buffer:x} {len(data):x} {count:x}", answer)[1])
        return np.frombuffer(data, dtype).reshape(shape)

    def run(self, count: int) -> Iterator[Round]:
        """Yield the rounds of that many inferences as they end; those whose lines were lost are run again.

        Raises:
            BoardReset: The board began anew.
            MachineError: It is gone, or its library failed.
        """
        done, silent = 0, 0
        while done < count:
            before = done
            for each in self._series(count - done):
                done += 1
                yield each
            silent = 0 if done > before else silent + 1
            if silent == self.tries:
                raise MachineError("the board does not answer", why=f"after {self.tries} commands to run", do=_LOOK)

    def _series(self, count: int) -> Iterator[Round]:
        self._tag += 1
        heard, last = f"ACK {self._tag:08x}", f"END {self._tag:08x}"
        self._send(f"RUN {count:x} {self._tag:x}")
        longest, began = self.seconds, time.monotonic()
        for line in self._lines():
            if line is None:
                if time.monotonic() - began > longest:
                    return
                continue
            if line == last:
                return
            if line == heard:
                longest, began = self.patience, time.monotonic()
            self._look(line, greeted=False)
            found = ANSWER.fullmatch(line)
            if found and int(found[1], 16) == self._tag:
                took, began = time.monotonic() - began, time.monotonic()
                longest = 4 * took + self.seconds
                _, _, cycles, wraps, ticks, hashed, inputs, stack = (int(part, 16) for part in found.groups())
                yield Round(cycles, (wraps << 24) + ticks, hashed, inputs, stack)

    def _sum(self, buffer: int) -> int:
        return int(self._ask(f"SUM {buffer:x}", re.compile(f"SUM {buffer:08x} (\\w{{8}})"))[1], 16)

    def _ask(self, command: str, answer: re.Pattern[str], greeted: bool = False) -> re.Match[str]:
        for _ in range(self.tries):
            self._send(command)
            began = time.monotonic()
            for line in self._lines():
                if line is not None and (found := answer.fullmatch(line)):
                    return found
                if line is not None:
                    self._look(line, greeted)
                if time.monotonic() - began > self.seconds:
                    break
        why = f"to {command.split()[0]}, sent {self.tries} times"
        raise MachineError("the board does not answer", why=why, do=_LOOK)

    def _look(self, line: str, greeted: bool) -> None:
        """What a line that was not waited for means."""
        if line.startswith("ERR "):
            raise MachineError("the board reports an error", why=line[4:])
        if line.startswith(("BOOT ", "FAULT")) and not greeted:
            why = f"the core faulted: {line}" if line.startswith("FAULT") else "it greeted in the midst of a run"
            raise BoardReset("the board was reset", why=why, do="check its supply and cable, and run again")

    def _send(self, command: str) -> None:
        data = command.encode("ascii")
        try:
            # The first line feed ends what noise may have begun.
            self.port.write(b"\n" + data + f"#{checksum(data):04x}\n".encode("ascii"))
        except OSError as error:
            raise MachineError("the board is gone", why=str(error), do=_LOOK) from error

    def _lines(self) -> Iterator[str | None]:
        """Yield lines whose checksum fits, without it; None as often as the port has nothing."""
        while True:
            try:
                data = self.port.read(max(1, int(getattr(self.port, "in_waiting", 1))))
            except OSError as error:
                raise MachineError("the board is gone", why=str(error), do=_LOOK) from error
            if not data:
                yield None
                continue
            *whole, self._rest = (self._rest + data).split(b"\n")
            self._rest = self._rest[-LONGEST_LINE:]
            for line in whole:
                if (text := _checked(line.strip(b"\r"))) is not None:
                    yield text
            yield None


_LOOK = "check that the board has power, that --port is its line, and that the firmware is on it (--flash)"


def _checked(line: bytes) -> str | None:
    body, mark, sum_ = line[:-5], line[-5:-4], line[-4:]
    if mark != b"#" or not re.fullmatch(rb"[0-9a-f]{4}", sum_) or int(sum_, 16) != checksum(body):
        return None
    return body.decode("ascii", "replace")
