"""What ONNX's checker lets pass, and its shape inference does not survive: refused node by node before either runs."""

from __future__ import annotations

import re

from onnx import NodeProto
from onnx.external_data_helper import uses_external_data

from ..ir.errors import ModelError
from .model import Model, all_nodes

MOST_AXES = 64
"""Of a tensor in numpy."""

_TERM = r"[A-Za-z ]*(\.\.\.[A-Za-z ]*)?"
EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")
"""Of Einsum: of any other character ONNX's inference never finds the end."""


def check_nodes(model: Model) -> None:
    """Refuse nodes that end ONNX's process, or that never end in it.

    Raises:
        ModelError: There is one.
    """
    for node, name in all_nodes(model.graph):
        complaint = _complaint(node)
        if complaint:
            raise ModelError(f"{node.op_type} '{name}' {complaint}", where=[name], do="export the model again")


def _complaint(node: NodeProto) -> str:
    """What is wrong with a node, or nothing."""
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            return f"refers to '{attribute.ref_attr_name}', an attribute of no function"
        if node.op_type != "Constant" and uses_external_data(attribute.t):
            return f"keeps '{attribute.name}' in another file"
        if attribute.name in ("axis", "axes"):
            beyond = [axis for axis in (attribute.i, *attribute.ints) if not -MOST_AXES <= axis < MOST_AXES]
            if beyond:
                return f"has the axis {beyond[0]}"
        if node.op_type == "GatherND" and attribute.name == "batch_dims" and attribute.i < 0:
            return f"has {attribute.i} axes of batches"
        if node.op_type == "Split" and attribute.name == "num_outputs" and attribute.i != len(node.output):
            return f"has {len(node.output)} outputs and says it has {attribute.i}"
        if node.op_type == "Einsum" and attribute.name == "equation":
            equation = attribute.s.decode(errors="replace")
            if not EQUATION.fullmatch(equation):
                return f"has the equation {equation!r}"
    return ""
