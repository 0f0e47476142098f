"""Back ends that translate: what a compile to one file promises, and what must never come out of one."""

import hashlib

import numpy as np
import onnx
import pytest

import edgesmith
from edgesmith import frontend, lowering, runtimes, targets
from edgesmith.driver import execution
from edgesmith.driver.agreement import Agreement, relative_error
from edgesmith.ir import interpret
from edgesmith.ir.errors import InternalError, MachineError, ModelError, UsageError
from edgesmith.runtimes import ort


def hashes(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def compiled(tiny_pixels, typical, tmp_path):
    return edgesmith.compile(tiny_pixels, "onnx", out=tmp_path / "out", calibration=typical)


# ---- the protocol ----


@pytest.mark.parametrize("name", targets.names())
def test_every_target_has_a_back_end_with_a_runner(name):
    backend = targets.get(name).backend
    assert any(backend in runtimes.load(runner).backends for runner in runtimes.names())
    assert backend == "c" or backend in runtimes.load(lowering.load(backend).runner).backends


def test_a_target_of_an_unknown_back_end_is_refused(tiny, tmp_path):
    (tmp_path / "mine.toml").write_text('title = "t"\nbackend = "teletype"\n[core]\nname = "x"\n')
    with pytest.raises(UsageError, match="teletype") as caught:
        edgesmith.compile(tiny, str(tmp_path / "mine.toml"), out=tmp_path / "out")
    assert "onnx" in caught.value.do and not (tmp_path / "out").exists()


# ---- the artifact ----


def test_the_artifact_is_the_file_and_what_is_known_of_it(compiled):
    assert set(hashes(compiled.folder)) == {"manifest.json", "model.onnx", "report.html", "vectors.npz"}
    assert not compiled.memory and not compiled.flash and "columns" not in compiled.manifest
    model = onnx.load(compiled.folder / "model.onnx")
    file = compiled.manifest["file"]
    assert sum(file["operators"].values()) == len(model.graph.node) == 4
    assert file["bytes"] == (compiled.folder / "model.onnx").stat().st_size
    assert compiled.manifest["cost"]["macs"] == 2 * 2 * 8 * 48 + 32 * 4
    assert {entry.key: entry.value for entry in model.metadata_props}["edgesmith.mean"] == "0.5 0.5 0.5"


def test_the_ladder_ends_with_the_file(compiled):
    rungs = compiled.verification
    assert rungs[0]["rung"] == "ONNX Runtime" and rungs[-1]["rung"] == "model.onnx on ort"
    assert rungs[-1]["samples"] == 12 and all(rung["max_error"] < 1e-5 for rung in rungs[1:])


def test_the_page_says_nothing_of_memory(compiled):
    page = compiled.report.read_text(encoding="utf-8")
    assert "model.onnx" in page and "Gemm" in page and "float32" in page
    assert not any(word in page for word in ("RAM", "flash", "Arena", "instructions", "<svg", "None"))


def test_same_model_and_data_same_bytes_and_nothing_of_the_user_s_changes(compiled, tiny_pixels, typical, tmp_path):
    before = {path.name: path.read_bytes() for path in (tiny_pixels, typical)}
    again = edgesmith.compile(tiny_pixels, "onnx", out=tmp_path / "again", calibration=typical)
    assert hashes(again.folder) == hashes(compiled.folder)
    assert before == {path.name: path.read_bytes() for path in (tiny_pixels, typical)}
    with pytest.raises(UsageError, match="not a folder"):
        edgesmith.compile(tiny_pixels, "onnx", out=tiny_pixels)
    assert tiny_pixels.read_bytes() == before[tiny_pixels.name]


def test_what_was_written_compiles_again(compiled, tmp_path):
    again = edgesmith.compile(compiled.folder / "model.onnx", "onnx", out=tmp_path / "again")
    assert again.manifest["file"]["operators"] == compiled.manifest["file"]["operators"]
    assert frontend.load(again.folder / "model.onnx").metadata["edgesmith.std"] == "0.25 0.25 0.25"


def test_a_graph_without_a_check(tiny, tmp_path):
    found = edgesmith.compile(edgesmith.load(tiny), "onnx", out=tmp_path / "out", check=False)
    assert [rung["rung"] for rung in found.verification][-1] == "float32 reference"
    assert found.manifest["calibration"]["source"] == "noise"


def test_a_target_of_one_s_own_travels_with_the_artifact(tiny, tmp_path):
    text = (targets.FOLDER / "onnx.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    found = edgesmith.compile(tiny, str(tmp_path / "mine.toml"), out=tmp_path / "out")
    assert found.target == "mine" and (found.folder / "mine.toml").read_text(encoding="utf-8") == text
    assert edgesmith.run(found, on="ort", check=True).equal == 1


# ---- what must not come out ----


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ({"dtype": "dynamic"}, "dynamic"), ({"ram": 1024}, "RAM"),
        ({"stream": "int16"}, "stream"), ({"opset": "7"}, "opset"),
    ],
)
def test_options_that_a_file_does_not_have_are_refused(tiny, tmp_path, option, word):
    with pytest.raises(UsageError, match=word):
        edgesmith.compile(tiny, "onnx", out=tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()


def test_a_file_that_computes_something_else_is_no_artifact(tiny, typical, tmp_path, monkeypatch):
    def wrong(graph, feeds, dtype=None):
        return {name: array + np.float32(1e-3) for name, array in real(graph, feeds, dtype).items()}

    real = interpret.run
    monkeypatch.setattr(interpret, "run", wrong)
    with pytest.raises(InternalError, match="does not compute what the reference does"):
        edgesmith.compile(tiny, "onnx", out=tmp_path / "deep" / "out", calibration=typical)
    assert not (tmp_path / "deep").exists()


def test_rounding_is_told_from_mistakes():
    double = {"y": np.array([1.0, -4.0]), "z": np.zeros(2)}
    single = {"y": np.array([1.0, -4.0 + 4e-5]), "z": np.zeros(2)}
    assert relative_error(single, double) == pytest.approx(1e-5)
    assert Agreement(error=1.1e-5).holds(single, double) and not Agreement(error=0.9e-5).holds(single, double)
    turned = {"y": np.array([4.0, -1.0]), "z": np.zeros(2)}
    assert Agreement(cosine=0.4).holds(turned, double) and not Agreement(cosine=0.5).holds(turned, double)
    assert not Agreement(cosine=0.0).holds({"y": np.zeros(1), "z": np.zeros(2)}, double)


# ---- running ----


def test_it_runs_in_its_runtime_and_nowhere_else(compiled):
    outcome = edgesmith.run(compiled, on="ort", runs=3, check=True)
    assert (outcome.samples, outcome.equal, outcome.against) == (3, 3, "reference")
    assert outcome.measurement.kind == "measured" and outcome.measurement.instructions is None
    for other in ("emulator", "host"):
        with pytest.raises(UsageError, match="onnx back end"):
            edgesmith.run(compiled, on=other)


def test_own_inputs_give_the_model_s_outputs(compiled, tiny_pixels):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), np.uint8)
    found = edgesmith.run(compiled, on="ort", inputs=pixels, runs=6).outputs["y"]
    feeds = [{"x": ((pixel / np.float32(255) - 0.5) / 0.25).transpose(2, 0, 1)[None].astype(np.float32)}
             for pixel in pixels]  # fmt: skip
    wanted = np.stack([outputs["y"] for outputs in ort.reference(tiny_pixels, feeds)])
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    with pytest.raises(UsageError, match="nothing to compare"):
        edgesmith.run(compiled, on="ort", inputs=pixels, check=True)
    with pytest.raises(ModelError):
        edgesmith.run(compiled, on="ort", inputs=np.zeros((1, 3, 4, 4), np.float32))


def test_a_wrong_result_is_counted(compiled, monkeypatch):
    feeds, wanted = execution.load_vectors(compiled.folder)
    wanted[1] = {"y": wanted[1]["y"] + 1}
    monkeypatch.setattr(execution, "load_vectors", lambda folder: (feeds, wanted))
    outcome = edgesmith.run(compiled, on="ort", runs=3, check=True)
    assert (outcome.samples, outcome.equal, outcome.divergence) == (3, 2, None)


def test_a_file_changed_by_hand_does_not_run(compiled):
    (compiled.folder / "model.onnx").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"model\.onnx"):
        edgesmith.run(compiled, on="ort")


def test_without_onnx_runtime(compiled, monkeypatch):
    monkeypatch.setattr(type(runtimes.load("ort")), "why_not", lambda self: "pip install onnxruntime")
    with pytest.raises(MachineError, match="pip install onnxruntime"):
        edgesmith.run(compiled, on="ort")
