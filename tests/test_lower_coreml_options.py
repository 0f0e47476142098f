"""Core ML's options: halves that stay in range, images, class names, layouts, compression, and the same bytes twice."""

from __future__ import annotations

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.errors import ModelError, Unsupported, UsageError
from edgesmith.ir.graph import Graph, Quant, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Exp, Gelu, Log, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv, PatchEmbed
from edgesmith.ir.ops.elementwise import Add, Mul
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.pool import Mean
from edgesmith.ir.ops.quant import Quantize
from edgesmith.lowering import Job, load
from edgesmith.lowering.coreml.compress import palette
from edgesmith.lowering.coreml.half import examine
from edgesmith.lowering.coreml.image import Normalisation, fold
from edgesmith.runtimes.mlprogram import MODES, evaluate, read

BACKEND = load("coreml")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
needs_coremltools = pytest.mark.coreml


def written(graph, path, dtype="float32", ranges=None, **options):
    pytest.importorskip("coremltools")
    given = {name: option.default for name, option in BACKEND.options.items()}
    return BACKEND.write(Job(graph.copy(), targets.get("host"), dtype, {**given, **options}, ranges or {}), path)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def block(width=32, heads=4):
    """An image as tokens through one attention block, and a head."""
    graph = Graph("block")
    x = graph.input("image", Type("float32", (1, 3, 16, 16)))
    weight = graph.constant(draw(width, 3, 4, 4) * 0.1)
    x = graph.add(PatchEmbed((4, 4)), x, weight, graph.constant(draw(width)), name="patches")
    y = graph.add(LayerNorm(1e-6), x, graph.constant(draw(width)), graph.constant(draw(width)), name="norm")
    parts = [graph.constant(draw(width, width, seed=i) * 0.1) for i in range(3)]
    q, k, v = (graph.add(Linear(), y, part, graph.constant(draw(width)), name=f"p{i}") for i, part in enumerate(parts))
    y = graph.add(Attention(heads, 0.3), q, k, v, name="attention")
    x = graph.add(Add(), x, y, name="sum")
    x = graph.add(Gelu(), graph.add(Linear(), x, graph.constant(draw(64, width) * 0.1), None, name="up"), name="act")
    x = graph.add(Mean((1,)), x, name="mean")
    graph.output(
        graph.add(Linear(), x, graph.constant(draw(10, 64) * 0.1), graph.constant(draw(10)), name="head"), "logits"
    )
    return graph


def outputs_of(path, feeds):
    return evaluate(read(path), feeds, MODES["declared"])


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@needs_coremltools
def test_same_job_same_bytes(tmp_path):
    one, other = tmp_path / "one.mlpackage", tmp_path / "other.mlpackage"
    for path in (one, other):
        written(block(), path, "float16", author="someone")
    assert files(one) == files(other) and len(files(one)) == 3


@needs_coremltools
def test_three_projections_are_one_product(tmp_path):
    said = written(block(), tmp_path / "a.mlpackage")
    assert said.operators["linear"] == 3 and said.operators["scaled_dot_product_attention"] == 1
    said = written(block(), tmp_path / "b.mlpackage", deployment="iOS16")
    assert said.operators["softmax"] == 1 and "scaled_dot_product_attention" not in said.operators


@needs_coremltools
def test_channels_first_has_no_transpose_and_the_same_numbers(tmp_path):
    graph, feeds = block(), {"image": draw(1, 3, 16, 16, seed=9)}
    said = written(graph, tmp_path / "a.mlpackage", layout="ane", deployment="iOS16")
    assert "transpose" not in said.operators and "linear" not in said.operators
    wanted = run(graph, feeds)["logits"]
    assert np.abs(outputs_of(tmp_path / "a.mlpackage", feeds)["logits"] - wanted).max() < 1e-5 * np.abs(wanted).max()


@needs_coremltools
def test_an_image_is_normalised_by_the_weights(tmp_path):
    graph = block()
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 16, 16)).astype(np.float32)
    mean, std = (np.reshape(each, (1, 3, 1, 1)) for each in (MEAN, STD))
    wanted = run(graph, {"image": ((pixels / 255 - mean) / std).astype(np.float32)})["logits"]
    text = "mean=0.485,0.456,0.406;std=0.229,0.224,0.225"
    said = written(graph, tmp_path / "a.mlpackage", image=text)
    assert said.operators == written(graph, tmp_path / "b.mlpackage").operators
    assert np.abs(outputs_of(tmp_path / "a.mlpackage", {"image": pixels})["logits"] - wanted).max() < 1e-4


@needs_coremltools
def test_class_names_make_a_classifier(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {i}" for i in range(10)) + "\n", encoding="utf-8")
    written(block(), tmp_path / "a.mlpackage", labels=str(names))
    found = outputs_of(tmp_path / "a.mlpackage", {"image": draw(1, 3, 16, 16)})
    assert str(found["classLabel"]).startswith("class ")
    names.write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(ModelError, match="2 class names"):
        written(block(), tmp_path / "b.mlpackage", labels=str(names))
    with pytest.raises(UsageError, match="cannot be read"):
        written(block(), tmp_path / "c.mlpackage", labels=str(tmp_path / "missing.txt"))


@needs_coremltools
@pytest.mark.parametrize("kind, least", [("int8", 0.999), ("palette6", 0.995), ("palette4", 0.95)])
def test_weights_in_fewer_bits_stay_close(kind, least, tmp_path):
    graph, feeds = block(), {"image": draw(1, 3, 16, 16, seed=3)}
    written(graph, tmp_path / "a.mlpackage", weights=kind)
    found, wanted = outputs_of(tmp_path / "a.mlpackage", feeds)["logits"], run(graph, feeds)["logits"]
    assert np.vdot(found, wanted) / np.linalg.norm(found) / np.linalg.norm(wanted) > least


@needs_coremltools
def test_what_there_is_not_is_refused(tmp_path):
    with pytest.raises(UsageError, match="deployment"):
        written(block(), tmp_path / "a.mlpackage", deployment="iOS9")
    with pytest.raises(UsageError, match="normalisation"):
        written(block(), tmp_path / "b.mlpackage", image="median=3")
    graph = Graph("integers")
    x = graph.input("x", Type("float32", (2, 3)))
    for name in ("first", "second"):
        graph.output(graph.add(Quantize(Quant(0.1)), x, sources=(name,)), name)
    with pytest.raises(Unsupported, match="Quantize") as caught:
        written(graph, tmp_path / "c.mlpackage")
    assert caught.value.where == ("first", "second")


# ---- folding, lint and palettes need no coremltools ----


@pytest.mark.parametrize("groups, pads", [(1, (0, 0, 0, 0)), (1, (1, 1, 1, 1)), (3, (1, 0, 2, 1)), (3, (0, 0, 0, 0))])
def test_a_stem_takes_pixels_exactly(groups, pads):
    graph = Graph("stem")
    x = graph.input("x", Type("float32", (1, 3, 9, 8)))
    weight = graph.constant(draw(6, 3 // groups, 3, 3))
    graph.output(graph.add(Conv((2, 2), pads, groups=groups), x, weight, None, name="stem"), "y")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 9, 8)).astype(np.float64)
    mean, std = (np.reshape(each, (1, 3, 1, 1)) for each in (MEAN, STD))
    wanted = run(graph, {"x": (pixels / 255 - mean) / std}, "float64")["y"]
    fold(graph, Normalisation(MEAN, STD), half=False)
    assert np.abs(run(graph, {"x": pixels}, "float64")["y"] - wanted).max() < 1e-5


def lint(build, *shape, **ranges):
    graph = Graph("lint")
    graph.output(build(graph, graph.input("x", Type("float32", shape))), "y")
    return graph, examine(graph, ranges)


def test_a_norm_of_what_a_shrunk_norm_gives_is_looked_at_as_well():
    def norms(g, x):
        return g.add(LayerNorm(1e-9), g.add(LayerNorm(1e-3), x, name="first"), name="second")

    _, found = lint(norms, 2, 32, x=(-400.0, 400.0))
    assert found.fixed["first"].startswith("squares") and found.fixed["y"].startswith("epsilon")


def test_norms_of_large_numbers_are_shrunk_without_changing_them():
    graph, found = lint(lambda g, x: g.add(LayerNorm(1e-3), x, None, None, name="n"), 2, 8, x=(-4000.0, 4000.0))
    assert found.fixed["y"].startswith("squares") and not found.kept
    feeds = {"x": draw(2, 8) * np.float32(1024)}
    wanted = LayerNorm(1e-3).reference(feeds["x"].astype(np.float64))
    assert np.abs(run(graph, feeds, "float64")["y"] - wanted).max() < 1e-9


def test_masks_are_finite_and_scores_are_scaled_before_their_product():
    def masked(g, x):
        mask = np.where(np.eye(4) > 0, 0, -np.inf).astype(np.float32)
        scores = g.add(MatMul(), x, g.constant(draw(8, 4)), name="product")
        scores = g.add(Mul(), scores, g.constant(np.float32(0.125).reshape(())), name="scores")
        return g.add(Softmax(-1), g.add(Add(), scores, g.constant(mask), name="masked"), name="shares")

    graph, found = lint(masked, 4, 8, x=(-3.0, 3.0))
    assert found.fixed["masked"].startswith("mask") and found.fixed["scores"].startswith("scores")
    assert all(np.isfinite(value.array).all() for value in graph.constants)
    assert type(graph.value("scores").producer.op) is MatMul


@pytest.mark.parametrize(
    "build, ranges, hazard",
    [
        (lambda g, x: g.add(Log(), g.add(Exp(), x, name="e"), name="l"), {"x": (0.0, 20.0)}, "exponential"),
        (lambda g, x: g.add(Gelu("tanh"), x, name="g"), {"x": (-50.0, 50.0)}, "cube"),
        (lambda g, x: g.add(Mul(), x, x, name="m"), {"x": (-900.0, 900.0), "y": (0.0, 810000.0)}, "overflow"),
        (lambda g, x: g.add(Mul(), x, g.constant(np.float32(1e6).reshape(()))), {"x": (0.0, 1e-3)}, "constant"),
        (lambda g, x: g.add(Mean((1,)), x, name="s"), {"x": (-30000.0, 30000.0)}, "sum"),
    ],
)
def test_what_cannot_be_mended_stays_in_float32(build, ranges, hazard):
    _, found = lint(build, 2, 6, **ranges)
    assert found.kept["y"].startswith(hazard)


def test_small_numbers_raise_no_alarm():
    _, found = lint(lambda g, x: g.add(Gelu("tanh"), x, name="g"), 2, 6, x=(-3.0, 3.0))
    assert not found.kept and not found.fixed and not found.unproven
    _, found = lint(lambda g, x: g.add(Mul(), x, x, name="m"), 2, 6)
    assert found.unproven == ["y"] and "no ranges" in found.notes(False)[-1]


def test_bounds_alone_accuse_no_product():
    def attended(g, x):
        normed = g.add(LayerNorm(1e-6), x, None, None, name="n")
        q, k, v = (g.add(Linear(), normed, g.constant(draw(64, 64)), None, name=f"p{i}") for i in range(3))
        return g.add(Attention(1, 0.125), q, k, v, name="a")

    assert not lint(attended, 1, 9, 64)[1].kept
    _, found = lint(attended, 1, 9, 64, x=(-1.0, 1.0), p0=(-200.0, 200.0), p1=(-200.0, 200.0), p2=(-1.0, 1.0))
    assert found.kept["y"].startswith("product")


def test_a_palette_is_nearest_and_the_same_every_time():
    weight = draw(64, 33)
    lut, indices = palette(weight, 4)
    assert lut.size == 16 and np.array_equal(palette(weight, 4)[1], indices)
    distance = np.abs(weight.reshape(-1, 1) - lut)
    assert np.allclose(distance.min(axis=1), np.abs(weight.reshape(-1) - lut[indices]), atol=1e-6)


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize(("draw", "spread"), [("standard_normal", 2.72), ("laplace", 4.5)])
def test_a_palette_is_near_the_best_there_is(draw, spread, bits):
    """Many levels lose sqrt(spread) / count of such numbers at best (Panter and Dite, Proc. IRE 1951)."""
    from edgesmith.lowering.coreml.compress import palette

    weight = getattr(np.random.default_rng(0), draw)(size=(192, 192)).astype(np.float32)
    lut, indices = palette(weight, bits)
    assert lut.size == 2**bits
    error = np.linalg.norm(lut[indices] - weight.reshape(-1)) / np.linalg.norm(weight)
    assert error < 1.05 * np.sqrt(spread) / 2**bits
