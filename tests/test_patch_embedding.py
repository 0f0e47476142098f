"""Patch embedding by patch equals the convolution it stands for, bit for bit, from an image and from a camera."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir import interpret
from edgesmith.ir.graph import Array, Graph, Quant, Type
from edgesmith.ir.memory import plan
from edgesmith.ir.ops.integer_conv import QConv, QPatchEmbed
from edgesmith.ir.ops.integer_elementwise import QAdd
from edgesmith.ir.ops.shape import Concat, Reshape
from edgesmith.lowering.c import toolchain
from edgesmith.lowering.c.lower import Vector, lower

pytestmark = pytest.mark.compiler

SIDE, WIDTH, ZERO = 240, 10, -9
PATCHES = [(16, (0, 0, 0, 0)), (28, (6, 6, 6, 6)), (28, (0, 12, 12, 0))]
"""Patch and padding: 240 divides by 16; 28 needs 252, centred or on two sides only."""
PIXELS = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


def embedding(patch: int, pads: tuple[int, int, int, int], convolution: bool = False) -> Graph:
    """Tokens of an image behind a class token, positions added; `convolution` says the same in plain ops."""
    draw = np.random.default_rng(patch)
    graph = Graph("embedding")
    image = graph.input("image", Type("int8", (1, SIDE, SIDE, 3), Quant(0.02, ZERO)))
    weight = graph.constant(draw.integers(-127, 128, (WIDTH, patch, patch, 3)).astype(np.int8), "w")
    bias = graph.constant(draw.integers(-9999, 9999, WIDTH).astype(np.int32), "b")
    mult = graph.constant(draw.integers(2**19, 2**21, WIDTH).astype(np.int32), "m")
    kernel = (patch, patch)
    if convolution:
        x = graph.add(QConv(Quant(0.1), "int8", kernel, pads, x_zero=ZERO), image, weight, bias, mult)
        x = graph.add(Reshape((1, x.shape[1] * x.shape[2], WIDTH)), x)
    else:
        x = graph.add(QPatchEmbed(Quant(0.1), "int8", kernel, pads, ZERO), image, weight, bias, mult)
    token = graph.constant(draw.integers(-128, 128, (1, 1, WIDTH)).astype(np.int8), quant=Quant(0.1))
    x = graph.add(Concat(1), token, x)
    table = graph.constant(draw.integers(-3000, 3000, (1, x.shape[1], WIDTH)).astype(np.int16), "positions")
    graph.output(graph.add(QAdd(Quant(0.1), "int8", ma=3000, mb=7, c=2048, shift=12), x, table), "tokens")
    return graph


def photograph() -> Array:
    return np.random.default_rng(1).integers(-128, 128, (1, SIDE, SIDE, 3)).astype(np.int8)


def library(folder: Path, graph: Graph, callback: bool) -> tuple[ctypes.CDLL, int]:
    """The graph in C, and its arena's size."""
    feeds = {"image": photograph()}
    planned = plan(graph, callback=callback)
    assert planned.steps[0].schedule.name == ("pixels" if callback else "image")
    lower(graph, planned, targets.get("stm32f746"), folder, "embedding", Vector(feeds, interpret.run(graph, feeds)))
    sources = [*sorted((folder / "src").glob("*.c")), folder / "test" / "harness.c"]
    return ctypes.CDLL(str(toolchain.compile_shared(sources, folder / "embedding.so"))), planned.arena_bytes


@pytest.mark.parametrize(("patch", "pads"), PATCHES)
@pytest.mark.parametrize("callback", [True, False], ids=["pixels", "image"])
def test_check_11_patch_embedding_by_patch_equals_the_convolution(
    tmp_path: Path, patch: int, pads: tuple[int, int, int, int], callback: bool
) -> None:
    graph, image = embedding(patch, pads), photograph()
    wanted = interpret.run(embedding(patch, pads, convolution=True), {"image": image})["tokens"]
    got = np.zeros(wanted.shape, np.int8)
    loaded, _ = library(tmp_path, graph, callback)
    assert loaded["embedding_harness"](image.ctypes.data_as(ctypes.c_void_p), got.ctypes.data_as(ctypes.c_void_p)) == 0
    assert len(np.unique(wanted)) > 100
    np.testing.assert_array_equal(got, wanted)


def test_only_pixels_inside_the_image_are_asked_for_each_of_them_once(tmp_path: Path) -> None:
    loaded, size = library(tmp_path, embedding(*PATCHES[1]), callback=True)
    image, asked = photograph()[0].reshape(SIDE, SIDE * 3), np.zeros((SIDE, SIDE * 3), int)

    @PIXELS
    def camera(user: int, y: int, x: int, count: int, out: int) -> None:
        inside = 0 <= y < SIDE and 0 <= x and x + count <= SIDE * 3 and count > 0
        asked[y if inside else slice(None), x : x + count] += 1 if inside else 99
        if inside:
            ctypes.memmove(out, image[y, x : x + count].ctypes.data, count)

    arena = (ctypes.c_double * (-(-size // 8)))()
    loaded["embedding_run"](arena, camera, None)
    assert (asked == 1).all()


def test_of_two_images_the_larger_comes_through_the_callback(tmp_path: Path) -> None:
    """There is one callback: the other image is held in RAM."""
    draw, graph, feeds = np.random.default_rng(2), Graph("embedding"), {}
    for name, side in (("left", 8), ("right", 12)):
        image = graph.input(name, Type("int8", (1, side, side, 3), Quant(0.02)))
        weight = graph.constant(draw.integers(-127, 128, (6, 4, 4, 3)).astype(np.int8))
        bias, mult = graph.constant(np.zeros(6, np.int32)), graph.constant(np.full(6, 2**22, np.int32))
        graph.output(graph.add(QPatchEmbed(Quant(0.1), "int8", (4, 4)), image, weight, bias, mult), f"{name}_tokens")
        feeds[name] = draw.integers(-128, 128, image.shape).astype(np.int8)
    planned, wanted = plan(graph), interpret.run(graph, feeds)
    assert planned.streamed == ("right",)
    lower(graph, planned, targets.get("stm32f746"), tmp_path, "embedding", Vector(feeds, wanted))
    sources = [*sorted((tmp_path / "src").glob("*.c")), tmp_path / "test" / "harness.c"]
    loaded = ctypes.CDLL(str(toolchain.compile_shared(sources, tmp_path / "embedding.so")))
    got = [np.zeros(array.shape, np.int8) for array in wanted.values()]
    assert loaded["embedding_harness"](*(ctypes.c_void_p(array.ctypes.data) for array in (*feeds.values(), *got))) == 0
    for array, right in zip(got, wanted.values(), strict=True):
        np.testing.assert_array_equal(array, right)


@pytest.mark.emulator
@pytest.mark.parametrize("callback", [True, False], ids=["pixels", "image"])
def test_a_padded_embedding_on_the_device_writes_the_arena_to_its_last_byte(tmp_path: Path, callback: bool) -> None:
    from edgesmith.runtimes import emulator

    graph, feeds = embedding(*PATCHES[1]), {"image": photograph()}
    planned, vector = plan(graph, callback=callback), Vector.of(graph, feeds)
    part = lower(graph, planned, targets.get("stm32f746"), tmp_path, "embedding", vector)
    (tmp_path / "manifest.json").write_text(json.dumps({**part, "target": "stm32f746"}))
    found = emulator.Program(tmp_path).measure([feeds["image"]])
    np.testing.assert_array_equal(found.raw[0], vector.outputs["tokens"])
    assert found.arena == planned.arena_bytes
