"""The evaluator of saved Core ML packages: what it reads, what it rounds, and what it refuses in words."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgesmith import runtimes
from edgesmith.ir.errors import ModelError, Unsupported, UsageError
from edgesmith.runtimes.mil import Evaluator
from edgesmith.runtimes.mlprogram import MODES, evaluate, read


def neighbour(name):
    """A module beside this file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Package = neighbour("mil_packages").Package
WEIGHT = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
X = np.random.default_rng(2).standard_normal((3, 6)).astype(np.float32)


def linear(dtype="fp32", **how):
    """x [3, 6] through one matrix from the weight file, then ReLU."""
    made = Package(**how)
    weight = made.weight("w", WEIGHT.astype({"fp16": np.float16, "fp32": np.float32}[dtype]))
    x = made.input("x", (3, 6))
    x = made.add("cast", "x_half", (3, 6), dtype, x=x, dtype=(dtype,))
    y = made.add("linear", "y", (3, 4), dtype, x=x, weight=weight)
    made.add("relu", "z", (3, 4), dtype, x=y)
    return made


@pytest.fixture
def package(tmp_path):
    """Such a package."""
    return linear().save(tmp_path / "linear.mlpackage", "z")


def test_a_package_is_read_and_evaluated(package):
    """Program, weights and outputs, by the runner's own door."""
    runner = runtimes.load("mil")
    assert runner.why_not() is None and runner.kind == "evaluated" and runner.backends == ("coreml",)
    found = runner.run(package, {"x": X})
    np.testing.assert_allclose(found.outputs["z"], np.maximum(X @ WEIGHT.T, 0), rtol=1e-5, atol=1e-6)
    assert found.latency_ms is None and found.kind == "evaluated" and "numpy" in found.device
    session = runner.open(package)
    np.testing.assert_array_equal(session.run({"x": X})["z"], found.outputs["z"])
    assert session.layers({"x": X}, 3) == ()
    session.close()
    program = read(package)
    assert program.counts() == {"cast": 1, "linear": 1, "relu": 1} and str(program.inputs["x"]) == "fp32[3, 6]"
    np.testing.assert_array_equal(program.constants["w"], WEIGHT)


def test_modes_round_what_they_say(tmp_path):
    """As declared, everything, or nothing; sums in either precision."""
    halves = read(linear("fp16").save(tmp_path / "half.mlpackage", "z"))
    singles = read(linear("fp32").save(tmp_path / "single.mlpackage", "z"))
    half = lambda array: array.astype(np.float16).astype(np.float32)  # noqa: E731
    weight = half(WEIGHT)
    declared = evaluate(halves, {"x": X}, MODES["declared"])["z"]
    np.testing.assert_array_equal(declared, half(np.maximum(half(half(X) @ weight.T), 0)))
    exact = evaluate(halves, {"x": X}, MODES["float32"])["z"]
    np.testing.assert_allclose(exact, np.maximum(X @ weight.T, 0), rtol=1e-5, atol=1e-6)
    assert np.abs(exact - declared).max() > 1e-5
    plain = evaluate(singles, {"x": X}, MODES["float32"])["z"]
    np.testing.assert_array_equal(evaluate(singles, {"x": X}, MODES["declared"])["z"], plain)
    forced = evaluate(singles, {"x": X}, MODES["float16"])["z"]
    np.testing.assert_array_equal(forced, declared)
    summed = evaluate(halves, {"x": X}, MODES["declared-accumulate16"])["z"]
    assert 0 < np.abs(summed - declared).max() < 0.02
    assert "sums in half" in Evaluator(MODES["declared-accumulate16"]).open(tmp_path / "half.mlpackage").device


def test_an_artifact_leads_to_its_package(package, tmp_path):
    """A folder with a manifest, as `compile` leaves it; any other folder is a wrong argument."""
    from edgesmith.lowering import artifact

    folder = tmp_path / "artifact"
    folder.mkdir()
    shutil.copytree(package, folder / "linear.mlpackage")
    artifact.seal(folder, {"name": "linear", "file": {"name": "linear.mlpackage"}})
    assert runtimes.load("mil").run(folder, {"x": X}).outputs["z"].shape == (3, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="not an artifact"):
        runtimes.load("mil").open(tmp_path / "empty")
    other = tmp_path / "other"
    other.mkdir()
    artifact.seal(other, {"name": "linear", "file": {"name": "model.onnx"}})
    with pytest.raises(UsageError, match="no Core ML package"):
        runtimes.load("mil").open(other)


def test_images_may_come_as_pixels(tmp_path):
    """Bytes [H, W, 3] in RGB become the tensor that Core ML would make of the picture."""
    made = Package()
    made.input("picture", (1, 3, 2, 4))
    made.add("identity", "out", (1, 3, 2, 4), x="picture")
    kind = {"imageType": {"width": 4, "height": 2, "colorSpace": 30}}
    made.description = {"input": [{"name": "picture", "type": kind}]}
    program = read(made.save(tmp_path / "picture.mlpackage", "out"))
    assert program.features["picture"].colour == "BGR"
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    found = evaluate(program, {"picture": pixels}, MODES["float32"])["out"]
    np.testing.assert_array_equal(found[0], pixels[..., ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("feeds", "words"), [({}, "no array was given for input 'x'"), ({"x": X[:2]}, r"shape \(2, 6\)")]
)
def test_feeds_must_fit(package, feeds, words):
    """Names and shapes are told."""
    with pytest.raises(ModelError, match=words):
        runtimes.load("mil").run(package, feeds)


def test_all_that_is_unknown_is_named_at_once(tmp_path):
    """Operations, and parameters of operations that are otherwise known; blocks of their own likewise."""
    made = linear()
    made.add("lstm", "a", (3, 4), x="z")
    made.add("frobnicate", "b", (3, 4), x="a")
    made.add("relu", "c", (3, 4), x="b", slope=0.5)
    made.add("softmax", "d", (3, 4), axis=-1)
    made.add("relu", "e", (3, 4), x="d")
    made.operations[-1]["blocks"] = [{}]
    program = read(made.save(tmp_path / "odd.mlpackage", "e"))
    with pytest.raises(Unsupported) as caught:
        evaluate(program, {"x": X}, MODES["float32"])
    assert caught.value.where == ("frobnicate", "lstm", "relu with blocks", "relu with slope", "softmax without x")
    assert caught.value.exit_code == 3


def broken_reference(made):
    made.add("relu", "late", (3, 4), x="nobody")


def missing_output(made):
    made.outputs = ["nobody"]


def wrong_shape(made):
    made.add("relu", "late", (4, 3), x="z")


def wrong_type(made):
    made.add("relu", "late", (3, 4), "int32", x="z")


def wrong_operands(made):
    made.add("matmul", "late", (3, 4), x="z", y="z")


def wrong_text(made):
    made.add("gelu", "late", (3, 4), x="z", mode=("NONSENSE",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (broken_reference, "reads values that nothing makes"),
        (missing_output, "does not make its outputs"),
        (wrong_shape, r"gives shape \(3, 4\) and declares fp32\[4, 3\]"),
        (wrong_type, "gives float32 and declares int32"),
        (wrong_operands, "operation 'matmul' cannot be evaluated"),
        (wrong_text, "no mode NONSENSE"),
    ],
)
def test_programs_that_contradict_themselves(tmp_path, change, words):
    """Each is refused with the operation's name."""
    made = linear()
    made.outputs = ["z"]
    change(made)
    with pytest.raises(ModelError, match=words):
        evaluate(read(made.save(tmp_path / "wrong.mlpackage")), {"x": X}, MODES["float32"])


def no_manifest(path):
    (path / "Manifest.json").unlink()


def odd_manifest(path):
    (path / "Manifest.json").write_text("[]")


def lost_root(path):
    manifest = json.loads((path / "Manifest.json").read_text())
    (path / "Manifest.json").write_text(json.dumps({**manifest, "rootModelIdentifier": "3"}))


def outside(path):
    (path.parent / "secret").write_bytes(b"x")
    manifest = json.loads((path / "Manifest.json").read_text())
    manifest["itemInfoEntries"]["1"]["path"] = "../../secret"
    (path / "Manifest.json").write_text(json.dumps(manifest))


def no_model(path):
    (path / "Data/com.apple.CoreML/model.mlmodel").unlink()


def cut_model(path):
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    file.write_bytes(file.read_bytes()[:-40])


def not_a_model(path):
    (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"PK\x03\x04" + bytes(range(256)))


def empty_model(path):
    (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"")


def neural_network(path):
    network = b"\x08\x04" + b"\xa2\x1f\x00"
    (path / "Data/com.apple.CoreML/model.mlmodel").write_bytes(network)


def cut_weights(path):
    file = path / "Data/com.apple.CoreML/weights/weight.bin"
    file.write_bytes(file.read_bytes()[:150])


def no_weights(path):
    (path / "Data/com.apple.CoreML/weights/weight.bin").unlink()


def empty_weights(path):
    (path / "Data/com.apple.CoreML/weights/weight.bin").write_bytes(b"")


def smashed_weights(path):
    file = path / "Data/com.apple.CoreML/weights/weight.bin"
    file.write_bytes(file.read_bytes()[:64] + bytes(64) + file.read_bytes()[128:])


def other_weights(path):
    file = path / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(file.read_bytes())
    data[68] = 1
    file.write_bytes(bytes(data))


DAMAGE = [
    (no_manifest, "no Core ML package"),
    (odd_manifest, "no Core ML package"),
    (lost_root, "no Core ML package"),
    (outside, "lacks the model"),
    (no_model, "lacks the model"),
    (cut_model, "damaged"),
    (not_a_model, "damaged"),
    (empty_model, "it holds no model"),
    (neural_network, "it is a neural network"),
    (cut_weights, "does not hold what the program reads"),
    (no_weights, "weight file cannot be read"),
    (empty_weights, "a record at byte 64 of 0"),
    (smashed_weights, "no record at byte 64"),
    (other_weights, "elements of type 1 at byte 64 where the program has fp32"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGE, ids=[each.__name__ for each, _ in DAMAGE])
def test_damaged_packages(package, damage, words):
    """Each kind of damage has its own words; none is a crash."""
    damage(package)
    with pytest.raises(ModelError, match=words):
        read(package)


@pytest.mark.parametrize("offset", [1, 63, 100, 1 << 20, 1 << 62, -5])
def test_absurd_offsets(tmp_path, offset):
    """A place in the weight file that holds nothing."""
    made = linear()
    made.operations[0]["attributes"]["val"]["blobFileValue"]["offset"] = offset
    with pytest.raises(ModelError, match="does not hold what the program reads"):
        read(made.save(tmp_path / "absurd.mlpackage", "z"))


def test_weights_outside_of_the_package(tmp_path):
    """A program must not make us read other files."""
    made = linear()
    made.operations[0]["attributes"]["val"]["blobFileValue"]["fileName"] = "@model_path/../../../secret"
    with pytest.raises(ModelError, match="outside of the package"):
        read(made.save(tmp_path / "leak.mlpackage", "z"))


def test_huge_shapes_and_endless_nesting(tmp_path):
    """Declared sizes are not believed, and messages do not nest for ever."""
    made = linear()
    made.operations[0]["attributes"]["val"]["type"]["tensorType"]["dimensions"] = [{"constant": {"size": 1 << 40}}] * 2
    with pytest.raises(ModelError, match="elements"):
        read(made.save(tmp_path / "huge.mlpackage", "z"))
    value = {"immediateValue": {"list": {"values": []}}}
    for _ in range(30):
        value = {"immediateValue": {"list": {"values": [value]}}}
    made = linear()
    made.operations[0]["attributes"]["val"] = value
    with pytest.raises(ModelError, match="deep in each other"):
        read(made.save(tmp_path / "deep.mlpackage", "z"))


def test_every_prefix_of_a_model_is_refused_or_read(package):
    """Wherever a file is cut, the answer is an error in words."""
    file = package / "Data/com.apple.CoreML/model.mlmodel"
    whole = file.read_bytes()
    refused = 0
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        try:
            evaluate(read(package), {"x": X}, MODES["float32"])
        except ModelError:
            refused += 1
    assert refused >= len(whole) // 7


def test_flipped_bits_never_crash(package):
    """Damage inside of the file gives another program or an error, nothing else."""
    file = package / "Data/com.apple.CoreML/model.mlmodel"
    whole = file.read_bytes()
    draw = np.random.default_rng(7)
    for _ in range(300):
        data = bytearray(whole)
        data[draw.integers(len(data))] ^= 1 << draw.integers(8)
        file.write_bytes(bytes(data))
        try:
            evaluate(read(package), {"x": X}, MODES["float32"])
        except ModelError:
            continue
