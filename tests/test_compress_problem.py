"""Compression as a search has it: a space of what can be done to a network, what that costs, and what it is worth."""

import pickle

import numpy as np
import pytest

import edgesmith
from edgesmith import targets
from edgesmith.ir.errors import ModelError, UsageError
from edgesmith.ir.integer_codes import smallest
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.integer import QLinear
from edgesmith.ir.passes.quantise.codes import noted_codes
from edgesmith.nas.compress import Compression
from edgesmith.nas.compress.drop import outputs
from edgesmith.nas.compress.judge import imported, in_floats, in_integers, quantised
from edgesmith.nas.compress.sites import layers
from edgesmith.nas.space import key
from edgesmith.runtimes import host

DEVICE = "stm32f746"


@pytest.fixture(scope="module")
def network(build):
    return build.vit("float32", depth=2, width=16, heads=4, head="mean")


@pytest.fixture(scope="module")
def feeds(network):
    value = network.inputs[0]
    return {value.name: np.random.default_rng(5).standard_normal((24, *value.shape[1:])).astype(np.float32)}


@pytest.fixture(scope="module")
def problem(network, feeds):
    return Compression(network, targets.get(DEVICE), feeds)


def test_every_decision_is_offered_and_the_first_choices_are_the_network(problem, network, feeds):
    words = {gene.name.partition(" ")[0] for gene in problem.space.genes}
    assert words == {"drop", "width", "heads", "keys", "values", "rank", "code"}
    same = imported(problem.model(problem.compressor.genome()))
    assert np.allclose(outputs(same, feeds), outputs(network, feeds), atol=1e-3)


def test_genomes_to_begin_with_are_of_the_space_and_differ(problem):
    starts = list(problem.starts())
    assert starts[0] == problem.compressor.genome()
    for genome in starts:
        problem.space.check(genome)
    assert len({key(genome) for genome in starts}) == len(starts) > 4


@pytest.mark.parametrize("code", ["int4", "shift", "ternary"])
def test_codes_of_layers_travel_with_the_model(problem, feeds, code):
    chosen = [node.output.name for node in layers(problem.compressor.graph)][::2]
    genome = {**problem.compressor.genome(), **{f"code {name}": code for name in chosen}}
    model = problem.model(genome)
    assert noted_codes(imported(model)) == dict.fromkeys(chosen, code)
    made = quantised(model, feeds, "int8")
    products = [node for node in made.graph.nodes if isinstance(node.op, QLinear)]
    coded = [node for node in products if smallest(node.input(1).array) != "int8"]
    assert len(products) == len(layers(problem.compressor.graph)) and len(coded) == len(chosen)


def test_what_was_rounded_for_its_inputs_is_not_rounded_again(problem, feeds):
    name = "block1.fc1"
    model = problem.model({**problem.compressor.genome(), f"code {name}": "int4"})

    def rows(graph):
        (w,) = (node.input(1).array for node in graph.nodes if name in node.sources and len(node.inputs) > 2)
        return w / np.abs(w).max(axis=1, keepdims=True)

    assert np.allclose(rows(quantised(model, feeds, "int8").graph), rows(imported(model)), atol=1e-5)


def test_factors_carry_the_code_of_their_layer(problem):
    name = next(gene.name for gene in problem.space.genes if gene.name.startswith("rank")).removeprefix("rank ")
    narrow = problem.space.gene(f"rank {name}").choices[-1]
    model = problem.model({**problem.compressor.genome(), f"rank {name}": narrow, f"code {name}": "int4"})
    assert noted_codes(imported(model)) == {name: "int4", f"{name}.first": "int4"}


def test_the_same_genome_is_the_same_network(problem, network, feeds):
    genome = list(problem.starts())[-1]
    again = pickle.loads(pickle.dumps(Compression(network, targets.get(DEVICE), feeds)))
    assert again.model(genome) == problem.model(genome)
    assert key(list(again.starts())[-1]) == key(genome)


def test_on_a_phone_quality_is_of_floats_and_costs_are_of_weights(network, feeds):
    problem = Compression(network, targets.get("iphone15"), feeds)
    genomes = list(problem.starts())
    assert problem.quality(genomes[0]) == pytest.approx(0, abs=1e-3)
    assert problem.quality(genomes[-1]) < problem.quality(genomes[0])
    whole, small = problem.costs(genomes[0]), problem.costs(genomes[-1])
    assert small.macs < whole.macs and small.flash < whole.flash and whole.ram is None


def test_with_labels_quality_is_accuracy(network, feeds):
    labels = outputs(network, feeds).argmax(axis=1)
    labels[:6] = (labels[:6] + 1) % 5
    problem = Compression(network, targets.get("iphone15"), feeds, labels)
    assert problem.quality(problem.compressor.genome()) == pytest.approx(18 / 24)


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ({"labels": np.zeros(7, int)}, "labels have shape"),
        ({"labels": np.full(24, 5)}, "5 classes"),
        ({"divergence": "length"}, "no divergence"),
        ({"stream": "int4"}, "int8 or int16"),
    ],
)
def test_wrong_questions_are_refused(network, feeds, wrong, complaint):
    with pytest.raises(UsageError, match=complaint):
        Compression(network, targets.get(DEVICE), feeds, **wrong)


def test_data_that_does_not_fit_is_refused(network):
    with pytest.raises(ModelError, match="calibration data"):
        Compression(network, targets.get(DEVICE), {"other": np.zeros((2, 3), np.float32)})


@pytest.mark.compiler
def test_answers_of_the_c_are_those_of_the_reference(problem, feeds, monkeypatch):
    model = problem.model(list(problem.starts())[-1])
    few = {name: array[:3] for name, array in feeds.items()}
    compiled = in_integers(model, feeds, few, problem.target, "int8")
    monkeypatch.setattr(host.Host, "why_not", lambda self: "no compiler")
    assert np.array_equal(compiled, in_integers(model, feeds, few, problem.target, "int8"))
    floats = in_floats(model, few)
    assert np.linalg.norm(compiled - floats) < 0.2 * np.linalg.norm(floats)


@pytest.mark.compiler
@pytest.mark.parametrize("place", [0, -1])
def test_costs_are_those_of_a_compile(problem, feeds, tmp_path, place):
    genome = list(problem.starts())[place]
    costs = problem.costs(genome)
    path = tmp_path / "model.onnx"
    path.write_bytes(problem.model(genome))
    options = {"calibration": feeds, "stream": "int8", "ram": costs.ram, "check": False}
    made = edgesmith.compile(path, DEVICE, out=tmp_path / "out", **options)
    assert 0 <= costs.ram - made.memory["total"] <= 160
    assert made.flash["internal"] == pytest.approx(costs.flash, rel=0.05)
    assert costs.macs == sum(layer["macs"] for layer in made.manifest["cost"]["layers"])


@pytest.mark.compiler
def test_the_network_as_it_is_is_worth_most(problem):
    genomes = list(problem.starts())
    qualities = [problem.quality(genome) for genome in (genomes[0], genomes[-1])]
    assert -0.1 < qualities[1] < qualities[0] <= 0
    assert problem.quality(genomes[-1]) == qualities[1]


def test_run_agrees_with_the_graph(problem, network, feeds):
    (name,) = feeds
    one = run(network, {name: feeds[name][:1]})
    assert np.allclose(next(iter(one.values())), problem.wanted[:1], atol=1e-4)
