"""Compiles the sample for a microcontroller, runs it there on real pictures, and compares it with the original.

    python samples/fashion/demo.py

`make demo` does this from a bare machine. The device is emulated; nothing but the Python packages is needed.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import edgesmith
from edgesmith.cli import console, terminal
from edgesmith.driver import feeds
from edgesmith.runtimes import ort

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "build" / "demo"
TARGET = "stm32f746"


def float_scores(model: Path, images: np.ndarray) -> np.ndarray:
    """What the ONNX model itself says, in ONNX Runtime: [N, 10]."""
    inputs = feeds.inputs_of(edgesmith.load(model))
    given = feeds.samples(images, inputs, "images")
    return np.concatenate([next(iter(outputs.values())) for outputs in ort.reference(model, given)])


def say(artifact: edgesmith.Artifact, outcome: Any, float_right: float, right: float) -> None:
    """Print the comparison."""
    memory, flash, size = artifact.memory, artifact.flash, terminal.size
    low, high = outcome.measurement.latency_ms
    (reference,) = (rung for rung in artifact.verification if rung["rung"].startswith("integer reference"))
    lines = [
        ("accuracy", f"{float_right:.2%} float in ONNX Runtime, {right:.2%} int8 on the emulated {artifact.target}"
                     f" ({outcome.samples} pictures)"),
        ("bits", f"{outcome.equal} of {outcome.samples} pictures equal the same C on this computer, whose first"
                 f" {reference['samples']} equal the integer reference"),
        ("RAM", f"{size(memory['total'])} of {size(memory['budget'])}: arena {size(memory['arena_bytes'])} planned,"
                f" {size(memory['arena_measured'])} measured; stack {size(memory['stack_bytes'])},"
                f" statics {size(memory['static_bytes'])}"),
        ("flash", f"{size(flash['internal'])} of {size(flash['budget'])}: weights {size(flash['weights'])},"
                  f" code {size(flash['code'])}; external {size(flash['external'])}"),
        ("instructions", f"{outcome.measurement.instructions:,} for one picture (exact, emulated)"),
        ("latency", f"{low:.1f} to {high:.1f} ms (estimated from the instructions, {artifact.target} at full clock)"),
        ("report", f"{artifact.report}"),
        ("C library", f"{artifact.folder / 'src'}"),
    ]  # fmt: skip
    print()
    for name, text in lines:
        print(f"  {name:14}{text}")


def main() -> None:
    """Compile, run, compare."""
    parser = argparse.ArgumentParser(description="Compile the sample and run it on an emulated microcontroller.")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the artifact (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=400, help="test pictures to run (default: %(default)s)")
    options = parser.parse_args()
    began = time.monotonic()
    with np.load(HERE / "images.npz") as data:
        images, labels = data["images"][: options.pictures], data["labels"][: options.pictures]
        calibration = data["calibration"]
    model = HERE / "model.onnx"
    with console.progress() as progress:
        artifact = edgesmith.compile(model, TARGET, out=options.out, calibration=calibration, progress=progress)
        progress("run the float model in ONNX Runtime")
        float_right = float(np.mean(float_scores(model, images).argmax(1) == labels))
        outcome = edgesmith.run(
            artifact, on="emulator", inputs=images, runs=len(images), check=True, progress=progress
        )
    scores = next(iter(outcome.outputs.values())).reshape(len(labels), -1)
    console.compile({"folder": str(artifact.folder), **artifact.manifest})
    say(artifact, outcome, float_right, float(np.mean(scores.argmax(1) == labels)))
    print(f"\n  done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
