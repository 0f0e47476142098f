"""Targets: what the files say is what the loader hands out, and nothing unknown passes."""

import pytest

from edgesmith import targets
from edgesmith.targets import TargetError

MINIMAL = 'title = "t"\nbackend = "c"\nclock_hz = 1000\n[core]\nname = "x"\n'
REGION = '[[region]]\nname = "a"\norigin = 0\nsize = 8\nkind = "ram"\n'


def test_f746_has_the_documented_memory_map():
    target = targets.get("stm32f746")
    map_ = {region.name: (region.origin, region.size) for region in target.regions}
    assert map_ == {
        "itcm": (0, 16 << 10), "flash": (0x08000000, 1 << 20), "dtcm": (0x20000000, 64 << 10),
        "sram": (0x20010000, 256 << 10), "qspi": (0x90000000, 16 << 20),
    }  # fmt: skip
    assert target.ram is not None
    assert (target.ram.origin, target.ram.size) == (0x20000000, 320 << 10)
    assert target.ram_budget == (320 - 64) << 10
    assert target.external_flash_budget == 16 << 20


def test_ram_with_gaps_counts_only_its_largest_run():
    ram = targets.get("stm32h743").ram
    assert ram is not None
    assert (ram.origin, ram.size) == (0x24000000, 512 << 10)


@pytest.mark.parametrize("name", targets.names())
def test_every_target_loads_and_gives_reasons(name):
    target = targets.get(name)
    assert target.backend and target.title
    if target.regions:
        assert target.reserve.because
    if target.latency:
        assert target.latency.because
    # What the emulator counts on other cores nobody has set against a clock: no band is better than a guessed one.
    assert (target.latency is not None) == ("dsp" in target.core.features and "mve" not in target.core.features)


def test_the_host_has_no_budget_and_no_estimate():
    host = targets.get("host")
    assert host.ram_budget is None and host.flash_budget is None and host.estimate_ms(1000) is None


def test_estimate_scales_with_instructions_and_clock():
    target = targets.get("stm32f746")
    low, high = target.estimate_ms(216_000_000)
    assert (low, high) == pytest.approx((1000 * target.latency.cycles_low, 1000 * target.latency.cycles_high))


def test_unknown_name_lists_the_known():
    with pytest.raises(TargetError, match="stm32f746"):
        targets.get("stm32f747")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (MINIMAL + "colour = 1\n", "colour"),
        ("nonsense = 1\n" + MINIMAL, "nonsense"),
        (MINIMAL.replace('title = "t"\n', ""), "title"),
        (MINIMAL + REGION.replace("ram", "rom"), "rom"),
        (MINIMAL + REGION + REGION.replace('"a"', '"b"').replace("origin = 0", "origin = 4"), "a and b"),
        (MINIMAL + REGION + "[reserve]\nram = 8\n", "reserve"),
        (MINIMAL + '[latency]\ncycles_low=2\ncycles_high=1\nbecause="?"\n', "latency"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, complaint):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(TargetError, match=complaint):
        targets.get(str(path))


def test_a_target_of_ones_own_loads_from_a_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    assert targets.get(str(path)).name == "mine"
