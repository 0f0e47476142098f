"""The doctor names what is missing and what to install; the reference runner computes what the file says."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgesmith.ir.errors import ModelError, UsageError
from edgesmith.runtimes import doctor, load


def test_every_failed_check_says_why_and_what_to_do(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", (("no_such_module", "no-such-package", "nothing"), *doctor.PACKAGES))
    checks = {check.name: check for check in doctor.examine()}
    assert checks["no-such-package"].do == "pip install no-such-package"
    assert checks["onnx"].works and checks["onnx"].version == onnx.__version__
    assert all(check.why and check.do for check in checks.values() if not check.works)
    assert all(check.needed_for for check in checks.values())
    assert {"runner emulator", "runner host", "runner ort"} <= set(checks)


@pytest.mark.compiler
def test_building_checks_compile_for_every_device(monkeypatch):
    checks = {check.name: check for check in doctor.examine(build=True)}
    assert checks["compile for stm32f746"].works and checks["native counters"].works


@pytest.fixture
def model(tmp_path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_reference_runner_runs_files_and_folders(model):
    feeds = {"x": np.array([[-1, 0, 2]], np.float32)}
    for place in (model, model.parent):
        measured = load("ort").run(place, feeds)
        assert measured.kind == "measured" and measured.latency_ms[0] <= measured.latency_ms[1]
        assert measured.outputs["y"].tolist() == [[0, 0, 2]]


def test_reference_runner_explains_itself(model, tmp_path):
    with pytest.raises(ModelError, match="cannot run"):
        load("ort").run(model, {"z": np.zeros((1, 3), np.float32)})
    with pytest.raises(UsageError, match="exactly one"):
        load("ort").run(tmp_path / "none", {})
