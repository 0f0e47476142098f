"""From a model to an artifact and from an artifact to figures: the stages in order, and what they show a person."""

from .execution import run
from .stages import compile, load

__all__ = ["compile", "load", "run"]
