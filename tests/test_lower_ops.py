"""Every integer op's own examples through the C back end: one library with them all, bit for bit as the references."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir import integer as arithmetic
from edgesmith.ir import interpret
from edgesmith.ir.errors import Unsupported
from edgesmith.ir.graph import Array, Graph, Quant, Type
from edgesmith.ir.memory import plan
from edgesmith.ir.op import Op
from edgesmith.ir.ops import (
    integer,
    integer_attention,
    integer_conv,
    integer_elementwise,
    integer_norm,
    integer_pool,
    registry,
)
from edgesmith.ir.ops.integer import QLinear, QMatMul, integers
from edgesmith.ir.ops.integer_elementwise import QAdd, QMul
from edgesmith.ir.ops.integer_pool import QMean
from edgesmith.ir.ops.quant import Dequantize
from edgesmith.ir.ops.shape import Concat, Expand, Gather, Pad, Reshape, Slice, Split, Transpose
from edgesmith.lowering.c import toolchain
from edgesmith.lowering.c.lower import Vector, lower

pytestmark = pytest.mark.compiler

FAMILIES = (integer, integer_attention, integer_conv, integer_elementwise, integer_norm, integer_pool)
MOVERS = (Concat, Expand, Gather, Pad, Reshape, Slice, Split, Transpose)
COMPUTED = {"QAttention": 3, "QMatMul": 2, "QAdd": 2, "QMul": 2, "Concat": 9}
"""How many leading operands are computed at run time; one where an op is not named."""


def integer_ops() -> list[type[Op]]:
    names = {module.__name__ for module in FAMILIES}
    return [op for op in registry().values() if op.__module__ in names]


def cases() -> Iterator[tuple[str, Op, tuple[Array | None, ...]]]:
    for cls in (*integer_ops(), *MOVERS):
        for number, (op, operands) in enumerate(cls.examples()):
            if cls in MOVERS:
                operands = tuple(a if a is None or a.dtype.kind == "i" else (a * 50).astype(np.int8) for a in operands)
            yield f"{cls.__name__.lower()}{number}", op, operands
    yield from stretched()


def stretched() -> Iterator[tuple[str, Op, tuple[Array | None, ...]]]:
    """Sums and products of operands that repeat along inner axes, or both at once; means over some axes only."""
    shapes = [
        ((1, 9, 9, 6), (1, 9, 9, 1)), ((1, 9, 9, 1), (1, 9, 9, 6)), ((1, 9, 1), (1, 9, 16)), ((1, 9, 1), (1, 1, 16)),
        ((2, 3, 4, 5), (2, 1, 4, 5)), ((2, 1, 4, 1), (3, 1, 5)), ((4, 1), (3, 1, 4)),
    ]  # fmt: skip
    ma, mb, c, shift = arithmetic.add_constants(0.1, 0.05, 0.12, 3, -4, 1)
    for number, (a, b) in enumerate(shapes):
        for wide in (False, True):
            left = integers(*a, low=-32768, high=32767, dtype="int16") if wide else integers(*a)
            label = f"{number}{'_wide' if wide else ''}"
            yield f"qadd_any{label}", QAdd(Quant(0.12, 1), "int8", ma, mb, c, shift, -128, 90), (left, integers(*b))
            mult = 2**17 if wide else 2**25
            yield f"qmul_any{label}", QMul(Quant(0.1, 5), "int16", 3, -7, mult, low=-3000), (left, integers(*b))
    for number, axes in enumerate([(1,), (2,), (3,), (-1, 1), (0,), (1, 2), (0, 1, 2, 3), (2, 3)]):
        for keepdims in (False, True):
            x = integers(2, 3, 4, 5) if keepdims else integers(2, 3, 4, 5, low=-32768, high=32767, dtype="int16")
            op = QMean(Quant(0.1, 2), "int8" if keepdims else "int16", axes, keepdims, 2**28, 1, -5)
            yield f"qmean_any{number}{'_kept' if keepdims else ''}", op, (x,)


def alone(name: str, op: Op, operands: tuple[Array | None, ...]) -> tuple[Graph, dict[str, Array]]:
    """A graph of one op, its leading operands computed at run time."""
    graph, feeds, values = Graph(name), {}, []
    for index, array in enumerate(operands):
        if array is None or index >= COMPUTED.get(type(op).__name__, 1):
            values.append(None if array is None else graph.constant(array))
            continue
        feeds[f"x{index}"] = array
        values.append(graph.input(f"x{index}", Type(array.dtype.name, array.shape, Quant(1.0))))
    made = graph.add(op, *values, name=name)
    for value in made if isinstance(made, tuple) else (made,):
        graph.output(value)
    return graph, feeds


def addresses(arrays: Iterable[Array]) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All of them in one shared object: one compile instead of sixty."""
    folder, sources = tmp_path_factory.mktemp("alone"), []
    for name, op, operands in cases():
        graph, feeds = alone(name, op, operands)
        vector = Vector(feeds, interpret.run(graph, feeds))
        lower(graph, plan(graph, callback=False), targets.get("stm32h743"), folder / name, name, vector)
        sources += [*sorted((folder / name / "src").glob("*.c")), folder / name / "test" / "harness.c"]
    return ctypes.CDLL(str(toolchain.compile_shared(sources, folder / "all.so", optimise="-O1")))


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case[0])
def test_an_example_has_the_bits_of_its_reference(
    library: ctypes.CDLL, case: tuple[str, Op, tuple[Array | None, ...]]
) -> None:
    graph, feeds = alone(*case)
    expected = interpret.run(graph, feeds)
    got = {value.name: np.zeros(value.shape, value.dtype) for value in graph.outputs}
    inputs = [np.ascontiguousarray(feeds[value.name]) for value in graph.inputs]
    assert library[f"{case[0]}_harness"](*addresses(inputs), *addresses(got.values())) == 0
    for key, array in expected.items():
        np.testing.assert_array_equal(got[key], array)


def test_no_integer_op_is_left_out() -> None:
    assert len(integer_ops()) >= 16
    assert {type(op) for _, op, _ in cases()} >= set(integer_ops())


def test_a_sum_that_closes_a_layer_is_clamped(tmp_path: Path) -> None:
    graph = Graph("clamped")
    x = graph.input("x", Type("int8", (1, 5, 6), Quant(1.0)))
    operands = (integers(7, 6), integers(7, dtype="int32"), np.full(7, 2**26, np.int32))
    layer = graph.add(QLinear(Quant(1.0)), x, *map(graph.constant, operands), name="layer")
    stream = graph.input("stream", Type("int8", (1, 5, 7), Quant(1.0)))
    graph.output(graph.add(QAdd(Quant(1.0), "int8", 100, 90, 64, 7, -20, 30), layer, stream, name="sum"))
    feeds = {"x": integers(1, 5, 6), "stream": integers(1, 5, 7)}
    expected = interpret.run(graph, feeds)["sum"]
    assert expected.min() == -20 and expected.max() == 30
    lower(graph, plan(graph), targets.get("host"), tmp_path, "clamped", Vector.of(graph, feeds))
    sources = [*sorted((tmp_path / "src").glob("*.c")), tmp_path / "test" / "harness.c"]
    built = ctypes.CDLL(str(toolchain.compile_shared(sources, tmp_path / "clamped.so")))
    got = np.zeros_like(expected)
    assert built["clamped_harness"](*addresses([*feeds.values(), got])) == 0
    np.testing.assert_array_equal(got, expected)


def product_that_repeats_in_the_middle(graph: Graph, name: str) -> dict[str, Array]:
    """Add a product whose second batch axis alone is shared; returns what it is fed with."""
    shapes = {f"{name}_a": (2, 3, 4, 4), f"{name}_b": (1, 3, 4, 4)}
    values = [graph.input(each, Type("int8", shape, Quant(1.0))) for each, shape in shapes.items()]
    graph.output(graph.add(QMatMul(Quant(1.0)), *values, name=name, sources=(f"/{name}",)))
    return {each: integers(*shape) for each, shape in shapes.items()}


def test_a_product_that_repeats_in_the_middle_is_refused(tmp_path: Path) -> None:
    graph = Graph("middle")
    feeds = product_that_repeats_in_the_middle(graph, "middle")
    with pytest.raises(Unsupported, match="c: a product repeats part of a batch") as refused:
        lower(graph, plan(graph), targets.get("host"), tmp_path, "middle", Vector.of(graph, feeds))
    assert refused.value.where == ("/middle",)


def test_everything_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    graph, feeds = Graph("bad"), {"x": integers(1, 4, 4)}
    for name in ("first", "second"):
        feeds |= product_that_repeats_in_the_middle(graph, name)
    x = graph.input("x", Type("int8", (1, 4, 4), Quant(1.0)))
    graph.output(graph.add(Pad((0, -1, 0, 0, 0, 0)), x, name="crop", sources=("/crop",)))
    graph.output(graph.add(Dequantize(Quant(1.0)), x, name="real", sources=("/real",)))
    with pytest.raises(Unsupported) as refused:
        lower(graph, plan(graph), targets.get("host"), tmp_path, "bad", Vector.of(graph, feeds))
    assert sorted(refused.value.where) == ["/crop", "/first", "/real", "/second"]
    assert refused.value.why.count("a product repeats part of a batch") == 1
    assert "Pad that crops" in refused.value.why and "no kernel for Dequantize" in refused.value.why
