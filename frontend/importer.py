"""ONNX nodes become ops of the graph, one rule each; what no rule takes is reported in one error."""

from __future__ import annotations

import re

import numpy as np

from ..ir.errors import ModelError, Unsupported
from ..ir.graph import Graph, Type, Value
from ..ir.ops.shape import COPY
from .call import RULES, Call, FormError, kind
from .model import Model, dtype_of, label
from .shapes import infer

MISFITS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a rule stumbles over when a list is too short or an attribute of another type than ONNX demands."""

REFUSALS = (
    (
        r"If|Loop",
        "what is computed decides on the way it takes or on the number of rounds; only constants may",
        "export in evaluation mode with fixed shapes, so that control flow is decided or gone",
    ),
    (r"Scan", "it is read in no form", "write the steps out before the export, or use LSTM, GRU or RNN"),
    (
        r"Sequence\w*|SplitToSequence|ConcatFromSequence|Optional\w*",
        "lists of tensors have no fixed memory",
        "stack or concatenate the tensors before the export",
    ),
    (
        r"String\w*|RegexFullMatch|TfIdfVectorizer|LabelEncoder|ai\.onnx\.ml\..*",
        "it works on texts or tables, not on tensors of numbers",
        "leave that step to the program that feeds the model",
    ),
    (
        r"Random\w*|Bernoulli|Multinomial",
        "its results differ from run to run",
        "export in evaluation mode, without sampling",
    ),
    (
        r"com\.microsoft\.nchwc\..*",
        "it has the memory layout of one processor",
        "save the optimised model with level ORT_ENABLE_EXTENDED, or give the model from before",
    ),
    (
        r"NonZero|Unique|Compress|NonMaxSuppression",
        "the size of its result depends on the data",
        "leave that step to the program that reads the outputs",
    ),
)
"""Operators that have no rule for a reason: which, why, and what to do instead."""


def build(model: Model) -> Graph:
    """The graph of a folded model.

    Raises:
        Unsupported: Operators, or forms of them, that no rule takes: all at once.
        ShapeError: Operands do not fit.
    """
    from . import rules  # noqa: F401  (importing the families fills the table)

    return _Builder(model).build()


class _Builder:
    """One import: values by their ONNX names, and what was refused on the way."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.graph = Graph(model.name)
        self.graph.metadata.update({entry.key: entry.value for entry in model.proto.metadata_props})
        self.values: dict[str, Value] = {}
        self.constants: dict[int, Value] = {}
        self.missing: dict[str, list[str]] = {}
        for index, node in enumerate(model.graph.node):
            if kind(node) not in RULES:
                self.missing.setdefault(kind(node), []).append(label(node, index))
        self.refused: dict[str, str] = {}
        self.types: dict[str, Type] | None = None

    def build(self) -> Graph:
        for each in self.model.graph.input:
            tensor = each.type.tensor_type
            shape = tuple(d.dim_value for d in tensor.shape.dim)
            made = self.graph.input(each.name, Type(dtype_of(tensor.elem_type), shape))
            self.values[each.name] = made if made.type.size else self.graph.constant(np.zeros(shape, made.dtype))
        read = {name for node in self.model.graph.node for name in node.input}
        read |= {each.name for each in self.model.graph.output}
        try:
            for index, node in enumerate(self.model.graph.node):
                operands = tuple(self._operand(name) if name else None for name in node.input)
                call = Call(self.graph, node, label(node, index), operands, self.model.opset, read)
                result = self._result(call)
                self.values.update(zip(node.output, result if isinstance(result, tuple) else (result,), strict=False))
        except ModelError as error:
            if self.missing or self.refused:  # what stands in for refused nodes may not suit others
                raise self._complaint() from error
            raise
        if self.missing or self.refused:
            raise self._complaint()
        for each in self.model.graph.output:
            self._output(each.name)
        return self.graph

    def _result(self, call: Call) -> Value | tuple[Value, ...]:
        """What the rule for a node makes of it, or stand-ins where there is none, or none for its form."""
        node, rule = call.node, RULES.get(kind(call.node))
        if rule is None:
            return self._stand_ins(call)
        try:
            return rule(call)
        except FormError as error:
            self.refused[call.name] = f"{node.op_type} '{call.name}': {error}"
            return self._stand_ins(call)
        except MISFITS as error:
            what = f"the operands or attributes of {node.op_type} '{call.name}' do not fit together"
            raise ModelError(what, where=[call.name], why=str(error), do="export the model again") from error

    def _operand(self, name: str) -> Value:
        if name not in self.values:
            array = self.model.weights.get(name)
            if array is None:
                raise ModelError(f"no operator computes '{name}', which is read", where=[name], do="export it again")
            if id(array) not in self.constants:
                single = array.astype(np.float32) if array.dtype == np.float64 else array
                self.constants[id(array)] = self.graph.constant(single, name)
            self.values[name] = self.constants[id(array)]
        return self.values[name]

    def _stand_ins(self, call: Call) -> tuple[Value, ...]:
        """Inputs in place of a refused node's results, so that the refusals after it are found as well."""
        self.types = self.types or infer(self.model)
        if not all(name in self.types for name in call.node.output if name):
            raise self._complaint()
        names = [name or "unread" for name in call.node.output]
        return tuple(self.graph.input(name, self.types.get(name, Type("float32", ()))) for name in names)

    def _complaint(self) -> Unsupported:
        """Everything that was refused: operators that no rule is for, with the reason where there is one, and forms."""
        counted = {name: f"{name} ({len(names)})" for name, names in sorted(self.missing.items())}
        known = {
            name: (reason, hint)
            for name in counted
            for pattern, reason, hint in REFUSALS
            if re.fullmatch(pattern, name)
        }
        why = [f"{text}: {known[name][0]}" if name in known else text for name, text in counted.items()]
        hints = dict.fromkeys(hint for _, hint in known.values())
        if counted and not hints:
            hints["replace these layers before the export, or fix the shapes so that they fold"] = None
        if self.refused:
            hints["change these layers before the export"] = None
        what = [f"operators that are not supported: {', '.join(counted)}"] if counted else []
        what += ["forms of operators that are not supported"] if self.refused else []
        return Unsupported(
            f"the model has {', and '.join(what)}",
            where=dict.fromkeys(name for names in (*self.missing.values(), self.refused) for name in names),
            why="; ".join([*why, *self.refused.values()]),
            do="; ".join(hints),
        )

    def _output(self, name: str) -> None:
        value = self._operand(name)
        taken = value.producer is None or any(value is other for other in self.graph.outputs)
        if taken:  # an output has a name and storage of its own
            if value.is_constant and value.name == name:
                self.graph.rename(value, f"{name}.constant")
            value = self.graph.add(COPY, value, name=name)
        self.graph.output(value, name)
