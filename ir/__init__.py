"""The graph IR: types, ops with numpy references, text form, verifier, interpreter, rewriter, passes, memory plans."""

from .graph import Graph, Node, Quant, Type, Value
from .op import Op

__all__ = ["Graph", "Node", "Op", "Quant", "Type", "Value"]
