"""Integer ops: the type rule agrees with the reference, and the reference with real arithmetic."""

import dataclasses

import numpy as np
import pytest

from edgesmith.ir.errors import ShapeError
from edgesmith.ir.graph import Graph, Quant, Type
from edgesmith.ir.ops import registry
from edgesmith.ir.ops.integer import QLinear, integers
from edgesmith.ir.ops.integer_attention import QAttention
from edgesmith.ir.ops.integer_conv import QConv

INTEGER = [cls for name, cls in registry().items() if name.startswith("Q") and name != "Quantize"]


def types_of(arrays):
    """Operand types of an example."""
    return [None if a is None else Type(a.dtype.name, a.shape) for a in arrays]


def test_every_integer_op_of_the_contract_is_registered():
    names = {cls.__name__ for cls in INTEGER}
    expected = "QLinear QPatchEmbed QConv QAdd QMul QLayerNorm QRMSNorm QAttention QTable8 QTable16 QSoftmax"
    expected += " QMaxPool QAveragePool QMean QRequantise QResize QMatMul QAffine"
    assert set(expected.split()) <= names


@pytest.mark.parametrize("cls", INTEGER, ids=lambda cls: cls.__name__)
def test_infer_agrees_with_reference(cls):
    varied = []
    for op, arrays in cls.examples():
        declared = op.infer(*types_of(arrays))
        before = [None if a is None else a.copy() for a in arrays]
        result = op.reference(*arrays)
        assert (declared.dtype, declared.shape) == (result.dtype.name, result.shape)
        varied.append(len(np.unique(result)) > 1)
        for a, b in zip(arrays, before, strict=True):
            assert a is None or np.array_equal(a, b), "a reference must not write its operands"
    assert any(varied), "examples whose outputs are constant test nothing"


@pytest.mark.parametrize("cls", INTEGER, ids=lambda cls: cls.__name__)
def test_float_operands_are_refused(cls):
    op, arrays = next(iter(cls.examples()))
    floats = [None if t is None else t.with_(dtype="float32") for t in types_of(arrays)]
    with pytest.raises(ShapeError):
        op.infer(*floats)


@pytest.mark.parametrize("cls", INTEGER, ids=lambda cls: cls.__name__)
def test_output_carries_its_meaning(cls):
    op, arrays = next(iter(cls.examples()))
    types = types_of(arrays)
    if "quant" in {field.name for field in dataclasses.fields(op)}:
        assert op.infer(*types).quant == op.quant
    else:
        types[0] = types[0].with_(quant=Quant(0.25, 3))
        assert op.infer(*types).quant == Quant(0.25, 3)


def test_depthwise_equals_a_dense_convolution_with_zeros():
    x, taps = integers(1, 6, 7, 3), integers(3, 3, 3, 1, low=-127)
    bias, mult = np.array([100, -50, 7], np.int32), np.array([2**21, 2**22, 2**20], np.int32)
    dense = np.zeros((3, 3, 3, 3), np.int8)
    for channel in range(3):
        dense[channel, :, :, channel] = taps[channel, :, :, 0]
    narrow = QConv(Quant(0.1, 4), "int8", (2, 1), (1, 1, 1, 1), groups=3, x_zero=-6)
    wide = dataclasses.replace(narrow, groups=1)
    assert np.array_equal(narrow.reference(x, taps, bias, mult), wide.reference(x, dense, bias, mult))


def test_linear_clamp_is_a_relu():
    x, w = integers(1, 9, 10), integers(6, 10, low=-127)
    bias, mult = np.zeros(6, np.int32), np.full(6, 2**22, np.int32)
    free = QLinear(Quant(0.1, -3)).reference(x, w, bias, mult)
    cut = QLinear(Quant(0.1, -3), low=-3).reference(x, w, bias, mult)
    assert free.min() < -3
    assert np.array_equal(cut, np.maximum(free, -3))


def test_attention_of_rows_taken_alone_is_the_same():
    op, arrays = next(iter(QAttention.examples()))
    whole = op.reference(*arrays)
    q = arrays[0]
    rows = [op.reference(q[:, i : i + 1], *arrays[1:]) for i in range(q.shape[1])]
    assert np.array_equal(whole, np.concatenate(rows, axis=1))


def test_an_integer_graph_is_built_and_shows_its_types():
    graph = Graph("small")
    x = graph.input("x", Type("int8", (1, 4, 10), Quant(0.1)))
    w, b, m = (graph.constant(a) for a in (integers(6, 10, low=-127), np.zeros(6, np.int32), np.ones(6, np.int32)))
    y = graph.output(graph.add(QLinear(Quant(0.5, 1), "int16"), x, w, b, m, name="y"))
    assert y.type == Type("int16", (1, 4, 6), Quant(0.5, 1))
