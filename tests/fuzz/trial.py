"""One model on trial: refused in our words, or read, simplified and computed, with the answer of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx

from edgesmith.frontend import imported, recognised
from edgesmith.ir.errors import EdgesmithError, InternalError
from edgesmith.ir.graph import Graph, Node
from edgesmith.ir.interpret import run, trace
from edgesmith.ir.ops.elementwise import Div, Pow
from edgesmith.ir.ops.logic import Cast
from edgesmith.ir.ops.number import Floor, Mod, Round
from edgesmith.ir.passes.pipelines import FLOAT, run_pipeline

MOST_WORK = 20_000_000
"""Elements and multiply-accumulates of a graph beyond which nothing is computed: it is read, that is enough."""
TOLERANCE = 2e-3
"""Share of an output's largest element: whatever is looser is another function, not another rounding."""
LARGEST_OUTPUT = 1e6
"""Numbers beyond this lose their digits where terms cancel, in any order of summation."""

DOUBTFUL = (
    ("coordinate_transformation_mode", b"align_corners"),  # to shrink an image: ONNX Runtime fails ONNX's own cases
    ("sorted", 0),  # the greatest come in any order
)
"""Attributes with values for which ONNX Runtime's answer is none, or one of many."""

PHASES = ("import", "recognise", "simplify", "compute", "onnxruntime", "compare")
FOREIGN = PHASES.index("onnxruntime")
"""Whatever dies here is not ours."""

Arrays = Mapping[str, np.ndarray]


class Wrong(Exception):  # noqa: N818  (a finding, not an error of any program)
    """A graph computes another answer than ONNX Runtime, or than the graph it was made of."""


def judge(path: Path, enter: Callable[[int], None]) -> str:
    """Try a file; `enter` is told each phase by its number, so that the one is known in which a process dies.

    Returns:
        "refused" or "sound".

    Raises:
        Wrong: An answer differs.
        Exception: Whatever else escapes is a finding, `InternalError` among it.
    """
    try:
        enter(0)
        graph = imported(path)
        plain = graph.copy()
        enter(1)
        recognised(graph)
        enter(2)
        run_pipeline(graph, FLOAT)
    except InternalError:
        raise
    except EdgesmithError as error:
        assert error.what
        return "refused"
    enter(3)
    if _work(plain) > MOST_WORK:
        return "sound"
    feeds = _feeds(plain)
    with np.errstate(all="ignore"):
        try:
            before, after = run(plain, feeds), run(graph, feeds)
        except IndexError:
            if any(value.type.numpy.kind in "iu" for value in plain.inputs):
                return "sound"  # the numbers it was fed are no indices of what it holds
            raise
        enter(4)
        expected = _onnxruntime(path, feeds, before)
        enter(5)
        nodes = onnx.load(path).graph.node
        makers = {name: node.op_type for node in nodes for name in node.output}
        doubtful = any(map(_is_doubtful, nodes))
        _compare("simplified", makers, before, after)
        if expected is not None and not doubtful and all(value.type.size for value in (*plain.inputs, *plain.outputs)):
            lost = undefined(plain, feeds)
            _compare("imported", makers, {name: a for name, a in expected.items() if name not in lost}, before)
    return "sound"


def _is_doubtful(node: onnx.NodeProto) -> bool:
    """Whether ONNX Runtime's answer is no measure of ours.

    Where a border is to keep the size, its pools forget dilations, so that their shapes contradict ONNX's inference,
    and windows with gaps between them begin inside the image; those of ONNX's reference and of TensorFlow do not.
    """
    lists = {each.name: each.ints for each in node.attribute}
    fitted = any(each.name == "auto_pad" and each.s.startswith(b"SAME") for each in node.attribute)
    spread = set(lists.get("dilations", [1])) != {1}
    gaps = max(lists.get("strides", []), default=1) > min(lists.get("kernel_shape", []), default=1)
    facts = {(each.name, each.i if each.type == onnx.AttributeProto.INT else each.s) for each in node.attribute}
    return (fitted and (spread or gaps)) or not facts.isdisjoint(DOUBTFUL)


def _work(graph: Graph) -> int:
    sizes = sum(value.type.size for node in graph.nodes for value in node.outputs)
    sizes += sum(value.type.size for value in graph.inputs)
    return sizes + sum(node.op.macs(*(v and v.type for v in node.inputs)) for node in graph.nodes)


def undefined(graph: Graph, feeds: Arrays) -> set[str]:
    """Outputs with elements of which every processor makes what it likes, so that there is nothing to compare."""
    arrays: dict[int, np.ndarray] = {}
    lost: set[int] = set()
    for value, array in trace(graph, feeds):
        arrays[id(value)] = array
        node = value.producer
        if node is not None:
            operands = [each for each in node.inputs if each is not None]
            given = [arrays[id(each)] for each in operands]
            if lost.intersection(map(id, operands)) or _overflows(node, array, *given) or _rounds(node, *given):
                lost.add(id(value))
    return {value.name for value in graph.outputs if id(value) in lost}


def _overflows(node: Node, result: np.ndarray, *operands: np.ndarray) -> bool:
    """Whether integers are made of reals or powers beyond them, or divided by 0: C leaves open what that gives."""
    if result.dtype.kind not in "iu":
        return False
    if isinstance(node.op, Div | Mod):
        return not operands[1].all()
    if isinstance(node.op, Pow):
        whole = np.power(operands[0].astype(np.float64), operands[1])
    elif isinstance(node.op, Cast) and operands[0].dtype.kind == "f":
        whole = np.trunc(operands[0].astype(np.float64))
    else:
        return False
    limits = np.iinfo(result.dtype)
    return not np.all((whole >= limits.min) & (whole <= limits.max))


def _rounds(node: Node, *operands: np.ndarray) -> bool:
    """Whether reals are split at the point that are so large that the rounding of what made them is left behind it.

    GridSample does so with positions along an axis: at 17000 of 65536 pixels, float32 has none of the weights between
    two pixels to more than 0.002, and each order of a factor and a sum gives others.
    """
    if not isinstance(node.op, Floor | Round | Mod) or operands[0].dtype.kind != "f":
        return False
    return 4 * np.spacing(np.abs(operands[0], dtype=np.float32).max(initial=0)) > TOLERANCE


def _feeds(graph: Graph) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    return {
        value.name: draw.standard_normal(value.shape).astype(value.dtype)
        if value.type.numpy.kind == "f"
        else draw.integers(0, 2, value.shape).astype(value.dtype)
        for value in graph.inputs
    }


def _onnxruntime(path: Path, feeds: Arrays, names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """Its outputs by the names of ours, or None where it does not take the model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(None, dict(feeds)), strict=True))
    except Exception:  # its exceptions share no base class
        return None


def _compare(what: str, makers: Mapping[str, str], expected: Arrays, made: Arrays) -> None:
    for name, array in expected.items():
        other = made[name]
        wrong = f"the {what} graph's {makers.get(name, 'input')}"
        if array.shape != other.shape:
            raise Wrong(f"{wrong}: '{name}' has the shape {other.shape}, not {array.shape}")
        if array.dtype != other.dtype:
            raise Wrong(f"{wrong}: '{name}' has the type {other.dtype}, not {array.dtype}")
        if array.dtype.kind != "f":
            if not np.array_equal(array, other):
                raise Wrong(f"{wrong}: '{name}' has other integers")
            continue
        largest = np.abs(array).max(initial=0.0)
        if not largest <= LARGEST_OUTPUT:  # NaN included: what is not a number is nobody's answer
            continue
        if not np.abs(array - other).max(initial=0.0) <= TOLERANCE * max(largest, 1e-3):
            raise Wrong(f"{wrong}: '{name}' has other numbers")
