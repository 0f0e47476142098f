"""Compression of a trained network without training: what can be taken out of it, and what is left is put right."""

from .problem import Compression

__all__ = ["Compression"]
