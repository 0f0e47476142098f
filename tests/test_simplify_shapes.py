"""Movement in its shortest form: identities vanish, constants are moved beforehand, chains shrink and stay equal."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Sigmoid
from edgesmith.ir.ops.elementwise import Mul
from edgesmith.ir.ops.shape import Expand, Pad, Reshape, Slice, Transpose
from edgesmith.ir.passes.recognise.simplify_shapes import SimplifyShapes, shortest


def check(graph: Graph, expected: list[str]) -> None:
    """The ops that are left; they compute the same, and a second run does nothing."""
    x = np.random.default_rng(0).normal(size=graph.inputs[0].shape).astype(np.float32)
    before = run(graph, {"x": x})
    SimplifyShapes().apply(graph)
    assert [type(node.op).__name__ for node in graph.nodes] == expected
    for name, result in run(graph, {"x": x}).items():
        np.testing.assert_array_equal(result, before[name])
    assert SimplifyShapes().apply(graph) == 0


def test_identities_vanish() -> None:
    """Movements that move nothing, one of each kind."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 3, 4, 5)))
    y = graph.add(Reshape((1, 3, 4, 5)), x)
    y = graph.add(Transpose((0, 1, 2, 3)), y)
    y = graph.add(Slice((0, 0), (3, 2**62), (1, 2), (1, 1)), y)
    y = graph.add(Expand((1, 3, 4, 5)), y)
    y = graph.add(Pad((0,) * 8), y)
    graph.output(graph.add(Sigmoid(), y), "y")
    check(graph, ["Sigmoid"])


def test_a_reversing_slice_is_no_identity() -> None:
    """It keeps the shape but turns the order."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 3)))
    graph.output(graph.add(Slice((-1,), (-(2**62),), (1,), (-1,)), x), "y")
    check(graph, ["Slice"])


def test_movement_of_constants_is_computed() -> None:
    """A class token that is expanded and joined with another becomes one constant."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 2, 4)))
    token = graph.add(Expand((1, 2, 4)), graph.constant(np.ones((1, 1, 4), np.float32)))
    graph.output(graph.add(Mul(), x, graph.add(Transpose((0, 1, 2)), token)), "y")
    check(graph, ["Mul"])


def test_an_output_keeps_its_own_storage() -> None:
    """A Reshape between input and output is the copy that the output is made of."""
    graph = Graph()
    x = graph.input("x", Type("float32", (2, 3)))
    graph.output(graph.add(Reshape((2, 3)), x), "y")
    SimplifyShapes().apply(graph)
    assert [value.name for value in graph.outputs] == ["y"] and len(graph.nodes) == 1


def factorisations(size: int, axes: int) -> list[tuple[int, ...]]:
    """All shapes of so many axes and that size."""
    if axes == 1:
        return [(size,)]
    return [(n, *rest) for n in range(1, size + 1) if size % n == 0 for rest in factorisations(size // n, axes - 1)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_chains_of_movements_shrink_and_stay_equal(data: st.DataObject) -> None:
    """Any chain of Reshapes and Transposes: never longer than before, at most three ops, the same numbers."""
    size = data.draw(st.sampled_from([12, 24, 30, 64]))
    shape = data.draw(st.sampled_from(factorisations(size, data.draw(st.integers(1, 4)))))
    graph = Graph()
    value = graph.input("x", Type("float32", shape))
    count = data.draw(st.integers(1, 6))
    for _ in range(count):
        if data.draw(st.booleans()):
            target = data.draw(st.sampled_from(factorisations(size, data.draw(st.integers(1, 4)))))
            value = graph.add(Reshape(target), value)
        else:
            value = graph.add(Transpose(tuple(data.draw(st.permutations(range(len(value.shape)))))), value)
    graph.output(graph.add(Sigmoid(), value), "y")
    x = np.arange(size, dtype=np.float32).reshape(shape)
    before = run(graph, {"x": x})["y"]
    SimplifyShapes().apply(graph)
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], before)
    assert len(graph.nodes) <= count + 1


def test_shortest_forms() -> None:
    """The cases that matter: heads turned there and back, pixels to tokens, and what cannot get shorter."""
    heads = [Reshape((1, 7, 3, 4)), Transpose((0, 2, 1, 3)), Transpose((0, 2, 1, 3)), Reshape((1, 7, 12))]
    assert shortest((1, 7, 12), heads) == []
    tokens = [Reshape((1, 5, 6)), Transpose((0, 2, 1))]
    assert shortest((1, 5, 2, 3), [Transpose((0, 2, 3, 1)), Reshape((1, 6, 5))]) == tokens
    window = [Reshape((1, 2, 2, 2, 2, 3)), Transpose((0, 1, 3, 2, 4, 5)), Reshape((4, 4, 3))]
    assert len(shortest((1, 4, 4, 3), window) or []) == 3
    assert shortest((2, 3), [Transpose((1, 0)), Reshape((2, 3))]) is None
