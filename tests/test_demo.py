"""The demo: from the trained sample to an emulated device, with the figures it promises."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import edgesmith
from edgesmith.driver import feeds
from edgesmith.ir import interpret
from edgesmith.ir.passes.pipelines import run_pipeline
from edgesmith.ir.passes.quantise import QuantOptions, convert
from edgesmith.runtimes import ort


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
    lines = (
        r"bits +24 of 24 pictures equal the same C on this computer, whose first 16 equal the integer reference",
        r"flash +[\d.]+ KiB of 896.0 KiB: weights",
        r"instructions +[\d,]{7,}",
        r"latency +.* ms \(estimated",
    )
    for line in lines:
        assert re.search(line, done.stdout), line
    assert (tmp_path / "demo" / "report.html").is_file()
    assert f"report        {tmp_path / 'demo' / 'report.html'}" in done.stdout
    assert "run on the emulator: 24 of 24" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["int8", "int16"])
def test_integers_lose_less_than_a_point_on_all_committed_pictures(fashion, stream):
    with np.load(fashion / "images.npz") as data:
        pictures, labels, typical = data["images"], data["labels"], data["calibration"]
    graph = edgesmith.load(fashion / "model.onnx")
    given, seen = (feeds.samples(images, feeds.inputs_of(graph), "images") for images in (pictures, typical))
    exact = np.stack([next(iter(out.values())) for out in ort.reference(fashion / "model.onnx", given)])
    run_pipeline(graph)
    made = convert(graph, np.concatenate([each["image"] for each in seen]), QuantOptions(stream=stream))
    found = np.stack([interpret.run(made.graph, made.feeds(each))["logits"] for each in given])
    right = [float(np.mean(scores.reshape(400, -1).argmax(1) == labels)) for scores in (exact, found)]
    assert abs(right[0] - right[1]) <= 0.01
