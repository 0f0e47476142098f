"""All networks of a space on shared weights: PyTorch runs the families' own graphs, and what it trained is compiled."""

from __future__ import annotations

import pickle
import resource
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from edgesmith import frontend
from edgesmith.ir.errors import MachineError, UsageError
from edgesmith.ir.interpret import run
from edgesmith.ir.passes.pipelines import INTEGER, run_pipeline
from edgesmith.nas.data import Data, Labelled
from edgesmith.nas.families import build
from edgesmith.nas.space import Space, key
from edgesmith.nas.supernet.ends import largest, smallest
from edgesmith.runtimes import ort

pytestmark = pytest.mark.corpus
torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # threads that wait for each other gain nothing on pictures this small

SIDE = 8
SMALL = Space.load("small")
TINY = replace(
    SMALL,
    genes=tuple(
        replace(gene, choices=gene.choices[:2]) if gene.name not in ("mixer", "kernel") else gene
        for gene in SMALL.genes
    ),
    settings={**SMALL.settings, "image": SIDE, "classes": 4},
)
"""The small space, every gene cut to two choices, on pictures of 8 x 8 pixels."""


def pictures(count: int, seed: int) -> Labelled:
    """The class says which quarter of the noise is brighter."""
    draw = np.random.default_rng(seed)
    images, labels = draw.integers(0, 150, (count, 1, SIDE, SIDE)), draw.integers(0, 4, count)
    for image, label in zip(images, labels, strict=True):
        y, x = divmod(int(label), 2)
        image[0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] += 60
    return Labelled(images.astype(np.uint8), labels)


DATA = Data(pictures(256, 1), pictures(128, 2), pictures(64, 3), 4)


def one_shot(folder, steps: int = 80, **options):
    from edgesmith.nas.supernet.oneshot import OneShot
    from edgesmith.nas.supernet.train import Recipe

    recipe = Recipe(steps, batch=32, rate=1e-2, mirror=False, save_every=10)
    return OneShot(TINY, DATA, folder, recipe, replace(recipe, steps=20, layer_share=0.0), **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    made = one_shot(tmp_path_factory.mktemp("supernet"))
    made.train()
    return made


def drawn(space: Space, count: int):
    generator = np.random.default_rng(4)
    return [space.draw(generator) for _ in range(count)]


@pytest.mark.parametrize(
    "space, genome",
    [(space, genome) for space in (SMALL, Space.load("vit")) for genome in drawn(space, 4)],
    ids=lambda each: each.name if isinstance(each, Space) else "",
)
def test_torch_computes_what_the_graph_says(space: Space, genome) -> None:
    from edgesmith.nas.supernet.program import Program

    graph = build(space, genome)
    program = Program(graph)
    weights = {name: torch.from_numpy(array) for name, array in program.constants.items()}
    x = np.random.default_rng(0).standard_normal((3, 1, 32, 32)).astype(np.float32)
    got = program(weights, torch.from_numpy(x)).numpy()
    (name,) = (value.name for value in graph.inputs)
    wanted = np.concatenate([next(iter(run(graph, {name: one[None]}).values())) for one in x])
    assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_networks_share_the_leading_part_of_the_weights() -> None:
    from edgesmith.nas.supernet.entangle import Entangled

    whole = Entangled(TINY, lambda genome: build(TINY, genome))
    for genome in [largest(TINY), smallest(TINY), *drawn(TINY, 3)]:
        program, weights = whole.network(genome)
        assert {name: tuple(each.shape) for name, each in weights.items()} == {
            name: array.shape for name, array in program.constants.items()
        }
        for name, tensor in weights.items():
            assert tensor.data_ptr() == whole.weights[name].data_ptr()
    ends = ({**each(TINY), "head": "mean"} for each in (largest, smallest))
    wide, narrow = (whole.network(genome)[1]["head.fc.weight"] for genome in ends)
    assert wide.shape[1] > narrow.shape[1] and (wide[:, : narrow.shape[1]] == narrow).all()


def test_training_learns_and_a_search_can_tell_networks_apart(trained) -> None:
    found = [trained.quality(genome) for genome in drawn(TINY, 4)]
    assert min(found) > 0.5 > 2 / DATA.classes - 0.01
    assert found == [pickle.loads(pickle.dumps(trained)).quality(genome) for genome in drawn(TINY, 4)]


def test_interrupted_training_ends_where_it_would_have_ended(tmp_path) -> None:
    whole, broken = one_shot(tmp_path / "a", 30), one_shot(tmp_path / "b", 30)
    whole.train()

    def interrupt(line: str) -> None:
        if "step 20 " in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.train(say=interrupt)
    with pytest.raises(UsageError, match="not trained to the end"):
        one_shot(tmp_path / "b", 30).quality(largest(TINY))
    lines: list[str] = []
    again = one_shot(tmp_path / "b", 30)
    again.train(say=lines.append)
    assert [line.split(",")[0] for line in lines] in (["step 30 of 30"], ["step 20 of 30", "step 30 of 30"])
    for name, tensor in whole.supernet.weights.items():
        assert torch.equal(tensor, again.supernet.weights[name]), name


def test_a_full_disk_is_told_and_training_goes_on_from_the_last_checkpoint(tmp_path) -> None:
    def fill(line: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # as on a full disk

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(MachineError, match=r"(?s)checkpoint cannot be written.*make room"):
            one_shot(tmp_path, 30).train(say=lambda line: fill(line) if "step 20 " in line else None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["supernet.pt"]
    lines: list[str] = []
    one_shot(tmp_path, 30).train(say=lines.append)
    assert [line.split(",")[0] for line in lines] == ["step 20 of 30", "step 30 of 30"]


def test_a_checkpoint_of_another_training_is_refused(trained) -> None:
    other = replace(trained, recipe=replace(trained.recipe, rate=1e-3))
    with pytest.raises(UsageError, match="of another training"):
        other.train()
    with pytest.raises(UsageError, match="no sampling 'all'"):
        replace(trained, sampling="all")


def test_a_sandwich_trains_the_largest_and_the_smallest(tmp_path) -> None:
    made = one_shot(tmp_path, 2, sampling="sandwich")
    before = {name: tensor.clone() for name, tensor in made._untrained().weights.items()}
    made.train()
    _, weights = made.supernet.network(largest(TINY))
    matrices = {name for name, tensor in weights.items() if tensor.ndim > 1}
    assert all(not torch.equal(before[name], made.supernet.weights[name]) for name in matrices)


def test_repnorm_begins_as_layernorm_and_ends_without_it() -> None:
    from edgesmith.nas.supernet.program import Phase, Program
    from edgesmith.nas.supernet.train import Recipe

    recipe = Recipe(100, layer_share=0.4)
    assert [recipe.share(step) for step in (0, 20, 40, 99)] == [1.0, 0.5, 0.0, 0.0]
    genome = largest(TINY)
    layered = replace(TINY, settings={**TINY.settings, "norm": "LayerNorm"})
    rep, layer = Program(build(TINY, genome)), Program(build(layered, genome))
    weights = {name: torch.from_numpy(array) for name, array in rep.constants.items()}
    norms = [name for name in layer.constants if "norm" in name]
    plain = {name: torch.ones_like(weights[name]) if name.endswith("weight") else 0 * weights[name] for name in norms}
    x = torch.randn(16, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    begun = rep(weights, x, Phase(training=True, share=1.0))
    wanted = layer({**weights, **plain}, x, Phase(training=True))
    assert torch.allclose(begun, wanted, atol=1e-3)
    assert not torch.allclose(rep(weights, x, Phase(training=True, share=0.0)), wanted, atol=1e-1)


def test_a_finished_network_is_a_file_without_norms_of_the_familys_structure(trained, tmp_path) -> None:
    genome = largest(TINY)
    path = tmp_path / "found.onnx"
    path.write_bytes(trained.model(genome))
    found, wanted = frontend.load(path), build(TINY, genome)
    assert float(found.metadata["edgesmith.mean"]) == trained.pixels.mean
    shown = next(iter(ort.reference(path, [{"image": trained.pixels(DATA.test.images[:1]).numpy()}])))
    for graph in (found, wanted):
        frontend.recognised(graph)
        run_pipeline(graph, INTEGER)
    ops = [[(type(n.op).__name__, n.output.shape) for n in graph.nodes] for graph in (found, wanted)]
    assert Counter(ops[0]) == Counter(ops[1])
    assert not {"LayerNorm", "RepNorm", "RMSNorm", "BatchNorm", "Affine"} & {name for name, _ in ops[0]}
    x = trained.pixels(DATA.test.images[:1]).numpy()
    folded = run(found, {"image": x})
    assert np.allclose(next(iter(folded.values())), next(iter(shown.values())), rtol=1e-4, atol=1e-4)


def test_what_torch_trained_is_what_onnx_runtime_runs(trained, tmp_path) -> None:
    from edgesmith.lowering.onnx.write import write
    from edgesmith.nas.supernet.program import Program

    graph = trained.tuned(drawn(TINY, 1)[0])
    program = Program(graph)
    x = trained.pixels(DATA.test.images)
    said = program({name: torch.from_numpy(each) for name, each in program.constants.items()}, x)
    assert (said.argmax(1).numpy() == DATA.test.labels).mean() > 0.6
    path = tmp_path / "tuned.onnx"
    path.write_bytes(write(graph).SerializeToString())
    one = ort.reference(path, [{"image": each[None].numpy()} for each in x[:8]])
    exported = np.concatenate([next(iter(outputs.values())) for outputs in one])
    assert np.abs(exported - said[:8].numpy()).max() < 1e-4 * np.abs(exported).max()


def test_distillation_brings_a_damaged_network_back(trained) -> None:
    from edgesmith.nas.supernet.distill import distil
    from edgesmith.nas.supernet.program import Program

    original = trained.tuned(largest(TINY))
    draw = np.random.default_rng(0)
    weights = {value.name: value.array for value in original.constants}
    spoilt = {
        name: array + 0.5 * array.std() * draw.standard_normal(array.shape) if array.ndim > 1 else array
        for name, array in weights.items()
    }
    damaged = build(TINY, largest(TINY), spoilt)
    recipe = replace(trained.tuning, steps=60, rate=5e-3)
    mended = distil(damaged, original, DATA.train, trained.pixels, recipe)
    x = trained.pixels(DATA.test.images)

    def said(graph):
        program = Program(graph)
        return program({name: torch.from_numpy(each.copy()) for name, each in program.constants.items()}, x).softmax(1)

    before, after = ((said(graph) - said(original)).abs().mean() for graph in (damaged, mended))
    assert after < 0.5 * before
    assert [type(node.op) for node in mended.nodes] == [type(node.op) for node in damaged.nodes]


def test_genomes_are_named_alike_in_all_places(trained) -> None:
    genome = smallest(TINY)
    assert trained.supernet.program(key(genome)) is trained.supernet.network(genome)[0]
