"""A classifier for Core ML from class names to a class: through the driver, the evaluator, and a stand-in for a Mac."""

from __future__ import annotations

import json
import platform
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import edgesmith
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.pool import Mean
from edgesmith.runtimes.mlprogram import MODES, evaluate, located, read

pytestmark = pytest.mark.coreml

CLASSES = ("zebra", "apple", "mole")
IMAGE = {"image": "mean=0.5,0.4,0.3;std=0.2,0.3,0.4"}


def network():
    """An image to three scores; the first class is none that comes first by name."""
    draw = np.random.default_rng(4)
    graph = Graph("net")
    x = graph.input("picture", Type("float32", (1, 3, 8, 8)))
    weight, bias = draw.standard_normal((6, 3, 3, 3)), draw.standard_normal(6)
    constants = (graph.constant(each.astype(np.float32)) for each in (weight, bias))
    x = graph.add(Mean((2, 3)), graph.add(Conv((2, 2), (1, 1, 1, 1)), x, *constants, name="stem"), name="pooled")
    head = graph.constant(draw.standard_normal((3, 6)).astype(np.float32))
    graph.output(graph.add(Linear(), x, head, None, name="head"), "scores")
    return graph


@pytest.fixture(params=[{}, IMAGE], ids=["numbers", "pictures"], scope="module")
def compiled(request, tmp_path_factory):
    """A classifier, of arrays or of pictures, with the samples that it was compiled on."""
    place = tmp_path_factory.mktemp("classifier")
    names = place / "names.txt"
    names.write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    data = np.random.default_rng(1).uniform(-1, 1, (5, 3, 8, 8)).astype(np.float32)
    made = edgesmith.compile(
        network(), "iphone13", out=place / "out", calibration={"picture": data}, labels=str(names), **request.param
    )
    return made, data


def odds(data):
    """What the network gives for samples, as probabilities."""
    scores = np.concatenate([edgesmith.ir.interpret.run(network(), {"picture": each[None]})["scores"] for each in data])
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_it_compiles_runs_and_agrees(compiled):
    """Probabilities come under the model's own name and in its shape; the class is the likeliest."""
    made, data = compiled
    (gives,) = made.manifest["outputs"]
    assert (gives["name"], gives["of"], gives["classes"]) == ("classLabel_probs", "scores", list(CLASSES))
    found = edgesmith.run(made, check=True, runs=5)
    assert found.equal == found.samples == 5 and found.outputs["scores"].shape == (5, 1, 3)
    np.testing.assert_allclose(found.outputs["scores"][:, 0], odds(data), atol=0.02)
    likeliest = [CLASSES[index] for index in found.outputs["scores"][:, 0].argmax(1)]
    assert list(found.raw["classLabel"]) == likeliest
    assert ", ".join(likeliest) in found.json()["outputs"]["scores"]["summary"]


def test_own_inputs_are_taken_as_the_model_takes_them(compiled):
    """Normalised numbers in, whatever the file itself takes."""
    made, data = compiled
    found = edgesmith.run(made, inputs={"picture": data[3:4]})
    np.testing.assert_allclose(found.outputs["scores"][:, 0], odds(data[3:4]), atol=0.02)


def test_a_mac_gives_the_same_and_is_timed(compiled, monkeypatch):
    """Core ML gives a dictionary in an order of its own and takes pictures; `bench` times it."""
    pytest.importorskip("PIL")
    made, _ = compiled
    program = read(located(made.folder))
    kinds = {"image": "imageType", "array": "multiArrayType"}

    class Model:
        """As coremltools has it, by our own evaluator."""

        def __init__(self, path, compute_units):
            pass

        def get_spec(self):
            inputs = [
                SimpleNamespace(name=name, type=SimpleNamespace(WhichOneof=lambda _, name=name: kinds[features[name]]))
                for name in program.inputs
            ]
            return SimpleNamespace(description=SimpleNamespace(input=inputs))

        def predict(self, feeds):
            given = {name: np.asarray(each) for name, each in feeds.items()}
            found = evaluate(program, given, MODES["declared"])
            named = dict(zip(CLASSES, map(float, found["classLabel_probs"]), strict=True))
            return {"classLabel": str(found["classLabel"]), "classLabel_probs": dict(sorted(named.items()))}

    features = {name: each.kind for name, each in program.features.items()}
    module = ModuleType("coremltools")
    module.ComputeUnit, module.models = SimpleNamespace(ALL="all"), SimpleNamespace(MLModel=Model)
    monkeypatch.setitem(sys.modules, "coremltools", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    system = SimpleNamespace(system=lambda: "Darwin", machine=lambda: "arm64", mac_ver=lambda: ("15.1", "", ""))
    monkeypatch.setattr("edgesmith.runtimes.coreml.platform", system)
    found = edgesmith.run(made, on="coreml", check=True, runs=5)
    assert found.equal == 5 and found.outputs["scores"].shape == (5, 1, 3)
    timed = edgesmith.bench(made, on="coreml", runs=3, vs=made)
    assert timed.difference.max_error == 0 and timed.sides[0].wall_ms.median > 0


@pytest.mark.skipif(platform.system() == "Darwin", reason="a Mac can time it")
def test_elsewhere_bench_says_who_could(compiled):
    """No time is made up."""
    with pytest.raises(edgesmith.ir.errors.MachineError, match=r"(?s)nothing here can time.*Mac.*iPhone"):
        edgesmith.bench(compiled[0])


def test_the_manifest_is_plain(compiled):
    """It goes through JSON unchanged."""
    made, _ = compiled
    text = (made.folder / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text)["outputs"] == made.manifest["outputs"]
