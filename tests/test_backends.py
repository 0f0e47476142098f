"""What every back end that translates promises: it compiles or names all that it cannot, and numbers agree."""

from __future__ import annotations

import hashlib
import runpy
from pathlib import Path

import numpy as np
import pytest

import edgesmith
from edgesmith import lowering, runtimes, targets
from edgesmith.driver.agreement import Agreement
from edgesmith.ir.errors import MachineError, Unsupported, UsageError
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.op import Op
from edgesmith.ir.ops.activation import Gelu, Relu, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Add, Affine
from edgesmith.ir.ops.norm import GroupNorm, RMSNorm
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.shape import Concat, Pad, Split, Transpose

BACKENDS = lowering.names()
BOUNDS = {"float32": Agreement(error=1e-4), "float16": Agreement(cosine=0.999)}
NETS = dict(runpy.run_path(str(Path(__file__).with_name("small_networks.py")))["NETS"])


def network(make):
    NETS[make.__name__] = make
    return make


@network
def training_form(build):
    return build.mobileone("float32")


@network
def token_vit_with_repnorm(build):
    return build.vit("float32", norm="rep")


@network
def a_head_of_three_outputs(build):
    net = build.Net("float32")
    x = net.conv(net.input(1, 3, 8, 8), 6, 3, pads=(1, 1, 1, 1))
    first, second, third = net.add(Split(1, (1, 2, 3)), x, name="split")
    pooled = net.add(Mean((2, 3)), second, name="pooled")
    odds = net.add(Softmax(1), third, name="odds")
    return net.output(net.add(Gelu(), first, name="map"), net.linear(pooled, 5), odds)


@network
def two_inputs(build):
    net = build.Net("float32")
    image, tokens = net.input(1, 3, 8, 8, name="image"), net.input(1, 4, 6, name="tokens")
    x = net.add(Concat(1), tokens, net.patch_embed(image, 6, 4), name="all")
    return net.output(net.add(RMSNorm(1e-5), x, net.positive(6), name="normed"))


@network
def two_images(build):
    net = build.Net("float32")
    x = net.add(Relu(), net.conv(net.input(2, 3, 9, 7), 8, 3, strides=(2, 1), pads=(0, 1, 1, 1)), name="stem")
    x = net.add(GroupNorm(2, 1e-5), x, net.positive(8), net.normal(8), name="groups")
    x = net.add(Pad((0, 0, 1, 0, 0, 0, 0, 2), 0.0), x, name="pad")
    return net.output(net.linear(net.add(Mean((2, 3)), x, name="pooled"), 4))


@network
def channels_and_tokens_in_turn(build):
    net = build.Net("float32")
    x = net.conv(net.input(1, 4, 6, 5), 8, 3, groups=4, pads=(1, 1, 1, 1))
    rows = net.add(Transpose((0, 2, 3, 1)), x, name="last")
    rows = net.linear(net.add(Gelu("tanh"), net.linear(net.layernorm(rows), 12), name="act"), 8, name="down")
    x = net.add(Add(), x, net.add(Transpose((0, 3, 1, 2)), rows, name="first"), name="sum")
    return net.output(net.conv(net.add(Affine(1), x, net.positive(8), net.normal(8), name="scaled"), 4, 1, bias=False))


@network
def one_token_of_one_channel(build):
    net = build.Net("float32")
    x = net.linear(net.input(1, 1, 1), 1)
    return net.output(net.add(Attention(1, 1.0), x, x, net.linear(x, 3, name="v"), name="mixed"))


def target_of(backend: str):
    """Some target that the back end compiles for."""
    return next(name for name in targets.names() if targets.get(name).backend == backend)


def ready(backend: str):
    """The back end; skips the test where its package is not installed."""
    found = lowering.load(backend)
    if missing := found.why_not():
        pytest.skip(missing)
    return found


def samples(graph, count=4):
    draw = np.random.default_rng(5)
    return {value.name: draw.standard_normal((count, *value.shape)).astype(np.float32) for value in graph.inputs}


def files(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


CASES = [(backend, dtype) for backend in BACKENDS for dtype in lowering.load(backend).dtypes]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("backend", "dtype"), CASES)
def test_a_network_compiles_agrees_and_reloads(backend, dtype, name, build, tmp_path):
    ready(backend)
    graph = NETS[name](build)
    data = samples(graph)
    wanted = run(graph, {key: array[0] for key, array in data.items()})
    calibration = {key: array.reshape(-1, *array.shape[2:]) for key, array in data.items()}
    compiled = edgesmith.compile(graph, target_of(backend), out=tmp_path / "out", dtype=dtype, calibration=calibration)
    again = edgesmith.run(tmp_path / "out", check=True, runs=2)
    assert again.equal == again.samples
    assert set(again.outputs) == set(wanted)
    for key, array in wanted.items():
        assert again.outputs[key][0].shape == array.shape
    first = {key: array[0] for key, array in again.outputs.items()}
    bound = BOUNDS.get(dtype)
    if bound is not None and compiled.manifest["calibration"]["source"] == "data":
        assert bound.holds(first, wanted)
    assert not [kind for kind in compiled.manifest["file"]["operators"] if "flex" in kind.lower()]


@pytest.mark.parametrize(("backend", "dtype"), CASES)
def test_same_model_same_bytes(backend, dtype, fashion, tmp_path):
    ready(backend)
    data = np.load(fashion / "images.npz")["images"][:16]
    one, two = (
        edgesmith.compile(fashion / "model.onnx", target_of(backend), out=tmp_path / out, dtype=dtype, calibration=data)
        for out in ("one", "two")
    )
    assert files(one.folder) == files(two.folder)
    assert one.verification[-1]["cosine"] > 0.99


class Riddle(Op):
    """An op that no back end knows."""

    def infer(self, x: Type) -> Type:
        return x

    def reference(self, x):
        return x


class Enigma(Riddle):
    """Another one."""


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_that_is_missing_is_named_at_once(backend, tmp_path):
    ready(backend)
    graph = Graph("riddles")
    x = graph.input("x", Type("float32", (1, 4)))
    y = graph.add(Riddle(), x, name="first", sources=("/a/first",))
    graph.output(graph.add(Enigma(), graph.add(Relu(), y), name="second", sources=("/a/second",)))
    with pytest.raises(Unsupported) as caught:
        edgesmith.compile(graph, target_of(backend), out=tmp_path / "out")
    text = caught.value.text()
    assert all(word in text for word in ("Riddle", "Enigma", "/a/first", "/a/second"))
    assert caught.value.exit_code == 3 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_protocol(backend):
    found = lowering.load(backend)
    assert found.name == backend and found.dtypes and set(found.dtypes) <= {"float32", "float16", "dynamic", "int8"}
    assert backend in runtimes.load(found.runner).backends
    for option in found.options.values():
        assert option.help and (not option.values or option.default in option.values)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_its_package(backend, tiny, tmp_path, monkeypatch):
    found = lowering.load(backend)
    monkeypatch.setattr(type(found), "why_not", lambda self: "pip install edgesmith[this]")
    with pytest.raises(MachineError, match=r"edgesmith\[this\]") as caught:
        edgesmith.compile(tiny, target_of(backend), out=tmp_path / "out")
    assert caught.value.exit_code == 5 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in targets.names() if targets.get(name).backend != "c"])
def test_every_target_of_a_translation_compiles(name, tiny, typical, tmp_path):
    ready(targets.get(name).backend)
    found = edgesmith.compile(tiny, name, out=tmp_path / "out", calibration=typical, check=False)
    assert found.target == name and found.manifest["file"]["bytes"] > 0


def test_a_back_end_nobody_has_is_refused():
    with pytest.raises(UsageError, match="teletype"):
        lowering.load("teletype")
