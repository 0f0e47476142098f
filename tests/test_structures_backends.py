"""Every block that is recognised is lowered by every back end, and its numbers stay."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgesmith
from edgesmith import lowering, targets

STRUCTURES = runpy.run_path(str(Path(__file__).with_name("test_structures.py")))
FOUND, WRITTEN, Speller = (STRUCTURES[name] for name in ("FOUND", "STRUCTURES", "Speller"))
FOUND = {**FOUND, **STRUCTURES["SIMPLIFIED"]}
BATCHED = {"linear_attention_by_head"}
"""Its heads are a batch of images to a convolution, which has no integer form."""


def model(names, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """One file with a block per input and output, and samples."""
    sheet = Speller(17)
    for name in names:
        sheet.spell(WRITTEN[name], *FOUND[name][0])
    onnx.save(sheet.model(), folder / "blocks.onnx")
    draw = np.random.default_rng(4)
    shapes = [[d.dim_value for d in each.type.tensor_type.shape.dim] for each in sheet.inputs]
    feeds = {
        each.name: draw.uniform(-1, 1, (8, *shape[1:])).astype(np.float32)
        for each, shape in zip(sheet.inputs, shapes, strict=True)
    }
    return folder / "blocks.onnx", feeds


@pytest.mark.parametrize("backend", lowering.names())
def test_in_single_precision(backend: str, tmp_path: Path) -> None:
    found = lowering.load(backend)
    if missing := found.why_not():
        pytest.skip(missing)
    path, feeds = model(FOUND, tmp_path)
    target = next(name for name in targets.names() if targets.get(name).backend == backend)
    compiled = edgesmith.compile(path, target, out=tmp_path / "out", dtype="float32", calibration=feeds)
    last = compiled.verification[-1]
    assert last["cosine"] > 1 - 1e-9
    assert last["max_error"] < 1e-5


@pytest.mark.compiler
def test_in_integers_of_the_c_library(tmp_path: Path) -> None:
    """Bit for bit what the graph of integers computes, and close to the floats."""
    path, feeds = model([name for name in FOUND if name not in BATCHED], tmp_path)
    last = edgesmith.compile(path, "host", out=tmp_path / "out", calibration=feeds).verification[-1]
    assert last["equal"]
    assert last["cosine"] > 0.999


@pytest.mark.parametrize("name", sorted(BATCHED))
def test_what_has_no_integer_form_says_so(name: str, tmp_path: Path) -> None:
    path, feeds = model([name], tmp_path)
    with pytest.raises(edgesmith.EdgesmithError, match="no integer form"):
        edgesmith.compile(path, "host", out=tmp_path / "out", calibration=next(iter(feeds.values())))
