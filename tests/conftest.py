"""What many tests share: golden texts, a builder of graphs, a tiny network as a file, and the trained sample."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a change of the expected texts be written down, to be read as a diff before it is committed."""
    parser.addoption("--update-golden", action="store_true", help="write the texts under tests/golden anew")


NEEDS = {
    "compiler": ("ziglang",),
    "emulator": ("ziglang", "unicorn", "elftools"),
    "corpus": ("torch", "timm", "onnxscript"),
    "coreml": ("coremltools",),
    "tvm": ("tvm",),
    "tflite": ("ai_edge_litert", "flatbuffers"),
    "search": ("pymoo",),
    "ray": ("ray",),
}
"""Which packages the tests of a marker need."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say what is missing."""
    for marker, packages in NEEDS.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            skip = pytest.mark.skip(reason=f"{marker} tests need {', '.join(missing)}")
            for item in items:
                if marker in item.keywords:
                    item.add_marker(skip)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """A function that holds a text against the file of that name under tests/golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no golden file {name}: run with --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(scope="session")
def build() -> ModuleType:
    """The module build.py beside this file: tests have no package to import it from."""
    spec = importlib.util.spec_from_file_location("build", Path(__file__).with_name("build.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_network(batch: int | str = 1, metadata: bool = False):
    """[batch, 3, 8, 8] through a strided convolution, ReLU and a linear layer to [batch, 4] scores."""
    draw = np.random.default_rng(3)
    weights = {
        "kernel": draw.standard_normal((8, 3, 4, 4)) * 0.2,
        "bias": draw.standard_normal(8) * 0.1,
        "matrix": draw.standard_normal((32, 4)) * 0.2,
        "offset": draw.standard_normal(4) * 0.1,
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["c"], "conv", strides=[4, 4], kernel_shape=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "matrix", "offset"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata:
        helper.set_model_props(model, {"edgesmith.mean": "0.5 0.5 0.5", "edgesmith.std": "0.25 0.25 0.25"})
    return model


@pytest.fixture(scope="session")
def networks() -> ModuleType:
    """This module, for tests that make networks of their own."""
    return sys.modules[__name__]


@pytest.fixture
def tiny(tmp_path):
    """Path of the tiny network."""
    path = tmp_path / "tiny.onnx"
    save(tiny_network(), path)
    return path


@pytest.fixture
def tiny_pixels(tmp_path):
    """Path of the tiny network that says how pixels become its input."""
    path = tmp_path / "pixels.onnx"
    save(tiny_network(metadata=True), path)
    return path


@pytest.fixture
def typical(tmp_path):
    """Path of calibration data for the tiny network."""
    path = tmp_path / "typical.npy"
    np.save(path, np.random.default_rng(5).standard_normal((12, 3, 8, 8)).astype(np.float32))
    return path


@pytest.fixture(scope="session")
def fashion():
    """Folder of the trained sample."""
    return ROOT / "samples" / "fashion"
