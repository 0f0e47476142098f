"""ONNX files that a front end must refuse, each with the words its error owes the user.

Every maker writes into a folder and returns the file to load. Names in the files are telling ("broken_add"), so that a
test can ask for them in the message. Files are small, but for what some of them declare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    external_data_helper,
    helper,
    numpy_helper,
)

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
TOO_MANY_NODES = 200_000
NESTED = 200
"""Graphs within graphs: twice what protobuf's parser follows."""

MODEL_GRAPH, GRAPH_NODE, ATTRIBUTE_GRAPH = 7, 1, 6
NODE_INPUT, NODE_OUTPUT, NODE_KIND, NODE_ATTRIBUTE = 1, 2, 4, 5
"""Field numbers of onnx.proto."""

Maker = Callable[[Path], Path]


@dataclass(frozen=True)
class Hostile:
    """How to make a bad file and what must be said of it.

    Attributes:
        make: Writes the file into a folder and returns its path.
        mentions: Texts that the error must contain, in any case of letters.
        unsupported: The file is sound, but has operators out of scope: the error is `Unsupported`.
        valid: ONNX's own checker has nothing against the file.
    """

    make: Maker
    mentions: tuple[str, ...]
    unsupported: bool = False
    valid: bool = False


def value(name: str, shape: Sequence[int | str | None] | None = (1, 4), kind: int = FLOAT) -> ValueInfoProto:
    """Declare a graph input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name: str, array: object, dtype: str = "float32") -> TensorProto:
    """Make an initialiser."""
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def graph(
    nodes: Sequence[NodeProto],
    weights: Sequence[TensorProto] = (),
    inputs: Sequence[ValueInfoProto] | None = None,
    outputs: Sequence[ValueInfoProto] | None = None,
) -> GraphProto:
    """Make a graph from `x` [1, 4] to `y` [1, 4] unless told otherwise."""
    inputs = [value("x")] if inputs is None else inputs
    outputs = [value("y")] if outputs is None else outputs
    return helper.make_graph(nodes, "hostile", inputs, outputs, weights)


def model(content: GraphProto, opset: int = 17) -> ModelProto:
    """Wrap a graph."""
    return helper.make_model(content, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: object) -> NodeProto:
    """Make a node of the default domain."""
    return helper.make_node(kind, inputs, outputs, name, **attributes)


def save(folder: Path, content: ModelProto | bytes) -> Path:
    """Write the file; nothing is checked on the way."""
    path = folder / "hostile.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString(deterministic=True))
    return path


def files(content: bytes) -> Maker:
    """Make a file of these bytes."""
    return lambda folder: save(folder, content)


def graphs(nodes: Sequence[NodeProto], weights: Sequence[TensorProto] = (), opset: int = 17, **ends: object) -> Maker:
    """Make a model of one graph; `ends` are the inputs and outputs of `graph`."""
    return lambda folder: save(folder, model(graph(nodes, weights, **ends), opset))  # type: ignore[arg-type]


def single(kind: str, *weights: TensorProto, x: Sequence[int] = (1, 4), **attributes: object) -> Maker:
    """Make a model of the one node `broken` that reads `x` and the weights and writes `y` of the rank of `x`."""
    nodes = [node(kind, ["x", *[weight.name for weight in weights]], ["y"], "broken", **attributes)]
    return graphs(nodes, weights, inputs=[value("x", x)], outputs=[value("y", [None] * len(x))])


RELU = node("Relu", ["x"], ["y"], "relu")
SOUND = model(graph([RELU])).SerializeToString(deterministic=True)
CYCLE = [
    node("Add", ["x", "b"], ["a"], "first"),
    node("Relu", ["a"], ["b"], "second"),
    node("Abs", ["b"], ["y"], "end"),
]
ECHO = [node("Identity", ["x"], ["y"], "echo")]
TWICE = [RELU, node("Abs", ["x"], ["y"], "again")]
MYSTERIES = [
    node("NonZero", ["x"], ["n"], "nonzero"),
    node("Det", ["m"], ["d"], "determinant"),
    helper.make_node("Mystery", ["x"], ["y"], "riddle", domain="com.example"),
]
IMAGE = (1, 4, 8, 8)
NARROW, LARGE = tensor("w", np.ones((2, 3, 1, 1))), tensor("w", np.ones((2, 4, 9, 9)))
BOMB = [
    node("ConstantOfShape", ["lots"], ["z"], "bomb"),
    node("ReduceSum", ["z"], ["s"], "sum", keepdims=0),
    node("Add", ["x", "s"], ["y"], "add"),
]


def mysteries(folder: Path) -> Path:
    """Write a model of three operators out of scope, one of a domain of its own."""
    content = model(graph(MYSTERIES, [], [value("x"), value("m", (4, 4))], [value("y"), value("d", ())]))
    content.opset_import.append(helper.make_opsetid("com.example", 1))
    return save(folder, content)


def external(location: str, *, stored: str | None, length: int = 16, link: str | None = None) -> Maker:
    """Make a model whose weight of 4 floats lies outside the file.

    Args:
        location: What the file says; "{outside}" stands for the absolute path of the folder above it.
        stored: Where 16 sound bytes really lie, from the model's folder; a careless reader finds them. None: nowhere.
        length: Bytes the file claims.
        link: Make `location` a symbolic link to this.
    """

    def make(folder: Path) -> Path:
        home = folder / "model"
        home.mkdir()
        if stored is not None:
            (home / stored).write_bytes(np.ones(4, "float32").tobytes())
        if link is not None:
            (home / location).symlink_to(link)
        weight = tensor("far_weight", np.ones(4))
        external_data_helper.set_external_data(weight, location.format(outside=folder), offset=0, length=length)
        weight.ClearField("raw_data")
        return save(home, model(graph([node("Add", ["x", "far_weight"], ["y"], "add")], [weight])))

    return make


def declared(dims: Sequence[int], data: bytes = b"") -> Maker:
    """Make a model whose weight declares `dims` whatever bytes it has."""
    weight = TensorProto(name="odd_weight", data_type=FLOAT, dims=dims, raw_data=data)
    return graphs([node("Add", ["x", "odd_weight"], ["y"], "add")], [weight], outputs=[value("y", (None, None))])


def field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field of a protobuf message: where the library is too slow, or too careful."""
    return bytes([number << 3 | 2]) + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    """Encode a protobuf integer."""
    result = bytearray()
    while number > 127:
        result.append(number & 127 | 128)
        number >>= 7
    return bytes([*result, number])


def many_nodes(folder: Path) -> Path:
    """Write a chain of more operators than any network has."""
    names = [b"x", *[b"t%d" % index for index in range(TOO_MANY_NODES - 1)], b"y"]
    kind = field(NODE_KIND, b"Relu")
    content = b"".join(
        field(GRAPH_NODE, field(NODE_INPUT, a) + field(NODE_OUTPUT, b) + kind) for a, b in pairwise(names)
    )
    return save(folder, model(graph([])).SerializeToString() + field(MODEL_GRAPH, content))


def nested(folder: Path) -> Path:
    """Write `If` within `If` so deep that a recursive reader runs out of stack."""
    content = graph([node("Identity", ["x"], ["y"], "inmost")], inputs=[]).SerializeToString()
    branch = AttributeProto(name="then_branch", type=AttributeProto.GRAPH).SerializeToString()
    for depth in range(NESTED):
        outer = node("If", ["condition"], ["y"], f"if{depth}").SerializeToString()
        outer += field(NODE_ATTRIBUTE, branch + field(ATTRIBUTE_GRAPH, content))
        content = graph([], inputs=[]).SerializeToString() + field(GRAPH_NODE, outer)
    frame = graph([], inputs=[value("x"), value("condition", (), TensorProto.BOOL)], outputs=[])
    return save(folder, model(frame).SerializeToString() + field(MODEL_GRAPH, content))


def recursive_function(folder: Path) -> Path:
    """Write a function that calls itself: inlining it never ends."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    call = helper.make_node("Ouroboros", ["x"], ["y"], "bite", domain="local")
    function = helper.make_function("local", "Ouroboros", ["x"], ["y"], [call], opsets)
    return save(folder, helper.make_model(graph([call]), ir_version=8, opset_imports=opsets, functions=[function]))


def dangling_attribute(folder: Path) -> Path:
    """Write an attribute that refers to one of the function around it, where there is none."""
    softmax = node("Softmax", ["x"], ["y"], "broken")
    softmax.attribute.append(AttributeProto(name="axis", type=AttributeProto.INT, ref_attr_name="elsewhere"))
    return save(folder, model(graph([softmax])))


def evil_names(folder: Path) -> Path:
    """Write a sound model whose names are bits of C, shell and paths: it must load, and no tool may see them raw."""
    evil = ['"; system("id"); //', "*/ #error /*", "../../escape", "$(id)", "%s%n", "int", "a\nb", "", "\u202e"]
    names = ["x", *[f"{text}{index}" for index, text in enumerate(evil)], "y"]
    chain = [node("Relu", [a], [b], b) for a, b in pairwise(names)]
    return save(folder, model(graph(chain)))


HOSTILE: dict[str, Hostile] = {
    # the file
    "not_onnx": Hostile(files(b"PK\x03\x04 this is no model"), ("hostile.onnx",)),
    "empty_file": Hostile(files(b""), ("hostile.onnx",)),
    "truncated": Hostile(files(SOUND[: len(SOUND) * 2 // 3]), ("hostile.onnx",)),
    "missing_file": Hostile(lambda folder: folder / "nowhere.onnx", ("nowhere.onnx",)),
    "nested_graphs": Hostile(nested, ("hostile.onnx",)),
    "future_opset": Hostile(graphs([RELU], opset=999), ("opset", "999"), valid=True),
    "ancient_opset": Hostile(graphs([RELU], opset=1), ("opset", "1"), valid=True),
    "no_opset": Hostile(files(ModelProto(ir_version=8, graph=graph([RELU])).SerializeToString()), ("opset",)),
    # the graph
    "empty_graph": Hostile(graphs([], inputs=[], outputs=[]), ("output",), valid=True),
    "no_outputs": Hostile(graphs([RELU], outputs=[]), ("output",), valid=True),
    "cyclic": Hostile(graphs(CYCLE), ("cycle", "first")),
    "output_twice": Hostile(graphs([RELU], outputs=[value("y"), value("y")]), ("'y'", "more than once"), valid=True),
    "undefined_tensor": Hostile(graphs([node("Add", ["x", "ghost"], ["y"], "add")]), ("ghost",)),
    "undefined_output": Hostile(graphs([RELU], outputs=[value("phantom")]), ("phantom",)),
    "written_twice": Hostile(graphs(TWICE), ("again",)),
    "too_many_nodes": Hostile(many_nodes, (str(TOO_MANY_NODES), "nodes"), valid=True),
    "recursive_function": Hostile(recursive_function, ("Ouroboros",)),
    # operators out of scope
    "unsupported_operators": Hostile(
        mysteries, ("NonZero", "nonzero", "Det", "determinant", "com.example", "Mystery", "riddle"), True, True
    ),
    # types and shapes
    "symbolic_height": Hostile(graphs([RELU], inputs=[value("x", (1, "height"))]), ("height",), valid=True),
    "anonymous_width": Hostile(graphs([RELU], inputs=[value("x", (1, None))]), ("'x'",), valid=True),
    "unknown_rank": Hostile(graphs([RELU], inputs=[value("x", None)]), ("'x'",)),
    "string_input": Hostile(
        graphs(ECHO, inputs=[value("x", kind=STRING)], outputs=[value("y", kind=STRING)]), ("string",), valid=True
    ),
    "mixed_types": Hostile(single("Add", tensor("i", [1, 2, 3, 4], "int64")), ("broken",)),
    "wrong_inner_size": Hostile(single("MatMul", tensor("w", np.ones((5, 3)))), ("broken",)),
    "wrong_channels": Hostile(single("Conv", NARROW, x=IMAGE), ("broken",), valid=True),
    "kernel_too_big": Hostile(single("Conv", LARGE, x=IMAGE), ("broken",), valid=True),
    "zero_stride": Hostile(single("MaxPool", x=IMAGE, kernel_shape=[2, 2], strides=[0, 0]), ("broken",)),
    "axis_out_of_range": Hostile(single("Softmax", axis=7), ("broken",)),
    "perm_repeats": Hostile(single("Transpose", perm=[0, 0]), ("broken",)),
    "reshape_changes_size": Hostile(single("Reshape", tensor("s", [3, 5], "int64")), ("broken",), valid=True),
    "reshape_two_unknowns": Hostile(single("Reshape", tensor("s", [-1, -1], "int64")), ("broken",)),
    "gather_out_of_range": Hostile(single("Gather", tensor("i", [9], "int64"), axis=1), ("broken",), valid=True),
    "missing_operand": Hostile(single("MatMul"), ("broken",)),
    "dangling_attribute": Hostile(dangling_attribute, ("broken",), valid=True),
    # weights
    "nan_weights": Hostile(single("Add", tensor("w", [0, np.nan, 0, 0])), ("'w'",), valid=True),
    "infinite_weights": Hostile(single("Add", tensor("w", [0, -np.inf, 0, 0])), ("'w'",), valid=True),
    "short_weights": Hostile(declared((1, 4), bytes(8)), ("odd_weight",)),
    "huge_weights": Hostile(declared((2**31, 2**20)), ("odd_weight",)),
    "overflowing_weights": Hostile(declared((2**32, 2**32, 4), bytes(16)), ("odd_weight",)),
    "negative_size": Hostile(declared((-1, -4), bytes(16)), ("odd_weight",)),
    "huge_constant": Hostile(graphs(BOMB, [tensor("lots", [2**20, 2**20], "int64")]), ("bomb",), valid=True),
    # weights outside the file
    "external_missing": Hostile(external("weights.bin", stored=None), ("far_weight", "weights.bin")),
    "external_escapes": Hostile(external("../secret.bin", stored="../secret.bin"), ("far_weight", "../secret.bin")),
    "external_absolute": Hostile(
        external("{outside}/secret.bin", stored="../secret.bin"), ("far_weight", "secret.bin")
    ),
    "external_link": Hostile(
        external("weights.bin", stored="../secret.bin", link="../secret.bin"), ("far_weight", "weights.bin")
    ),
    "external_past_end": Hostile(
        external("weights.bin", stored="weights.bin", length=2**40), ("far_weight", "weights.bin"), valid=True
    ),
}
