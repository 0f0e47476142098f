"""A float graph as PyTorch runs it: batches, gradients, and norms that take their statistics from the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...ir.errors import Unsupported
from ...ir.graph import Graph, Node
from ...ir.op import Op
from ...ir.ops import activation, attention, conv, elementwise, linear, norm, pool, shape

__all__ = ["Moments", "Phase", "Program"]

Weights = Mapping[str, Tensor]


@dataclass
class Moments:
    """Sums over batches of what a norm saw of each channel: elements, values and squares."""

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def see(self, x: Tensor) -> None:
        """Add the rows of x [rows, channels]."""
        self.count += len(x)
        self.total = self.total + x.sum(0)
        self.squares = self.squares + (x * x).sum(0)

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Of all rows seen."""
        mean = torch.as_tensor(self.total) / self.count
        return mean, (torch.as_tensor(self.squares) / self.count - mean * mean).clamp(min=0)


@dataclass(frozen=True)
class Phase:
    """How norms behave.

    Attributes:
        training: Whether BatchNorm and RepNorm take the statistics of the batch instead of those in the weights.
        share: What is left of LayerNorm in each RepNorm: PRepBN, share * LN(x) + (1 - share) * (BN(x) + eta * x).
            Source: Guo et al., SLAB, section 3.2.
        seen: Where statistics are gathered, by the name of the norm's mean; None gathers none.
    """

    training: bool = False
    share: float = 0.0
    seen: dict[str, Moments] | None = field(default=None, compare=False)


class Program:
    """The nodes of a graph in order; weights come from outside, by the names of the graph's constants."""

    def __init__(self, graph: Graph) -> None:
        """Take a graph with one input and one output, written for a batch of one.

        Raises:
            Unsupported: Ops without a form here; all are named.
        """
        self.graph = graph
        self.nodes = graph.nodes
        lacking = sorted({type(node.op).__name__ for node in self.nodes if type(node.op) not in (*FORMS, *NORMS)})
        if lacking:
            raise Unsupported("PyTorch has no form of " + ", ".join(lacking), do="leave them out of the search space")
        self.constants = {value.name: np.array(value.array) for value in graph.constants}
        moments = {node.input(i).name for node in self.nodes if type(node.op) in NORMS for i in (3, 4)}
        self.trained = [value.name for value in graph.constants if _learns(value.array) and value.name not in moments]

    def __call__(self, weights: Weights, x: Tensor, phase: Phase | None = None) -> Tensor:
        """Run on a batch.

        Args:
            weights: A tensor for each constant, of its shape.
            x: [B, ...], the graph's input with any number of samples.
            phase: How norms behave; by default as they are deployed.
        """
        phase = phase or Phase()
        live: dict[str, Tensor] = {self.graph.inputs[0].name: x}
        for node in self.nodes:
            operands = [None if v is None else live[v.name] if v.name in live else weights[v.name] for v in node.inputs]
            if type(node.op) in NORMS:
                results: Any = _norm(node, operands, phase)
            else:
                results = FORMS[type(node.op)](node.op, *operands)
            made = results if isinstance(results, tuple) else (results,)
            live.update((value.name, tensor) for value, tensor in zip(node.outputs, made, strict=True))
        return live[self.graph.outputs[0].name]


def _learns(array: np.ndarray) -> bool:
    """Numbers that belong to the arithmetic (a square's exponent, an epsilon) have no axes."""
    return array.dtype.kind == "f" and array.ndim > 0


def _norm(node: Node, operands: list[Any], phase: Phase) -> Tensor:
    """BatchNorm or RepNorm, whose channels stand on any axis."""
    op: Any = node.op
    x, scale, bias, mean, variance = operands[:5]
    axis = op.axis % x.ndim
    rows = x.movedim(axis, -1).reshape(-1, x.shape[axis])
    if phase.seen is not None:
        phase.seen.setdefault(node.input(3).name, Moments()).see(rows.detach())
    if phase.training:  # images stay as they are: the rows above are a copy
        y = functional.batch_norm(x if axis == 1 else rows, None, None, scale, bias, True, 0.0, op.eps)
    else:
        y = functional.batch_norm(x if axis == 1 else rows, mean, variance, scale, bias, False, 0.0, op.eps)
    if axis != 1:
        y = y.reshape(x.movedim(axis, -1).shape).movedim(-1, axis)
    if isinstance(op, norm.RepNorm):
        eta = operands[5].reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        y = y + eta * x
        if phase.share:
            layer = functional.layer_norm(x.movedim(axis, -1), x.shape[axis : axis + 1]).movedim(-1, axis)
            y = phase.share * layer + (1 - phase.share) * y
    return y


def _conv(op: Any, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    top, left, bottom, right = op.pads
    if (top, left) != (bottom, right):
        x, top, left = functional.pad(x, (left, right, top, bottom)), 0, 0
    return functional.conv2d(x, w, b, op.strides, (top, left), op.dilations, op.groups)


def _patch_embed(op: Any, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    top, left, bottom, right = op.pads
    return functional.conv2d(functional.pad(x, (left, right, top, bottom)), w, b, op.patch).flatten(2).transpose(1, 2)


def _attention(op: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    q, k, v = (x.reshape(*x.shape[:2], op.heads, -1).transpose(1, 2) for x in (q, k, v))
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=op.scale)
    return mixed.transpose(1, 2).flatten(2)


def _average(op: Any, x: Tensor) -> Tensor:
    top, left, bottom, right = op.pads
    if (top, left) != (bottom, right):
        raise Unsupported("PyTorch has no average pooling whose borders differ", do="leave it out of the search space")
    return functional.avg_pool2d(x, op.kernel, op.strides, (top, left), op.ceil_mode, op.count_include_pad)


def _along(vector: Tensor, op: Any, x: Tensor) -> Tensor:
    return vector.reshape([-1 if i == op.axis % x.ndim else 1 for i in range(x.ndim)])


def _rms(op: Any, x: Tensor, scale: Tensor | None = None) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], scale, op.eps)


def _concat(op: Any, *parts: Tensor) -> Tensor:
    batch = max(len(part) for part in parts)  # constants such as a class token have a batch of one
    return torch.cat([part.expand(batch, *part.shape[1:]) if len(part) == 1 else part for part in parts], op.axis)


def _slice(op: Any, x: Tensor) -> Tensor:
    if min(op.steps) < 1:
        raise Unsupported("PyTorch has no slices that run backwards", do="leave them out of the search space")
    return x[op.index(x.ndim)]


def _gather(op: Any, x: Tensor, indices: Tensor) -> Tensor:
    picked = torch.index_select(x, op.axis % x.ndim, indices.reshape(-1).long())
    axis = op.axis % x.ndim
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _resize(op: Any, x: Tensor) -> Tensor:
    """Along each axis by the matrix that the reference makes of the unit images."""
    matrices = (
        replace(op, size=(target, source)).reference(np.eye(source)[None, None])[0, 0]
        for source, target in zip(x.shape[2:], op.size, strict=True)
    )
    rows, columns = (torch.from_numpy(each).to(x) for each in matrices)
    return rows @ x @ columns.T


NORMS: tuple[type[Op], ...] = (norm.BatchNorm, norm.RepNorm)

FORMS: Mapping[type[Op], Callable[..., Any]] = {
    linear.Linear: lambda op, x, w, b=None: functional.linear(x, w, b),
    linear.MatMul: lambda op, a, b: a @ b,
    conv.Conv: _conv,
    conv.PatchEmbed: _patch_embed,
    attention.Attention: _attention,
    norm.LayerNorm: lambda op, x, g=None, b=None: functional.layer_norm(x, x.shape[-1:], g, b, op.eps),
    norm.RMSNorm: _rms,
    activation.Gelu: lambda op, x: (
        x * torch.sigmoid(1.702 * x) if op.approximate == "sigmoid" else functional.gelu(x, approximate=op.approximate)
    ),
    activation.Relu: lambda op, x: functional.relu(x),
    activation.Silu: lambda op, x: functional.silu(x),
    activation.HardSwish: lambda op, x: functional.hardswish(x),
    activation.Sigmoid: lambda op, x: torch.sigmoid(x),
    activation.Tanh: lambda op, x: torch.tanh(x),
    activation.Clip: lambda op, x: x.clamp(op.minimum, op.maximum),
    activation.Reciprocal: lambda op, x: x.reciprocal(),
    activation.Softmax: lambda op, x: x.softmax(op.axis),
    elementwise.Add: lambda op, a, b: a + b,
    elementwise.Sub: lambda op, a, b: a - b,
    elementwise.Mul: lambda op, a, b: a * b,
    elementwise.Div: lambda op, a, b: a / b,
    elementwise.Affine: lambda op, x, a, c: x * _along(a, op, x) + _along(c, op, x),
    pool.AveragePool: _average,
    pool.Mean: lambda op, x: x.mean(op.axes, op.keepdims),
    pool.Sum: lambda op, x: x.sum(op.axes, op.keepdims),
    # What stands first is the batch, or counts windows within it: either grows with the number of samples.
    shape.Reshape: lambda op, x: x.reshape(-1, *op.shape[1:]),
    shape.Transpose: lambda op, x: x.permute(op.perm),
    shape.Concat: _concat,
    shape.Slice: _slice,
    shape.Split: lambda op, x: torch.split(x, list(op.sizes), op.axis),
    shape.Gather: _gather,
    shape.Resize: _resize,
}
