"""Constant folding that changes no bit: what depends on weights and static shapes alone is computed by ONNX Runtime.

The kernels that fold are those that would run, one by one and unfused, so results are equal to the last bit.
Convolution and BatchNorm, or any two run-time operators, are left as they are. Control flow that turns out to be
decided is written out on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, ValueInfoProto, helper

from ..ir.errors import ModelError
from ..ir.graph import Array, Type
from .control import straighten
from .effort import Budget
from .model import Model, declare, label, reads
from .reader import STANDARD
from .shapes import infer

MOST_ROUNDS = 200
"""Times that constants decide on control flow which makes further constants: each time all types are inferred anew."""

NEVER = frozenset(
    {
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "If",
        "Loop",
        "Scan",
    }
)
OLDEST_KERNELS = 7
"""Opset from which on ONNX Runtime has kernels; what is older is computed as it is imported."""

BOUNDED = frozenset({"NonZero", "Unique", "Compress"})
"""Sizes known only when run, but never beyond a few times their operand's."""


def fold(model: Model) -> None:
    """Turn constant subgraphs into weights; the model is changed in place.

    Raises:
        ModelError: A constant would be absurdly large, or ONNX Runtime cannot compute it.
    """
    for _ in range(MOST_ROUNDS):
        types = infer(model)
        _measure(model, types)
        chosen = _constant_nodes(model, types)
        if not chosen and not straighten(model):
            _sweep(model)
            return
        nodes = list(model.graph.node)
        rest = [node for index, node in enumerate(nodes) if index not in chosen]
        wanted = {name for node in rest for name in reads(node)} | {each.name for each in model.graph.output}
        _evaluate(model, [nodes[index] for index in sorted(chosen)], wanted)
        _drop(model, rest)
    what = f"more than {MOST_ROUNDS} constants decide on control flow one after the other"
    raise ModelError(what, do="export the model in evaluation mode with fixed shapes")


def _drop(model: Model, kept: Sequence[NodeProto]) -> None:
    nodes = list(kept)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _measure(model: Model, types: dict[str, Type]) -> None:
    """Answer Shape, Size and Identity of constants without running anything; readers see new weights."""
    kept = []
    for node in model.graph.node:
        source = node.input[0] if node.input else ""
        if node.op_type in ("Shape", "Size") and node.domain in STANDARD and source in types:
            shape = types[source].shape
            cut = {a.name: a.i for a in node.attribute}
            sizes = shape[slice(cut.get("start", 0), cut.get("end", None))]
            answer = np.asarray(sizes if node.op_type == "Shape" else math.prod(shape), np.int64)
            model.weights[node.output[0]] = answer
        elif node.op_type == "Identity" and source in model.weights:
            # The same array under a second name: shared weights stay shared.
            model.weights[node.output[0]] = model.weights[source]
        else:
            kept.append(node)
    _drop(model, kept)


def _constant_nodes(model: Model, types: dict[str, Type]) -> set[int]:
    """Positions of nodes whose operands are constants and whose results have a known and sane size."""
    known = set(model.weights)
    chosen: set[int] = set()
    budget = Budget()
    if model.opset < OLDEST_KERNELS:
        return chosen
    for index, node in enumerate(model.graph.node):
        if node.domain not in STANDARD or node.op_type in NEVER or not all(n in known for n in node.input if n):
            continue
        if _is_store(node, types):
            continue
        outputs = [name for name in node.output if name]
        if node.op_type not in BOUNDED and not all(name in types for name in outputs):
            continue
        budget.spend(node, label(node, index), types)
        chosen.add(index)
        known.update(outputs)
    return chosen


def _is_store(node: NodeProto, types: dict[str, Type]) -> bool:
    """Whether a node only says what stored bytes stand for: they stay bytes, of which back ends make what they can."""
    if node.op_type != "DequantizeLinear" or any(each.name == "block_size" and each.i for each in node.attribute):
        return False
    return node.input[0] in types and types[node.input[0]].dtype in ("int8", "uint8")


def _evaluate(model: Model, nodes: Sequence[NodeProto], wanted: set[str]) -> None:
    """Run the constant nodes alone and keep the results that others read."""
    made = [name for node in nodes for name in node.output if name]
    results = [name for name in made if name in wanted]
    operands = sorted({name for node in nodes for name in node.input if name in model.weights})
    if not results:
        return
    inputs = [declare(name, model.weights[name]) for name in operands]
    outputs = [ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph(nodes, "constants", inputs, outputs)
    part = helper.make_model(graph, opset_imports=model.proto.opset_import, ir_version=model.proto.ir_version)
    arrays = run(
        part.SerializeToString(), {name: model.weights[name] for name in operands}, [label(n, 0) for n in nodes]
    )
    model.weights.update(zip(results, arrays, strict=True))


def run(model: bytes, feeds: dict[str, Array], names: Sequence[str]) -> list[Array]:
    """Outputs of a model under ONNX Runtime with every optimisation off, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return list(session.run(None, feeds))
    except Exception as error:  # its exceptions share no base class
        raise ModelError(
            "constants of the model cannot be computed", where=names, why=str(error), do="export the model again"
        ) from error


def _sweep(model: Model) -> None:
    """Drop the weights that were read by folded nodes only."""
    read = {name for node in model.graph.node for name in reads(node)} | {each.name for each in model.graph.output}
    model.weights = {name: array for name, array in model.weights.items() if name in read}
