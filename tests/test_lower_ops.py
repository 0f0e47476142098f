"""Every integer op's own examples through the C back end: one library with them all, bit for bit as the references."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgesmith import targets
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


@pytest.mark.parametrize("cls", [QAdd, QMul, QMatMul])
def test_an_operand_that_repeats_in_the_middle_is_refused(tmp_path: Path, cls: type[Op]) -> None:
    graph, op = Graph("middle"), cls(Quant(1.0))
    shapes = ((2, 3, 4, 4), (1, 3, 4, 4)) if isinstance(op, QMatMul) else ((4, 4), (4, 1))
    values = [graph.input(name, Type("int8", shape, Quant(1.0))) for name, shape in zip("ab", shapes, strict=True)]
    graph.output(graph.add(op, *values, name="middle"))
    feeds = {value.name: integers(*value.shape) for value in values}
    with pytest.raises(Unsupported, match="c: "):
        lower(graph, plan(graph), targets.get("host"), tmp_path, "middle", Vector.of(graph, feeds))
