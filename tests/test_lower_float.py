"""Float graphs through the C back end: every float op's own examples, a trained model, and it on a device."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgesmith import frontend, targets
from edgesmith.ir import interpret
from edgesmith.ir.errors import Unsupported
from edgesmith.ir.graph import Array, Graph, Type, Value
from edgesmith.ir.memory import plan
from edgesmith.ir.op import Op
from edgesmith.ir.ops import registry
from edgesmith.ir.ops.activation import Relu, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.elementwise import Div, Pow, Sub
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import BatchNorm, GroupNorm
from edgesmith.ir.ops.pool import AveragePool, Mean, ReduceMax
from edgesmith.ir.ops.shape import Pad, Split
from edgesmith.ir.passes.exact.split_linear import SplitLinear
from edgesmith.ir.passes.pipelines import FLOAT_C, run_pipeline
from edgesmith.lowering.c import toolchain
from edgesmith.lowering.c.lower import Vector, lower, symbol
from edgesmith.runtimes import emulator, host, ort

pytestmark = pytest.mark.compiler

Case = tuple[Op, tuple[Array | None, ...], int]
"""An op, its operands, and how many of the leading ones are computed at run time."""
PRODUCTS = {"Attention", "Conv", "Linear", "MatMul", "PatchEmbed"}
COMPUTED = {"Attention": 3, "MatMul": 2, "Concat": 9}
"""What `Case` counts; one, or two of a binary op, where an op is not named."""
INTEGER = ("integer", "quant")
"""Families that float graphs have none of, by the start of their module's name."""

REFUSED = ("logic", "number", "search", "shift")
"""Families without a kernel in C."""


def noise(*shape: int) -> Array:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def extra() -> Iterator[Case]:
    """What the examples do not cover: other constant operands, odd axes, broadcast batches, long sums."""
    yield Sub(), (noise(3, 1), noise(2, 1, 4)), 2
    yield Div(), (noise(4), noise(3, 4)), 2
    yield MatMul(), (noise(2, 1, 3, 4), noise(5, 4, 3)), 2
    yield MatMul(), (noise(2, 3, 4), noise(4, 5)), 1
    yield Attention(2, 0.5), (noise(2, 5, 6), noise(2, 4, 6), noise(2, 4, 8), noise(2, 1, 5, 1)), 4
    yield Softmax(0), (noise(5, 3, 2),), 1
    yield ReduceMax((0, 2), True), (noise(3, 4, 5, 2),), 1
    yield Mean((0, 1, 2, 3)), (noise(1, 6, 5, 4) + 3,), 1
    yield GroupNorm(1), (noise(1, 8, 56, 56) + 3, noise(8), noise(8)), 1
    yield AveragePool((3, 2), (2, 2), (1, 0, 1, 1), True, True), (noise(2, 3, 7, 6),), 1
    yield Pad((0, 1, 2, 0), -0.75), (noise(2, 3),), 1
    for exponent in (2.0, 3.0, 0.5, -1.0, 0.3):
        yield Pow(), (np.abs(noise(7)) + 0.1, np.full((1,), exponent, np.float32)), 1


ELSEWHERE = {"Equal", "Less", "ReduceMin", "Where"}
"""Ops of refused families that have a kernel; tests/test_token_models.py holds them to what they compute."""


def float_ops(refused: bool = False) -> list[type[Op]]:
    families = {op: op.__module__.rsplit(".", 1)[1] for op in registry().values()}
    known = {op: name for op, name in families.items() if not name.startswith(INTEGER) and op.__name__ not in ELSEWHERE}
    return [op for op, name in known.items() if (name in REFUSED) == refused]


def cases() -> dict[str, list[Case]]:
    """By op name: its own examples and the extra ones."""
    found: dict[str, list[Case]] = {}
    for cls in float_ops():
        computed = COMPUTED.get(cls.__name__, max(1, len(cls.inplace)))
        found[cls.__name__] = [(op, operands, computed) for op, operands in cls.examples()]
    for case in extra():
        found[type(case[0]).__name__].append(case)
    return found


CASES = cases()


def together(name: str) -> tuple[Graph, dict[str, Array]]:
    """All cases of one op side by side in a graph."""
    graph, feeds = Graph(name.lower()), {}
    for number, (op, operands, computed) in enumerate(CASES[name]):
        values: list[Value | None] = []
        for index, array in enumerate(operands):
            if array is None or index >= computed or array.dtype.kind == "i":
                values.append(None if array is None else graph.constant(array.copy()))
                continue
            feeds[f"x{number}_{index}"] = array
            values.append(graph.input(f"x{number}_{index}", Type(array.dtype.name, array.shape)))
        made = graph.add(op, *values, name=f"out{number}")
        for value in made if isinstance(made, tuple) else (made,):
            graph.output(value)
    return graph, feeds


def addresses(arrays: Iterable[Array]) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


def generate(graph: Graph, feeds: dict[str, Array], folder: Path, name: str, target: str = "stm32h743") -> list[Path]:
    """The C sources of a float graph, with what runners need to know."""
    vector = Vector(feeds, interpret.run(graph, feeds))
    part = lower(graph, plan(graph), targets.get(target), folder, name, vector)
    assert {port["dtype"] for port in part["inputs"] + part["outputs"]} == {"float32"}
    assert all(port["scale"] is None for port in part["inputs"] + part["outputs"])
    (folder / "manifest.json").write_text(json.dumps({**part, "target": target}))
    return [*sorted((folder / "src").glob("*.c")), folder / "test" / "harness.c"]


def error(got: Array, expected: Array) -> float:
    """Greatest difference as a share of the greatest element."""
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All of them in one shared object: one compile instead of fifty."""
    folder, sources = tmp_path_factory.mktemp("floats"), []
    for name in CASES:
        sources += generate(*together(name), folder / name, name)
    return ctypes.CDLL(str(toolchain.compile_shared(sources, folder / "all.so", optimise="-O1")))


@pytest.mark.parametrize("name", CASES)
def test_an_op_is_as_near_as_single_precision_allows(library: ctypes.CDLL, name: str) -> None:
    """Against double precision: 2e-6 of the greatest element for products, 1e-6 for all others."""
    graph, feeds = together(name)
    got = {value.name: np.full(value.shape, np.nan, value.dtype) for value in graph.outputs}
    inputs = [np.ascontiguousarray(feeds[value.name]) for value in graph.inputs]
    assert library[f"{symbol(name)}_harness"](*addresses(inputs), *addresses(got.values())) == 0
    for key, expected in interpret.run(graph, feeds, "float64").items():
        assert error(got[key], expected) <= (2e-6 if name in PRODUCTS else 1e-6), key


def test_what_single_precision_cannot_do_is_said(tmp_path: Path) -> None:
    """Parameters computed at run time, where a kernel reads them in an order of its own."""
    unfit: list[tuple[Op, list[Array]]] = [
        (Conv(), [noise(1, 2, 4, 4), noise(3, 2, 1, 1)]),
        (BatchNorm(), [noise(1, 3), *[np.abs(noise(3))] * 4]),
    ]
    for op, operands in unfit:
        graph = Graph()
        values = [graph.input(f"x{i}", Type("float32", array.shape)) for i, array in enumerate(operands)]
        graph.output(graph.add(op, *values, sources=("/the/node",)))
        with pytest.raises(Unsupported, match="computed at run time") as caught:
            generate(graph, {f"x{i}": array for i, array in enumerate(operands)}, tmp_path, "m")
        assert "/the/node" in caught.value.where


@pytest.mark.parametrize("cls", float_ops(refused=True), ids=lambda cls: cls.__name__)
def test_ops_without_a_kernel_are_named(cls: type[Op], tmp_path: Path) -> None:
    op, operands = next(iter(cls.examples()))
    graph = Graph()
    values = [
        None if array is None else graph.input(f"x{i}", Type(array.dtype.name, array.shape))
        for i, array in enumerate(operands)
    ]
    made = graph.add(op, *values, sources=("/the/node",))
    for value in made if isinstance(made, tuple) else (made,):
        graph.output(value)
    with pytest.raises(Unsupported, match=cls.__name__) as caught:
        generate(graph, {f"x{i}": array for i, array in enumerate(operands) if array is not None}, tmp_path, "m")
    assert "/the/node" in caught.value.where


def test_other_element_types_are_refused(tmp_path: Path) -> None:
    graph = Graph()
    graph.output(graph.add(Relu(), graph.input("half", Type("float16", (1, 3)))))
    with pytest.raises(Unsupported, match="no C type for float16") as caught:
        generate(graph, {"half": np.zeros((1, 3), np.float16)}, tmp_path, "m")
    assert "half" in caught.value.where


def test_queries_keys_and_values_become_layers_of_their_own() -> None:
    """Otherwise all three would lie in RAM twice, joined and cut."""
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 5, 4)))
    joined = graph.add(Linear(), x, graph.constant(noise(9, 4)), graph.constant(noise(9)))
    for part in graph.add(Split(2, (2, 4, 3)), joined):
        graph.output(graph.add(Relu(), part))
    feeds = {"x": noise(1, 5, 4)}
    before = list(interpret.run(graph, feeds).values())
    assert SplitLinear().apply(graph) == 1
    assert SplitLinear().apply(graph) == 0
    assert [node.op for node in graph.nodes].count(Linear()) == 3
    for one, other in zip(before, interpret.run(graph, feeds).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


Trained = tuple[Graph, dict[str, Array], Path, list[Path]]


@pytest.fixture(scope="module")
def trained(fashion: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The trained sample in single precision: graph, a picture, its library's folder and sources."""
    graph = frontend.load(fashion / "model.onnx")
    run_pipeline(graph, FLOAT_C)
    with np.load(fashion / "images.npz") as arrays:
        picture = ((arrays["images"][0] / 255 - 0.286) / 0.353).astype(np.float32)
    feeds = {graph.inputs[0].name: picture.reshape(1, 1, 28, 28)}
    folder = tmp_path_factory.mktemp("fashion")
    return graph, feeds, folder, generate(graph, feeds, folder, "fashion")


def test_a_trained_model_agrees_with_onnx_runtime(fashion: Path, trained: Trained) -> None:
    _, feeds, folder, _ = trained
    expected = next(ort.reference(fashion / "model.onnx", [feeds]))
    got = host.Host(repeats=1).run(folder, feeds).outputs
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert error(got[name], array) <= 1e-5


def test_the_self_test_passes_and_can_fail(trained: Trained, tmp_path: Path) -> None:
    graph, feeds, folder, sources = trained
    test = folder / "test" / "selftest.c"
    flags = (f"-I{folder / 'src'}",)
    right = ctypes.CDLL(str(toolchain.compile_shared([*sources, test], tmp_path / "right.so", flags=flags)))
    assert right["main"]() == 0
    moved = {key: array + 2e-5 * np.abs(array).max() for key, array in interpret.run(graph, feeds).items()}
    other = tmp_path / "other"
    lower(graph, plan(graph), targets.get("stm32h743"), other, "fashion", Vector(feeds, moved))
    test = other / "test" / "selftest.c"
    wrong = ctypes.CDLL(str(toolchain.compile_shared([*sources, test], tmp_path / "wrong.so", flags=flags)))
    assert wrong["main"]() == 1


@pytest.mark.emulator
def test_the_device_computes_the_same_bits_in_the_planned_arena(trained: Trained) -> None:
    graph, feeds, folder, _ = trained
    on_host = host.Program(folder)
    program = emulator.Program(folder)
    arrays = on_host.library.arrays(feeds)
    found = program.measure(arrays)
    for one, other in zip(found.raw, on_host.call(arrays), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.arena == plan(graph).arena_bytes
    assert found.stack <= 512
    steps = json.loads((folder / "manifest.json").read_text())["steps"]
    assert found.result.instructions <= 4 * sum(step["macs"] for step in steps)
    assert len(found.per_step) == len(steps) and sum(found.per_step) == found.result.instructions
