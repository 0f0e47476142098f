"""The published EfficientFormers are genomes of their spaces: parameters to the last one, products, and every layer."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

import edgesmith
from edgesmith import lowering
from edgesmith.driver.agreement import Agreement
from edgesmith.ir.cost import cost
from edgesmith.ir.errors import UsageError
from edgesmith.ir.graph import Graph
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.conv import Conv
from edgesmith.nas.families import assemble, build, parts
from edgesmith.nas.families.net import Net
from edgesmith.nas.space import Genome, Space

Weights: TypeAlias = dict[str, np.ndarray]

V1 = {
    "l1": ((48, 96, 224, 448), (3, 2, 6, 4), 1, 12_289_928, 1.30e9),
    "l3": ((64, 128, 320, 512), (4, 4, 12, 6), 4, 31_406_000, 3.93e9),
    "l7": ((96, 192, 384, 768), (6, 6, 18, 8), 8, 82_229_328, 10.17e9),
}
"""Widths, depths, blocks with attention, parameters of the released networks, and published products."""

V2 = {
    "s0": ((32, 48, 96, 176), (2, 2, 6, 4), 2, 3_600_256, 0.41e9),
    "s1": ((32, 48, 120, 224), (3, 3, 9, 6), 2, 6_185_560, 0.67e9),
    "s2": ((32, 64, 144, 288), (4, 4, 12, 8), 4, 12_710_112, 1.27e9),
    "l": ((40, 80, 192, 384), (5, 5, 15, 10), 6, 26_322_288, 2.59e9),
}
"""The same; attention is in as many blocks of stage 4 as of stage 3."""

LEAN = {"s0": ((1, 4), (1, 3)), "s1": ((2, 6), (2, 4)), "s2": ((2, 8), (2, 6)), "l": ((4, 11), (3, 7))}
"""Blocks of stages 3 and 4 whose expansion is 3 instead of 4: from, to."""

STATISTICS = ("bn.weight", "bn.running_mean", "bn.running_var")
"""What is folded into a convolution; its shift becomes the bias."""


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters without values: of networks that are only counted."""
    blank = np.zeros((), np.float32)
    monkeypatch.setattr(Net, "_drawn", lambda _self, _name, shape, *_: np.broadcast_to(blank, shape))


def stages(widths: tuple[int, ...], ratios: tuple[tuple[int, ...], ...], **others: int) -> Genome:
    genome: dict[str, Any] = dict(others)
    for stage, (width, ratio) in enumerate(zip(widths, ratios, strict=True), 1):
        genome |= {f"width_{stage}": width, f"depth_{stage}": len(ratio), f"ratio_{stage}": ratio}
    return genome


def v1(widths: tuple[int, ...], depths: tuple[int, ...], attention: int) -> Genome:
    return stages(widths, tuple((4,) * depth for depth in depths), attention=attention)


def v2(name: str) -> Genome:
    widths, depths, attention, *_ = V2[name]
    lean = ((0, 0), (0, 0), *LEAN[name])
    ratios = (tuple(3 if a <= i < b else 4 for i in range(depth)) for depth, (a, b) in zip(depths, lean, strict=True))
    return stages(widths, tuple(ratios), attention_3=attention, attention_4=attention)


def folded(graph: Graph) -> int:
    """Parameters with every BatchNorm folded."""
    kept = [c for c in graph.constants if c.shape and c.type.numpy.kind == "f" and not c.name.endswith(STATISTICS)]
    return sum(prod(c.shape) for c in kept)


def norms(graph: Graph) -> int:
    """Channels behind convolutions that have a BatchNorm."""
    nodes = [node for node in graph.nodes if isinstance(node.op, Conv) and node.output.name.endswith(".conv")]
    return sum(node.output.shape[1] for node in nodes)


def uncounted(graph: Graph) -> int:
    """Operations that are no products and that published figures seem to hold: 2 a normed pixel, 4 a resized one.

    Inferred from the distance between products and the figures, 1.5 to 3.5 %; no source says so.
    """
    each = {"BatchNorm": 2, "Resize": 4}
    return sum(each.get(type(node.op).__name__, 0) * prod(node.outputs[0].shape) for node in graph.nodes)


@pytest.mark.parametrize("name", V1)
@pytest.mark.usefixtures("undrawn")
def test_published_v1(name: str) -> None:
    widths, depths, attention, parameters, macs = V1[name]
    graph = build(Space.load("efficientformer_v1"), v1(widths, depths, attention))
    head = 1000 * (widths[3] + 1)  # of the two that are one here
    scales = sum(width * depth for width, depth in zip(widths, depths, strict=True))  # of FFNs
    mixers = widths[3] * attention  # scales of attention
    batch = 2 * norms(graph)  # its scale and shift; the convolution there has a bias too
    assert folded(graph) + head + scales + mixers + batch == parameters
    assert cost(graph).macs == pytest.approx(macs, rel=0.01)


@pytest.mark.parametrize("name", V2)
@pytest.mark.usefixtures("undrawn")
def test_published_v2(name: str) -> None:
    widths, depths, attention, parameters, macs = V2[name]
    graph = build(Space.load("efficientformer_v2"), v2(name))
    head = 1000 * (widths[3] + 1)  # of the two that are one here
    scales = sum(width * depth for width, depth in zip(widths, depths, strict=True))  # of FFNs
    mixers = (widths[2] + widths[3]) * attention  # scales of attention
    batch = 2 * norms(graph) + widths[3]  # as in V1, and the scale of the norm before the head
    assert folded(graph) + head + scales + mixers + batch == parameters
    assert cost(graph).macs + uncounted(graph) == pytest.approx(macs, rel=0.01)


SMALL = {"image": 64, "channels": 3, "classes": 5}


def small(family: str) -> Graph:
    """Few channels, every kind of block."""
    genome = stages((8, 8, 16, 16), ((2,), (2,), (2, 3), (3, 2)), attention=1, attention_3=1, attention_4=1)
    return assemble("small", parts(family, genome, SMALL))


@pytest.mark.parametrize("family", ["efficientformer", "efficientformer_v2"])
@pytest.mark.parametrize(
    "backend, target",
    [
        pytest.param("coreml", "iphone15", marks=pytest.mark.coreml),
        pytest.param("tflite", "android", marks=pytest.mark.tflite),
    ],
)
def test_phones_take_it(backend: str, target: str, family: str, tmp_path: Path) -> None:
    if missing := lowering.load(backend).why_not():
        pytest.skip(missing)
    graph = small(family)
    data = np.random.default_rng(4).standard_normal((1, 3, 64, 64)).astype(np.float32)
    edgesmith.compile(graph, target, out=tmp_path / "out", dtype="float32", calibration={"image": data})
    found = edgesmith.run(tmp_path / "out", check=True, runs=1)
    assert found.equal == found.samples
    wanted = run(graph, {"image": data})
    assert Agreement(error=1e-4).holds({name: array[0] for name, array in found.outputs.items()}, wanted)


def test_attention_beyond_a_stage_is_all_of_it() -> None:
    genome = stages((8, 8, 16, 16), ((2,), (2,), (2,), (2, 3)), attention=2)
    assert parts("efficientformer", genome, SMALL) == parts("efficientformer", {**genome, "attention": 8}, SMALL)


def test_images_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(UsageError, match="halved five times"):
        parts("efficientformer", v1(*V1["l1"][:3]), {**SMALL, "image": 80})


def normed(state: Weights, conv: str, norm: str, name: str, scale: np.ndarray | float = 1.0) -> Weights:
    """A convolution with its bias, BatchNorm and the scale behind them, under our names."""
    ours = {f"{name}.conv.weight": state[f"{conv}.weight"]}
    ours[f"{name}.bn.running_mean"] = state[f"{norm}.running_mean"] - state[f"{conv}.bias"]
    ours[f"{name}.bn.running_var"] = state[f"{norm}.running_var"]
    return ours | {f"{name}.bn.{key}": state[f"{norm}.{key}"] * scale for key in ("weight", "bias")}


def linear(state: Weights, theirs: str, name: str, scale: np.ndarray) -> Weights:
    return {
        f"{name}.weight": state[f"{theirs}.weight"] * scale[:, None],
        f"{name}.bias": state[f"{theirs}.bias"] * scale,
    }


def released_v1(state: Weights, depths: tuple[int, ...], attention: int) -> Weights:
    """The weights of timm's spelling under our names."""
    ours: Weights = {}
    for i in "12":
        ours |= normed(state, f"stem.conv{i}", f"stem.norm{i}", f"stem.{i}")
    for stage, depth in enumerate(depths):
        if stage:
            theirs = f"stages.{stage}.downsample"
            ours |= normed(state, f"{theirs}.conv", f"{theirs}.norm", f"down.{stage}.conv")
        for place in range(depth):
            on_tokens = stage == 3 and place >= depth - attention
            theirs, name = f"stages.{stage}.blocks.{place + on_tokens}", f"stages.{stage}.{place}"
            mixer, ffn = state[f"{theirs}.ls1.gamma"], state[f"{theirs}.ls2.gamma"]
            if not on_tokens:
                ours |= normed(state, f"{theirs}.mlp.fc1", f"{theirs}.mlp.norm1", f"{name}.ffn.fc1")
                ours |= normed(state, f"{theirs}.mlp.fc2", f"{theirs}.mlp.norm2", f"{name}.ffn.fc2", ffn)
                ours[f"{name}.mixer.scale"] = mixer[:, None, None]
                continue
            for index, part in ((1, "mixer"), (2, "ffn")):
                ours |= {
                    f"{name}.{part}.norm.{key}": state[f"{theirs}.norm{index}.{key}"] for key in ("weight", "bias")
                }
            ours |= linear(state, f"{theirs}.token_mixer.proj", f"{name}.mixer.proj", mixer)
            hidden = np.ones(len(state[f"{theirs}.mlp.fc1.bias"]))
            ours |= linear(state, f"{theirs}.mlp.fc1", f"{name}.ffn.fc1", hidden)
            ours |= linear(state, f"{theirs}.mlp.fc2", f"{name}.ffn.fc2", ffn)
            rows = np.arange(8 * 192).reshape(8, 192)  # theirs go head by head
            order = np.concatenate([rows[:, :32].ravel(), rows[:, 32:64].ravel(), rows[:, 64:].ravel()])
            for key in ("weight", "bias"):
                ours[f"{name}.mixer.qkv.{key}"] = state[f"{theirs}.token_mixer.qkv.{key}"][order]
            ours[f"{name}.mixer.biases"] = state[f"{theirs}.token_mixer.attention_biases"]
    for key in ("weight", "bias"):
        ours[f"head.norm.{key}"] = state[f"norm.{key}"]
    return ours | heads(state)


def halved(state: Weights, theirs: str, name: str) -> Weights:
    """The attention that halves: the query's second pixels are the middle tap of the convolution beside them."""
    ours = {f"{name}.local.{key}": state[f"{theirs}.q.local.{key}"] for key in ("weight", "bias")}
    ours[f"{name}.local.weight"] = ours[f"{name}.local.weight"] + np.pad([[1.0]], 1)
    ours |= normed(state, f"{theirs}.q.proj.conv", f"{theirs}.q.proj.bn", f"{name}.q")
    for key, part in (("k", "k"), ("v", "v"), ("v_local", "near"), ("proj", "proj")):
        ours |= normed(state, f"{theirs}.{key}.conv", f"{theirs}.{key}.bn", f"{name}.{part}")
    return ours | {f"{name}.biases": state[f"{theirs}.attention_biases"]}


def mixer(state: Weights, theirs: str, name: str, scale: np.ndarray) -> Weights:
    """Attention on an image, its heads talking to each other."""
    ours = {f"{name}.biases": state[f"{theirs}.attention_biases"]}
    for number in "12":
        keys = ("weight", "bias")
        ours |= {f"{name}.talk{number}.{key}": state[f"{theirs}.talking_head{number}.{key}"] for key in keys}
    parts_of = {"stride_conv": "halve", "q": "q", "k": "k", "v": "v", "v_local": "near", "proj": "proj"}
    for key, part in parts_of.items():
        if f"{theirs}.{key}.conv.weight" in state:
            factor = scale if part == "proj" else 1.0
            ours |= normed(state, f"{theirs}.{key}.conv", f"{theirs}.{key}.bn", f"{name}.{part}", factor)
    return ours


def released_v2(state: Weights, depths: tuple[int, ...]) -> Weights:
    """The weights of timm's spelling under our names."""
    ours: Weights = {}
    for i in "12":
        ours |= normed(state, f"stem.conv{i}.conv", f"stem.conv{i}.bn", f"stem.{i}")
    for stage, depth in enumerate(depths):
        down = f"stages.{stage}.downsample"
        if stage:
            ours |= normed(state, f"{down}.conv.conv", f"{down}.conv.bn", f"down.{stage}.conv")
        if stage == 3:
            ours |= halved(state, f"{down}.attn", f"down.{stage}")
        for place in range(depth):
            theirs, name = f"stages.{stage}.blocks.{place}", f"stages.{stage}.{place}"
            if f"{theirs}.ls1.gamma" in state:
                ours |= mixer(state, f"{theirs}.token_mixer", f"{name}.mixer", state[f"{theirs}.ls1.gamma"])
            for part in ("fc1", "mid", "fc2"):
                factor, layer = state[f"{theirs}.ls2.gamma"] if part == "fc2" else 1.0, f"{theirs}.mlp.{part}"
                ours |= normed(state, f"{layer}.conv", f"{layer}.bn", f"{name}.ffn.{part}", factor)
    for key in ("weight", "bias", "running_mean", "running_var"):
        ours[f"head.bn.{key}"] = state[f"norm.{key}"]
    return ours | heads(state)


def heads(state: Weights) -> Weights:
    """The mean of both."""
    return {f"head.fc.{key}": (state[f"head.{key}"] + state[f"head_dist.{key}"]) / 2 for key in ("weight", "bias")}


def spread(module: Any, torch: Any) -> None:
    """Give every scale, shift and statistic a value of its own, so that none can be missed."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if "running_var" in name:
                tensor.uniform_(0.5, 1.5)
            elif (tensor.dtype.is_floating_point and tensor.ndim == 1) or "attention_biases" in name:
                scale = ("norm" in name or "bn" in name) and "weight" in name
                tensor.normal_(0.5 if scale else 0.0, 0.3)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["efficientformer_l1", "efficientformerv2_s0"])
def test_released_weights_give_the_released_network(name: str) -> None:
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    torch.manual_seed(3)
    theirs = timm.create_model(name).eval()
    spread(theirs, torch)
    with torch.no_grad():
        image = torch.randn(1, 3, 224, 224)
        wanted = theirs(image).numpy()
    state = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
    if name == "efficientformer_l1":
        widths, depths, attention, *_ = V1["l1"]
        genome, weights = v1(widths, depths, attention), released_v1(state, depths, attention)
    else:
        genome, weights = v2("s0"), released_v2(state, V2["s0"][1])
    space = Space.load("efficientformer_v1" if name == "efficientformer_l1" else "efficientformer_v2")
    (found,) = run(build(space, genome, weights), {"image": image.numpy()}).values()
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
