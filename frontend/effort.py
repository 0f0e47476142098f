"""What it takes to compute a constant: a file of some bytes can ask for hours of work, and for all memory there is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from onnx import NodeProto

from ..ir.errors import ModelError
from ..ir.graph import Type

LARGEST = 2**26
"""Elements of a folded constant; ViT's largest tables have 2^22."""
LARGEST_TOGETHER = 2**28
"""Elements of all constants that are folded at a time, those in between included."""
MOST_WORK = 2**34
"""Multiplications of all of them: some seconds of one core."""

PRODUCTS = frozenset({"Gemm", "MatMul", "MatMulInteger"})
CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "ConvTranspose": 1, "DeformConv": 1, "QLinearConv": 3}
"""Which operand has the weights."""
POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})
OTHERS = frozenset({"Attention", "Col2Im", "DFT", "Det", "GRU", "LRN", "LSTM", "NonMaxSuppression", "RNN", "STFT"})
"""Operators of which an element of the result may take any number of elements of the operands."""


class Budget:
    """What the constants that are folded at a time take together."""

    def __init__(self) -> None:
        """Nothing is spent yet."""
        self.elements = self.work = 0

    def spend(self, node: NodeProto, name: str, types: Mapping[str, Type]) -> None:
        """Count a node in.

        Raises:
            ModelError: With it, it is too much.
        """
        made = [types[each] for each in node.output if each in types]
        largest = max(made, key=lambda each: each.size, default=Type("bool", ()))
        if largest.size > LARGEST:
            raise ModelError(f"the constant '{name}' would have the size {largest.shape}", where=[name])
        self.elements += sum(each.size for each in made)
        self.work += _work(node, types)
        if self.elements > LARGEST_TOGETHER or self.work > MOST_WORK:
            what = f"the model's constants take more than {LARGEST_TOGETHER} numbers or {MOST_WORK} multiplications"
            raise ModelError(what, where=[name], do="export the model with its constants computed")


def _work(node: NodeProto, types: Mapping[str, Type]) -> int:
    """An upper bound of a node's multiplications."""
    read = [types[each].shape if each in types else () for each in node.input]
    results = sum(types[each].size for each in node.output if each in types)
    if node.op_type in PRODUCTS:
        return results * max(read[0], default=1)
    if node.op_type in CONVOLUTIONS:
        return results * math.prod(read[CONVOLUTIONS[node.op_type]][1:])
    if node.op_type in POOLS:
        kernel = [size for each in node.attribute if each.name == "kernel_shape" for size in each.ints]
        return results * math.prod(abs(int(size)) for size in kernel)
    if node.op_type == "Einsum":
        equation = next(each.s.decode(errors="replace") for each in node.attribute if each.name == "equation")
        return math.prod(dict(_letters(equation, read)).values())
    return results * sum(map(math.prod, read)) if node.op_type in OTHERS else 0


def _letters(equation: str, shapes: list[tuple[int, ...]]) -> Iterator[tuple[str, int]]:
    """The letters of an Einstein sum and the sizes of their axes; what dots stand for has the operand's name."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    for index, (term, shape) in enumerate(zip(terms, shapes, strict=False)):
        before, dots, after = term.partition("...")
        rest = len(shape) - len(after)
        yield from zip(before, shape, strict=False)
        yield from zip(after, shape[rest:], strict=False)
        if dots:
            yield f"...{index}", math.prod(shape[len(before) : rest])
