"""The runner for macOS against a stand-in for coremltools: what it asks for, what it tells, and what may go wrong."""

from __future__ import annotations

import platform
import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from edgesmith import runtimes
from edgesmith.ir.errors import MachineError, ModelError, UsageError
from edgesmith.runtimes.coreml import UNITS, CoreMl, Placement


class MLNeuralEngineComputeDevice:
    """As coremltools names it."""


class MLCPUComputeDevice:
    """As coremltools names it."""


class MLGPUComputeDevice:
    """As coremltools names it."""


OPERATIONS = [
    ("const", "w", None, [], None),
    ("ios17.conv", "y", MLNeuralEngineComputeDevice(), [MLCPUComputeDevice(), MLNeuralEngineComputeDevice()], 0.75),
    ("ios17.gather", "z", MLGPUComputeDevice(), [MLCPUComputeDevice(), MLGPUComputeDevice()], 0.25),
    ("ios17.topk", "v", None, [], None),
]


class Plan:
    """A compute plan of four operations."""

    def __init__(self, path, compute_units):
        operations = [
            SimpleNamespace(operator_name=kind, outputs=[SimpleNamespace(name=name)], facts=facts)
            for kind, name, *facts in OPERATIONS
        ]
        function = SimpleNamespace(block=SimpleNamespace(operations=operations))
        self.path, self.units = path, compute_units
        self.model_structure = SimpleNamespace(program=SimpleNamespace(functions={"main": function}))

    @classmethod
    def load_from_path(cls, path, compute_units):
        """As coremltools has it."""
        return cls(path, compute_units)

    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        """As coremltools has it."""
        preferred, able, _ = operation.facts
        return preferred and SimpleNamespace(preferred_compute_device=preferred, supported_compute_devices=able)

    def get_estimated_cost_for_mlprogram_operation(self, operation):
        """As coremltools has it."""
        weight = operation.facts[2]
        return None if weight is None else SimpleNamespace(weight=weight)


class Model:
    """A model that doubles its input, until told to fail."""

    fails = ""
    made: ClassVar[list[Model]] = []

    def __init__(self, path, compute_units):
        if "broken" in path:
            raise RuntimeError("Error compiling model: Failed to parse the model specification.")
        self.path, self.units, self.calls = path, compute_units, []
        Model.made.append(self)

    def get_spec(self):
        """Two inputs, one of them an image."""
        kinds = {"x": "multiArrayType", "picture": "imageType"}
        inputs = [
            SimpleNamespace(name=name, type=SimpleNamespace(WhichOneof=lambda _, kind=kind: kind))
            for name, kind in kinds.items()
        ]
        return SimpleNamespace(description=SimpleNamespace(input=inputs))

    def predict(self, feeds):
        """Outputs as lists and text, as the binding may give them."""
        self.calls.append(feeds)
        if Model.fails:
            raise RuntimeError(Model.fails)
        if "picture" in feeds:
            return {"size": feeds["picture"].size}
        return {"y": (2 * feeds["x"]).tolist(), "classLabel": "cat"}

    def get_compiled_model_path(self):
        """Where Core ML compiled it to."""
        return self.path + "c"


def become(monkeypatch, coremltools):
    """Let the runner believe that this is a Mac, with or without coremltools."""
    system = SimpleNamespace(system=lambda: "Darwin", machine=lambda: "arm64", mac_ver=lambda: ("15.1", "", ""))
    monkeypatch.setattr("edgesmith.runtimes.coreml.platform", system)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: coremltools)


@pytest.fixture
def mac(monkeypatch, tmp_path):
    """A computer that takes itself for a Mac with coremltools; the path of a package."""
    module, models, plans = (ModuleType(name) for name in ("ct", "ct.models", "ct.models.compute_plan"))
    module.ComputeUnit = SimpleNamespace(**{name: f"unit {name}" for name in UNITS.values()})
    module.models, models.MLModel, plans.MLComputePlan = models, Model, Plan
    names = ("coremltools", "coremltools.models", "coremltools.models.compute_plan")
    for name, each in zip(names, (module, models, plans), strict=True):
        monkeypatch.setitem(sys.modules, name, each)
    become(monkeypatch, object())
    monkeypatch.setattr(Model, "fails", "")
    monkeypatch.setattr(Model, "made", [])
    return tmp_path / "model.mlpackage"


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_elsewhere_it_says_why_not(tmp_path):
    """On Linux: that it takes a Mac, and what evaluates the package here."""
    if platform.system() == "Darwin":
        pytest.skip("this is a Mac")
    runner = runtimes.load("coreml")
    assert runner.kind == "measured" and runner.backends == ("coreml",)
    assert "Mac" in runner.why_not() and "mil" in runner.why_not()
    for call in (lambda: runner.open(tmp_path / "x.mlpackage"), lambda: runner.run(tmp_path / "x.mlpackage", {})):
        with pytest.raises(MachineError, match="run it on a Mac"):
            call()


def test_without_coremltools_it_says_what_to_install(monkeypatch):
    """A Mac without the extra."""
    become(monkeypatch, None)
    assert runtimes.load("coreml").why_not() == "pip install edgesmith[coreml]"


def test_predictions_are_timed(mac):
    """One to warm up, a few timed; outputs as arrays whatever the binding gives."""
    found = CoreMl("cpu+ne").run(mac, {"x": X})
    np.testing.assert_array_equal(found.outputs["y"], 2 * X)
    assert str(found.outputs["classLabel"]) == "cat" and found.kind == "measured"
    assert found.latency_ms and 0 <= found.latency_ms[0] <= found.latency_ms[1]
    assert found.device == "Core ML of macOS 15.1, arm64, compute units: cpu+ne"
    (model,) = Model.made
    assert model.units == "unit CPU_AND_NE" and len(model.calls) >= 3


def test_placement_and_shares(mac):
    """Constants are left out; what the plan does not tell stays untold, and no time is made up for it."""
    session = CoreMl().open(mac)
    assert session.placement() == (
        Placement("y", "conv", "Neural Engine", ("CPU", "Neural Engine"), 0.75),
        Placement("z", "gather", "GPU", ("CPU", "GPU"), 0.25),
        Placement("v", "topk", "", (), None),
    )
    layers = session.layers({"x": X}, 3)
    assert [(each.name, each.kind) for each in layers] == [
        ("y", "conv on Neural Engine, estimated"),
        ("z", "gather on GPU, estimated"),
    ]
    assert layers[0].ms == pytest.approx(3 * layers[1].ms)
    session.close()


def test_images_are_handed_over_as_pictures(mac):
    """Core ML takes no arrays for images."""
    pytest.importorskip("PIL")
    session = CoreMl().open(mac)
    made = session.run({"picture": np.zeros((2, 4, 3), np.uint8)})
    np.testing.assert_array_equal(made["size"], [4, 2])
    with pytest.raises(UsageError, match="bytes of shape"):
        session.run({"picture": np.zeros((3, 2, 4), np.uint8)})


def test_a_refused_model_and_a_lost_device(mac, tmp_path):
    """The one is the model's fault, the other the machine's; a session goes on where the device comes back."""
    with pytest.raises(ModelError, match=r"(?s)cannot load the model.*Failed to parse"):
        CoreMl().open(tmp_path / "broken.mlpackage")
    session = CoreMl().open(mac)
    kept = [session.run({"x": X})]
    Model.fails = "Error computing NN outputs: the ANE XPC connection was interrupted"
    with pytest.raises(MachineError, match=r"(?s)device is gone.*interrupted") as caught:
        session.run({"x": X})
    assert caught.value.exit_code == 5
    Model.fails = "The input has the wrong shape"
    with pytest.raises(ModelError, match="cannot run the model"):
        session.run({"x": X})
    Model.fails = ""
    kept.append(session.run({"x": X}))
    np.testing.assert_array_equal(kept[0]["y"], kept[1]["y"])
