"""Memory plans: they run, they keep their budgets, nothing is smaller than proven; refusals and pictures."""

from __future__ import annotations

import itertools
import json
import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgesmith.ir.errors import BudgetError
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.memory import Plan, plan, svg
from edgesmith.ir.memory.network import Network
from edgesmith.ir.memory.order import order
from edgesmith.ir.memory.scratch import ALIGN, align
from edgesmith.ir.ops.activation import Relu
from edgesmith.ir.ops.attention import Attention
from edgesmith.ir.ops.norm import LayerNorm
from edgesmith.ir.ops.shape import Reshape, Slice

GRAPHS = runpy.run_path(str(Path(__file__).with_name("integer_graphs.py")))
Builder, table, tangle, tokens, vit = (GRAPHS[name] for name in ("Builder", "table", "tangle", "tokens", "vit"))


def play(graph: Graph, found: Plan) -> None:
    """Execute a plan on memory that remembers who wrote each byte last; every read must find its own value.

    It knows nothing of lifetimes: the steps' data flow alone decides what has to be intact, and when.
    """
    memory = np.full(found.arena_bytes, -1)
    ids: dict[str, int] = {}
    reads = [{found.views.get(v.name, v.name) for v in step.group.inputs} for step in found.steps]
    kept = {found.views.get(v.name, v.name) for v in graph.outputs}

    def write(name: str) -> None:
        buffer = found.buffer(name)
        assert buffer.offset % ALIGN == 0 and buffer.end <= found.arena_bytes
        memory[buffer.offset : buffer.end] = ids.setdefault(buffer.name, len(ids))

    def intact(name: str) -> bool:
        buffer = found.buffer(name)
        return bool((memory[buffer.offset : buffer.end] == ids[buffer.name]).all())

    for value in graph.inputs:
        if value.name not in found.streamed:
            write(value.name)
    for number, step in enumerate(found.steps):
        inputs = reads[number] - set(found.streamed)
        memory[step.scratch : step.scratch + step.schedule.scratch_bytes] = -2
        assert all(map(intact, inputs)), f"step {number} does not find its inputs"
        taken = set()
        for value in step.group.outputs:
            if over := found.buffer(value.name).over:
                assert over not in kept.union(*reads[number + 1 :]), f"{over} is overwritten before its last reader"
                allowed = {(new, found.views.get(old, old)) for new, old in step.schedule.overwrites}
                assert (value.name, over) in allowed and found.buffer(over).offset == found.buffer(value.name).offset
                taken.add(over)
            write(value.name)
        assert all(map(intact, inputs - taken)), f"step {number} writes over its inputs"
        there = memory[step.scratch : step.scratch + step.schedule.scratch_bytes]
        assert (there == -2).all(), f"step {number} writes over its scratch"
    assert all(map(intact, kept)), "an output does not survive"
    assert (memory != -1)[-1:].all(), "the highest byte is never used"


@given(st.integers(0, 10**6), st.integers(1, 14), st.sampled_from([None, 1.0, 1.3, 3.0]))
@settings(max_examples=80, deadline=None)
def test_every_plan_runs(seed: int, size: int, room: float | None) -> None:
    graph = tangle(seed, size)
    smallest = plan(graph, effort=0.2)
    found = smallest if room is None else plan(graph, int(smallest.arena_bytes * room), effort=0.2)
    play(graph, found)
    assert found.lower_bound <= smallest.arena_bytes <= found.arena_bytes <= (found.budget or found.arena_bytes)
    assert found.arena_bytes >= max(map(found.load, range(len(found.steps))), default=0)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_the_order_has_the_least_peak_of_all_orders(seed: int) -> None:
    network = Network(tangle(seed, 7))
    count = len(network.groups)
    everything = (1 << count) - 1

    def cost(order: tuple[int, ...]) -> int:
        done, most = 0, 0
        for group in order:
            if network.before[group] & ~done:
                return 10**9
            most = max(most, network.least_load(group, done, everything))
            done |= 1 << group
        return most

    assume(count)
    best = min(map(cost, itertools.permutations(range(count))))
    assert align(cost(tuple(order(network)))) == align(best) >= network.lower_bound()


def test_a_later_reader_forbids_overwriting() -> None:
    def graph(again: bool) -> Graph:
        b = Builder(Graph())
        x = table(b, tokens(b.graph, 32, 16))
        y = b.ffn(x)
        b.graph.output(b.add(x, y, "int8") if again else y)
        return b.graph  # type: ignore[no-any-return]

    once, twice = plan(graph(False)), plan(graph(True))
    assert once.buffer("add").over == "table"
    assert twice.buffer("add").over == ""
    assert twice.buffer("table").last == 2 and twice.buffer("add.1").over in ("add", "table")


def test_outputs_and_their_views_are_never_overwritten() -> None:
    b = Builder(Graph())
    x = table(b, tokens(b.graph, 32, 16))
    flat = b.graph.output(b.graph.add(Reshape((1, 512)), x, name="flat"))
    b.graph.output(b.ffn(x))
    found = plan(b.graph)
    assert found.views == {flat.name: x.name} and found.buffer("flat") is found.buffer("table")
    assert found.buffer("add").over == "" and found.buffer("table").last == len(found.steps) - 1
    play(b.graph, found)


@pytest.mark.parametrize("shared", [False, True])
def test_single_precision_overwrites_queries_that_nobody_needs(shared: bool) -> None:
    graph = Graph()
    x = graph.input("x", Type("float32", (1, 5, 8)))
    normed = graph.add(LayerNorm(), x, None, None, name="normed")
    flat = graph.add(Reshape((1, 5, 8)), normed)
    other = flat if shared else graph.add(Relu(), x, name="other")
    graph.output(graph.add(Attention(2), normed, other, other, None, name="mixed"))
    found = plan(graph)
    assert found.buffer("mixed").over == ("" if shared else "normed")
    assert found.steps[-1].schedule.piece("scores").bytes == 4 * 5
    play(graph, found)


BUDGETS = [
    # size, patch, width, heads, depth, ratio, stream, budget in KiB, attention schedule
    (224, 16, 192, 3, 12, 4, "int8", 124, "all_heads"),
    (224, 16, 192, 3, 12, 4, "int16", 148, "head_by_head"),
    (224, 16, 384, 6, 12, 4, "int8", 204, "head_by_head"),
    (32, 4, 64, 4, 4, 2, "int8", 24, "all_heads"),
    (112, 16, 192, 3, 6, 2, "int8", 52, "all_heads"),
]


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("size,patch,width,heads,depth,ratio,stream,kib,name", BUDGETS)
def test_transformers_keep_their_budgets(
    size: int, patch: int, width: int, heads: int, depth: int, ratio: int,
    stream: str, kib: int, name: str, narrow: bool,
) -> None:  # fmt: skip
    graph = vit(size, patch, width, heads, depth, stream, narrow, ratio)
    found = plan(graph, kib * 1024)
    assert found.arena_bytes <= kib * 1024 and found.gap == 0 and found.streamed == ("image",)
    assert found.high_water == found.arena_bytes
    play(graph, found)
    blocks = [step.schedule for step in found.steps if step.group.kind == "attention"]
    assert {block.name for block in blocks[:-1]} == {name}
    stream_bytes = ((size // patch) ** 2 + 1) * width * (1 if stream == "int8" else 2)
    assert {b.bytes for b in found.buffers if b.over and b.bytes > width * 2} <= {stream_bytes}


def test_a_budget_buys_fewer_reads_of_the_weights() -> None:
    graph = vit(224, 16, 192, 3, 2)
    tight, wide = plan(graph), plan(graph, 160 * 1024)
    assert wide.weight_bytes < tight.weight_bytes / 2 and wide.extra_macs == 0 < tight.extra_macs
    assert tight.arena_bytes == tight.lower_bound == wide.lower_bound < wide.arena_bytes <= 160 * 1024


def test_an_image_in_ram_is_counted_until_it_has_been_read() -> None:
    graph = vit(64, 8, 32, 2, 1)
    found = plan(graph, callback=False)
    image = found.buffer("image")
    assert (image.kind, image.first, image.last, image.bytes) == ("input", 0, 0, 64 * 64 * 3)
    assert found.steps[0].schedule.name == "image" and found.streamed == ()
    assert found.arena_bytes > plan(graph).arena_bytes
    play(graph, found)


def test_equal_graphs_get_equal_plans() -> None:
    one, two = (plan(vit(64, 8, 48, 3, 3), 40_000) for _ in range(2))
    assert json.dumps(one.to_json()) == json.dumps(two.to_json()) and svg(one) == svg(two)
    assert json.loads(json.dumps(one.to_json()))["arena_bytes"] == one.arena_bytes


def test_a_refusal_says_how_much_who_and_what_to_do() -> None:
    with pytest.raises(BudgetError) as caught:
        plan(vit(224, 16, 192, 3, 2, "int16"), 100 * 1024)
    error, smallest = caught.value, plan(vit(224, 16, 192, 3, 2, "int16"))
    assert f"{smallest.arena_bytes:,}" in error.what and f"{smallest.arena_bytes - 102_400:,} more" in error.what
    assert "attention" in error.why and "scratch" in error.why and f"{smallest.lower_bound:,}" in error.why
    assert "75,648 (int16 197x192)" in error.why and "int8" in error.do and "image" in error.do
    assert "target with more RAM" in error.do and error.exit_code == 4
    with pytest.raises(BudgetError, match="pixel callback"):
        plan(vit(224, 16, 192, 3, 2), 100 * 1024, callback=False)
    assert plan(vit(224, 16, 192, 3, 2, "int16"), smallest.arena_bytes).arena_bytes == smallest.arena_bytes


def test_progress_tells_the_stages() -> None:
    lines: list[str] = []
    plan(vit(32, 8, 32, 2, 1), 20_000, lines.append)
    assert len(lines) == 3 and "lower bound" in lines[0] and "arena" in lines[-1]


# ---- picture ----


def test_the_picture_shows_every_buffer_and_stands_alone() -> None:
    graph = vit(64, 8, 32, 2, 2)
    next(node for node in graph.nodes if isinstance(node.op, Slice)).output.name = "a<b>&c"
    found = plan(graph, 64 * 1024, callback=False)
    text = svg(found)
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    boxes = [rect for rect in root.iter(f"{space}rect") if "box" in rect.get("class", "").split()]
    titles = [rect.findtext(f"{space}title") or "" for rect in boxes]
    assert len(boxes) == len(found.buffers)
    assert all(any(title.startswith(f"{buffer.name}: ") for title in titles) for buffer in found.buffers)
    words = " ".join(element.text or "" for element in root.iter(f"{space}text"))
    assert "budget 64.0 KiB" in words and "lower bound" in words and "peak" in words
    assert "href" not in text and "url(" not in text and "<script" not in text
    styles = root.findtext(f"{space}style") or ""
    assert all(".memory-plan" in rule for rule in re.findall(r"^\..*|(?<={)\..*", styles, re.M))


def test_a_graph_that_computes_nothing_needs_its_input_only() -> None:
    b = Builder(Graph())
    b.graph.output(tokens(b.graph, 4, 4))
    found = plan(b.graph, 16)
    assert found.arena_bytes == found.lower_bound == 16 and not found.steps
    assert ElementTree.fromstring(svg(found)).tag.endswith("svg")
