"""The parts of Core ML's model format that an ML Program is made of (coremltools: mlmodel/format/*.proto)."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DATA_TYPES", "KINDS", "SCHEMA"]

SCHEMA: Mapping[str, Mapping[int, str]] = {
    "Model": {1: "specificationVersion int", 2: "description Description", 502: "mlProgram Program"},
    "Description": {
        1: "input Feature*",
        10: "output Feature*",
        11: "predictedFeatureName string",
        12: "predictedProbabilitiesName string",
        20: "functions Description*",
        21: "defaultFunctionName string",
    },
    "Feature": {1: "name string", 3: "type FeatureType"},
    "FeatureType": {
        1: "int64Type Empty",
        2: "doubleType Empty",
        3: "stringType Empty",
        4: "imageType ImageType",
        5: "multiArrayType ArrayType",
        6: "dictionaryType Empty",
        7: "sequenceType Empty",
        8: "stateType Empty",
        1000: "isOptional bool",
    },
    "Empty": {},
    "ImageType": {1: "width int", 2: "height int", 3: "colorSpace enum"},
    "ArrayType": {1: "shape int*", 2: "dataType enum"},
    "Program": {1: "version int", 2: "functions Function{}"},
    "Function": {1: "inputs NamedType*", 2: "opset string", 3: "block_specializations Block{}"},
    "Block": {1: "inputs NamedType*", 2: "outputs string*", 3: "operations Operation*"},
    "Operation": {
        1: "type string",
        2: "inputs Argument{}",
        3: "outputs NamedType*",
        4: "blocks Empty*",
        5: "attributes Value{}",
    },
    "Argument": {1: "arguments Binding*"},
    "Binding": {1: "name string", 2: "value Value"},
    "NamedType": {1: "name string", 2: "type ValueType"},
    "ValueType": {
        1: "tensorType TensorType",
        2: "listType Empty",
        3: "tupleType Empty",
        4: "dictionaryType Empty",
        5: "stateType Empty",
    },
    "TensorType": {1: "dataType enum", 2: "rank int", 3: "dimensions Dimension*"},
    "Dimension": {1: "constant Size", 2: "unknown Empty"},
    "Size": {1: "size int"},
    "Value": {2: "type ValueType", 3: "immediateValue Immediate", 5: "blobFileValue Blob"},
    "Blob": {1: "fileName string", 2: "offset int"},
    "Immediate": {1: "tensor Tensor", 2: "tuple Values", 3: "list Values"},
    "Values": {1: "values Value*"},
    "Tensor": {
        1: "floats Floats",
        2: "ints Ints",
        3: "bools Bools",
        4: "strings Strings",
        5: "longInts Ints",
        6: "doubles Doubles",
        7: "bytes Bytes",
    },
    "Floats": {1: "values float*"},
    "Doubles": {1: "values double*"},
    "Ints": {1: "values int*"},
    "Bools": {1: "values bool*"},
    "Strings": {1: "values string*"},
    "Bytes": {1: "values bytes"},
}
"""Fields by message and number: name, kind, and `*` if it repeats or `{}` if it is a map from text."""

DATA_TYPES: Mapping[int, tuple[str, str, int]] = {
    1: ("bool", "bool", 8),
    2: ("string", "str", 0),
    10: ("fp16", "float16", 16),
    11: ("fp32", "float32", 32),
    12: ("fp64", "float64", 64),
    21: ("int8", "int8", 8),
    22: ("int16", "int16", 16),
    23: ("int32", "int32", 32),
    24: ("int64", "int64", 64),
    25: ("int4", "int8", 4),
    31: ("uint8", "uint8", 8),
    32: ("uint16", "uint16", 16),
    33: ("uint32", "uint32", 32),
    34: ("uint64", "uint64", 64),
    35: ("uint4", "uint8", 4),
    36: ("uint2", "uint8", 2),
    37: ("uint1", "uint8", 1),
    38: ("uint6", "uint8", 6),
    39: ("uint3", "uint8", 3),
}
"""Element types by number: MIL's name, numpy's name, bits in a weight file. Others (bfloat16, float8) are refused."""

KINDS: Mapping[int, str] = {
    200: "pipeline",
    201: "pipeline",
    202: "pipeline",
    302: "tree ensemble",
    303: "neural network",
    402: "tree ensemble",
    403: "neural network",
    500: "neural network",
    3000: "encrypted model",
}
"""What else a Core ML model can be, by the number of the field that holds it."""
