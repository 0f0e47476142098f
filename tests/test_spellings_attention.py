"""Attention in every spelling becomes projections of the tokens and one op; what only looks like it stays."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith.ir.ops.activation import Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.elementwise import Mul
from edgesmith.ir.passes.pipelines import run_pipeline

HERE = Path(__file__).parent
SPELLINGS = runpy.run_path(str(HERE / "spellings.py"))
Speller, spelt, recognised = (SPELLINGS[name] for name in ("Speller", "spelt", "recognised"))
attention = SimpleNamespace(**runpy.run_path(str(HERE / "attention_spellings.py")))


def attentions(graph):
    return [node for node in graph.nodes if isinstance(node.op, Attention)]


def require_blocks(graph, count, **more):
    """So many attentions, each of four layers, and no other ops than are told."""
    kinds = Counter(type(node.op).__name__ for node in graph.nodes)
    assert kinds == {"Linear": 4 * count, "Attention": count, **more}


@pytest.mark.parametrize("opset", [13, 18])
def test_every_spelling_is_the_one_op(opset: int, tmp_path: Path) -> None:
    """Four layers and one Attention each, and nothing that moves."""
    sheet = spelt(attention.self_attention, (attention.BATCH, attention.TOKENS, attention.WIDTH), most=60, opset=opset)
    graph = recognised(sheet, tmp_path, -1, 1)
    require_blocks(graph, 60)
    np.testing.assert_allclose([node.op.scale for node in attentions(graph)], attention.SCALE, rtol=1e-5)
    assert all(node.input(i).producer.input(0) in graph.inputs for node in attentions(graph) for i in range(3))


def test_queries_of_one_token_and_wider_values(tmp_path: Path) -> None:
    sheet = spelt(attention.narrow_attention, (attention.BATCH, attention.TOKENS, attention.WIDTH), most=50)
    graph = recognised(sheet, tmp_path, -1, 1)
    kinds = Counter(type(node.op).__name__ for node in graph.nodes)
    cuts = kinds["Slice"] + kinds["Gather"]
    assert (kinds["Linear"], kinds["Attention"], sum(kinds.values())) == (150 + cuts, 50, 200 + 2 * cuts)
    assert 0 < cuts < 50
    assert {(node.input(0).shape, node.output.shape) for node in attentions(graph)} == {((2, 1, 12), (2, 1, 15))}


def test_heads_that_share_keys_are_one_with_more_queries(tmp_path: Path) -> None:
    """Nothing is repeated: two heads, three queries a token."""
    sheet = spelt(attention.grouped, (attention.BATCH, attention.TOKENS, attention.WIDTH), most=50)
    graph = recognised(sheet, tmp_path, -1, 1)
    for node in attentions(graph):
        assert node.op.heads == attention.GROUPS
        assert [node.input(i).shape for i in range(3)] == [(2, 15, 8), (2, 5, 8), (2, 5, 8)]
    kinds = Counter(type(node.op).__name__ for node in graph.nodes)
    assert (kinds["Linear"], kinds["Attention"]) == (200, 50)
    assert kinds.keys() == {"Linear", "Attention", "Reshape", "Transpose"}
    run_pipeline(graph)
    assert {type(node.op).__name__ for node in graph.nodes} == {"Linear", "Attention", "Reshape"}


def test_the_operator_is_read(tmp_path: Path) -> None:
    sheet = spelt(attention.operator, (attention.BATCH, attention.TOKENS, attention.WIDTH), most=50, opset=23)
    graph = recognised(sheet, tmp_path, -1, 1)
    kinds = Counter(type(node.op).__name__ for node in graph.nodes)
    assert (kinds["Linear"], kinds["Attention"]) == (200, 50) and kinds.keys() <= {"Linear", "Attention", "Reshape"}


def test_a_factor_per_head_and_constant_masks(tmp_path: Path) -> None:
    sheet = spelt(attention.factors_and_masks, (attention.BATCH, attention.TOKENS, attention.WIDTH), most=50)
    graph = recognised(sheet, tmp_path, -1, 1)
    gains = sum(isinstance(node.op, Mul) for node in graph.nodes)
    assert gains > 0
    require_blocks(graph, len(sheet.outputs), Mul=gains)


def test_token_first_as_torch_has_it(tmp_path: Path) -> None:
    """[N, B, C] with heads joined to the images: nn.MultiheadAttention."""
    sheet = spelt(attention.token_first, (attention.TOKENS, 1, attention.WIDTH), most=30)
    graph = recognised(sheet, tmp_path, -1, 1)
    found = attentions(graph)
    assert len(found) == 30 and {node.op.heads for node in found} == {attention.HEADS}


def test_look_alikes_stay(tmp_path: Path) -> None:
    """Each breaks one property, and computes what it did."""
    sheet = Speller()
    sheet.outputs = []
    sheet.outputs += list(attention.negatives(sheet))
    graph = recognised(sheet, tmp_path, -1, 1)
    assert len(sheet.outputs) == 22 and not attentions(graph)


def test_a_factor_per_image_is_none_per_head(tmp_path: Path) -> None:
    sheet = Speller()
    x = sheet.input(attention.BATCH, attention.TOKENS, attention.WIDTH)
    gain = attention.weight(sheet, attention.BATCH, 1, 1, 1)
    sheet.outputs = [attention.written(sheet, x, scores=lambda y: sheet.op("Mul", y, gain))]
    assert not attentions(recognised(sheet, tmp_path, -1, 1))


def test_what_looks_like_softmax_stays(tmp_path: Path) -> None:
    """Other exponentials, two axes, exponentials that are read elsewhere, the sum above."""
    sheet = Speller()
    sheet.outputs = list(attention.softmaxes(sheet))
    graph = recognised(sheet, tmp_path, -1, 1)
    assert not [node for node in graph.nodes if isinstance(node.op, Softmax)]
