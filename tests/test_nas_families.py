"""Families build what their genes say, from weights that are given or drawn, and a file of it carries everything."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

import edgesmith
from edgesmith import frontend
from edgesmith.driver.ladder import cosine
from edgesmith.ir.errors import ModelError, UsageError
from edgesmith.ir.graph import Graph
from edgesmith.ir.integer_codes import smallest
from edgesmith.ir.interpret import run
from edgesmith.ir.passes.quantise import QuantOptions, quantise
from edgesmith.ir.passes.quantise.codes import KEY, noted_codes
from edgesmith.ir.verify import verify
from edgesmith.lowering.onnx.write import write
from edgesmith.nas.families import Chain, assemble, build, parts
from edgesmith.nas.families.net import Net
from edgesmith.nas.families.vit import Ffn, Head, Mixer, Stem
from edgesmith.nas.space import Space

SMALL = Space.load("vit")


def genomes(space: Space, count: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    return [space.draw(generator) for _ in range(count)]


def kinds(graph: Graph) -> Counter[str]:
    return Counter(type(node.op).__name__ for node in graph.nodes)


def logits(graph: Graph) -> np.ndarray:
    (image,) = graph.inputs
    draw = np.random.default_rng(5).standard_normal(image.shape).astype(np.float32)
    (found,) = run(graph, {image.name: draw}).values()
    return found


@pytest.mark.parametrize("genome", genomes(SMALL, 4), ids=str)
def test_a_network_has_what_its_genes_say(genome) -> None:
    graph = build(SMALL, genome)
    verify(graph, "build")
    found, times, mixers = kinds(graph), genome["recursion"], genome["mixer"]
    assert found["Attention"] == (mixers.count("softmax") + mixers.count("window")) * times
    assert found["MatMul"] == 3 * mixers.count("linear") * times
    assert found["AveragePool"] == mixers.count("pool") * times
    assert found["Gelu"] == genome["depth"] * times
    norms = {"LayerNorm": "LayerNorm", "RMSNorm": "RMSNorm", "RepNorm": "RepNorm"}
    assert found[norms[genome["norm"]]] == (len([m for m in mixers if m != "none"]) + genome["depth"]) * times + 1
    assert graph.value("stem.embedded").shape == (1, (32 // genome["patch"]) ** 2, genome["width"])
    hidden = [graph.value(f"blocks.{i}.ffn.fc1").shape[-1] for i in range(genome["depth"])]
    assert hidden == [int(ratio * genome["width"]) for ratio in genome["ratio"]]
    assert logits(graph).shape == (1, 10)


def test_the_same_genome_gives_the_same_weights_and_shared_blocks_share_them() -> None:
    genome = dict(genomes(SMALL, 1)[0], recursion=2)
    one, two = build(SMALL, genome), build(SMALL, genome)
    assert all((a.array == b.array).all() for a, b in zip(one.constants, two.constants, strict=True))
    assert len(one.value("blocks.0.ffn.fc1.weight").readers) == 2
    single = build(SMALL, {**genome, "recursion": 1})
    assert {c.name for c in single.constants} == {c.name for c in one.constants}


def test_weights_that_are_given_are_used_and_wrong_ones_are_named() -> None:
    genome = genomes(SMALL, 1, seed=3)[0]
    drawn = build(SMALL, genome, seed=1)
    weights = {value.name: value.array for value in drawn.constants}
    assert (logits(build(SMALL, genome, weights)) == logits(drawn)).all()
    name = "blocks.0.ffn.fc1.weight"
    with pytest.raises(ModelError, match=f"'{name}' has shape"):
        build(SMALL, genome, {**weights, name: weights[name][1:]})
    with pytest.raises(ModelError, match=f"the weights lack '{name}'"):
        build(SMALL, genome, {each: array for each, array in weights.items() if each != name})


def test_a_file_carries_the_codes_of_its_layers(tmp_path) -> None:
    genome = genomes(SMALL, 1, seed=2)[0]
    graph = build(SMALL, genome)
    wanted = {f"blocks.{i}.ffn.fc1": code for i, code in enumerate(genome["primitive"]) if code != "int8"}
    assert wanted and wanted.items() <= noted_codes(graph).items()
    path = tmp_path / "net.onnx"
    path.write_bytes(write(graph).SerializeToString())
    back = frontend.load(path)
    assert noted_codes(back) == noted_codes(graph)
    assert set(noted_codes(graph)) <= {source for node in back.nodes for source in node.sources}
    assert np.allclose(logits(back), logits(graph), rtol=1e-4, atol=1e-3)


def test_layers_are_rounded_to_their_own_codes() -> None:
    stem, codes = Stem("patch", (1, 16, 16), 4, 8), ("int8", "int4", "shift", "ternary")
    graph = vit(*(Ffn(16, 8, code=code, hidden=8) for code in codes), stem=stem)
    (image,) = graph.inputs
    data = {image.name: np.random.default_rng(5).standard_normal((4, *image.shape[1:])).astype(np.float32)}
    made = quantise(graph, data, QuantOptions(stream="int8"))
    found = {n.name: smallest(n.input(1).array) for n in made.nodes if type(n.op).__name__ == "QLinear"}
    wanted = {f"part{i}.{layer}": code for i, code in enumerate(codes) for layer in ("fc1", "fc2")}
    assert {name: code for name, code in found.items() if name.startswith("part")} == wanted


@pytest.mark.parametrize("text", ["[", '["a"]', '{"a": "int3"}'])
def test_codes_that_make_no_sense_are_refused(text: str) -> None:
    graph = build(SMALL, genomes(SMALL, 1)[0])
    graph.metadata[KEY] = text
    with pytest.raises(ModelError, match=KEY):
        noted_codes(graph)


def vit(*middle, stem: Stem, norm: str = "LayerNorm") -> Graph:
    named = [(f"part{i}", part) for i, part in enumerate(middle)]
    return assemble("net", [("stem", stem), *named, ("head", Head(norm, 7, stem.token))])


def test_patches_that_do_not_divide_the_image_are_padded_on_both_sides() -> None:
    stem = Stem("patch", (3, 20, 20), 7, 8, token=True)
    graph = vit(Ffn(10, 8, hidden=4), stem=stem)
    assert graph.value("stem.patch").producer.op.pads == (0, 0, 1, 1)
    assert graph.value("stem.embedded").shape == (1, 10, 8)
    assert logits(graph).shape == (1, 7)


def test_low_rank_layers_have_the_width_asked_for() -> None:
    block = {"tokens": 16, "width": 24, "rank": 0.5}
    graph = vit(
        Mixer(**block, full=32, factors=3, kind="softmax", heads=2, depth=6), Ffn(**block, hidden=48),
        stem=Stem("patch", (1, 16, 16), 4, 24),
    )  # fmt: skip
    shapes = {c.name: c.shape for c in graph.constants}
    assert [shapes[f"part0.qkv.{i}.weight"] for i in range(2)] == [(16, 24), (16, 16)]
    assert {shapes[f"part0.{name}.weight"] for name in "qkv"} == {(12, 16)}
    assert [shapes[f"part1.fc2.{i}.weight"] for i in range(2)] == [(12, 48), (24, 12)]
    assert "part1.fc1.0.bias" not in shapes and "part1.fc1.1.bias" in shapes


def test_linear_attention_is_that_of_its_paper() -> None:
    """q (k^T v) over q (sum of k), and the values' neighbours: against the definition, written out."""
    graph = vit(Mixer(16, 8, kind="linear", heads=2), stem=Stem("patch", (1, 16, 16), 4, 8))
    (image,) = graph.inputs
    feeds = {image.name: np.random.default_rng(1).standard_normal(image.shape)}
    wanted = ["part0.q", "part0.k", "part0.v", "part0.both"]
    probe = graph.copy()
    probe.outputs = [probe.value(name) for name in wanted]
    q, k, v, both = run(probe, feeds, "float64").values()
    k = np.maximum(k + graph.value("part0.position").array, 0)[0].reshape(16, 2, 4)
    q, values = np.maximum(q, 0)[0].reshape(16, 2, 4), v[0].reshape(16, 2, 4)
    scores = np.einsum("nhd,mhd->hnm", q, k)
    mixed = np.einsum("hnm,mhe->nhe", scores / (scores.sum(-1, keepdims=True) + 1e-6), values).reshape(16, 8)
    grid = np.pad(v[0].reshape(4, 4, 8), ((2, 2), (2, 2), (0, 0)))
    taps = graph.value("part0.near.weight").array[:, 0].transpose(1, 2, 0)
    near = np.array([[(grid[y : y + 5, x : x + 5] * taps).sum((0, 1)) for x in range(4)] for y in range(4)])
    assert np.allclose(both[0], mixed + near.reshape(16, 8), atol=1e-6)


def mixed(mixer: Mixer, x: np.ndarray) -> np.ndarray:
    net = Net("net")
    (found,) = run(net.finish(mixer.add(net, net.input("x", *x.shape))), {"x": x}).values()
    return found


def test_windows_attend_to_themselves_alone() -> None:
    x = np.random.default_rng(3).standard_normal((1, 16, 8)).astype(np.float32)
    found = mixed(Mixer(16, 8, kind="window", heads=2, window=2), x).reshape(4, 4, 8)
    for rows, columns in product((slice(0, 2), slice(2, 4)), repeat=2):
        own = np.ascontiguousarray(x.reshape(4, 4, 8)[rows, columns]).reshape(1, 4, 8)
        wanted = mixed(Mixer(4, 8, kind="softmax", heads=2), own)
        assert np.allclose(found[rows, columns].reshape(1, 4, 8), wanted, atol=1e-5)


def test_one_window_of_all_tokens_is_no_window() -> None:
    genome = dict(genomes(SMALL, 1)[0], patch=8)
    depth = genome["depth"]
    chains = [parts("vit", {**genome, "mixer": (mixer,) * depth}, SMALL.settings) for mixer in ("window", "softmax")]
    assert chains[0] == chains[1]


@pytest.mark.emulator
@pytest.mark.parametrize("mixer", [
    Mixer(16, 8, "RepNorm", kind="linear", heads=2), Mixer(16, 8, kind="window", heads=2, window=2),
], ids=lambda mixer: mixer.kind)  # fmt: skip
def test_mixers_run_on_a_device(mixer: Mixer, tmp_path) -> None:
    graph = vit(mixer, Ffn(16, 8, hidden=16), stem=Stem("patch", (1, 16, 16), 4, 8))
    data = {"image": np.random.default_rng(2).standard_normal((8, 1, 16, 16)).astype(np.float32)}
    edgesmith.compile(graph, "stm32f411", out=tmp_path / "out", calibration=data, stream="int8", check=False)
    found = edgesmith.run(tmp_path / "out", check=True, runs=1)
    assert found.equal == found.samples
    (said,), (wanted,) = found.outputs.values(), run(graph, {"image": data["image"][:1]}).values()
    assert cosine(said.ravel(), wanted.ravel()) > 0.99


def test_what_cannot_be_built_says_so() -> None:
    with pytest.raises(UsageError, match="windows of 3x3 do not tile 16 tokens"):
        vit(Mixer(16, 8, kind="window", heads=2, window=3), stem=Stem("patch", (1, 16, 16), 4, 8))
    with pytest.raises(UsageError, match="heads do not share"):
        vit(Mixer(16, 8, kind="softmax", heads=3), stem=Stem("patch", (1, 16, 16), 4, 8))
    with pytest.raises(UsageError, match="power of two"):
        vit(stem=Stem("conv", (1, 16, 16), 6, 8))
    with pytest.raises(UsageError, match="no family"):
        parts("nonsense", {}, {})


def test_a_chain_is_its_parts() -> None:
    ffn = Ffn(16, 8, hidden=4)
    apart = vit(ffn, ffn, stem=Stem("patch", (1, 16, 16), 4, 8))
    stem, head = ("stem", Stem("patch", (1, 16, 16), 4, 8)), ("head", Head("LayerNorm", 7))
    joined = assemble("net", [stem, ("", Chain((("part0", ffn), ("part1", ffn)))), head])
    assert (logits(apart) == logits(joined)).all()
