"""Boards for tests: QEMU's with the firmware at a socket, lines with faults, and one in Python that lies as told."""

import itertools
import re
import runpy
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import onnx

import edgesmith
from edgesmith import targets
from edgesmith.ir.errors import MachineError
from edgesmith.runtimes import artifact as artifacts
from edgesmith.runtimes import board as boards
from edgesmith.runtimes import qemu
from edgesmith.runtimes.board_firmware import Firmware
from edgesmith.runtimes.board_link import checksum, fnv
from edgesmith.runtimes.host import Program

TESTS = Path(__file__).parent
AN500, AN386 = (str(TESTS / "boards" / f"{name}.toml") for name in ("an500", "an386"))


def builder(place):
    """The tiny network's artifact by target, compiled once."""
    onnx.save(runpy.run_path(str(TESTS / "conftest.py"))["tiny_network"](), place / "tiny.onnx")
    made = {}

    def build(target):
        if target not in made:
            out = place / Path(target).stem
            made[target] = edgesmith.compile(place / "tiny.onnx", target, out=out, check=False).folder
        return made[target]

    return build


def without_emulated(place):
    """A target for a board that is no emulator's."""
    own = place / "own.toml"
    own.write_text(Path(AN500).read_text().replace("emulated = true\n", ""))
    return str(own)


def feeds(folder, seed=1):
    noise = np.random.default_rng(seed)
    return {
        each.name: noise.integers(-128, 128, each.shape).astype(each.dtype) for each in artifacts.load(folder).inputs
    }


@cache
def host(folder):
    return Program(folder)


def firmware(folder):
    library = artifacts.load(folder)
    return Firmware(library, targets.get(library.target))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """QEMU with the firmware, its serial line and its monitor at sockets; it waits for the line before it starts."""

    def __init__(self, ware, machine="mps2-an500", before=0, *options):
        self.ware = ware  # its files go with it
        self.line, self.monitor = free_port(), free_port()
        command = [qemu.COMMAND, "-M", machine, "-kernel", str(ware.image), "-display", "none", *options]
        command += ["-monitor", f"tcp:127.0.0.1:{self.monitor},server=on,wait=off"]
        command += ["-serial", "null"] * before + ["-serial", f"tcp:127.0.0.1:{self.line},server=on,wait=on"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"socket://127.0.0.1:{self.line}"

    def connect(self, name, baud):
        for _ in range(200):
            with suppress(MachineError):
                return boards.open_port(name, baud)
            time.sleep(0.05)
        raise AssertionError("QEMU does not listen")

    def reset(self):
        with socket.create_connection(("127.0.0.1", self.monitor)) as monitor:
            monitor.sendall(b"system_reset\n")
            time.sleep(0.2)

    def runner(self, **options):
        return boards.Board(self.url, connect=self.connect, **options)


@contextmanager
def running(ware, *options):
    machine = Machine(ware, *options)
    try:
        yield machine
    finally:
        machine.process.kill()
        machine.process.wait()


class Line:
    """A serial line that passes everything on."""

    def __init__(self, port):
        self.port = port

    def read(self, size=1):
        return self.port.read(1 if size > 1 else size)

    def write(self, data):
        return self.port.write(data)

    def close(self):
        self.port.close()


class Noisy(Line):
    """One byte in some gets lost, is changed, or has another before it, both ways."""

    def __init__(self, port, share=0.004, seed=0):
        super().__init__(port)
        self.draw, self.share, self.harmed = np.random.default_rng(seed), share, 0

    def harm(self, data):
        out = bytearray()
        for byte in data:
            if self.draw.random() > self.share:
                out.append(byte)
                continue
            self.harmed += 1
            other = int(self.draw.integers(256))
            out += (b"", bytes([other]), bytes([other, byte]))[self.draw.integers(3)]
        return bytes(out)

    def read(self, size=1):
        data = super().read(size)
        return self.harm(data) or data[:0] if data else data

    def write(self, data):
        return super().write(self.harm(data))


class Resetting(Line):
    """Resets the board once it told some rounds."""

    def __init__(self, port, machine, after):
        super().__init__(port)
        self.machine, self.left, self.seen = machine, after, b""

    def read(self, size=1):
        data = super().read(size)
        self.seen = (self.seen + data)[-4:]
        if self.seen == b"RES ":
            self.left -= 1
            if self.left == 0:
                self.machine.reset()
        return data


class Counting(Line):
    """Lends QEMU, whose cycle counter stands still, one that counts as its SysTick does."""

    def __init__(self, port):
        super().__init__(port)
        self.seen, self.out = b"", b""

    def read(self, size=1):
        while not self.out and (data := self.port.read(1)):
            self.seen += data
            if data == b"\n":
                self.out, self.seen = self.counted(self.seen), b""
        data, self.out = self.out[:size], self.out[size:]
        return data

    @staticmethod
    def counted(line):
        text, found = line.split(b"#")[0], re.search(rb"systick=(\w+):(\w+)", line)
        if not found:
            return line
        cycles = (int(found[1], 16) << 24) + int(found[2], 16)
        text = re.sub(rb"cyccnt=\w+", b"cyccnt=%08x" % cycles, text)
        return text + b"#%04x\n" % checksum(text)


def same_as_host(folder, measured, inputs):
    program = host(folder)
    wanted = program.library.results(program.call(program.library.arrays(inputs)))[1]
    assert list(wanted) == list(measured)
    return all(np.array_equal(wanted[name], measured[name]) for name in wanted)


class Fake:
    """A board in Python: speaks the protocol with a cycle counter, and lies where it is told to."""

    def __init__(self, folder, cyccnt=1000, cpuid=0x411FC272, lose=(), lie=0):
        self.program, self.out, self.sent = host(folder), b"", itertools.count()
        library = self.program.library
        self.inputs = [bytearray(each.nbytes) for each in library.inputs]
        self.outputs = [bytes(each.nbytes) for each in library.outputs]
        self.cyccnt, self.cpuid, self.lose, self.lie = cyccnt, cpuid, lose, lie
        self.build = firmware(folder).build
        self.in_waiting = 4096

    def say(self, text):
        if next(self.sent) not in self.lose:
            self.out += text.encode() + f"#{checksum(text.encode()):04x}\n".encode()

    def read(self, size=1):
        data, self.out = self.out[:size], self.out[size:]
        return data

    def close(self):
        pass

    def write(self, data):
        word, *rest = data.decode().strip().split("#")[0].split()
        getattr(self, word.lower())(*rest)

    def ping(self):
        self.say(f"PONG {self.cpuid:08x} {self.build} a board")

    def sum(self, buffer):
        self.say(f"SUM {int(buffer, 16):08x} {fnv(bytes(self.inputs[int(buffer, 16)])):08x}")

    def put(self, buffer, offset, data):
        at, data = int(offset, 16), bytes.fromhex(data)
        self.inputs[int(buffer, 16)][at : at + len(data)] = data
        self.say(f"OK {int(buffer, 16):08x} {at:08x} {len(data):08x}")

    def get(self, buffer, offset, count):
        number, at = int(buffer, 16), int(offset, 16)
        data = self.outputs[number - len(self.inputs)][at : at + int(count, 16)]
        self.say(f"DATA {number:08x} {at:08x} {data.hex()}")

    def run(self, count, tag):
        self.say(f"ACK {int(tag, 16):08x}")
        library = self.program.library
        arrays = [np.frombuffer(bytes(data), each.dtype).reshape(each.shape)
                  for data, each in zip(self.inputs, library.inputs, strict=True)]  # fmt: skip
        self.outputs = [each.tobytes() for each in self.program.call(arrays)]
        for number in range(int(count, 16)):
            hashed = fnv(b"".join(self.outputs)) ^ (self.lie if number or int(count, 16) == 1 else 0)
            self.say(f"RES {int(tag, 16):08x} {number:08x} cyccnt={self.cyccnt:08x} systick=00000000:{1000:08x} "
                     f"hash={hashed:08x} in={fnv(b''.join(map(bytes, self.inputs))):08x} stack={99:08x}")  # fmt: skip
        self.say(f"END {int(tag, 16):08x}")


def faked(fake):
    return boards.Board("fake", connect=lambda name, baud: fake)
