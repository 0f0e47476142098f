"""What tests of the TFLite back end share: graphs of one op, LiteRT as the judge, random graphs."""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgesmith.ir.graph import Graph, Type


def one_op(op, arrays, constant):
    """A graph of one op and the arrays it is fed; all operands but the first are constants if `constant`."""
    graph, feeds, operands = Graph("one"), {}, []
    for index, array in enumerate(arrays):
        if array is None:
            operands.append(None)
        elif index and (constant or array.dtype.kind == "i"):
            operands.append(graph.constant(array.copy(), f"c{index}"))
        else:
            feeds[f"i{index}"] = array
            operands.append(graph.input(f"i{index}", Type(array.dtype.name, array.shape)))
    made = graph.add(op, *operands, name="node", sources=("first", "second"))
    for index, value in enumerate(made if isinstance(made, tuple) else (made,)):
        graph.output(value, f"y{index}")
    return graph, feeds


def interpreter(data, delegate=True):
    """LiteRT on one thread, with XNNPACK or with its built-in kernels only."""
    kinds = OpResolverType
    kind = kinds.AUTO if delegate else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    made = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)
    made.allocate_tensors()
    return made


def run_file(data, feeds, delegate=True):
    """Outputs by name, through the signature."""
    runner = interpreter(data, delegate).get_signature_runner("serving_default")
    return runner(**feeds)


def delegated(data):
    """Whether XNNPACK takes every operator, in one piece."""
    return sum(each["op_name"] == "DELEGATE" for each in interpreter(data)._get_ops_details()) == 1 and not left(data)


def left(data):
    """Operators that stay on built-in kernels: those whose results the delegate takes or does not make."""
    made = interpreter(data)
    details = made._get_ops_details()
    delegates = [each for each in details if each["op_name"] == "DELEGATE"]
    given = {int(index) for each in delegates for index in each["outputs"]}
    taken = {int(index) for each in delegates for index in each["inputs"]}
    public = {each["index"] for each in made.get_output_details()}
    found = []
    for each in details:
        outputs = {int(index) for index in each["outputs"]}
        if each["op_name"] != "DELEGATE" and not outputs & given and outputs & (taken | public):
            found.append(each["op_name"])
    return found


def agree(actual, expected, share=1e-5):
    """Same names, shapes and types, and no number off by more than that share of the largest."""
    assert sorted(actual) == sorted(expected)
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape and actual[name].dtype == wanted.dtype, name
        error = np.abs(actual[name].astype(np.float64) - wanted).max(initial=0.0)
        assert error <= share * max(np.abs(wanted).max(initial=0.0), 1e-3), (name, error)
