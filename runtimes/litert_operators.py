"""What the built-in operators of TFLite must be given: how many operands, and which of them may be absent.

LiteRT's kernels trust a file in this and read the memory behind an absent operand. Numbers and names are those of
BuiltinOperator in the schema.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["flaw"]

OPERANDS = {
    0: ("ADD", 2), 1: ("AVERAGE_POOL_2D", 1), 2: ("CONCATENATION", 1), 3: ("CONV_2D", 2), 4: ("DEPTHWISE_CONV_2D", 2),
    5: ("DEPTH_TO_SPACE", 1), 6: ("DEQUANTIZE", 1), 7: ("EMBEDDING_LOOKUP", 2), 8: ("FLOOR", 1),
    9: ("FULLY_CONNECTED", 2), 11: ("L2_NORMALIZATION", 1), 12: ("L2_POOL_2D", 1),
    13: ("LOCAL_RESPONSE_NORMALIZATION", 1), 14: ("LOGISTIC", 1), 17: ("MAX_POOL_2D", 1), 18: ("MUL", 2),
    19: ("RELU", 1), 20: ("RELU_N1_TO_1", 1), 21: ("RELU6", 1), 22: ("RESHAPE", 1), 23: ("RESIZE_BILINEAR", 2),
    25: ("SOFTMAX", 1), 26: ("SPACE_TO_DEPTH", 1), 27: ("SVDF", 5), 28: ("TANH", 1), 34: ("PAD", 2), 36: ("GATHER", 2),
    37: ("BATCH_TO_SPACE_ND", 3), 38: ("SPACE_TO_BATCH_ND", 3), 39: ("TRANSPOSE", 2), 40: ("MEAN", 2), 41: ("SUB", 2),
    42: ("DIV", 2), 43: ("SQUEEZE", 1), 45: ("STRIDED_SLICE", 4), 47: ("EXP", 1), 48: ("TOPK_V2", 2), 49: ("SPLIT", 2),
    50: ("LOG_SOFTMAX", 1), 53: ("CAST", 1), 54: ("PRELU", 2), 55: ("MAXIMUM", 2), 56: ("ARG_MAX", 2),
    57: ("MINIMUM", 2), 58: ("LESS", 2), 59: ("NEG", 1), 60: ("PADV2", 3), 61: ("GREATER", 2),
    62: ("GREATER_EQUAL", 2), 63: ("LESS_EQUAL", 2), 64: ("SELECT", 3), 65: ("SLICE", 3), 66: ("SIN", 1),
    67: ("TRANSPOSE_CONV", 3), 68: ("SPARSE_TO_DENSE", 4), 69: ("TILE", 2), 70: ("EXPAND_DIMS", 2), 71: ("EQUAL", 2),
    72: ("NOT_EQUAL", 2), 73: ("LOG", 1), 74: ("SUM", 2), 75: ("SQRT", 1), 76: ("RSQRT", 1), 77: ("SHAPE", 1),
    78: ("POW", 2), 79: ("ARG_MIN", 2), 81: ("REDUCE_PROD", 2), 82: ("REDUCE_MAX", 2), 83: ("PACK", 1),
    84: ("LOGICAL_OR", 2), 85: ("ONE_HOT", 4), 86: ("LOGICAL_AND", 2), 87: ("LOGICAL_NOT", 1), 88: ("UNPACK", 1),
    89: ("REDUCE_MIN", 2), 90: ("FLOOR_DIV", 2), 91: ("REDUCE_ANY", 2), 92: ("SQUARE", 1), 93: ("ZEROS_LIKE", 1),
    94: ("FILL", 2), 95: ("FLOOR_MOD", 2), 96: ("RANGE", 3), 97: ("RESIZE_NEAREST_NEIGHBOR", 2), 98: ("LEAKY_RELU", 1),
    99: ("SQUARED_DIFFERENCE", 2), 100: ("MIRROR_PAD", 2), 101: ("ABS", 1), 102: ("SPLIT_V", 3), 103: ("UNIQUE", 1),
    104: ("CEIL", 1), 105: ("REVERSE_V2", 2), 106: ("ADD_N", 1), 107: ("GATHER_ND", 2), 108: ("COS", 1),
    109: ("WHERE", 1), 110: ("RANK", 1), 111: ("ELU", 1), 112: ("REVERSE_SEQUENCE", 2), 113: ("MATRIX_DIAG", 1),
    114: ("QUANTIZE", 1), 116: ("ROUND", 1), 117: ("HARD_SWISH", 1), 122: ("SCATTER_ND", 3), 123: ("SELECT_V2", 3),
    124: ("DENSIFY", 1), 126: ("BATCH_MATMUL", 2), 128: ("CUMSUM", 2), 130: ("BROADCAST_TO", 2), 132: ("CONV_3D", 2),
    140: ("REDUCE_ALL", 2), 141: ("CONV_3D_TRANSPOSE", 3), 150: ("GELU", 1), 151: ("DYNAMIC_UPDATE_SLICE", 3),
    152: ("RELU_0_TO_1", 1), 156: ("ATAN2", 2), 158: ("SIGN", 1), 160: ("BITWISE_XOR", 2), 161: ("RIGHT_SHIFT", 2),
}  # fmt: skip
"""Name of an operator, and how many operands it has at least."""

BIAS = {3: 2, 4: 2, 9: 2, 27: 3, 67: 3, 132: 2, 141: 3}
"""Place of the one operand that may be absent (-1)."""

FREE = frozenset({16, 32, 44, 46, 52, 206})
"""Operators that decide by themselves which operands but the first are absent: recurrent layers, custom ones,
composites."""


def flaw(code: int, operands: Sequence[int], results: Sequence[int]) -> str:
    """What an operator lacks, in words; empty where nothing is known to be missing."""
    name, least = OPERANDS.get(code, (f"operator {code}", 0))
    if -1 in results:
        return f"{name} lacks a result"
    if len(operands) < least:
        return f"{name} has {len(operands)} operands, not {least}"
    absent = [place for place, tensor in enumerate(operands) if tensor == -1]
    if code in FREE:
        absent = [place for place in absent if place == 0 and code != 32]
    wrong = [place for place in absent if place != BIAS.get(code)]
    return f"{name} lacks operand {wrong[0]}" if wrong else ""
