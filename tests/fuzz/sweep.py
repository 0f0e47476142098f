"""Every setting of every small seed given every number of note, one at a time: what chance may not come upon.

Settings are the attributes that an operator's schema names, the elements of constants, and the sizes of inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from mutations import REALS, TEXTS
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from seeds import seeds

MOST_NODES = 3
"""Of a seed: the same operators stand in smaller ones."""
ALIKE = 2
"""Seeds of the same operators that are taken."""
FIRST = 4
"""Elements of a list or a constant that get another number."""

INTEGERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 8, 1000, 65536, 2**28, 2**31, 2**62, 2**63 - 1)
SIZES = (-1, 0, 1, 2, 5, 65536, 2**31, 2**62)
"""Of an axis of an input."""


def swept() -> Iterator[tuple[str, bytes]]:
    """Models by name, each once."""
    seen: set[bytes] = set()
    taken: Counter[tuple[str, ...]] = Counter()
    for number, content in enumerate(seeds()):
        model = ModelProto()
        model.ParseFromString(content)
        kinds = tuple(node.op_type for node in model.graph.node)
        taken[kinds] += 1
        if len(kinds) > MOST_NODES or taken[kinds] > ALIKE:
            continue
        for name in _changes(model.graph):
            made = model.SerializeToString(deterministic=True)
            if made not in seen:
                seen.add(made)
                yield f"sweep/{number} {name}", made


def _changes(graph: GraphProto) -> Iterator[str]:
    """Change the graph in place, say how, and undo it."""
    for index, node in enumerate(graph.node):
        yield from (f"{node.op_type} {index} {change}" for change in _attributes(node))
    for tensor in graph.initializer:
        yield from (f"{tensor.name} {change}" for change in _constants(tensor))
    for each in graph.input:
        for axis, size in enumerate(each.type.tensor_type.shape.dim):
            before = size.dim_value
            for value in SIZES:
                size.dim_value = value
                yield f"{each.name}[{axis}] {value}"
            size.dim_value = before


def _attributes(node: NodeProto) -> Iterator[str]:
    kept = list(node.attribute)
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, onnx.defs.onnx_opset_version(), domain).attributes
        types = {name: int(each.type.value) for name, each in schema.items()}
    except onnx.defs.SchemaError:
        types = {}
    types |= {each.name: each.type for each in kept}
    for name, kind in sorted(types.items()):
        old = next((each for each in kept if each.name == name), None)
        others = [each for each in kept if each.name != name]
        for value in _values(kind, None if old is None else helper.get_attribute_value(old)):
            del node.attribute[:]
            node.attribute.extend([*others, helper.make_attribute(name, value, attr_type=kind)])
            yield f"{name} {value}"
        del node.attribute[:]
        if old is not None:
            node.attribute.extend(others)
            yield f"{name} dropped"
            del node.attribute[:]
        node.attribute.extend(kept)


def _values(kind: int, old: object) -> Iterator[object]:
    if kind == AttributeProto.INT:
        yield from INTEGERS
    elif kind == AttributeProto.FLOAT:
        yield from REALS
    elif kind == AttributeProto.STRING:
        yield from (text.encode() for text in TEXTS)
    elif kind in (AttributeProto.INTS, AttributeProto.FLOATS):
        whole = kind == AttributeProto.INTS
        items = list(old) if isinstance(old, (list, tuple)) else [1, 1] if whole else [1.0, 1.0]
        yield from ([], items[:-1], [*items, items[-1] if items else 1])
        for place in range(min(len(items), FIRST)):
            for number in INTEGERS if whole else REALS:
                yield [number if i == place else item for i, item in enumerate(items)]


def _constants(tensor: TensorProto) -> Iterator[str]:
    array, before = numpy_helper.to_array(tensor), TensorProto()
    before.CopyFrom(tensor)
    if array.dtype.kind not in "iuf":
        return
    whole = array.dtype.kind in "iu"
    limits = np.iinfo(array.dtype) if whole else None
    for place in range(min(array.size, FIRST)):
        for number in INTEGERS if whole else REALS:
            if limits is None or limits.min <= number <= limits.max:
                changed = array.copy()
                changed.reshape(-1)[place] = number
                tensor.CopyFrom(numpy_helper.from_array(changed, before.name))
                yield f"[{place}] {number}"
    for shape in ((), (0,), (1, *array.shape), array.shape[1:]):
        if shape != array.shape:
            tensor.CopyFrom(numpy_helper.from_array(np.resize(array, shape).astype(array.dtype), before.name))
            yield f"of {shape}"
    tensor.CopyFrom(before)
