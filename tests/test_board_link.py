"""The computer's end of a board's serial line, the firmware of every target with a board, and flashing by stand-ins."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import edgesmith
from edgesmith import runtimes, targets
from edgesmith.ir.errors import BudgetError, MachineError, UsageError
from edgesmith.runtimes import artifact as artifacts
from edgesmith.runtimes import openocd
from edgesmith.runtimes.board_firmware import Firmware
from edgesmith.runtimes.board_link import Link, Round

WITH_BOARD = [name for name in targets.names() if targets.get(name).board]

pytest.importorskip("ziglang")
pytest.importorskip("serial")
M = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("board_machines.py"))))
pytestmark = [pytest.mark.compiler, pytest.mark.emulator]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The tiny network's artifact by target, compiled once."""
    return M.builder(tmp_path_factory.mktemp("boards"))


@pytest.fixture
def real_board(built, tmp_path):
    """An artifact for a board that is no emulator."""
    return built(M.without_emulated(tmp_path))


def test_only_a_running_cycle_counter_makes_a_measurement(real_board, built):
    inputs = M.feeds(real_board)
    measured = M.faked(M.Fake(real_board, cyccnt=75000)).run(real_board, inputs)
    assert measured.kind == measured.latency_kind == "measured"
    assert measured.latency_ms == (3.0, 3.0) and measured.stack_high_water == 99
    assert measured.latency_because == "6 runs by cycle counter at 25 MHz, the clock after a reset"
    assert M.faked(M.Fake(real_board, cyccnt=0)).run(real_board, inputs).kind == "emulated"
    assert M.faked(M.Fake(built(M.AN500))).run(built(M.AN500), inputs).kind == "emulated"


def test_lost_answers_are_asked_for_again(real_board):
    inputs = M.feeds(real_board)
    session = M.faked(M.Fake(real_board, lose=(1, 3, 5, 8, 9, 12, 13, 16, 20, 21, 25, 31, 33, 35))).open(real_board)
    session.link.seconds, session.link.patience = 0.01, 0.05
    outputs, told = session.first(inputs)
    rounds, reset = session.again(told, 12)
    assert (len(rounds), reset) == (12, None)
    assert M.same_as_host(real_board, session.library.results(outputs)[1], inputs)


def test_a_time_without_the_right_hash_is_not_believed(real_board):
    with pytest.raises(MachineError, match="not those that it hashed"):
        M.faked(M.Fake(real_board, lie=4)).run(real_board, M.feeds(real_board))
    fake = M.Fake(real_board)
    session = M.faked(fake).open(real_board)
    told = session.first(M.feeds(real_board))[1]
    fake.lie = 1
    with pytest.raises(MachineError, match="another result"):
        session.again(told, 4)


def test_another_core_is_refused(real_board):
    with pytest.raises(UsageError, match="cortex-m4 answers"):
        M.faked(M.Fake(real_board, cpuid=0x410FC241)).open(real_board)


class Silent:
    """A line with nobody at it, who may shout all the same."""

    def __init__(self, noise=b""):
        self.noise = noise

    def read(self, size=1):
        return self.noise

    def write(self, data):
        return len(data)

    def close(self):
        pass


@pytest.mark.parametrize("noise", [b"", b"\x00", b"PONG 410fc271 x y\n", b"BOOT#ffff\n", b"x" * 4096])
def test_nobody_or_noise_is_no_board(noise):
    link = Link(Silent(noise), seconds=0.02, tries=2)
    with pytest.raises(MachineError, match="does not answer"):
        link.ping()


class Gone(Silent):
    def read(self, size=1):
        raise OSError("device disconnected")


def test_a_cable_that_is_pulled_is_told():
    with pytest.raises(MachineError, match="the board is gone"):
        Link(Gone()).ping()


@pytest.mark.parametrize(("cyccnt", "systick", "cycles"), [
    (100, 103, 100), (0, 103, 103), (5, 2**32 + 9, 2**32 + 5), (2**32 - 2, 2**32 + 1, 2**32 - 2),
    (2**31, 3 * 2**32 + 2**31 + 7, 3 * 2**32 + 2**31),
])  # fmt: skip
def test_wraps_of_the_cycle_counter_are_told_by_systick(cyccnt, systick, cycles):
    assert Round(cyccnt, systick, 0, 0, 0).cycles == cycles


# ---- every target with a board ----


@pytest.mark.parametrize("name", WITH_BOARD)
def test_firmware_of_every_target_starts_where_flash_does(built, name):
    from elftools.elf.elffile import ELFFile

    ware, target = M.firmware(built(name)), targets.get(name)
    with ware.image.open("rb") as file:
        elf = ELFFile(file)
        vectors = elf.get_section_by_name(".es_harness")
        assert vectors["sh_addr"] == target.of_kind("flash")[0].origin
        stack, reset = np.frombuffer(vectors.data()[:8], "<u4")
        symbols = {each.name: each["st_value"] for each in elf.get_section_by_name(".symtab").iter_symbols()}
    assert stack == symbols["es_stack_high"] and reset == symbols["es_reset"] | 1
    assert target.ram.origin < stack <= target.ram.end
    error = abs(target.board.clock_hz / round(target.board.clock_hz / target.board.baud) / target.board.baud - 1)
    assert error < 0.02, "a receiver's tolerance"


def test_what_has_no_board_or_no_port_is_refused(built, real_board):
    with pytest.raises(UsageError, match="nothing is known of a board"):
        runtimes.load("board").open(built("stm32f427"))
    with pytest.raises(UsageError, match="no serial port is named"):
        edgesmith.run(real_board, "board")
    with pytest.raises(MachineError, match="cannot be opened"):
        edgesmith.run(real_board, "board", port="/dev/no-such-port")
    with pytest.raises(UsageError, match="not reached through a serial port"):
        edgesmith.run(real_board, "emulator", port="/dev/ttyACM0")
    with pytest.raises(UsageError, match="one firmware at a time"):
        edgesmith.bench(real_board, "board", port="fake", vs=real_board)


def test_inputs_without_room_are_refused_with_the_figure(built, tmp_path):
    own = tmp_path / "small.toml"
    own.write_text(Path(M.AN500).read_text().replace("origin = 0x20000000\nsize = 4_194_304",
                                                   "origin = 0x20000000\nsize = 8_448"))  # fmt: skip
    library = artifacts.load(built(M.AN500))
    with pytest.raises(BudgetError, match=r"RAM is too small by \d+ bytes"):
        Firmware(library, targets.get(str(own)))


# ---- OpenOCD ----


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """An executable in OpenOCD's place, that writes down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(status=0, name="openocd"):
        path = folder / name
        code = f"import sys, json; json.dump(sys.argv[1:], open({str(tmp_path / 'called')!r}, 'w'))"
        code += f"; print('Error: open failed', file=sys.stderr); sys.exit({status})"
        path.write_text(f"#!{sys.executable}\n{code}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return tmp_path / "called"

    return make


def test_flashing_calls_openocd_with_the_target_s_scripts(stand_in, real_board, built):
    called = stand_in(name="openocd-esp32")
    openocd.flash(targets.get("stm32f746"), Path("/a place/b.elf"))
    assert json.loads(called.read_text()) == [
        "-f", "interface/stlink.cfg", "-f", "target/stm32f7x.cfg", "-c", "program {/a place/b.elf} verify reset exit",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no scripts of OpenOCD"):
        openocd.flash(targets.get(M.AN500), Path("b.elf"))


def test_flash_comes_before_the_port(stand_in, built):
    called, folder = stand_in(), built("stm32f411")
    fake = M.Fake(folder, cpuid=0x410FC241)
    replace(M.faked(fake), flash=True).open(folder)
    assert json.loads(called.read_text())[-1].endswith("tiny.elf} verify reset exit")


def test_a_probe_that_fails_is_told_in_openocd_s_words(stand_in):
    stand_in(status=1)
    with pytest.raises(MachineError) as caught:
        openocd.flash(targets.get("stm32f746"), Path("b.elf"))
    assert "open failed" in caught.value.why


def test_a_computer_without_openocd(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="not on the path"):
        openocd.command(targets.get("stm32f746"), Path("b.elf"))
