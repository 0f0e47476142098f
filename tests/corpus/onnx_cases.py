"""Walks ONNX's own backend cases through the front end and the interpreter, and counts what becomes of them.

    python tests/corpus/onnx_cases.py [--failures] [operators...]

A case passes when the imported graph, and the graph after recognition and the exact passes, give the expected answer.
Operands that ONNX lets vary at run time, but a compiler must know (shapes, axes, pads), are made constants first.
"""

import argparse
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper

from edgesmith.frontend import imported, recognised
from edgesmith.ir.errors import EdgesmithError, ModelError, Unsupported
from edgesmith.ir.graph import Graph
from edgesmith.ir.interpret import run
from edgesmith.ir.passes.pipelines import EXACT, run_pipeline

SCOPE = frozenset(
    """Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization Cast CastLike Ceil Celu CenterCropPad Clip
    Col2Im Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div
    Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND
    Gelu Gemm GRU GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
    HardSwish Hardmax Identity InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul
    Neg Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize RotaryEmbedding Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax
    Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tanh ThresholdedRelu Tile TopK Transpose Trilu
    Unsqueeze Upsample Where Xor""".split()
)
"""Operators of inference on images and signals. Out: random, training, strings, sequences, detection."""

FROZEN: dict[str, tuple[int, ...]] = {
    "CenterCropPad": (1,), "Col2Im": (1, 2), "ConstantOfShape": (0,), "CumSum": (1,), "Dropout": (1, 2),
    "Expand": (1,), "OneHot": (1,),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (4,)),
    "Pad": (1, 3), "Range": (0, 1, 2), "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,),
    "Squeeze": (1,), "Tile": (1,), "TopK": (1,), "Trilu": (1,), "Unsqueeze": (1,), "Upsample": (1,),
    **{f"Reduce{kind}": (1,) for kind in "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()},
}  # fmt: skip
"""Operands that decide shapes."""

INTEGERS = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64}
DTYPES = {TensorProto.FLOAT, TensorProto.BOOL, *INTEGERS}


@dataclass(frozen=True)
class Case:
    """One model with its inputs and the answer that ONNX's authors give."""

    name: str
    operator: str
    model: ModelProto
    feeds: dict[str, np.ndarray]
    expected: list[np.ndarray]
    rtol: float
    atol: float


@dataclass(frozen=True)
class Outcome:
    """What became of a case: passed, refused, or wrong (an answer that differs, or an error that is none of ours)."""

    kind: str
    detail: str = ""


@cache
def cases() -> tuple[Case, ...]:
    """All cases in scope, in ONNX's order."""
    return tuple(each for each in (*_of_nodes(), *_of_files()) if each is not None)


def _of_nodes() -> Iterator[Case | None]:
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they overflow and divide by zero on purpose
        found = node.collect_testcases(None)
    operators: dict[str, tuple[str, set[str]]] = {}
    for each in found:
        base = each.name.split("_expanded")[0]
        first = each.model.graph.node[0]
        if base == each.name:
            frozen = {name for i, name in enumerate(first.input) if i in FROZEN.get(first.op_type, ())}
            operators[base] = first.op_type, frozen
        operator, frozen = operators.get(base, (first.op_type, set()))
        standard = all(opset.domain in ("", "ai.onnx") for opset in each.model.opset_import)
        if operator in SCOPE and standard:
            yield _case(each.name, operator, each.model, each.data_sets[0], frozen, each.rtol, each.atol)


def _of_files() -> Iterator[Case | None]:
    from onnx.backend.test.loader import load_model_tests

    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for each in load_model_tests(kind=kind):
            folder = Path(each.model_dir)
            model = onnx.load(folder / "model.onnx")
            data = folder / "test_data_set_0"
            ends = [
                [onnx.load_tensor(str(data / f"{end}_{i}.pb")) for i in range(len(list(data.glob(f"{end}_*.pb"))))]
                for end in ("input", "output")
            ]
            if all(node.op_type in SCOPE for node in model.graph.node):
                frozen = {
                    name
                    for node in model.graph.node
                    for i, name in enumerate(node.input)
                    if i in FROZEN.get(node.op_type, ())
                }
                yield _case(each.name, kind, model, ends, frozen, each.rtol, each.atol)


def _case(name, operator, model, data, frozen, rtol, atol) -> Case | None:
    ends = [*model.graph.input, *model.graph.output]
    if not all(end.type.HasField("tensor_type") and end.type.tensor_type.elem_type in DTYPES for end in ends):
        return None
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    arrays = [[numpy_helper.to_array(a) if isinstance(a, TensorProto) else np.asarray(a) for a in end] for end in data]
    copy = ModelProto()
    copy.CopyFrom(model)
    feeds: dict[str, np.ndarray] = {}
    copy.graph.ClearField("input")
    for each, array in zip(inputs, arrays[0], strict=True):
        if each.name in frozen:
            copy.graph.initializer.append(numpy_helper.from_array(array, each.name))
            continue
        port = copy.graph.input.add()
        port.CopyFrom(each)
        _fix(port, array.shape)
        feeds[each.name] = array
    return Case(name, operator, copy, feeds, arrays[1], rtol, atol)


def _fix(port: ValueInfoProto, shape: tuple[int, ...]) -> None:
    port.type.tensor_type.shape.SetInParent()
    port.type.tensor_type.shape.ClearField("dim")
    for size in shape:
        port.type.tensor_type.shape.dim.add().dim_value = size


def attempt(case: Case, folder: Path) -> Outcome:
    """Import a case, run it as it is and after all passes, and compare."""
    path = folder / "case.onnx"
    path.write_bytes(case.model.SerializeToString())
    try:
        graph = imported(path)
        detail = _differs(case, graph)
        if not detail:
            graph = recognised(graph)
            run_pipeline(graph, EXACT)
            detail = _differs(case, graph)
            detail = detail and f"after the passes: {detail}"
    except (Unsupported, ModelError) as error:
        return Outcome("refused", f"{error.what}: {error.why}")
    except EdgesmithError as error:
        return Outcome("wrong", f"{type(error).__name__}: {error.text()}")
    except Exception as error:  # a crash is a result
        return Outcome("wrong", f"{type(error).__name__}: {error}")
    return Outcome("wrong", detail) if detail else Outcome("passed")


def _differs(case: Case, graph: Graph) -> str:
    """What is wrong with a graph's answer, in words; empty when nothing is."""
    results = list(run(graph, case.feeds).values())
    for actual, expected in zip(results, case.expected, strict=True):
        if actual.shape != expected.shape or actual.dtype != expected.dtype:
            return f"{actual.dtype}{actual.shape} instead of {expected.dtype}{expected.shape}"
        if not np.allclose(actual, expected, case.rtol, case.atol, equal_nan=True):
            with np.errstate(all="ignore"):
                return f"differs by {np.abs(actual.astype(np.float64) - expected).max():g}"
    return ""


def outcomes(operators: Collection[str] = ()) -> Iterator[tuple[Case, Outcome]]:
    """What becomes of each case, of the given operators or of all."""
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            if not operators or case.operator in operators:
                yield case, attempt(case, Path(folder))


def table(found: Iterable[tuple[Case, Outcome]]) -> str:
    """Counts by operator as text."""
    counts: dict[str, Counter[str]] = {}
    for case, outcome in found:
        counts.setdefault(case.operator, Counter())[outcome.kind] += 1
    rows = [*sorted(counts.items()), ("total", sum(counts.values(), Counter()))]
    lines = [f"{name:28} {row['passed']:7} {row['refused']:8} {row['wrong']:6}" for name, row in rows]
    return "\n".join([f"{'operator':28} {'passed':>7} {'refused':>8} {'wrong':>6}", *lines, ""])


def main() -> None:
    """Print the outcomes by operator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failures", action="store_true", help="say why cases were refused or wrong")
    parser.add_argument("operators", nargs="*")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    found = list(outcomes(arguments.operators))
    for case, outcome in found:
        if arguments.failures and outcome.kind != "passed":
            print(f"{outcome.kind:8} {case.name}: {outcome.detail[:300]}")
    print(table(found), end="")


if __name__ == "__main__":
    main()
