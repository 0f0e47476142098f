"""What networks take of targets that a back end writes files for."""

import pytest

from edgesmith import load, targets
from edgesmith.ir.passes.pipelines import run_pipeline
from edgesmith.ir.workload import workload
from edgesmith.nas import phone


@pytest.fixture(scope="module")
def graph(fashion):
    return load(fashion / "model.onnx")


def test_weights_and_products_are_those_of_the_graph(graph):
    found = phone.costs(graph, targets.get("iphone15"))
    assert found.flash == sum(value.type.nbytes for value in graph.constants) and found.macs == 8_389_440
    assert found.latency is None and found.ram is None


@pytest.mark.tflite
def test_latency_is_the_estimate_of_what_the_back_end_writes(graph):
    from edgesmith import lowering

    device = targets.get("galaxys25")
    written = graph.copy()
    run_pipeline(written, lowering.load("tflite").passes("float32"))
    assert phone.costs(graph, device).latency == device.estimate("float32").milliseconds(workload(written)) > 0
