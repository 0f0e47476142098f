"""Whole small networks through quantiser, planner and code generator: every schedule has the reference's bits."""

from __future__ import annotations

import ctypes
import runpy
from pathlib import Path

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir import interpret
from edgesmith.ir.memory import plan
from edgesmith.ir.passes.pipelines import run_pipeline
from edgesmith.ir.passes.quantise import QuantOptions, convert
from edgesmith.lowering.c import toolchain
from edgesmith.lowering.c.lower import Vector, lower

pytestmark = pytest.mark.compiler

NETS = runpy.run_path(str(Path(__file__).with_name("small_networks.py")))["NETS"]


def addresses(arrays):
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


VARIANTS = [(name, stream, budget) for name in NETS for stream in ("int8", "int16") for budget in ("least", "plenty")]


@pytest.fixture(scope="module")
def built(tmp_path_factory, build):
    """All networks, streams and budgets in one shared object: (library, what each takes and must give)."""
    folder, sources, expected = tmp_path_factory.mktemp("graphs"), [], {}
    for name, stream, budget in VARIANTS:
        graph = NETS[name](build)
        shape = graph.inputs[0].shape
        run_pipeline(graph)
        data = np.random.default_rng(7).standard_normal((4, *shape[1:])).astype(np.float32)
        integer = convert(graph, data, QuantOptions(stream=stream)).graph
        entry = integer.inputs[0]
        limits = np.iinfo(entry.dtype)
        x = np.random.default_rng(3).integers(limits.min, limits.max, entry.shape, endpoint=True).astype(entry.dtype)
        wanted = interpret.run(integer, {entry.name: x})
        label = f"{name}_{stream}_{budget}"
        chosen = plan(integer, None if budget == "least" else 1 << 20)
        lower(integer, chosen, targets.get("host"), folder / label, label, Vector({entry.name: x}, wanted))
        sources += [*sorted((folder / label / "src").glob("*.c")), folder / label / "test" / "harness.c"]
        expected[label] = x, wanted
    return ctypes.CDLL(str(toolchain.compile_shared(sources, folder / "all.so", optimise="-O1"))), expected


@pytest.mark.parametrize(("name", "stream", "budget"), VARIANTS)
def test_a_network_has_the_bits_of_its_reference(built, name: str, stream: str, budget: str) -> None:
    library, expected = built
    x, wanted = expected[f"{name}_{stream}_{budget}"]
    got = {key: np.zeros_like(array) for key, array in wanted.items()}
    assert library[f"{name}_{stream}_{budget}_harness"](*addresses([x, *got.values()])) == 0
    for key, array in wanted.items():
        np.testing.assert_array_equal(got[key], array)
        assert len(np.unique(array)) > 1  # a constant answer would prove nothing
