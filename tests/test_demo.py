"""The demo: from the trained sample to an emulated device, with the figures it promises."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.emulator
def test_demo_prints_what_it_promises(fashion, tmp_path):
    command = [sys.executable, str(fashion / "demo.py"), "--pictures", "24", "--out", str(tmp_path / "demo")]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    accuracy = re.search(r"accuracy +([\d.]+)% float .* ([\d.]+)% int8 .* \(24 pictures\)", done.stdout)
    assert accuracy and float(accuracy[1]) > 70 and abs(float(accuracy[1]) - float(accuracy[2])) <= 100 * 2 / 24
    pattern = r"RAM +([\d.]+) KiB of 256.0 KiB: arena ([\d.]+) KiB planned, ([\d.]+) KiB measured"
    memory = re.search(pattern, done.stdout)
    assert memory and memory[2] == memory[3] and float(memory[1]) >= float(memory[2])
    for line in (r"flash +[\d.]+ KiB of 896.0 KiB: weights", r"instructions +[\d,]{7,}", r"latency +.* ms \(estimated"):
        assert re.search(line, done.stdout), line
    assert (tmp_path / "demo" / "report.html").is_file()
    assert f"report        {tmp_path / 'demo' / 'report.html'}" in done.stdout
    assert "run on the emulator: 24 of 24" in done.stderr
