"""The ONNX back end: the float graph after the exact passes, written back in ONNX's own operators."""
