"""One page that shows what a compile found: fit, truth and cost, in a single file without scripts."""

from .page import render

__all__ = ["render"]
