"""What compression takes out of a network, and how what is left is put right."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from edgesmith.ir.errors import ModelError, UsageError
from edgesmith.ir.graph import Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Relu
from edgesmith.ir.ops.elementwise import Add
from edgesmith.ir.passes.exact.fold_linear_chain import FoldLinearChain
from edgesmith.ir.passes.pipelines import INTEGER, run_pipeline
from edgesmith.ir.passes.quantise.fit_weights import fit
from edgesmith.nas.compress import drop, heads, width
from edgesmith.nas.compress.carry import carried
from edgesmith.nas.compress.correct import applied, corrected
from edgesmith.nas.compress.low_rank import break_even, factors
from edgesmith.nas.compress.observe import CHUNK, observe
from edgesmith.nas.compress.rebuild import batched, rebuilt
from edgesmith.nas.compress.rounding import nearest, rounded
from edgesmith.nas.compress.sites import branches, channels, layers
from edgesmith.nas.compress.sites import heads as attentions
from edgesmith.nas.quality import accuracy, angle, divergence_of, jensen_shannon, labels_for

NETS = runpy.run_path(str(Path(__file__).with_name("small_networks.py")))["NETS"]
PAD = (1, 1, 1, 1)


def samples(graph, count, seed=0):
    """Normal samples for a graph of one input."""
    value = graph.inputs[0]
    return {value.name: np.random.default_rng(seed).standard_normal((count, *value.shape[1:])).astype(value.dtype)}


def outputs(graph, feeds):
    """The only output, sample by sample."""
    (name,), count = feeds, len(next(iter(feeds.values())))
    return np.concatenate([next(iter(run(graph, {name: feeds[name][i : i + 1]}).values())) for i in range(count)])


@pytest.fixture
def vit(build):
    """A vision transformer after its exact passes."""
    graph = build.vit("float32", depth=2, width=16, heads=4, head="mean")
    run_pipeline(graph, INTEGER)
    return graph


@pytest.fixture
def stage(build):
    """Convolutions along a stream, with a depthwise branch, and a head."""
    net = build.Net("float32")
    x = net.add(Relu(), net.conv(net.input(1, 2, 8, 8), 8, 3, pads=PAD, name="stem"), name="relu")
    mixed = net.conv(x, 8, 3, pads=PAD, groups=8, name="mix")
    h = net.add(Gelu(), net.conv(mixed, 12, name="expand"), name="gelu")
    x = net.add(Add(), x, net.conv(h, 8, name="project"), name="sum")
    return net.output(net.conv(x, 5, 3, strides=(2, 2), name="last"))


def masked(graph, name, axis, gone):
    """The graph with zeros in some rows (axis 0, bias too) or columns of a layer."""
    node = graph.value(name).producer
    changed = {}
    for value in node.inputs[1 : 3 if axis == 0 else 2]:
        if value is not None:
            array = value.array.copy()
            array[(slice(None),) * axis + (list(gone),)] = 0
            changed[value.name] = array
    return rebuilt(graph, changed)


# ---- sites ----


def test_a_vision_transformer_has_hidden_units_heads_and_branches(vit):
    assert [(group.size, len(group.readers)) for group in channels(vit)] == [(32, 1)] * 2
    assert [site.count for site in attentions(vit)] == [4, 4]
    assert len(branches(vit)) == 4
    assert len(layers(vit)) == 2 * 6 + 1  # the patch embedding is none


def test_a_stream_of_convolutions_is_one_group(stage):
    stream, hidden = channels(stage)
    assert (stream.size, stream.writers, stream.depthwise) == (8, ("stem", "project"), ("mix",))
    assert stream.readers == ("expand", "last")
    assert (hidden.size, hidden.readers) == (12, ("project",))


def test_shared_weights_and_outputs_of_the_network_are_left_alone(build):
    net = build.Net("float32")
    x = net.input(1, 4, 8)
    weight = net.normal(8, 8, name="shared")
    h = net.add(Gelu(), net.linear(x, 8, name="a", weight=weight), name="gelu")
    graph = net.output(net.linear(h, 8, name="b", weight=weight))
    assert not layers(graph) and not channels(graph)
    net = build.Net("float32")
    h = net.add(Gelu(), net.linear(net.input(1, 4, 8), 8, name="a"), name="gelu")
    assert not channels(net.output(h, net.linear(h, 8, name="b")))


# ---- several samples at once ----


@pytest.mark.parametrize("head", ["token", "mean"])
def test_a_batch_computes_what_its_samples_do(build, head):
    graph = build.vit("float32", head=head)
    feeds = samples(graph, 5)
    together = next(iter(run(batched(graph, 5), feeds).values()))
    assert np.allclose(together, outputs(graph, feeds), atol=1e-5)


def test_a_graph_that_mixes_its_batch_is_refused(build):
    with pytest.raises(ModelError, match="several samples"):
        batched(NETS["batch_of_sequences"](build), 4)


def test_data_of_another_shape_is_refused(vit):
    with pytest.raises(ModelError, match="calibration data"):
        observe(vit, {vit.inputs[0].name: np.zeros((3, 1, 4, 4), np.float32)})


# ---- widths ----


@pytest.mark.parametrize("place", [0, 1])
def test_a_slice_is_the_network_with_the_others_masked(stage, place):
    group, feeds = channels(stage)[place], samples(stage, 2)
    kept = width.importance(stage, group, observe(stage, feeds))[: group.size // 2]
    gone = set(range(group.size)) - set(kept)
    blank = stage
    for name in (*group.writers, *group.depthwise):
        blank = masked(blank, name, 0, gone)
    for name in group.readers:
        blank = masked(blank, name, 1, gone)
    small = width.keep(stage, group, sorted(kept))
    assert sum(each.type.size for each in small.constants) < sum(each.type.size for each in stage.constants)
    assert np.allclose(outputs(small, feeds), outputs(blank, feeds), atol=1e-5)


def test_channels_that_nobody_needs_go_first():
    noise = np.random.default_rng(0)
    w, x = noise.standard_normal((6, 5)), noise.standard_normal((200, 5))
    w[:, 2] = 0
    x[:, 4] = x[:, 1] + x[:, 3] + 1e-3 * noise.standard_normal(200)  # the others can stand in for it
    order = width.surgeon([(w, x.T @ x / 200)], 5)
    assert order[-1] == 2 and order[-2] in (1, 3, 4)
    assert sorted(order) == list(range(5))


def test_every_width_is_a_prefix_of_the_next(vit):
    seen = observe(vit, samples(vit, 8))
    group = channels(vit)[0]
    assert width.importance(vit, group, seen) == width.importance(vit, group, observe(vit, samples(vit, 8)))


# ---- heads ----


def test_fewer_and_narrower_heads_are_the_network_with_the_others_masked(vit):
    feeds = samples(vit, 2)
    seen, site = observe(vit, feeds), attentions(vit)[0]
    stay = sorted(heads.importance(vit, site, seen)[:3])
    kept = tuple(
        heads.by_head(order, stay, 4, 16, most)
        for order, most in ((heads.keys(site, seen), 2), (heads.values(vit, site, seen), 3))
    )
    assert [len(each) for each in kept] == [6, 9]
    blank = vit
    for name, at in heads.outputs_kept(site, kept).items():
        blank = masked(blank, name, 0, set(range(16)) - set(at.tolist()))
    small = heads.keep(vit, site, 3, kept)
    assert np.allclose(outputs(small, feeds), outputs(blank, feeds), atol=1e-5)


# ---- low rank ----


@pytest.mark.parametrize("shape, share", [((576, 192), 0.75), ((768, 192), 0.80), ((192, 192), 0.50)])
def test_factors_pay_off_below_break_even_as_folding_has_it(build, shape, share):
    most = break_even(*shape)
    assert most / 192 < share <= (most + 1) / 192
    for rank, nodes in ((most, 2), (most + 1, 1)):
        net = build.Net("float32")
        narrow = net.linear(net.input(1, 3, shape[1]), rank, bias=False, name="first")
        graph = net.output(net.linear(narrow, shape[0], name="second"))
        FoldLinearChain().apply(graph)
        assert len(graph.nodes) == nodes


def test_factors_are_best_for_the_inputs_that_there_are():
    noise = np.random.default_rng(1)
    w = noise.standard_normal((10, 8))
    x = noise.standard_normal((500, 8)) * np.geomspace(10, 0.01, 8)
    covariance = x.T @ x / 500

    def loss(approximation):
        return np.sum(((w - approximation) @ x.T) ** 2)

    u, s, vt = np.linalg.svd(w)
    plain = (u[:, :3] * s[:3]) @ vt[:3]
    a, b = factors(w, covariance, 3)
    assert loss(a @ b) < loss(plain) / 2
    a, b = factors(w, covariance, 8)
    assert np.allclose(a @ b, w)


# ---- branches ----


def zeroed(graph, name):
    """The graph with a branch that gives zero."""
    node = graph.value(name).producer
    branch = next(each for each in branches(graph) if each.name == name)
    last = node.input(1 - branch.place).producer
    return masked(graph, last.output.name, 0, range(last.output.shape[-1]))


def test_leaving_out_a_branch_is_giving_it_no_weight(vit):
    feeds = samples(vit, 3)
    for name in (each.name for each in branches(vit)):
        assert np.array_equal(outputs(drop.drop(vit, [name]), feeds), outputs(zeroed(vit, name), feeds))


def test_all_branches_can_go(vit):
    names = [each.name for each in branches(vit)]
    bare = drop.drop(vit, names)
    assert not branches(bare) and len(bare.nodes) < len(vit.nodes)
    outputs(bare, samples(vit, 1))


def test_a_branch_that_does_nothing_goes_first_by_both_criteria(vit):
    feeds, name = samples(vit, CHUNK + 1), branches(vit)[2].name
    idle = zeroed(vit, name)
    (first, cosine), *others = drop.by_cosine(idle, feeds)
    assert first == name and cosine == pytest.approx(1) and all(score < 1 - 1e-6 for _, score in others)
    order = drop.by_divergence(idle, feeds)
    assert order[0] == (name, pytest.approx(0, abs=1e-3)) and len(order) == 4
    assert order == drop.by_divergence(idle, feeds)
    assert drop.by_divergence(idle, feeds, 2, jensen_shannon)[0][0] == name


# ---- corrections ----


def test_a_network_of_which_nothing_was_taken_stays_as_it_is(vit):
    feeds = samples(vit, 40)
    same = applied(vit, corrected(vit, observe(vit, feeds), {}, {}, {}))
    other = samples(vit, 5, seed=1)
    assert np.allclose(outputs(same, other), outputs(vit, other), atol=1e-3)


def test_layers_make_up_for_what_was_taken_from_others(stage):
    feeds, other = samples(stage, 64), samples(stage, 16, seed=1)
    seen, group = observe(stage, feeds), channels(stage)[1]
    kept = sorted(width.importance(stage, group, seen)[:6])
    small = width.keep(stage, group, kept)
    fits = corrected(small, seen, width.kept_outputs(group, kept), {}, {})
    wanted = outputs(stage, other)
    before, after = (np.linalg.norm(outputs(each, other) - wanted) for each in (small, applied(small, fits)))
    assert after < 0.8 * before


def test_two_factors_stand_where_they_pay_off(vit):
    feeds = samples(vit, 40)
    first, second = [node.output.name for node in layers(vit)][:2]
    fits = corrected(vit, observe(vit, feeds), {}, {first: "int4"}, {first: 4, second: 9})
    assert [len(fits[name].matrices) for name in (first, second)] == [2, 1]
    made = applied(vit, fits)
    assert len(made.nodes) == len(vit.nodes) + 1
    assert made.value(first).shape == vit.value(first).shape


@pytest.mark.parametrize("code", ["int4", "shift", "ternary"])
def test_rounded_weights_are_held_by_their_code_and_better_than_each_on_its_own(code):
    noise = np.random.default_rng(2)
    w = noise.standard_normal((12, 40))
    x = noise.standard_normal((400, 10)) @ noise.standard_normal((10, 40)) + 0.1 * noise.standard_normal((400, 40))
    covariance = x.T @ x / 400
    made = rounded(w, covariance, code)
    stored = fit(made.astype(np.float32), None, 0, 128, code=code)
    assert np.allclose(stored.w * stored.scale[:, None], made, atol=1e-6)
    loss = [float(np.einsum("nk,kl,nl->", w - each, covariance, w - each)) for each in (made, nearest(w, code))]
    assert loss[0] < 0.7 * loss[1]


# ---- quality ----


def test_divergences_are_nothing_between_equals_and_greatest_between_opposites():
    one = np.random.default_rng(3).standard_normal((6, 10))
    assert angle(one, 3 * one + 1) == pytest.approx(0, abs=1e-6)
    assert angle(one, -one) == pytest.approx(1)
    assert jensen_shannon(one, one + 5) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(1e3 * np.eye(3), 1e3 * np.eye(3)[[1, 2, 0]]) == pytest.approx(1)
    assert 0 < jensen_shannon(one, -one) < 1
    with pytest.raises(UsageError, match="no divergence 'length'"):
        divergence_of("length", one, one)


def test_accuracy_is_the_share_of_right_answers():
    assert accuracy(np.array([0, 1, 1]), np.array([[2, 1], [0, 3], [5, 4]])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "labels, complaint",
    [
        (np.zeros(4, int), "shape"),
        (np.zeros((3, 1), int), "shape"),
        (np.zeros(3), "not whole numbers"),
        (np.array([0, 1, 5]), "5 classes"),
        (np.array([-1, 1, 2]), "5 classes"),
        (np.array(["a", "b", "c"]), "not whole numbers"),
    ],
)
def test_wrong_labels_are_refused(labels, complaint):
    with pytest.raises(UsageError, match=complaint):
        labels_for(labels, 3, 5)


def test_labels_keep_their_values():
    assert labels_for(np.array([4, 0], np.uint8), 2, 5).tolist() == [4, 0]


def test_types_are_inferred_anew(vit):
    assert batched(vit, 3).inputs[0].type == Type("float32", (3, 3, 16, 16))


def test_a_branch_carries_what_the_readers_of_a_narrow_stream_miss(stage):
    feeds, other = samples(stage, 64), samples(stage, 16, seed=1)
    seen, group = observe(stage, feeds), channels(stage)[0]
    assert set(seen.metrics) == {"sum"}
    kept = sorted(width.importance(stage, group, seen)[:4])
    small, left = width.keep(stage, group, kept), width.kept_outputs(group, kept)
    wanted, found = outputs(stage, other), []
    for metrics in ({}, seen.metrics):
        seen.metrics = metrics
        found.append(np.linalg.norm(outputs(applied(small, corrected(small, seen, left, {}, {})), other) - wanted))
    assert found[1] < found[0]


def test_what_readers_do_not_look_at_makes_room_for_what_they_do():
    noise = np.random.default_rng(4)
    hidden, stream = noise.standard_normal((400, 6)), 0.1 * noise.standard_normal((400, 2))
    lost = hidden @ noise.standard_normal((6, 2))
    before = hidden @ noise.standard_normal((6, 2))
    whole = np.concatenate([stream + before, lost], axis=1) + 3

    def missed(added):
        """The share of the lost channels that cannot be read from the stream."""
        seen = np.concatenate([stream + added, np.ones((400, 1))], axis=1)
        return np.linalg.norm(lost - seen @ np.linalg.lstsq(seen, lost, rcond=None)[0]) / np.linalg.norm(lost)

    made = carried(whole, stream, hidden, before, np.diag([0.0, 0, 1, 1]))
    assert missed(made) < 0.15 < 0.5 < missed(before)
