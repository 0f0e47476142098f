"""Runs graphs through the TVM back end on this computer, for the tests that hold it to the reference."""

from __future__ import annotations

import numpy as np
import pytest

from edgesmith import runtimes, targets
from edgesmith.lowering.tvm import child
from edgesmith.lowering.tvm.lower import lower
from edgesmith.lowering.tvm.machine import Machine

BOUND = 1e-5
HERE = Machine.of(targets.get("tvm-cpu").format)


def needs_tvm():
    return pytest.importorskip("tvm", reason="pip install edgesmith[tvm]")


def outputs(graph, feeds, folder, machine=HERE):
    """What the compiled graph computes."""
    child.build(lower(graph, machine)[0], folder / "model.so")
    session = runtimes.load("tvm").open(folder / "model.so")
    try:
        return session.run(feeds)
    finally:
        session.close()


def agree(found, wanted):
    assert set(found) == set(wanted)
    for name, reference in wanted.items():
        assert found[name].shape == reference.shape and found[name].dtype == np.float32
        assert np.abs(found[name] - reference).max() <= BOUND * np.abs(reference).max(), name
