"""ONNX Runtime's operators of quantised models: arithmetic on what the integers stand for, rounded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...ir.graph import Value
from ...ir.ops.activation import Sigmoid
from ...ir.ops.pool import Mean
from ...ir.ops.shape import Concat, Transpose
from ..call import Call, Result, rule
from .activation import leaky_relu, softmax
from .linear import product
from .microsoft import OWN
from .pool import average_pool
from .quant import dequantize, dynamic_quantize, products, quantised_conv, quantize, to_integers, to_reals
from .terms import add, mul

rule(OWN + "QuantizeLinear")(quantize)
rule(OWN + "DequantizeLinear")(dequantize)


def _reals(call: Call, index: int) -> Value:
    """The operand at `index`, of which scale and zero point follow."""
    return to_reals(call, call[index], call[index + 1], call.get(index + 2))


def _rounded(call: Call, y: Value, index: int) -> Value:
    """y in integers, of which scale and zero point are operands from `index` on."""
    zero = call.get(index + 1)
    return to_integers(call, y, call[index], zero, "uint8" if zero is None else zero.dtype)


@rule(OWN + "QLinearAdd", OWN + "QLinearMul")
def integer_pair(call: Call) -> Result:
    """Element by element."""
    combine = add if call.node.op_type == "QLinearAdd" else mul
    return _rounded(call, combine(call, _reals(call, 0), _reals(call, 3)), 6)


def _sigmoid(call: Call) -> Result:
    result: Value = call.add(Sigmoid(), call.x)
    return result


def _softmax(call: Call) -> Result:
    return softmax(replace(call, opset=call.attr("opset", call.opset)))


def _global_mean(call: Call) -> Result:
    result: Value = call.add(Mean(tuple(range(2, len(call.x.shape))), True), call.x)
    return result


FUNCTIONS: dict[str, Callable[[Call], Result]] = {
    "QLinearAveragePool": average_pool,
    "QLinearGlobalAveragePool": _global_mean,
    "QLinearLeakyRelu": leaky_relu,
    "QLinearSigmoid": _sigmoid,
    "QLinearSoftmax": _softmax,
}


@rule(*(OWN + name for name in FUNCTIONS))
def integer_function(call: Call) -> Result:
    """A function of one operand."""
    x, last = _reals(call, 0), len(call.x.shape) - 1
    flipped = call.flag("channels_last", 0)
    x = call.add(Transpose((0, last, *range(1, last))), x) if flipped else x
    y = FUNCTIONS[call.node.op_type](replace(call, operands=(x,)))
    assert isinstance(y, Value)
    return _rounded(call, call.add(Transpose((0, *range(2, last + 1), 1)), y) if flipped else y, 3)


@rule(OWN + "QLinearConv")
def integer_conv(call: Call) -> Result:
    """ONNX's operator, its images with channels last if told."""
    if not call.attr("channels_last", 0):
        return quantised_conv(call)
    last = len(call.x.shape) - 1
    x = call.add(Transpose((0, last, *range(1, last))), call.x)
    y = quantised_conv(replace(call, operands=(x, *call.operands[1:])))
    assert isinstance(y, Value)
    result: Value = call.add(Transpose((0, *range(2, last + 1), 1)), y)
    return result


@rule(OWN + "QLinearConcat")
def integer_concat(call: Call) -> Result:
    """Operands of scales of their own."""
    parts = [_reals(call, i) for i in range(2, len(call.operands), 3)]
    return _rounded(call, call.add(Concat(call.axis(call.attr("axis"), len(parts[0].shape))), *parts), 0)


@rule(OWN + "QGemm")
def integer_gemm(call: Call) -> Result:
    """alpha * a b + c, of which c has the scale of the products; real if no scale for the result is given."""
    trans = call.flag("transB", 0)
    call.require(not call.flag("transA", 0) and call.attr("alpha", 1.0) == 1.0, "scaled or transposed")
    a, b = _reals(call, 0), to_reals(call, call[3], call[4], call.get(5), 0 if trans else 1)
    y = product(call, a, call.add(Transpose((1, 0)), b) if trans else b)
    bias = call.get(6)
    if bias is not None:
        y = add(call, y, products(call, bias, call[1], call[4]))
    return y if call.get(7) is None else _rounded(call, y, 7)


@rule(OWN + "MatMulIntegerToFloat")
def integer_product_to_reals(call: Call) -> Result:
    """a, b, their scales, their zero points, and what is added."""
    a = to_reals(call, call[0], call[2], call.get(4), -2)
    y = product(call, a, to_reals(call, call[1], call[3], call.get(5), -1))
    bias = call.get(6)
    return y if bias is None else add(call, y, bias)


@rule(OWN + "DynamicQuantizeMatMul")
def dynamic_product(call: Call) -> Result:
    """a, rounded to integers by its own range, times stored integers; and what is added."""
    rounded = dynamic_quantize(call)
    assert isinstance(rounded, tuple)
    q, scale, zero = rounded
    y = product(call, to_reals(call, q, scale, zero), to_reals(call, call[1], call[2], call.get(3), -1))
    bias = call.get(4)
    return y if bias is None else add(call, y, bias)
