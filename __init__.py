"""edgesmith compiles ONNX vision transformers for phones and microcontrollers."""

__version__ = "0.1.0"
