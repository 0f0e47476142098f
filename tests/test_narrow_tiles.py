"""Tiles of int8 for cores that multiply bytes: Helium's core and its C twin equal the reference to the last bit."""

import ctypes
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgesmith.ir import integer, integer_layout
from edgesmith.lowering.c import toolchain

pytest.importorskip("ziglang")
pytestmark = pytest.mark.compiler
CALLS = runpy.run_path(str(Path(__file__).with_name("kernel_calls.py")))
SOURCE, FLAGS = CALLS["SOURCE"], CALLS["FLAGS"]
# One row, one channel, one output; lengths on both sides of sixteen; whole rounds and every remainder.
SHAPES = [(1, 1, 1), (2, 4, 3), (3, 5, 2), (4, 15, 5), (5, 16, 4), (7, 27, 3), (6, 60, 7), (3, 64, 6), (4, 200, 3)]


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """The portable form on this computer, where undefined behaviour traps."""
    flags = (*FLAGS, "-DES_TILE8=1", "-fsanitize=undefined", "-fsanitize-trap=undefined")
    shared = tmp_path_factory.mktemp("narrow") / "kernels.so"
    library = ctypes.CDLL(str(toolchain.compile_shared([SOURCE], shared, flags=flags)))

    def call(name, *arguments):
        values = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else int(a) for a in arguments]
        getattr(library, name)(*values)

    return call


@pytest.fixture(scope="module")
def helium(tmp_path_factory):
    """A Cortex-M55 in QEMU."""
    if not shutil.which("qemu-system-arm"):
        pytest.skip("needs qemu-system-arm")
    return CALLS["device_call"](tmp_path_factory.mktemp("helium"), "corstone300", names=("t_linear",))


@pytest.fixture(params=["twin", "helium"])
def call(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(("rows", "k", "n"), SHAPES)
def test_products_of_bytes_equal_the_reference(call, rows, k, n):
    noise = np.random.default_rng(rows * k * n)
    x, w = (noise.integers(-128, 128, shape).astype(np.int8) for shape in ((rows, k), (n, k)))
    bias = noise.integers(-9999, 9999, n).astype(np.int32)
    mult = noise.integers(2**20, 2**24, n).astype(np.int32)
    tile_rows = 3
    tile = np.full(tile_rows * (k + 3 & ~3) + 8, 0x5A5A, np.int16)
    out = np.zeros((rows, n), np.int8)
    pairs, none = integer_layout.pack_pairs, np.zeros(1, np.int8)
    weights, scaled = integer_layout.pack(w), pairs(mult)
    call("t_linear", x, 8, rows, k, weights, pairs(bias), n, tile, tile_rows, 0, out, 8, n, scaled, 0, -3, -128, 127,
         0, none, 0, 0, 0, 0)  # fmt: skip
    np.testing.assert_array_equal(out, integer.qlinear(x, w, bias, mult, zero_point=-3))
    assert (tile[-8:] == 0x5A5A).all()  # a narrow tile stays in the room of a wide one
