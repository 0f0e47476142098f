"""Layouts of TFLite: no more is moved than must be, whatever the graph's transposes say, and the numbers stay."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("flatbuffers")

from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Relu, Softmax
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.conv import Conv, PatchEmbed
from edgesmith.ir.ops.elementwise import Add, Mul
from edgesmith.ir.ops.linear import Linear, MatMul
from edgesmith.ir.ops.norm import GroupNorm, LayerNorm, RMSNorm
from edgesmith.ir.ops.pool import AveragePool, MaxPool, Mean
from edgesmith.ir.ops.shape import Concat, Pad, Reshape, Slice, Split, Transpose
from edgesmith.lowering.tflite import eliminate, layout
from edgesmith.lowering.tflite.eliminate import Problem
from edgesmith.lowering.tflite.units import units
from edgesmith.lowering.tflite.write import write

pytestmark = pytest.mark.tflite

SHARED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tflite_graphs.py"))))
agree, run_file = SHARED.agree, SHARED.run_file

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class Net:
    """A graph in the making, with weights drawn by number."""

    def __init__(self, seed=0):
        self.graph, self.draw = Graph("net"), np.random.default_rng(seed)

    def input(self, *shape, name="x"):
        return self.graph.input(name, Type("float32", shape))

    def weight(self, *shape):
        return self.graph.constant((self.draw.standard_normal(shape) / np.sqrt(max(shape[-1], 1))).astype(np.float32))

    def conv(self, x, channels, kernel=3, **options):
        pad = kernel // 2
        op = Conv(pads=(pad,) * 4, **options)
        weight = self.weight(channels, x.shape[1] // op.groups, kernel, kernel)
        return self.graph.add(op, x, weight, self.weight(channels))

    def linear(self, x, channels):
        return self.graph.add(Linear(), x, self.weight(channels, x.shape[-1]), self.weight(channels))

    def add(self, op, *operands):
        return self.graph.add(op, *operands)

    def written(self, *outputs, **options):
        """Number of transposes, after the numbers have been checked."""
        for index, value in enumerate(outputs):
            self.graph.output(value, f"y{index}")
        feeds = {v.name: self.draw.standard_normal(v.shape).astype(np.float32) for v in self.graph.inputs}
        wanted = run(self.graph, feeds)
        model = write(self.graph.copy(), options=options)
        assert model.details["layout_optimal"]
        if options.get("input_layout") == "nhwc":
            feeds = {name: array.transpose(TO_LAST) for name, array in feeds.items()}
        agree(run_file(model.data, feeds), wanted, 2e-5)
        self.operators = model.operators
        return model.details["transposes"]


# ---- the solver ----


def drawn_problem(draw):
    """A random problem, and its least sum by trying everything."""
    problem, sizes = Problem(), draw.integers(1, 4, draw.integers(1, 7))
    costs, tables = [draw.integers(0, 10, size).astype(float) for size in sizes], []
    for index, each in enumerate(costs):
        problem.variable(index, each)
    for _ in range(draw.integers(0, 10) if len(sizes) > 1 else 0):
        a, b = map(int, draw.choice(len(sizes), 2, replace=False))
        table = draw.integers(0, 10, (sizes[a], sizes[b])).astype(float)
        table[draw.random(table.shape) < 0.1] = np.inf
        problem.pair(a, b, table)
        tables.append((a, b, table))

    def total(choice):
        alone = sum(each[at] for each, at in zip(costs, choice, strict=True))
        return alone + sum(table[choice[a], choice[b]] for a, b, table in tables)

    return problem, total, min(map(total, itertools.product(*map(range, sizes))))


def test_elimination_finds_what_trying_everything_finds():
    for seed in range(150):
        problem, total, least = drawn_problem(np.random.default_rng(seed))
        if np.isinf(least):
            with pytest.raises(ValueError, match="no choice"):
                problem.solve()
            continue
        chosen, cost, exact = problem.solve()
        assert exact and cost == least == total([chosen[i] for i in range(len(chosen))])


def test_tables_too_large_are_cut_and_the_result_is_not_called_least(monkeypatch):
    monkeypatch.setattr(eliminate, "MOST_ENTRIES", 8)
    problem, draw = Problem(), np.random.default_rng(0)
    for index in range(5):
        problem.variable(index, draw.random(3))
    for a, b in itertools.combinations(range(5), 2):
        problem.pair(a, b, draw.random((3, 3)))
    chosen, cost, exact = problem.solve()
    pairs = sum(problem.tables[a, b][chosen[a], chosen[b]] for a, b in problem.tables)
    assert not exact and np.isclose(cost, pairs + sum(problem.costs[i][chosen[i]] for i in range(5)))


# ---- networks ----


def test_a_chain_of_convolutions_moves_its_input_only():
    net = Net()
    x = net.input(1, 3, 8, 8)
    for _ in range(4):
        x = net.add(Gelu(), net.conv(x, 6))
    x = net.add(MaxPool((2, 2), (2, 2)), x)
    assert net.written(net.add(Mean((2, 3)), x)) == 1


def test_an_image_given_channels_last_is_not_moved():
    net = Net()
    x = net.conv(net.input(1, 3, 8, 8), 6)
    assert net.written(net.add(Mean((2, 3)), x), input_layout="nhwc") == 0


def test_an_image_that_is_an_output_goes_back_once():
    net = Net()
    x = net.add(Relu(), net.conv(net.input(1, 3, 8, 8), 6))
    assert net.written(net.conv(x, 4)) == 2


def test_several_outputs_share_what_can_be_shared():
    net = Net()
    x = net.conv(net.input(1, 3, 8, 8), 6)
    y = net.add(Gelu(), x)
    assert net.written(x, net.add(Mean((2, 3)), y), net.conv(y, 4)) == 3


def test_tokens_of_an_image_need_no_transpose():
    net = Net()
    x = net.add(PatchEmbed((4, 4)), net.input(1, 3, 8, 8), net.weight(6, 3, 4, 4), net.weight(6))
    x = net.linear(net.add(LayerNorm(), x, None, None), 5)
    assert net.written(net.add(Mean((1,)), x)) == 1


def test_tokens_and_images_in_turn_need_no_transpose_between():
    net = Net()
    x = net.conv(net.input(1, 3, 8, 8), 6)
    for _ in range(3):
        tokens = net.add(Transpose((0, 2, 1)), net.add(Reshape((1, 6, 64)), x))
        tokens = net.add(Add(), tokens, net.linear(net.add(RMSNorm(), tokens, None), 6))
        x = net.conv(net.add(Reshape((1, 6, 8, 8)), net.add(Transpose((0, 2, 1)), tokens)), 6)
    assert net.written(net.add(Mean((2, 3)), x)) == 1


def test_a_norm_between_transposes_needs_none():
    net = Net()
    x = net.conv(net.input(1, 3, 8, 8), 6, groups=3)
    rows = net.add(LayerNorm(), net.add(Transpose(TO_LAST), x), net.weight(6), net.weight(6))
    rows = net.linear(net.add(Gelu(), net.linear(rows, 12)), 6)
    x = net.add(Add(), x, net.add(Transpose(TO_FIRST), rows))
    assert net.written(net.add(Mean((2, 3)), net.conv(x, 4))) == 1


def test_a_residual_across_layouts_is_moved_once():
    net = Net()
    x = net.input(1, 6, 4, 4)
    y = net.add(Add(), x, net.conv(x, 6))
    y = net.add(Add(), y, net.conv(y, 6))
    assert net.written(net.add(Mean((2, 3)), y)) == 1


def test_axes_follow_through_concat_split_slice_pad_and_softmax():
    net = Net()
    x = net.conv(net.input(1, 3, 8, 8), 6)
    first, second = net.add(Split(1, (2, 4)), x)
    x = net.add(Concat(1), net.add(Gelu(), second), first, net.add(Slice((0,), (3,), (1,), (1,)), x))
    x = net.add(Softmax(1), net.add(Pad((0, 1, 2, 0, 0, 0, 1, 0), 0.5), x))
    x = net.add(Mul(), x, net.add(Mean((2, 3), True), x))
    x = net.add(GroupNorm(2), x, net.weight(10), net.weight(10))
    x = net.add(AveragePool((2, 2), (2, 2)), x)
    assert net.written(net.add(Mean((3,)), x)) == 2


def test_a_gate_over_channels_stays_channels_last():
    net = Net()
    x = net.conv(net.input(1, 3, 8, 8), 8)
    gate = net.conv(net.add(Relu(), net.conv(net.add(Mean((2, 3), True), x), 2, 1)), 8, 1)
    assert net.written(net.add(Mean((2, 3)), net.conv(net.add(Mul(), x, gate), 4))) == 1
    assert "RESHAPE" not in net.operators


def test_products_turn_their_second_operand_by_themselves():
    net = Net()
    a, b = net.input(1, 2, 5, 4, name="a"), net.input(1, 2, 6, 4, name="b")
    y = net.add(MatMul(), a, net.add(Transpose((0, 1, 3, 2)), b))
    turned = net.add(Transpose((0, 1, 3, 2)), net.add(Gelu(), y))
    assert net.written(turned) == 0


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("how, moved, products", [("apart", 4, 4), ("joined", 2, 2)])
def test_attention_moves_queries_keys_values_and_the_result(width, how, moved, products):
    net = Net()
    x = net.input(1, 5, 8)
    q, k, v = (net.linear(x, each) for each in (8, 8, width))
    x = net.linear(net.add(Attention(2, 0.7), q, k, v, None), 8)
    assert net.written(x, projections=how) == moved
    assert net.operators["BATCH_MATMUL"] == 2 and net.operators["FULLY_CONNECTED"] == products


def test_a_single_query_is_not_moved():
    net = Net()
    x, first = net.input(1, 5, 8), net.input(1, 1, 8, name="first")
    q, k, v = net.linear(first, 8), net.linear(x, 8), net.linear(x, 8)
    assert net.written(net.linear(net.add(Attention(2), q, k, v, None), 8)) == 2


def test_the_choice_is_the_least_of_all(monkeypatch):
    """On small graphs, against every combination of forms."""
    for seed in range(12):
        graph = drawn_graph(seed, 5).graph
        found = units(graph)
        plan = layout.assign(graph, found, {})
        assert plan.optimal
        fixed = [every_choice(graph, found, each) for each in itertools.product(*forms_of(graph, found))]
        assert np.isclose(plan.cost, min(fixed))


def forms_of(graph, found):
    known = layout._known(graph, found, {})
    return [layout._within(layout.forms(unit, known), unit, known) for unit in found]


def every_choice(graph, found, chosen):
    """What one combination costs: each value is moved once to every layout that somebody reads."""
    total, made = sum(form.cost for form in chosen), {value: tuple(range(value.type.rank)) for value in graph.inputs}
    wanted = {value: {tuple(range(value.type.rank))} for value in graph.outputs}
    for unit, form in zip(found, chosen, strict=True):
        made.update(zip(unit.outputs, form.outputs, strict=True))
        for value, order in zip(unit.inputs, form.inputs, strict=True):
            if order is not None:
                wanted.setdefault(value, set()).add(order)
    for value, orders in wanted.items():
        total += sum(layout.conversion(value, made[value], order) for order in orders)
    return total


# ---- fuzz ----


def drawn_graph(seed, steps):
    """A random network of images and tokens."""
    net = Net(seed)
    draw = net.draw
    pool = [net.input(1, 4, 4, 4), net.input(1, 4, 4, 4, name="z")]
    for _ in range(steps):
        x = pool[draw.integers(len(pool))]
        kind = draw.integers(9)
        if kind == 0 and x.type.rank == 4:
            x = net.conv(x, x.shape[1])
        elif kind == 1:
            x = net.linear(x, x.shape[-1])
        elif kind == 2:
            x = net.add(Gelu(), x)
        elif kind == 3:
            same = [each for each in pool if each.shape == x.shape]
            x = net.add(Add(), x, same[draw.integers(len(same))])
        elif kind == 4:
            x = net.add(Transpose(tuple(map(int, draw.permutation(x.type.rank)))), x)
        elif kind == 5:
            x = net.add(Softmax(int(draw.integers(x.type.rank))), x)
        elif kind == 6:
            shape = (1, 4, 16) if x.type.rank == 4 else (1, 4, 4, 4)
            x = net.add(Reshape(shape), x) if x.type.size == 64 else x
        elif kind == 7:
            axis = int(draw.integers(1, x.type.rank))
            x = net.add(Mul(), x, net.add(Mean((axis,), True), x))
        elif kind == 8 and x.type.rank == 4:
            a, b = net.add(Split(1, (x.shape[1] // 2, x.shape[1] - x.shape[1] // 2)), x) if x.shape[1] > 1 else (x, x)
            x = net.add(Concat(1), b, a)
        pool.append(x)
    net.pool = pool
    for index, value in enumerate(dict.fromkeys((pool[-1], pool[-2]))):
        if value.producer is not None:
            net.graph.output(value, f"y{index}")
    net.graph.prune()
    if not net.graph.outputs:
        net.graph.output(net.add(Relu(), pool[-1]), "y")
    return net


@pytest.mark.parametrize("seed", range(60))
def test_random_networks_keep_their_numbers(seed):
    graph = drawn_graph(seed, 12).graph
    feeds = {v.name: np.random.default_rng(seed).standard_normal(v.shape).astype(np.float32) for v in graph.inputs}
    wanted = run(graph, feeds)
    model = write(graph)
    assert model.details["layout_optimal"]
    given = {name: array for name, array in feeds.items()}
    agree(run_file(model.data, given), wanted, 1e-4)
