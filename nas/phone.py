"""What a network takes of a target that a back end writes files for: weights, products, and an estimated time."""

from __future__ import annotations

from .. import lowering
from ..ir.cost import cost
from ..ir.graph import Graph
from ..ir.passes.pipelines import run_pipeline
from ..targets import Target
from .problem import Costs

__all__ = ["costs"]


def costs(graph: Graph, target: Target) -> Costs:
    """Costs of a recognised float graph in the back end's first arithmetic.

    `flash` is the bytes of its constants as they are; `latency` is None where the target's file has no model of it.
    """
    found, dtype = cost(graph), lowering.offer(target.backend).dtypes[0]
    estimate, latency = target.estimate(dtype), None
    if estimate is not None:
        from ..ir.workload import workload

        made = graph.copy()
        run_pipeline(made, lowering.load(target.backend).passes(dtype))
        latency = estimate.milliseconds(workload(made))
    return Costs(found.macs, sum(value.type.nbytes for value in graph.constants), latency=latency)
