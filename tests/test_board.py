"""Boards at a serial port: the whole protocol on QEMU's boards, with noise, lost bytes and resets in mid-run."""

import json
import re
import runpy
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import edgesmith
from edgesmith import runtimes
from edgesmith.cli import verbs
from edgesmith.ir.errors import UsageError
from edgesmith.runtimes import board as boards
from edgesmith.runtimes import qemu
from edgesmith.runtimes.board_link import BoardReset

pytest.importorskip("ziglang")
pytest.importorskip("serial")
M = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("board_machines.py"))))
pytestmark = [
    pytest.mark.compiler,
    pytest.mark.emulator,
    pytest.mark.skipif(not shutil.which(qemu.COMMAND), reason="needs qemu-system-arm"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The tiny network's artifact by target, compiled once."""
    return M.builder(tmp_path_factory.mktemp("boards"))


@pytest.mark.parametrize(
    ("target", "machine", "before"),
    [(M.AN500, "mps2-an500", 0), (M.AN386, "mps2-an386", 0),
     ("stm32f411", "netduinoplus2", 1), ("stm32f207", "netduino2", 2)],
)  # fmt: skip
def test_a_board_computes_what_this_computer_does(built, target, machine, before):
    folder = built(target)
    ware, inputs = M.firmware(folder), M.feeds(folder)
    with M.running(ware, machine, before, "-icount", "shift=0") as found:
        measured = found.runner(repeats=3).run(folder, inputs)
    assert M.same_as_host(folder, measured.raw, inputs)
    assert measured.kind == measured.latency_kind == "emulated" and "no DWT" in measured.latency_because
    assert measured.latency_because.startswith("4 runs by SysTick")
    assert 0 < measured.latency_ms[0] <= measured.latency_ms[1] < 10 * measured.latency_ms[0]
    if target == M.AN500:
        emulated = runtimes.load("emulator").run(folder, inputs)
        assert abs(measured.stack_high_water - emulated.stack_high_water) <= 96
    assert "QEMU" in measured.device or "NUCLEO" in measured.device


def test_a_pseudo_terminal_is_a_port_too(built):
    folder = built(M.AN500)
    ware = M.firmware(folder)
    command = [qemu.COMMAND, "-M", "mps2-an500", "-kernel", str(ware.image), "-display", "none"]
    process = subprocess.Popen([*command, "-monitor", "none", "-serial", "pty"], stdout=subprocess.PIPE, text=True)
    try:
        path = re.search(r"/dev/\S+", process.stdout.readline())[0]
        inputs = M.feeds(folder)
        assert M.same_as_host(folder, boards.Board(path).run(folder, inputs).raw, inputs)
    finally:
        process.kill()
        process.wait()


def test_noise_and_lost_bytes_change_nothing(built):
    folder, lines = built(M.AN500), []
    inputs = M.feeds(folder)

    def connect(name, baud):
        lines.append(M.Noisy(found.connect(name, baud)))
        return lines[-1]

    with M.running(M.firmware(folder)) as found:
        runner = replace(found.runner(repeats=8), connect=connect)
        session = runner.open(folder)
        session.link.seconds = 0.15
        raw = session.run(inputs)
        told = session.first(inputs)[1]
        rounds, reset = session.again(told, 20)
        session.close()
    assert lines[0].harmed > 10
    assert M.same_as_host(folder, raw, inputs)
    assert len(rounds) == 20 and reset is None


def test_a_reset_in_mid_run_leaves_what_was_finished(built):
    folder = built(M.AN500)
    inputs = M.feeds(folder)
    with M.running(M.firmware(folder)) as found:
        runner = found.runner(repeats=20000)
        runner = replace(runner, connect=lambda *given: M.Resetting(found.connect(*given), found, 6))
        measured = runner.run(folder, inputs)
    kept = int(re.match(r"(\d+) of 20001 runs, then the board was reset", measured.latency_because)[1])
    assert 5 <= kept < 20001
    assert M.same_as_host(folder, measured.raw, inputs)


def test_bench_on_a_board_keeps_the_rounds_before_a_reset(built, monkeypatch):
    folder = built(M.AN500)
    with M.running(M.firmware(folder)) as found:
        port = found.connect
        monkeypatch.setattr(boards, "RUNNER", found.runner())
        whole = edgesmith.bench(folder, "board", runs=5)
        monkeypatch.setattr(boards, "RUNNER", replace(found.runner(), connect=lambda *given: M.Resetting(
            port(*given), found, 8)))  # fmt: skip
        cut = edgesmith.bench(folder, "board", runs=50)
    assert whole.stopped is None and whole.sides[0].runs == 5 and whole.sides[0].kind == "emulated"
    assert whole.sides[0].because.startswith("by SysTick at 25 MHz")
    assert cut.sides[0].runs == 4 and "gone after 4 of 50" in cut.stopped.what and "reset" in cut.stopped.why


def test_the_command_line_reaches_a_board(built, monkeypatch, tmp_path):
    folder = built(M.AN500)
    with M.running(M.firmware(folder)) as found:
        monkeypatch.setattr(boards, "RUNNER", found.runner())
        line = ["run", str(folder), "--on", "board", "--port", found.url, "--check", "--json"]
        done = CliRunner().invoke(verbs.commands, line)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["equal"], told["samples"], told["kind"], told["latency_kind"]) == (1, 1, "emulated", "emulated")


def test_a_run_on_a_board_narrows_the_next_estimate(built, monkeypatch, tmp_path):
    """From the serial line to the file and to the band; a SysTick of 25 MHz counts 4 cycles for 5 instructions here."""
    folder, file = built(M.without_emulated(tmp_path)), tmp_path / "board.json"

    def told(*words):
        done = CliRunner().invoke(verbs.commands, ["run", str(folder), "--json", *map(str, words)])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    with M.running(M.firmware(folder), "mps2-an500", 0, "-icount", "shift=5") as found:
        monkeypatch.setattr(boards, "RUNNER", replace(
            found.runner(), connect=lambda *given: M.Counting(found.connect(*given))))  # fmt: skip
        measured = told("--on", "board", "--port", found.url, "--calibrate", file)
    wide, narrow = told(), told("--calibration", file)
    assert measured["latency_kind"] == "measured" and narrow["latency_kind"] == "estimated"
    assert narrow["estimate"]["because"] == f"narrowed by a run on {measured['device']}"
    assert narrow["latency_ms"] == pytest.approx(measured["latency_ms"], rel=1e-6)
    low, high = wide["latency_ms"]
    assert low <= narrow["latency_ms"][0] <= narrow["latency_ms"][1] <= high
    assert narrow["latency_ms"][1] - narrow["latency_ms"][0] < (high - low) / 4


def test_systick_counts_through_its_wraps(built, tmp_path):
    """QEMU's -icount makes an instruction a nanosecond, and this board's SysTick runs at 168 MHz."""
    folder = tmp_path / "slow"
    shutil.copytree(built("stm32f411"), folder)
    harness = folder / "test" / "harness.c"
    loops = 150_000_000
    spin = f'for (int i = 0; i < {loops}; i++) __asm__ volatile("" ::: "memory"); return 0;'
    harness.write_text(harness.read_text().replace("return 0;", spin))
    with M.running(M.firmware(folder), "netduinoplus2", 1, "-icount", "shift=0") as found:
        session = found.runner().open(folder)
        _, told = session.first(M.feeds(folder))
        session.close()
    assert told.systick > 3 * 2**24
    assert told.systick / (loops * 0.168) == pytest.approx(round(told.systick / (loops * 0.168)), rel=0.02)


def test_a_fault_and_other_firmware_are_told(built, tmp_path):
    folder = tmp_path / "faulty"
    shutil.copytree(built(M.AN500), folder)
    harness = folder / "test" / "harness.c"
    harness.write_text(harness.read_text().replace("return 0;", "return *(volatile int *)0x70000000;"))
    with M.running(M.firmware(folder)) as found, pytest.raises(BoardReset) as caught:
        found.runner().run(folder, M.feeds(folder))
    assert "faulted: FAULT" in caught.value.why
    with M.running(M.firmware(folder)) as found, pytest.raises(UsageError, match="other firmware"):
        found.runner().run(built(M.AN500), M.feeds(folder))
