"""Every integer op's own examples through the C back end: one library with them all, bit for bit as the references."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir import interpret
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
