"""The command line: verbs, and how what they find is printed."""

from .search import search
from .verbs import Bytes, commands, main

__all__ = ["Bytes", "commands", "main", "search"]
