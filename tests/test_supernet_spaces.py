"""Every shipped space as a supernet: it trains, its networks are what their ONNX says, and evolution compiles them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgesmith.ir.interpret import run
from edgesmith.nas.data import Data, Labelled
from edgesmith.nas.families import build
from edgesmith.nas.space import Space
from edgesmith.nas.supernet.ends import largest, smallest
from edgesmith.runtimes import ort

pytestmark = pytest.mark.corpus
torch = pytest.importorskip("torch")

SIDES = {"vit": 16, "small": 16, "efficientformer_v1": 64, "efficientformer_v2": 64}
"""Pixels along a side of the pictures, so that attention has several tokens to choose from; 32 in the other spaces."""


def cut(name: str) -> Space:
    """The space for small pictures of four classes: two blocks at most, the two least choices of every number."""
    space, few = Space.load(name), {"depth": (1, 2)}
    genes = [gene for gene in space.genes if not isinstance(gene.choices[0], str)]
    choices = {gene.name: few.get(gene.name, gene.choices[:2]) for gene in genes}
    cut_down = tuple(replace(gene, choices=choices.get(gene.name, gene.choices)) for gene in space.genes)
    return replace(space, genes=cut_down, settings={**space.settings, "image": SIDES.get(name, 32), "classes": 4})


def pictures(space: Space, count: int, seed: int) -> Labelled:
    draw, side = np.random.default_rng(seed), int(space.settings["image"])
    images = draw.integers(0, 255, (count, int(space.settings["channels"]), side, side), np.uint8)
    return Labelled(images, np.arange(count) % 4)


@pytest.fixture(scope="module", params=Space.shipped())
def trained(request, tmp_path_factory):
    """A supernet that has done three steps, and the weights that it began with."""
    from edgesmith.nas.supernet.oneshot import OneShot
    from edgesmith.nas.supernet.train import Recipe

    torch.set_num_threads(1)
    space = cut(request.param)
    data = Data(*(pictures(space, count, seed) for seed, count in enumerate((16, 8, 8))), 4)
    recipe = Recipe(3, batch=8, decay=0.0, save_every=3)
    made = OneShot(space, data, tmp_path_factory.mktemp(request.param), recipe, recipe, sampling="sandwich")
    begun = {name: tensor.clone() for name, tensor in made._untrained().weights.items()}
    made.train()
    return made, begun


def test_every_matrix_of_the_largest_network_learns(trained) -> None:
    made, begun = trained
    whole = made.supernet
    program, cut_out = whole.network(largest(made.space))
    matrices = [name for name in program.trained if cut_out[name].ndim > 1]
    assert matrices and not [name for name in matrices if torch.equal(begun[name], whole.weights[name])]
    assert all(tensor.isfinite().all() for tensor in whole.weights.values())


def test_the_weights_hold_every_network(trained) -> None:
    """No network needs more of a weight than there is of it."""
    made, _ = trained
    draw = np.random.default_rng(5)
    for _ in range(8):
        program, weights = made.supernet.network(made.space.draw(draw))
        assert {name: tuple(each.shape) for name, each in weights.items()} == {
            name: array.shape for name, array in program.constants.items()
        }


def test_networks_say_what_their_onnx_says(trained, tmp_path) -> None:
    from edgesmith.lowering.onnx.write import write

    made, _ = trained
    draw = np.random.default_rng(2)
    for genome in (smallest(made.space), made.space.draw(draw)):
        program, weights = made.supernet.network(genome)
        x = made.pixels(made.data.test.images[:3])
        with torch.inference_mode():
            said = program(weights, x).numpy()
        path = tmp_path / "net.onnx"
        path.write_bytes(write(made.graph(genome, weights)).SerializeToString())
        one = ort.reference(path, [{"image": each[None].numpy()} for each in x])
        exported = np.concatenate([next(iter(outputs.values())) for outputs in one])
        assert np.abs(exported - said).max() < 1e-4 * max(1.0, np.abs(exported).max())


@pytest.mark.parametrize("name", ["mcuformer", "slab"])
def test_few_heads_are_the_leading_channels_of_many(name: str) -> None:
    from edgesmith.nas.supernet.entangle import Entangled

    space = cut(name)
    whole = Entangled(space, lambda genome: build(space, genome))
    few, many = space.gene("heads").choices
    found = []
    for heads in (few, many):
        genome = {**smallest(space), "heads": (heads,)}
        graph = build(space, genome, whole.arrays(genome))
        graph.outputs = [graph.value(f"blocks.0.mixer.{side}") for side in "qkv"]
        image = np.random.default_rng(1).standard_normal(graph.inputs[0].shape).astype(np.float32)
        found.append(list(run(graph, {"image": image}).values()))
    for narrow, wide in zip(*found, strict=True):
        assert narrow.shape[-1] < wide.shape[-1] and np.allclose(narrow, wide[..., : narrow.shape[-1]], atol=1e-5)


@pytest.mark.compiler
@pytest.mark.search
@pytest.mark.slow
def test_evolution_over_a_supernet_ends_in_a_compile(tmp_path) -> None:
    from edgesmith.driver.search import design

    labels = np.arange(80) % 4
    images = np.random.default_rng(0).integers(0, 60, (80, 16, 16)) + 50 * labels[:, None, None]
    np.savez(tmp_path / "set.npz", images=images.astype(np.uint8), labels=labels)
    found = design(
        "vit", "stm32f411", out=tmp_path / "out", data=tmp_path / "set.npz", steps=2, tuning=1, generations=2,
        population=2, workers=0, finalists=1, check=False, flash=256 * 1024,
    )  # fmt: skip
    (best,) = [row for row in found["front"] if row["compiled"]]
    assert found["judged"] == 4 and best["compiled"]["flash"] <= 256 * 1024
    assert best["compiled"]["flash"] == best["costs"]["flash"]
    assert (tmp_path / "out" / best["artifact"] / "manifest.json").is_file()
