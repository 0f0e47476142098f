"""LiteRT: models written by hand give what numpy gives, tell their operators' times, and bad files end in words."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgesmith
from edgesmith import runtimes
from edgesmith.ir.errors import MachineError, ModelError, Unsupported, UsageError
from edgesmith.runtimes import litert, litert_child, ort
from edgesmith.runtimes.litert import RUNNER, LiteRt

pytest.importorskip("ai_edge_litert")
pytest.importorskip("flatbuffers")
pytestmark = pytest.mark.tflite
FILES = runpy.run_path(str(Path(__file__).with_name("tflite_files.py")))
DRAW = np.random.default_rng(7)
X = DRAW.standard_normal((3, 16)).astype(np.float32)


@pytest.fixture
def saved(tmp_path):
    """A function that writes bytes to a file and returns its path."""

    def write(data, name="model.tflite"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def dense(x):
    matrix, bias = FILES["weights"]()
    return softmax(x @ matrix.T + bias)


def test_it_is_found_by_name_and_takes_tflite():
    assert "litert" in runtimes.names() and runtimes.load("litert") is RUNNER
    assert RUNNER.backends == ("tflite",) and RUNNER.kind == "measured" and RUNNER.why_not() is None


@pytest.mark.parametrize(("signature", "takes", "gives"), [(True, "x", "y"), (False, "in:0", "out:0")])
def test_outputs_are_those_of_numpy_under_the_files_own_names(saved, signature, takes, gives):
    session = RUNNER.open(saved(FILES["dense"](signature)))
    outputs = session.run({takes: X})
    assert list(outputs) == [gives]
    np.testing.assert_allclose(outputs[gives], dense(X), atol=1e-6)
    assert "LiteRT" in session.device and "1 thread" in session.device
    session.close()


def test_a_session_keeps_nothing_of_the_run_before(saved):
    session = RUNNER.open(saved(FILES["dense"]()))
    first = session.run({"x": X})["y"]
    np.testing.assert_allclose(session.run({"x": 2 * X})["y"], dense(2 * X), atol=1e-6)
    np.testing.assert_allclose(first, dense(X), atol=1e-6)


def test_inputs_go_by_name_and_stand_in_the_graphs_order(saved):
    session = RUNNER.open(saved(FILES["difference"]()))
    assert [tensor.name for tensor in session.inputs] == ["left", "right"]
    left, right = np.arange(4, dtype=np.float32), np.full((1, 4), 10, np.float32)
    assert session.run({"right": right, "left": left})["sum"].tolist() == [[10, 11, 12, 13]]


def test_integer_inputs_are_taken_as_stored_or_real(saved):
    path = saved(FILES["integers"]())
    real = np.array([[-1.0, 0.0, 2.0, 40.0]], np.float32)
    stored = np.array([[1, 3, 7, 83]], np.int8)
    sums = [[-3, -1, 3, 79]]
    session = RUNNER.open(path)
    assert session.run({"q": stored})["s"].tolist() == session.run({"q": real})["s"].tolist() == sums
    measured = RUNNER.run(path, {"q": real})
    assert measured.raw["s"].tolist() == sums and measured.raw["s"].dtype == np.int8
    assert measured.outputs["s"].tolist() == [[-2, 0, 4, 80]]


def test_a_run_is_a_measurement(saved):
    measured = RUNNER.run(saved(FILES["dense"]()), {"x": X})
    assert (measured.runner, measured.kind, measured.latency_kind) == ("litert", "measured", "measured")
    low, high = measured.latency_ms
    assert 0 < low <= high < 1000
    np.testing.assert_allclose(measured.outputs["y"], dense(X), atol=1e-6)


def test_threads_are_said_and_change_no_number(saved):
    path = saved(FILES["dense"]())
    session = LiteRt(threads=2).open(path)
    assert "2 threads" in session.device
    np.testing.assert_allclose(session.run({"x": X})["y"], dense(X), atol=1e-6)


def test_layers_are_named_after_what_they_make(saved):
    session = RUNNER.open(saved(FILES["gathered"]()))
    np.testing.assert_allclose(session.run({"x": X})["y"], softmax(X[[2, 0]]), atol=1e-6)
    layers = session.layers({"x": X}, 3)
    assert session.why_no_layers == ""
    assert [layer.name for layer in layers] == ["rows", "y"]
    assert layers[0].kind == "GATHER" and "Softmax" in layers[1].kind
    assert all(0 <= layer.ms < 100 for layer in layers)
    whole = RUNNER.open(saved(FILES["dense"](), "whole.tflite")).layers({"x": X}, 1)
    named = [(layer.name, layer.kind.split(" (")[0]) for layer in whole if not layer.name.startswith("XNNPACK")]
    assert named == [("h", "Fully Connected"), ("out:0", "Softmax")]


def test_layers_of_several_parts_are_numbered_and_not_guessed(saved):
    layers = RUNNER.open(saved(FILES["parted"]())).layers({"x": X}, 1)
    assert [layer.name for layer in layers] == ["XNNPACK 0", "g", "XNNPACK 2"]


def test_layers_of_another_version_are_not_guessed_at(saved, monkeypatch):
    monkeypatch.setattr(litert_child.metadata, "version", lambda package: "9.0.0")
    found = litert_child.profile(saved(FILES["dense"]()), Path("unused"), 1, 1)
    assert "9.0.0 is not known" in found["why"]


def test_no_layers_come_with_the_reason(saved, monkeypatch):
    session = RUNNER.open(saved(FILES["dense"]()))
    broken = subprocess.CompletedProcess([], -11, "", "Fatal: gone\n")
    monkeypatch.setattr(litert, "_child", lambda *arguments: broken)
    assert session.layers({"x": X}, 1) == () and "signal 11: Fatal: gone" in session.why_no_layers
    monkeypatch.setattr(litert, "_child", lambda *arguments: None)
    assert session.layers({"x": X}, 1) == () and "too long" in session.why_no_layers
    refused = subprocess.CompletedProcess([], 0, '{"why": "another layout"}', "")
    monkeypatch.setattr(litert, "_child", lambda *arguments: refused)
    assert session.layers({"x": X}, 1) == () and session.why_no_layers == "another layout"


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "takes the inputs x"),
        ({"z": X}, "got z"),
        ({"x": X, "z": X}, "got x, z"),
        ({"x": X.T}, "wrong shape"),
        ({"x": X.ravel()}, "wrong shape"),
        ({"x": X.astype(np.float64)}, "wrong type"),
        ({"x": X.astype(np.int32)}, "wrong type"),
    ],
    ids=["none", "another", "surplus", "transposed", "flat", "double", "integer"],
)
def test_wrong_inputs_are_refused(saved, feeds, words):
    session = RUNNER.open(saved(FILES["dense"]()))
    with pytest.raises(UsageError, match=words):
        session.run(feeds)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read"),
        (b"TFL3", "no TFLite file"),
        (b"\x08\x00\x00\x00ONNX" + bytes(64), "no TFLite file"),
        (DRAW.bytes(4096), "no TFLite file"),
        (b"\xff\xff\xff\x7fTFL3" + bytes(64), "cut short or damaged"),
        (b"\x10\x00\x00\x00TFL3" + DRAW.bytes(4096), "cut short or damaged"),
    ],
    ids=["empty", "four bytes", "other identifier", "random", "root outside", "random behind a head"],
)
def test_foreign_files_are_refused(saved, data, words):
    with pytest.raises(ModelError, match=words):
        RUNNER.open(saved(data))


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        RUNNER.open(tmp_path / "none.tflite")


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.99])
def test_files_cut_short_are_refused(saved, share):
    whole = FILES["dense"]()
    with pytest.raises(ModelError):
        RUNNER.open(saved(whole[: int(share * len(whole))]))


def test_damaged_files_end_in_words_or_run(saved):
    """Half of the flips only hit numbers; the others must be found by the reader, never by a crash in this process."""
    whole, outcomes = FILES["dense"](), set()
    for number in range(400):
        draw = np.random.default_rng(number)
        damaged = bytearray(whole)
        for _ in range(draw.integers(1, 4)):
            damaged[draw.integers(8, len(whole))] = draw.choice([0, 127, 128, 255])
        try:
            litert.litert_file.read(saved(bytes(damaged)))
            outcomes.add("read")
        except ModelError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_custom_operators_are_all_named(saved):
    with pytest.raises(Unsupported) as caught:
        RUNNER.open(saved(FILES["custom"]("FlexErf", "FlexRoll", "FlexErf")))
    assert caught.value.where == ("FlexErf", "FlexRoll") and "TensorFlow" in caught.value.why
    with pytest.raises(Unsupported, match="no kernels"):
        RUNNER.open(saved(FILES["custom"]("FlexErf", "my_own")))


def test_a_sound_file_with_a_nonsensical_model_is_refused(saved):
    with pytest.raises(ModelError, match="LiteRT cannot load the model"):
        RUNNER.open(saved(FILES["misfit"]()))


def test_constants_of_the_wrong_size_are_refused(saved):
    writer = FILES["Writer"]()
    x, y = writer.tensor("x", (3, 16)), writer.tensor("y", (3, 8))
    number = writer.constant("w", FILES["weights"]()[0])
    writer.graph.tensors[number].shape = [8000, 16]
    writer.operator("FULLY_CONNECTED", [x, number], [y])
    with pytest.raises(ModelError, match="bytes of data"):
        RUNNER.open(saved(writer.finish([x], [y])))


def operator(model, at=0):
    return model.subgraphs[0].operators[at]


def tensor(model, at):
    return model.subgraphs[0].tensors[at]


def without_operand(at, place):
    def change(model):
        operator(model, at).inputs[place] = -1

    return change


def with_shape(*shape):
    def change(model):
        tensor(model, 0).shape = list(shape)

    return change


def shortened(model):
    large = max(model.buffers, key=lambda each: 0 if each.data is None else len(each.data))
    large.data = large.data[:-4]


def swapped(model):
    model.subgraphs[0].operators.reverse()


def into_a_constant(model):
    operator(model).outputs = [operator(model).inputs[1]]


def of_nothing(model):
    model.subgraphs[0].operators.pop()


def fewer(model):
    operator(model).inputs = operator(model).inputs[:1]


def outside(place):
    def change(model):
        getattr(operator(model), place)[0] = len(model.subgraphs[0].tensors)

    return change


def negative(place):
    def change(model):
        getattr(operator(model), place)[0] = -2

    return change


def given_a_constant(model):
    model.subgraphs[0].inputs = [operator(model).inputs[1]]
    model.signatureDefs = []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_operand(0, 0), "FULLY_CONNECTED lacks operand 0; it makes 'h'"),
        (without_operand(0, 1), "FULLY_CONNECTED lacks operand 1"),
        (without_operand(1, 0), "SOFTMAX lacks operand 0"),
        (fewer, "FULLY_CONNECTED has 1 operands, not 2"),
        (lambda model: setattr(operator(model), "outputs", [-1]), "lacks a result"),
        (outside("inputs"), r"tensor \d+ of \d+ is used"),
        (outside("outputs"), r"tensor \d+ of \d+ is used"),
        (negative("inputs"), "tensor -2 of"),
        (lambda model: setattr(tensor(model, 0), "buffer", 99), "buffer 99 of"),
        (lambda model: setattr(operator(model), "opcodeIndex", 99), "kind that is not listed"),
        (shortened, "bytes of data"),
        (with_shape(-3, 16), "impossible shape"),
        (with_shape(2**16, 2**16), "impossible shape"),
        (with_shape(2**31 - 1, 2**31 - 1, 2**31 - 1), "impossible shape"),
        (swapped, "'h' is read before anything makes it"),
        (into_a_constant, "'w' is a constant and is written to"),
        (given_a_constant, "'w' is a constant and is written to"),
        (of_nothing, "'out:0' is made by nothing"),
    ],
)  # fmt: skip
def test_what_would_lead_the_runtime_astray_never_reaches_it(saved, monkeypatch, change, words):
    monkeypatch.setattr(litert, "_child", lambda *arguments: pytest.fail("LiteRT was given the file"))
    with pytest.raises(ModelError, match=words):
        RUNNER.open(saved(FILES["mutated"](FILES["dense"](), change)))


def test_a_sum_without_its_second_term_is_refused(saved):
    with pytest.raises(ModelError, match="ADD lacks operand 1; it makes 't'"):
        RUNNER.open(saved(FILES["mutated"](FILES["difference"](), without_operand(0, 1))))


def test_an_absent_bias_is_no_flaw(saved):
    path = saved(FILES["mutated"](FILES["dense"](), without_operand(0, 2)))
    np.testing.assert_allclose(RUNNER.open(path).run({"x": X})["y"], softmax(X @ FILES["weights"]()[0].T), atol=1e-6)


def test_a_file_that_is_only_taken_apart_and_packed_is_the_same_model(saved):
    path = saved(FILES["mutated"](FILES["dense"](), lambda model: None))
    np.testing.assert_allclose(RUNNER.open(path).run({"x": X})["y"], dense(X), atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="signals have other names there")
def test_a_native_crash_takes_no_more_than_a_child_process_along(saved, monkeypatch):
    """A child that is sure to crash: what a broken file does to LiteRT depends on what memory happens to hold."""
    command = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"]
    crashing = lambda *arguments: subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: E731
    monkeypatch.setattr(litert, "_child", crashing)
    with pytest.raises(ModelError, match=f"breaks down(.|\n)*signal {int(signal.SIGSEGV)}"):
        RUNNER.open(saved(FILES["dense"]()))


def test_a_file_that_takes_for_ever_is_given_up(saved, monkeypatch):
    monkeypatch.setattr(litert, "LIMIT_SECONDS", 0.01)
    with pytest.raises(ModelError, match="does not get done"):
        RUNNER.open(saved(FILES["dense"]()))


def test_artifacts_of_other_back_ends_are_refused(tmp_path):
    with pytest.raises(UsageError, match="not an artifact"):
        RUNNER.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"backend": "c"}')
    with pytest.raises(UsageError, match="artifact of the c back end"):
        RUNNER.open(tmp_path)


def test_an_artifact_is_opened_by_what_its_manifest_names(tmp_path, saved):
    saved(FILES["dense"](), "other.tflite")
    (tmp_path / "manifest.json").write_text('{"backend": "tflite", "file": {"name": "other.tflite"}}')
    np.testing.assert_allclose(RUNNER.open(tmp_path).run({"x": X})["y"], dense(X), atol=1e-6)


def test_a_compiled_artifact_runs_by_the_models_own_names(tiny_pixels, typical, tmp_path):
    built = edgesmith.compile(tiny_pixels, "android", out=tmp_path / "out", calibration=typical)
    session = RUNNER.open(built.folder)
    x = DRAW.standard_normal((1, 3, 8, 8)).astype(np.float32)
    (wanted,) = ort.reference(tiny_pixels, [{"x": x}])
    np.testing.assert_allclose(session.run({"x": x})["y"], wanted["y"], rtol=1e-5, atol=1e-5)
    assert session.layers({"x": x}, 1)


def test_without_the_wheel_it_says_what_to_install(saved, monkeypatch):
    monkeypatch.setattr(litert.importlib.util, "find_spec", lambda name: None)
    assert RUNNER.why_not() == "pip install edgesmith[tflite]"
    with pytest.raises(MachineError, match="not installed"):
        RUNNER.open(saved(FILES["dense"]()))


def test_loading_prints_nothing(saved, capfd):
    RUNNER.open(saved(FILES["dense"]())).run({"x": X})
    os.write(2, b"heard")
    assert capfd.readouterr() == ("", "heard")
