"""The graph and what stands on it: text form, verifier, mutators, rewriter, oracle and costs."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from edgesmith.ir.cost import cost
from edgesmith.ir.errors import InternalError, ModelError, ShapeError
from edgesmith.ir.graph import Graph, Quant, Type, sources_of
from edgesmith.ir.interpret import run, trace
from edgesmith.ir.op import Op
from edgesmith.ir.ops import registry
from edgesmith.ir.ops.activation import Clip, Erf, Gelu, Relu
from edgesmith.ir.ops.elementwise import Add, Div, Mul
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.quant import Quantize
from edgesmith.ir.ops.shape import Split
from edgesmith.ir.rewrite import Any, Const, Match, Miss, P, Rule, Trace, rewrite, tracing
from edgesmith.ir.text import arrays_of, parse, show
from edgesmith.ir.verify import findings, verify

EXAMPLES = [(f"{name}-{i}", *case) for name, cls in registry().items() for i, case in enumerate(cls.examples())]


def graph_of(op: Op, arrays) -> Graph:
    """The op on one input and constants."""
    graph = Graph("example")
    values = [None if a is None else graph.constant(a, f"c{i}") for i, a in enumerate(arrays)]
    first = graph.input("x", Type(arrays[0].dtype.name, arrays[0].shape))
    made = graph.add(op, first, *values[1:], name="y", sources=("a", 'b "quoted"'))
    for value in made if isinstance(made, tuple) else (made,):
        graph.output(value)
    return graph


# ---- text ----


@pytest.mark.parametrize("op, arrays", [case[1:] for case in EXAMPLES], ids=[case[0] for case in EXAMPLES])
def test_what_prints_parses(op: Op, arrays) -> None:
    try:
        graph = graph_of(op, arrays)
    except ShapeError:
        pytest.skip("its first operand must be quantised, which an example's array cannot say")
    text = show(graph)
    again = parse(text, arrays_of(graph))
    assert show(again) == text
    verify(again)
    assert [node.op for node in again.nodes] == [node.op for node in graph.nodes]
    assert all(np.array_equal(a.array, b.array) for a, b in zip(graph.constants, again.constants, strict=True))


def test_text_keeps_awkward_names_numbers_and_quantisation() -> None:
    graph = Graph('net "1"')
    graph.metadata["edgesmith.mean"] = "0.5\n0.25"
    x = graph.input("x:0 (image)", Type("float32", (2, 3)))
    limits = graph.constant(np.array([np.inf, -np.inf, 1e-30], np.float32), "limits")
    flags = graph.constant(np.array([True, False]), "flags")
    scalar = graph.constant(np.array(-7, np.int64), "scalar")
    weight = graph.constant(np.arange(20, dtype=np.int8).reshape(4, 5), "w", Quant((0.1, 0.2, 1e-9, 3.0), 0, 0))
    y = graph.add(Clip(-math.inf, 6), graph.add(Add(), x, limits, name="/a/Add"), name="clip")
    q = graph.add(Quantize(Quant(0.02, 3)), y, name="q")
    graph.rename(q, "renamed")
    for value in (q, flags, scalar, weight):
        graph.output(value)
    text = show(graph)
    again = parse(text, arrays_of(graph))
    assert show(again) == text
    assert again.metadata == graph.metadata
    assert [v.type for v in again.outputs] == [v.type for v in graph.outputs]
    assert again.nodes[-1].name == "q"
    assert ' as "q"' in text


def test_text_has_this_form() -> None:
    graph = Graph("mlp")
    x = graph.input("x", Type("float32", (1, 4)))
    w = graph.constant(np.eye(4, dtype=np.float32), "w")
    b = graph.constant(np.array([0.1, 2, 0, -1], np.float32), "b")
    h = graph.add(Gelu("tanh"), graph.add(Linear(), x, w, b, name="h", sources=("fc1",)), name="y")
    left, right = graph.add(Split(1, (1, 3)), h, name="part")
    graph.output(left), graph.output(right)
    assert show(graph).splitlines() == [
        'graph "mlp"(%x: float32[1, 4]) {',
        f"  %w: float32[4, 4] = #{next(iter(arrays_of(graph)))}",
        "  %b: float32[4] = [0.1, 2.0, 0.0, -1.0]",
        '  %h: float32[1, 4] = Linear(%x, %w, %b) from "fc1"',
        '  %y: float32[1, 4] = Gelu(%h) {approximate="tanh"}',
        "  %part_0: float32[1, 1], %part_1: float32[1, 3] = Split(%y) {axis=1, sizes=(1, 3)}",
        "  return %part_0, %part_1",
        "}",
    ]


BAD_TEXTS = {
    "no op is called Frob": "%y: float32[2] = Frob(%x)",
    "no value is called 'z' up to here": "%y: float32[2] = Relu(%z)",
    "the op makes float32[2]": "%y: float32[3] = Relu(%x)",
    "no array with fingerprint 0123 was given": "%c: float32[20] = #0123",
    "'maybe' is no attribute value": "%y: float32[2] = Clip(%x) {minimum=maybe}",
    "expected :, found '='": "%y = Relu(%x)",
}


@pytest.mark.parametrize("complaint", BAD_TEXTS)
def test_bad_text_is_refused_with_its_line(complaint: str) -> None:
    text = f'graph "g"(%x: float32[2]) {{\n  {BAD_TEXTS[complaint]}\n  return %x\n}}\n'
    with pytest.raises(ModelError) as caught:
        parse(text)
    assert complaint in caught.value.what
    assert caught.value.what.startswith("line 2 ")


# ---- verifier ----


def small(build: ModuleType) -> Graph:
    """Two layers on one input."""
    net = build.Net("float32")
    return net.output(net.add(Relu(), net.linear(net.linear(net.input(2, 4), 3, name="a"), 3, name="b"), name="c"))


def foreign_operand(g: Graph) -> None:
    other = Graph("other")
    g.set_input(g.nodes[0], 0, other.input("alien", Type("float32", (2, 4))))


def wrong_type(g: Graph) -> None:
    g.nodes[1].output.type = Type("float32", (2, 7))


def misfitting_operand(g: Graph) -> None:
    g.set_input(g.nodes[1], 1, g.constant(np.zeros((3, 9), np.float32), "wide"))


def duplicate_name(g: Graph) -> None:
    g.nodes[1].output.name = "a"


def lost_use(g: Graph) -> None:
    g.nodes[0].output._uses.clear()


def phantom_use(g: Graph) -> None:
    g.inputs[0]._uses.append((g.nodes[2], 0))


def use_by_an_erased_node(g: Graph) -> None:
    dead = g.add(Relu(), g.inputs[0], name="dead")
    g.erase(dead.producer)
    g.inputs[0]._uses.append((dead.producer, 0))


def changed_constant(g: Graph) -> None:
    g.value("a.weight").data = np.zeros((4, 3), np.float32)


def missing_output(g: Graph) -> None:
    g.outputs = []


def foreign_output(g: Graph) -> None:
    g.outputs.append(Graph("other").input("alien", Type("float32", (1,))))


def false_producer(g: Graph) -> None:
    g.nodes[0].output.producer = g.nodes[1]


FAULTS = {
    foreign_operand: "operand 0 'alien' does not belong to the graph in: %a: float32[2, 3] = Linear(%alien,",
    wrong_type: "inferred from the operands",
    misfitting_operand: "operands do not fit: Linear: x has 3 features, the weight expects 9",
    duplicate_name: "two values are called 'a'",
    lost_use: "operand 0 'a' does not know that it is read",
    phantom_use: "'x' counts a read that does not happen in: %c",
    use_by_an_erased_node: "'x' is read by 'dead', which does not belong to the graph",
    changed_constant: "constant 'a.weight' is Type(dtype='float32', shape=(3, 4), quant=None)",
    missing_output: "the graph has no output",
    foreign_output: "output 'alien' does not belong to the graph",
    false_producer: "'a' names another node as its producer",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_verifier_finds_every_seeded_fault(fault, build: ModuleType) -> None:
    graph = small(build)
    assert findings(graph) == []
    nodes = graph.nodes
    fault(graph)
    graph._order = nodes if fault in (lost_use, phantom_use, false_producer) else graph._order
    with pytest.raises(InternalError) as caught:
        verify(graph, "some_pass")
    assert "is not legal after some_pass" in str(caught.value)
    assert FAULTS[fault] in str(caught.value)


def test_cycle_is_an_error_that_names_it(build: ModuleType) -> None:
    graph = small(build)
    first, _, last = graph.nodes
    graph.set_input(first, 0, last.output)
    with pytest.raises(ModelError, match="the graph has a cycle") as caught:
        _ = graph.nodes
    assert set(caught.value.where) == {"a", "b", "c"}
    assert "the graph has a cycle" in findings(graph)[0]


# ---- mutators ----


def test_order_follows_the_data_whatever_the_order_of_creation(build: ModuleType) -> None:
    graph = small(build)
    early = graph.add(Relu(), graph.inputs[0], name="early")
    graph.set_input(graph.nodes[0], 0, early)
    assert [node.name for node in graph.nodes] == ["early", "a", "b", "c"]


def test_replace_moves_every_read_and_the_public_name(build: ModuleType) -> None:
    graph = small(build)
    old = graph.outputs[0]
    new = graph.add(Gelu(), graph.value("b"), name="g")
    graph.replace(old, new)
    assert graph.outputs == [new]
    assert new.name == "c"
    assert graph.prune() == 1
    assert [node.name for node in graph.nodes] == ["a", "b", "g"]
    verify(graph)


def test_erase_refuses_while_somebody_reads(build: ModuleType) -> None:
    graph = small(build)
    with pytest.raises(InternalError, match="cannot erase 'b': its output 'b' is still read"):
        graph.erase(graph.nodes[1])


def test_rename_numbers_a_clash(build: ModuleType) -> None:
    graph = small(build)
    graph.rename(graph.value("c"), "a")
    assert graph.outputs[0].name == "a.1"
    assert graph.value("a.1") is graph.outputs[0]


def test_add_infers_types_and_names_the_source_of_a_misfit() -> None:
    graph = Graph()
    x = graph.input("x", Type("float32", (2, 4)))
    w = graph.constant(np.zeros((3, 5), np.float32))
    with pytest.raises(ShapeError) as caught:
        graph.add(Linear(), x, w, sources=("layer/MatMul",))
    assert caught.value.where == ("layer/MatMul",)
    assert graph.nodes == []


def test_copy_is_independent_and_equal(build: ModuleType) -> None:
    graph = build.vit("float32")
    twin = graph.copy()
    assert show(twin) == show(graph)
    twin.set_input(twin.nodes[-1], 2, None)
    assert show(twin) != show(graph)
    verify(graph)


def test_constants_are_read_only(build: ModuleType) -> None:
    with pytest.raises(ValueError, match="read-only"):
        small(build).value("a.weight").array[0] = 1


# ---- rewriter ----


def gelu_rule() -> Rule:
    x = Any("x")
    erf = P(Erf, P(Div, x, Const(math.sqrt(2))))
    pattern = P(Mul, P(Mul, x, P(Add, erf, Const(1.0))), Const(0.5))
    return Rule("gelu", pattern, lambda match: match.add(Gelu(), match["x"]))


def spelled_gelu(second: float = 1.0, swap: bool = False, extra_reader: bool = False) -> Graph:
    graph = Graph()
    x = graph.input("x", Type("float32", (4,)))
    number = lambda v: graph.constant(np.float32(v))  # noqa: E731
    erf = graph.add(Erf(), graph.add(Div(), x, number(math.sqrt(2)), name="div"), name="erf", sources=("act/Erf",))
    one = graph.add(Add(), *((number(second), erf) if swap else (erf, number(second))), name="one")
    half = graph.add(Mul(), x, one, name="product", sources=("act/Mul",))
    graph.output(graph.add(Mul(), half, number(0.5), name="y", sources=("act/Mul_1",)))
    if extra_reader:
        graph.output(one)
    return graph


@pytest.mark.parametrize("swap", [False, True])
def test_rewrite_matches_in_either_order_and_keeps_sources(swap: bool) -> None:
    graph = spelled_gelu(swap=swap)
    assert rewrite(graph, [gelu_rule()]) == 1
    (node,) = graph.nodes
    assert node.op == Gelu()
    assert node.sources == ("act/Erf", "act/Mul", "act/Mul_1")
    assert graph.outputs[0].name == "y"
    verify(graph)


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"second": 2.0}, "gelu at 'y': 5 nodes matched, then: operand 'c.1' is not the constant 1"),
        ({"extra_reader": True}, "gelu at 'y': 2 nodes matched, then: 'one' is also read by the graph output"),
    ],
)
def test_rewrite_explains_the_nearest_miss(options: dict, reason: str) -> None:
    graph, seen = spelled_gelu(**options), Trace()
    token = tracing.set(seen)
    try:
        assert rewrite(graph, [gelu_rule()]) == 0
    finally:
        tracing.reset(token)
    assert seen.nearest("gelu") == reason
    assert seen.nearest("other") == ""


def test_name_bound_twice_must_be_one_value() -> None:
    graph = Graph()
    a, b = (graph.input(name, Type("float32", (2,))) for name in "ab")
    same, different = graph.output(graph.add(Mul(), a, a)), graph.output(graph.add(Mul(), a, b))
    square = Rule("square", P(Mul, Any("x"), Any("x")), lambda match: match.add(Relu(), match["x"]))
    assert rewrite(graph, [square]) == 1
    assert isinstance(graph.outputs[0].producer.op, Relu)
    assert graph.outputs[1] is different
    assert same not in graph.outputs


def test_builder_may_refuse_with_a_reason() -> None:
    def build(match: Match):
        raise Miss("not today")

    graph, seen = spelled_gelu(), Trace()
    token = tracing.set(seen)
    try:
        assert rewrite(graph, [Rule("never", P(Erf), build)]) == 0
    finally:
        tracing.reset(token)
    assert seen.nearest("never") == "never at 'erf': 1 nodes matched, then: not today"


def test_sources_are_joined_without_repeats(build: ModuleType) -> None:
    a, b, _ = small(build).nodes
    assert sources_of(a, None, b, a, extra=["z"]) == ("/a", "/b", "z")


# ---- oracle and costs ----


def test_oracle_computes_in_the_precision_asked_for(build: ModuleType) -> None:
    graph = build.vit("float32")
    feeds = build.feeds(graph)
    single, double = run(graph, feeds)["head"], run(graph, feeds, "float64")["head"]
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert 0 < np.abs(single - double).max() < 1e-4
    assert len(list(trace(graph, feeds))) == len(graph.inputs) + len(graph.constants) + len(graph.nodes)


@pytest.mark.parametrize("feeds, complaint", [({}, "no array was given"), ({"x": np.zeros((1, 4))}, "has shape")])
def test_oracle_refuses_wrong_feeds(feeds: dict, complaint: str, build: ModuleType) -> None:
    with pytest.raises(ModelError, match=complaint):
        run(small(build), feeds)


def test_costs_count_a_shared_weight_once(build: ModuleType) -> None:
    net = build.Net("float32")
    x, w = net.input(2, 4), net.normal(4, 4, name="w")
    y = net.linear(net.linear(x, 4, False, "a", w), 4, True, "b", w)
    total = cost(net.output(y))
    assert total.macs == 2 * (2 * 4 * 4)
    assert total.parameters == 4 * 4 + 4
    assert total.parameter_bytes == 80
    assert total.activation_bytes == 2 * (2 * 4 * 4)
    assert (total.nodes, total.ops) == (2, {"Linear": 2})
    assert str(total) == "2 nodes, 0.00 M MACs, 0.000 M parameters"


def test_costs_of_a_vit_follow_the_formula(build: ModuleType) -> None:
    e, n, depth = 12, 17, 2
    block = n * (4 * e * e + 4 * e * e) + 2 * n * n * e
    assert cost(build.vit(width=e, depth=depth)).macs == 16 * e * 48 + depth * block + 5 * e
