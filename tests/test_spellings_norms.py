"""Norms in every spelling: all become the one op, and what only looks like one stays."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from edgesmith.ir.ops.norm import GroupNorm, LayerNorm, RMSNorm
from edgesmith.ir.ops.shape import Transpose

SPELLINGS = runpy.run_path(str(Path(__file__).with_name("spellings.py")))
Speller, spelt, recognised = (SPELLINGS[name] for name in ("Speller", "spelt", "recognised"))
EPS = 1e-5
G, B = np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)


def average(s, x, axes, rank=3):
    """The mean along axes that stay: by mean, by sum, axes counted from either end, or dropped and put back."""
    axes = s.choose(axes, [axis - rank for axis in axes])
    form = s.choose("mean", "sum", "squeezed")
    if form == "mean":
        return s.mean(x, axes)
    if form == "squeezed":
        positive = sorted(axis % rank for axis in axes)
        return s.op("Unsqueeze", s.mean(x, axes, keep=0), s.constant(positive, np.int64))
    count = {2: 6, 3: 20}[axes[0] % rank] if rank > 3 or axes[0] % rank == 2 else 30
    return s.times(s.op("ReduceSum", x, s.constant(axes, np.int64), keepdims=1), 1 / count)


def over_root(s, top, variance):
    """top / sqrt(variance + eps)."""
    shifted = s.plus(variance, EPS)
    form = s.choose("power", "root", "half power")
    if form == "power":
        return s.commuted("Mul", top, s.op("Pow", shifted, s.constant(-0.5)))
    root = s.op("Sqrt", shifted) if form == "root" else s.op("Pow", shifted, s.constant(0.5))
    way = s.choose("Div", "Reciprocal", "one over")
    if way == "Div":
        return s.op("Div", top, root)
    inverse = s.op("Reciprocal", root) if way == "Reciprocal" else s.op("Div", s.constant(1.0), root)
    return s.commuted("Mul", top, inverse)


def difference(s, x, mean):
    return s.op("Sub", x, mean) if s.choose(True, False) else s.commuted("Add", x, s.negative(mean))


def affine(s, y, shape=(6,)):
    """y * g + b, vectors of any rank, or b first: (y + b / g) * g."""
    g = s.constant(G.reshape((1,) * s.choose(0, 1) + shape))
    if s.choose("scale first", "shift first") == "scale first":
        return s.commuted("Add", s.commuted("Mul", y, g), s.constant(B.reshape(shape)))
    return s.commuted("Mul", s.commuted("Add", y, s.constant((B / G).reshape(shape))), g)


def layer_norm(s, x, axes=(2,), rank=3):
    """The usual form, its variance about the mean or of two moments, or x * r + (b - mean * r)."""
    form = s.choose("centred", "moments", "fused")
    mean = average(s, x, list(axes), rank)
    if form == "centred":
        d = difference(s, x, mean)
        return over_root(s, d, average(s, s.square(d), list(axes), rank))
    variance = s.op("Sub", average(s, s.square(x), list(axes), rank), s.square(mean))
    if form == "moments":
        return over_root(s, difference(s, x, mean), variance)
    inverse = s.op("Pow", s.plus(variance, EPS), s.constant(-0.5))
    return s.op("Sub", s.commuted("Mul", x, inverse), s.commuted("Mul", mean, inverse))


def affine_layer_norm(s, x):
    return affine(s, layer_norm(s, x))


def fused_layer_norm(s, x):
    """As converters of batch norms write it: x * (r * g) + (b - mean * (r * g))."""
    mean = average(s, x, [2])
    variance = average(s, s.square(difference(s, x, mean)), [2])
    inverse = s.commuted("Mul", s.op("Pow", s.plus(variance, EPS), s.constant(-0.5)), s.constant(G))
    rest = s.op("Sub", s.constant(B), s.commuted("Mul", mean, inverse))
    return s.commuted("Add", s.commuted("Mul", x, inverse), rest)


def rms_norm(s, x):
    y = over_root(s, x, average(s, s.square(x), [2]))
    return s.commuted("Mul", y, s.constant(G)) if s.choose(True, False) else y


EPSILON = float(np.float32(EPS))
FAMILIES = {
    layer_norm: LayerNorm(EPSILON),
    affine_layer_norm: LayerNorm(EPSILON),
    fused_layer_norm: LayerNorm(EPSILON),
    rms_norm: RMSNorm(EPSILON),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_every_spelling_is_the_one_op(family, opset: int, tmp_path: Path) -> None:
    """At least fifty of each; scale and shift have joined the norm."""
    sheet = spelt(family, (2, 5, 6), opset=opset)
    assert len(sheet.outputs) >= 50
    graph = recognised(sheet, tmp_path, tolerance=1e-4)
    assert [type(node.op) for node in graph.nodes] == [type(FAMILIES[family])] * len(sheet.outputs)
    np.testing.assert_allclose([node.op.eps for node in graph.nodes], EPSILON, rtol=1e-4)
    assert [out.producer.input(0) for out in graph.outputs] == graph.inputs


def test_a_norm_over_channels_of_an_image_is_a_layer_norm(tmp_path: Path) -> None:
    """There and back by two transpositions, which later passes may cancel."""

    def spelling(s, x):
        axes = [1]
        total = s.op("ReduceSum", x, s.constant(axes, np.int64))
        mean = s.choose(s.mean(x, axes), s.op("Mul", total, s.constant(1 / 6)))
        d = difference(s, x, mean)
        return affine(s, over_root(s, d, s.mean(s.square(d), axes)), (6, 1, 1))

    sheet = spelt(spelling, (2, 6, 3, 5))
    assert len(sheet.outputs) >= 50
    graph = recognised(sheet, tmp_path, tolerance=1e-4)
    kinds = [type(node.op) for node in graph.nodes]
    assert kinds.count(LayerNorm) == len(sheet.outputs) and kinds.count(Transpose) == 2 * len(sheet.outputs)


def group_norm(s, x):
    """Two groups of three channels: as InstanceNormalization, as rows, as an image of five axes, or the op itself."""
    form = s.choose("instance", "rows", "five axes", "layer")
    shape = {"five axes": [2, 2, 3, 4, 5]}.get(form, [2, 2, 60])
    joined = s.op("Reshape", x, s.constant(s.choose(shape, [shape[0], shape[1], -1, *shape[3:]]), np.int64))
    if form == "instance":
        y = s.op("InstanceNormalization", joined, s.constant(np.ones(2)), s.constant(np.zeros(2)), epsilon=EPS)
    elif form == "layer":
        y = s.op("LayerNormalization", joined, s.constant(np.ones(60)), axis=-1, epsilon=EPS)
    else:
        axes = [2] if form == "rows" else [2, 3, 4]
        mean = s.mean(joined, axes)
        d = difference(s, joined, mean)
        y = over_root(s, d, s.mean(s.square(d), axes))
    if s.choose("image", "matrix") == "image":
        return affine(s, s.op("Reshape", y, s.constant([2, 6, 4, 5], np.int64)), (6, 1, 1))
    rows = affine(s, s.op("Reshape", y, s.constant([2, 6, 20], np.int64)), (6, 1))
    return s.op("Reshape", rows, s.constant([2, 6, 4, 5], np.int64))


def whole_image(s, x):
    """One group, and one per channel."""
    axes = s.choose([1, 2, 3], [2, 3])
    mean = s.mean(x, axes)
    d = difference(s, x, mean)
    return affine(s, over_root(s, d, s.mean(s.square(d), axes)), (6, 1, 1))


@pytest.mark.parametrize("family", [group_norm, whole_image], ids=lambda f: f.__name__)
def test_every_spelling_is_group_norm(family, tmp_path: Path) -> None:
    """One op, scale and shift per channel in it."""
    sheet = spelt(family, (2, 6, 4, 5), opset=17)
    assert len(sheet.outputs) >= 50
    graph = recognised(sheet, tmp_path, tolerance=1e-4)
    assert [type(node.op) for node in graph.nodes] == [GroupNorm] * len(sheet.outputs)
    assert {node.op.groups for node in graph.nodes} == ({2} if family is group_norm else {1, 6})
    assert all(node.optional(2) is not None for node in graph.nodes)


def negatives(s):
    """What looks like a norm."""
    x, y = s.input(2, 5, 6), s.input(2, 5, 6)

    def norm(d, squared, axes=(2,)):
        return over_root(s, d, s.mean(s.square(squared), list(axes)))

    d = s.op("Sub", x, s.mean(x, [2]))
    yield "the variance of another value", norm(d, s.op("Sub", y, s.mean(y, [2])))
    yield "a variance along another axis", norm(s.op("Sub", x, s.mean(x, [2])), s.op("Sub", x, s.mean(x, [2])), (1,))
    yield "a mean along another axis", norm(s.op("Sub", x, s.mean(x, [1])), s.op("Sub", x, s.mean(x, [1])))
    yield "a bound for epsilon", s.op("Div", x, s.op("Sqrt", s.op("Max", s.mean(s.square(x), [2]), s.constant(EPS))))
    root = s.op("Sqrt", s.mean(s.square(x), [2]))
    yield "epsilon beside the root", s.op("Div", x, s.op("Add", root, s.constant(0.1)))
    cubes = s.mean(s.op("Pow", x, s.constant(4.0)), [2])
    yield "fourth powers", s.op("Div", x, s.op("Sqrt", s.plus(cubes, EPS)))
    yield "no root", s.op("Div", x, s.plus(s.mean(s.square(x), [2]), EPS))
    yield "half the mean", over_root(s, s.op("Sub", x, s.times(s.mean(x, [2]), 0.5)), s.mean(s.square(x), [2]))
    centred = s.op("Sub", x, s.mean(x, [2]))
    yield "centred above only", over_root(s, centred, s.mean(s.square(x), [2]))
    centred = s.op("Sub", x, s.mean(x, [2]))
    yield "centred below only", over_root(s, x, s.mean(s.square(centred), [2]))
    table = s.constant(np.linspace(1e-5, 1, 10).reshape(2, 5, 1))
    yield "an epsilon per token", s.op("Div", x, s.op("Sqrt", s.op("Add", s.mean(s.square(x), [2]), table)))


def test_look_alikes_stay(tmp_path: Path) -> None:
    """Each breaks one property; no norm appears, and the numbers stay."""
    sheet = Speller()
    sheet.outputs = [value for _, value in negatives(sheet)]
    graph = recognised(sheet, tmp_path, tolerance=1e-4)
    assert not [node for node in graph.nodes if isinstance(node.op, LayerNorm | GroupNorm)]
    # What is centred along one axis and divided along another is RMSNorm of the centred value, rightly.
    assert len([node for node in graph.nodes if isinstance(node.op, RMSNorm)]) == 2


def test_groups_that_cut_through_channels_are_no_group_norm(tmp_path: Path) -> None:
    """Four rows of thirty pixels out of six channels of twenty."""
    sheet = Speller()
    x = sheet.input(1, 6, 4, 5)
    joined = sheet.op("Reshape", x, sheet.constant([1, 4, 30], np.int64))
    y = sheet.op("InstanceNormalization", joined, sheet.constant(np.ones(4)), sheet.constant(np.zeros(4)), epsilon=EPS)
    sheet.outputs = [sheet.op("Reshape", y, sheet.constant([1, 6, 4, 5], np.int64))]
    graph = recognised(sheet, tmp_path, tolerance=1e-4)
    assert len(graph.nodes) == 3


def test_a_statistic_that_is_read_elsewhere_stays(tmp_path: Path) -> None:
    """The mean is an output too."""
    sheet = Speller()
    x = sheet.input(2, 5, 6)
    mean = sheet.mean(x, [2])
    d = sheet.op("Sub", x, mean)
    sheet.outputs = [over_root(sheet, d, sheet.mean(sheet.square(d), [2])), mean]
    graph = recognised(sheet, tmp_path, tolerance=1e-4)
    assert not [node for node in graph.nodes if isinstance(node.op, LayerNorm)]
