"""Fused groups: which nodes of an integer graph run together, so that what passes between them never lies in RAM whole.

Every group that holds more than one node has exactly one output, made by its last node, and every other value it
makes is read inside it only. Hence the groups can always be ordered: an edge out of a group leaves its last node,
which all its nodes lead to, so a cycle of groups would be a cycle of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..graph import Graph, Node, Value
from ..op import Op
from ..ops.integer import QLinear
from ..ops.integer_attention import QAttention
from ..ops.integer_conv import QConv, QPatchEmbed
from ..ops.integer_elementwise import QAdd, QTable8, QTable16
from ..ops.integer_norm import QLayerNorm, QRMSNorm
from ..ops.shape import Concat, Reshape, Transpose

NORMS = (QLayerNorm, QRMSNorm)
TABLES = (QTable8, QTable16)
Roles = dict[str, Node]


@dataclass(frozen=True, eq=False)
class Group:
    """Nodes executed together.

    Attributes:
        kind: "embed", "attention", "ffn", "rows", "conv", "view" (no code, same bytes) or "single".
        nodes: In data-flow order.
        inputs: Values read from RAM, each once, in order of first use.
        outputs: Values written to RAM.
        parameters: Constants read, each once.
        roles: The nodes by what they do: for "embed" embed, concat, add; for "attention" q, k, v, norm_q, norm_k,
            norm_v, attention, projection, add; for "conv" conv, table; for "ffn" and "rows" norm, add. Absent
            parts are absent.
    """

    kind: str
    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    parameters: tuple[Value, ...]
    roles: Roles = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its last output."""
        return self.outputs[-1].name

    @property
    def output(self) -> Value:
        """The only output."""
        (only,) = self.outputs
        return only

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one execution, nothing done twice."""
        return sum(node.op.macs(*(None if v is None else v.type for v in node.inputs)) for node in self.nodes)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all constants, each once."""
        return sum(value.type.nbytes for value in self.parameters)

    @property
    def sources(self) -> tuple[str, ...]:
        """ONNX names of all nodes, each once."""
        return tuple(dict.fromkeys(source for node in self.nodes for source in node.sources))

    def __repr__(self) -> str:
        """For debuggers."""
        return f"Group({self.kind} {self.name}: {', '.join(type(node.op).__name__ for node in self.nodes)})"


def form_groups(graph: Graph) -> list[Group]:
    """Partition an integer graph into groups, in an order in which they can run.

    Attention and embedding come first, because their parts would also fit plainer groups.
    """
    former = _Former(graph)
    for node in graph.nodes:
        if isinstance(node.op, QAttention):
            former.attention(node)
        elif isinstance(node.op, QPatchEmbed):
            former.embed(node)
        elif isinstance(node.op, QConv) and not is_rowwise_linear(node):
            former.conv(node)
    for node in graph.nodes:
        if former.free(node) and (isinstance(node.op, NORMS) or is_rowwise_linear(node)):
            former.chain(node)
    for node in graph.nodes:
        if former.free(node):
            former.close("view" if is_view(node) else "single", [node], {})
    return former.ordered()


def is_rowwise_linear(node: Node) -> bool:
    """A product of each row (token or pixel) with a weight: a linear layer, or a convolution that sees one pixel."""
    if isinstance(node.op, QLinear):
        return node.input(1).is_constant
    if not isinstance(node.op, QConv):
        return False
    op, weight = node.op, node.input(1)
    pointwise = op.groups == 1 and weight.shape[1:3] == (1, 1) and set(op.strides) == {1} and not any(op.pads)
    return pointwise and weight.is_constant


def is_view(node: Node) -> bool:
    """The output is the same bytes in the same order: a reshape, or a transpose that moves axes of length 1 only."""
    if node.inputs[0] is None or node.inputs[0].is_constant:
        return False
    if isinstance(node.op, Reshape):
        return True
    if not isinstance(node.op, Transpose):
        return False
    long = [axis for axis in node.op.perm if node.input(0).shape[axis] > 1]
    return long == sorted(long)


def bytes_of(value: Value) -> Value:
    """The value whose bytes these are: views followed back to what they look at."""
    while value.producer is not None and is_view(value.producer):
        value = value.producer.input(0)
    return value


def row_count(value: Value) -> int:
    """Rows of a value: everything but the last axis."""
    return value.type.size // max(1, value.shape[-1]) if value.shape else 1


def row_bytes(value: Value) -> int:
    """Bytes of one row."""
    return value.shape[-1] * value.type.numpy.itemsize


class _Former:
    """Collects groups; knows which nodes are still free."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.public = {id(value) for value in graph.outputs}
        self.group_of: dict[Node, Group] = {}

    def free(self, node: Node) -> bool:
        return node not in self.group_of

    def close(self, kind: str, nodes: Iterable[Node], roles: Roles) -> None:
        """Make a group of these nodes."""
        position = {node: i for i, node in enumerate(self.graph.nodes)}
        ordered = tuple(sorted(set(nodes), key=position.__getitem__))
        made = {id(value) for node in ordered for value in node.outputs}
        read = [value for node in ordered for value in node.inputs if value is not None and id(value) not in made]
        inputs = dict.fromkeys(value for value in read if not value.is_constant)
        parameters = dict.fromkeys(value for value in read if value.is_constant)
        leaving = (v for node in ordered for v in node.outputs if self._leaves(v, ordered))
        group = Group(kind, ordered, tuple(inputs), tuple(leaving), tuple(parameters), roles)
        self.group_of |= dict.fromkeys(ordered, group)

    def _leaves(self, value: Value, nodes: tuple[Node, ...]) -> bool:
        outside = [reader for reader in value.readers if reader not in nodes]
        return bool(outside) or id(value) in self.public or not value.readers

    def next(self, value: Value, *ops: type[Op]) -> Node | None:
        """The free node that is the only reader of `value`, if it applies one of `ops`."""
        readers = value.readers
        if len(readers) != 1 or id(value) in self.public or not self.free(readers[0]):
            return None
        return readers[0] if isinstance(readers[0].op, ops) else None

    def residual(self, value: Value) -> Node | None:
        """The only reader of `value`, if it adds a value that has the shape and element type of the sum."""
        add = self.next(value, QAdd)
        if add is None:
            return None
        others = [v for v in add.inputs if v is not value and v is not None]
        fits = len(others) == 1 and others[0].shape == value.shape == add.output.shape
        return add if fits and others[0].dtype == add.output.dtype else None

    # ---- the kinds ----

    def embed(self, node: Node) -> None:
        """A patch embedding, constant tokens joined to it and constant tables added."""
        roles: Roles = {"embed": node}
        value = node.output
        while (step := self.next(value, Concat, QAdd)) is not None:
            role = "concat" if isinstance(step.op, Concat) else "add"
            others = [v for v in step.inputs if v is not value]
            if role in roles or any(v is None or not v.is_constant for v in others):
                break
            roles[role] = step
            value = step.output
        self.close("embed", roles.values(), roles)

    def attention(self, node: Node) -> None:
        """An attention with the projections that feed it and nothing else, their norms, and what follows row by row."""
        roles: Roles = {"attention": node}
        for side, value in zip("qkv", node.inputs, strict=False):
            producer = value.producer if value is not None else None
            if producer is not None and is_rowwise_linear(producer) and self.next(producer.output, QAttention):
                roles[side] = producer
        for side in "qkv":
            norm = roles[side].input(0).producer if side in roles else None
            if norm is not None and isinstance(norm.op, NORMS) and self._only_feeds(norm.output, roles):
                roles[f"norm_{side}"] = norm
        projection = self.next(node.output, QLinear)
        if projection is not None:
            roles["projection"] = projection
            add = self.residual(projection.output)
            if add is not None and self._stands_apart(add, projection.output):
                roles["add"] = add
        self.close("attention", roles.values(), roles)

    def _only_feeds(self, value: Value, roles: Roles) -> bool:
        linears = [roles[side] for side in "qkv" if side in roles]
        return id(value) not in self.public and all(reader in linears for reader in value.readers)

    def _stands_apart(self, add: Node, value: Value) -> bool:
        """Whether the other operand of `add` is there before the group starts: a constant is not a stream."""
        return not any(v is not value and v is not None and v.is_constant for v in add.inputs)

    def conv(self, node: Node) -> None:
        """A convolution and the table that its epilogue applies."""
        roles: Roles = {"conv": node}
        if (table := self.next(node.output, *TABLES)) is not None:
            roles["table"] = table
        self.close("conv", roles.values(), roles)

    def chain(self, node: Node) -> None:
        """Row by row: [norm], then linear layers with tables between them, and at last a sum with the stream."""
        nodes, roles = [node], Roles()
        if isinstance(node.op, NORMS):
            roles["norm"] = node
        while (step := self._follower(nodes[-1])) is not None:
            nodes.append(step)
            if isinstance(step.op, QAdd):
                roles["add"] = step
                break
        linears = sum(map(is_rowwise_linear, nodes))
        self.close("ffn" if linears > 1 and "add" in roles else "rows", nodes, roles)

    def _follower(self, node: Node) -> Node | None:
        """What may join the chain after `node`: tables and sums are epilogues of linear layers."""
        value = node.output
        step = self.next(value, QLinear, QConv)
        if step is not None and is_rowwise_linear(step) and step.inputs[0] is value:
            return step
        if isinstance(node.op, NORMS):
            return None
        if is_rowwise_linear(node) and (table := self.next(value, *TABLES)) is not None:
            return table
        add = self.residual(value)
        return add if add is not None and self._stands_apart(add, value) else None

    def ordered(self) -> list[Group]:
        """All groups, each after those it reads from; ties in the order of the graph."""
        groups = list(dict.fromkeys(self.group_of[node] for node in self.graph.nodes))
        done: set[int] = {id(value) for value in self.graph.inputs}
        return list(_sort(groups, done))


def _sort(groups: list[Group], done: set[int]) -> Iterator[Group]:
    while groups:
        ready = next(group for group in groups if all(id(value) in done for value in group.inputs))
        done |= {id(value) for value in ready.outputs}
        groups.remove(ready)
        yield ready
