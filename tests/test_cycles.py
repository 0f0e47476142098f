"""Cycles as a band: rules on code read by hand, waiting by the bytes of each region, and what a board's run leaves."""

import dataclasses
import json
import runpy
import shutil
from pathlib import Path

import capstone
import pytest

import edgesmith
from edgesmith import targets
from edgesmith.driver import cycles as driver
from edgesmith.driver import execution
from edgesmith.ir.errors import UsageError
from edgesmith.lowering.c.rates import rates
from edgesmith.runtimes import isa
from edgesmith.runtimes.cycles import Estimate, Term, by_region, code, dual, helium, riscv, single
from edgesmith.runtimes.cycles.calibration import Calibration, load
from edgesmith.runtimes.cycles.estimate import stalls
from edgesmith.runtimes.qemu_board import COMMAND
from edgesmith.runtimes.runner import Measurement

build = runpy.run_path(str(Path(__file__).with_name("build.py")))["vit"]
F746, F411 = targets.get("stm32f746"), targets.get("stm32f411")
SMLAD, LDRD, ADD, LDR = "20fb0341", "d8e90056", "8818", "0368"


def block(text, count=1, taken=(0, 0)):
    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    engine.detail = True
    lines = tuple(map(code._instruction, engine.disasm(bytes.fromhex(text), 0x8000000)))
    return code.Block(lines, count, taken)


def total(terms):
    return sum(term.least for term in terms), sum(term.most for term in terms)


@pytest.mark.parametrize(
    ("text", "band"),
    [
        (SMLAD * 4, (4, 4)),  # one each
        (LDR, (2, 2)),  # a load alone
        (LDR * 3, (4, 6)),  # those behind it may be hidden
        (LDRD, (3, 3)),  # two words and one more
        ("90fbf1f0", (2, 12)),  # sdiv
    ],
)
def test_a_cortex_m4_by_its_manual(text, band):
    assert total(single.terms("cortex-m4", [block(text)])) == band
    assert total(single.terms("cortex-m4", [block(text, 10)])) == tuple(10 * end for end in band)


@pytest.mark.parametrize(
    ("text", "cycles"),
    [
        ("8818", 1),  # adds
        ("5343", 1),  # muls, where the multiplier is the fast one
        ("0368", 2),  # ldr
        ("03680368", 4),  # and one behind another: nothing hides it
        ("0360", 2),  # str
        ("0fc8", 5),  # ldm of four
        ("f0bd", 5 + 3),  # pop of four and the return address: 3 + N
        ("00f000f8", 3),  # bl
        ("7047", 2),  # bx lr
    ],
)
def test_a_cortex_m0plus_by_its_manual(text, cycles):
    jumps = text in ("f0bd", "00f000f8", "7047")
    assert total(single.terms("cortex-m0plus", [block(text, taken=(1, 1) if jumps else (0, 0))])) == (cycles, cycles)


HELIUM = {
    "b1ec305e": "access",  # vldrb.u8 q2, [r1], #48
    "91ed804e": "access",  # vldrb.s16 q2, [r1]
    "93fc001f": "access",  # vld20.32 {q0, q1}, [r3]
    "83ed041f": "access",  # vstrw.32 q0, [r3, #16]
    "bcfd189e": "gather",  # vldrw.u32 q4, [q6, #96]!
    "90fc9b0e": "gather",  # vldrh.s16 q0, [r0, q5, uxtw #1]
    "89ec8a0e": "gather",  # vstrb.16 q0, [r9, q5]
    "f4ee206f": "product",  # vmladava.s8 r6, q2, q0
    "f9fe220f": "product",  # vaddva.u32 r0, q1
    "21ee031e": "vector",  # vrmulh.s32 q0, q0, q1
    "1cec060f": "vector",  # vmov q0[2], q0[0], r6, r12
    "20ef4208": "vector",  # vadd.i32 q0, q0, q1
    "0ff02fc0": "loop",  # le lr
    "91ed000a": "",  # vldr s0, [r1]
    "20ee810a": "",  # vmul.f32 s0, s1, s2
    "21fb0230": "",  # smlad
    "51ea0280": "",  # csel
    "fff7c2bf": "",  # b.w
    "8818": "",  # adds
}


def pieces(text, count=1, machine="EM_ARM"):
    return list(code.decoded(isa.of_machine(machine), [(0x8000000, bytes.fromhex(text), count)]))


def test_helium_is_known_by_its_bits():
    assert {text: helium.unit(bytes.fromhex(text)) for text in HELIUM} == HELIUM


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("b1ec305e" + "f4ee206f", (2, 4)),  # beats of a load and a product overlap, or do not
        ("f4ee206f" * 3, (6, 6)),  # those of one pipe never
        ("bcfd189e", (2, 6)),  # addresses from a vector
        ("0ff02fc0", (0, 1)),
        ("8818" * 2, (1, 2)),
        (SMLAD, (1, 2)),
    ],
)
def test_a_cortex_m55_after_llvm(text, band):
    assert total(helium.terms(pieces(text))) == band


def test_risc_v_is_a_band_about_an_instruction_a_cycle():
    mul, lw, divu, add = "b303b502", "03a30500", "33d3b502", "3e95"
    assert total(riscv.terms(pieces(add * 4, 10, "EM_RISCV"))) == (40, 40)
    assert total(riscv.terms(pieces(mul + lw + divu, 1, "EM_RISCV"))) == (3, 3 + 1 + 1 + 33)
    found = {term.name: term for term in riscv.terms(pieces("e1fd", 10, "EM_RISCV"))}  # c.bnez, back to itself
    assert found["taken branches"].most == 30


def test_taken_branches_count_by_bounds():
    found = {term.name: term for term in single.terms("cortex-m4", [block("fed1", 10, (4, 9))])}
    taken = found["taken branches"]
    assert (taken.least, taken.most) == (4 * 1, 9 * 3)


def test_a_cortex_m3_multiplies_more_slowly():
    assert total(single.terms("cortex-m3", [block("01fb0233")]))[0] == 2  # mla
    assert total(single.terms("cortex-m4", [block("01fb0233")]))[0] == 1


def test_a_cortex_m7_pairs_what_its_slots_allow():
    lines = [block(text).instructions for text in (SMLAD * 4, ADD * 4, SMLAD + LDRD, LDR + "0b68")]
    best = [dual.scoreboard(each, dual.FOR) for each in lines]
    worst = [dual.scoreboard(each, dual.AGAINST) for each in lines]
    assert best[0] == 4 and worst[0] == 4  # products leave by one slot only
    assert best[2] == 1  # and a load goes beside
    assert all(low <= high for low, high in zip(best, worst, strict=True))
    independent = block("8818" "dd19").instructions  # adds r0, r1, r2; adds r5, r3, r7
    assert dual.scoreboard(independent, dual.FOR) == 1


def test_waiting_is_by_lines_of_each_region():
    found = {term.name: term for term in stalls(F746, {"qspi": 3200, "dtcm": 10**6, "flash": 64})}
    qspi = F746.region("qspi")
    assert set(found) == {"lines from qspi", "lines from flash"} and all(term.stall for term in found.values())
    assert found["lines from qspi"].least == 100 * qspi.fill[0]


def test_operands_wait_only_in_slow_ram_and_beyond_the_cache():
    operand = {"offset": 0, "bytes": 8192, "held": 8192, "read": 1000}
    sram, dtcm = F746.region("sram").origin, F746.region("dtcm").origin
    assert by_region(F746, {"operands": [operand]}, sram) == {"dtcm": 0, "sram": 1000}
    assert by_region(F746, {"operands": [operand]}, dtcm)["sram"] == 0
    assert by_region(F746, {"operands": [operand]}, sram - 4096) == {"dtcm": 500, "sram": 500}
    assert by_region(F746, {"operands": [{**operand, "held": 1024}]}, sram) == {}
    assert by_region(F746, {"flash": 7, "external_flash": 9}, sram) == {"flash": 7, "qspi": 9}


def test_rates_follow_from_the_target():
    near, far = rates(F746, 200_000), rates(F746, 6_000_000)
    assert far.weight > 5 * near.weight > 0 and far.far and not near.far
    assert near.operand > 0 and 0 < near.fast < 65_536
    assert rates(F411, 100_000).operand == 0
    assert rates(targets.get("host"), 1) == rates(targets.get("esp32c3"), 1)


# ---- calibration ----


def terms(issue, doubt, branches):
    return (Term("issue", issue, 1, 1, ""), Term("doubt", doubt, 0, 1, ""), Term("branches", branches, 0, 3, ""))


def calibrated(cycles, parts=(100, 50, 10), clock=216, extra=()):
    return Calibration("stm32f746", "board", clock, 216, cycles, (*terms(*parts), *extra))


def test_a_run_fixes_the_band_of_the_same_program():
    found = calibrated((130, 132)).narrow(Estimate(terms(100, 50, 10)))
    assert found.cycles == pytest.approx((130, 132)) and "narrowed" in found.because


def test_another_program_keeps_what_agrees_with_the_run():
    whole = Estimate(terms(1000, 400, 200))
    found = calibrated((130, 130)).narrow(whole)
    # 30 of the 50 doubtful cycles and the 30 of branches: all of the one or all of the other, at 8 and 20 for one.
    assert found.cycles == pytest.approx((1000 + 8 * 30, 1000 + 20 * 30))
    assert whole.cycles[0] < found.cycles[0] < found.cycles[1] < whole.cycles[1]


def test_what_a_run_says_nothing_of_stays_open():
    extra = Term("lines from qspi", 10, 5, 9, "", stall=True)
    found = calibrated((130, 130)).narrow(Estimate((*terms(100, 50, 10), extra)))
    assert found.cycles == pytest.approx((130 + 50, 130 + 90))


def test_at_a_lower_clock_waiting_is_not_told():
    wait = Term("lines from flash", 10, 5, 9, "", stall=True)
    found = calibrated((130, 130), clock=16, extra=(wait,)).narrow(Estimate((*terms(100, 50, 10), wait)))
    assert found.cycles == pytest.approx((100 + 50, 130 + 90))


@pytest.mark.parametrize(("cycles", "scale"), [((360, 380), (2, 380 / 180)), ((50, 60), (0.5, 0.6))])
def test_a_board_outside_of_the_rules_scales_the_band(cycles, scale):
    whole = Estimate(terms(1000, 400, 200))
    end = whole.cycles[0] if cycles[0] < 100 else whole.cycles[1]
    found = calibrated(cycles).narrow(whole)
    assert found.cycles == pytest.approx([end * each for each in scale]) and "outside" in found.because


def test_a_calibration_file_is_read_back_and_others_are_refused(tmp_path):
    made = calibrated((130.0, 132.0))
    (tmp_path / "board.json").write_text(json.dumps(made.json()))
    assert load(tmp_path / "board.json") == made
    for text in ("{}", "[]", "no", '{"cycles": [1, 2], "terms": [{}]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UsageError, match="not a calibration"):
            load(tmp_path / "bad.json")


@pytest.mark.compiler
@pytest.mark.emulator
@pytest.mark.parametrize("target", ["rp2040", "esp32c3"])
def test_bands_without_a_table_or_a_cost_of_flash_say_so(tmp_path, target):
    made = edgesmith.compile(build("float32", depth=1), target, out=tmp_path / "out", check=False)
    found = execution.run(made).measurement
    low, high = found.estimate.cycles
    assert found.instructions < low <= high < 3 * found.instructions
    assert "waiting for flash is not in the band" in found.latency_because
    assert ("no table of cycles is published" in found.latency_because) == (target == "esp32c3")


@pytest.mark.compiler
@pytest.mark.skipif(not shutil.which(COMMAND), reason=f"needs {COMMAND}")
def test_qemu_estimates_as_the_emulator_does(tmp_path):
    made = edgesmith.compile(build("float32", depth=1), "corstone300", out=tmp_path / "m55", check=False)
    found = execution.run(made).measurement
    assert found.runner == "qemu" and found.latency_kind == "estimated"
    assert found.instructions / 2 < found.estimate.cycles[0] < found.estimate.cycles[1] < 4 * found.instructions
    made = edgesmith.compile(build("float32", depth=1), "stm32f411", out=tmp_path / "m4", check=False)
    ours, theirs = (execution.run(made, on=on).measurement.estimate for on in ("emulator", "qemu"))
    assert theirs.core == pytest.approx(ours.core, rel=1e-3)  # blocks are cut elsewhere, so bounds of jumps differ


@pytest.mark.compiler
@pytest.mark.emulator
def test_a_board_that_measured_narrows_the_next_run(tmp_path):
    made = edgesmith.compile(build("float32", depth=1), "stm32f746", out=tmp_path / "out", check=False)
    wide = execution.run(made).measurement
    ms = 1.1 * wide.estimate.core[0] / F746.board.clock_hz * 1e3
    stored = execution.load_vectors(made.folder)[0][0]
    board = Measurement("board", "a board", "measured", {}, {}, (ms, ms), "measured")
    with pytest.raises(UsageError, match="not measured"):
        driver.calibrate(made, dataclasses.replace(board, kind="emulated"), stored, tmp_path / "board.json")
    driver.calibrate(made, board, stored, tmp_path / "board.json")
    narrow = execution.run(made, calibration=tmp_path / "board.json").measurement
    assert "narrowed by a run on a board" in narrow.latency_because
    assert wide.latency_ms[0] <= narrow.latency_ms[0] <= narrow.latency_ms[1] < wide.latency_ms[1]
    for wrong in ({"calibrate": tmp_path / "new.json"}, {"calibration": tmp_path / "board.json", "on": "host"}):
        with pytest.raises(UsageError):
            execution.run(made, **wrong)
