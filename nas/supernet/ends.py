"""The two ends of a space: the genome with the greatest of every gene's numbers, and the one with the least."""

from __future__ import annotations

from ..space import Choice, Genome, Space

__all__ = ["largest", "smallest"]


def largest(space: Space) -> Genome:
    """The greatest of every gene's numbers, the first of its words."""
    return space.genome([_place(choices, greatest=True) for _, _, choices in space.variables])


def smallest(space: Space) -> Genome:
    """The least of every gene's numbers, the last of its words."""
    return space.genome([_place(choices, greatest=False) for _, _, choices in space.variables])


def _place(choices: tuple[Choice, ...], greatest: bool) -> int:
    numbers = [each for each in choices if not isinstance(each, str)]
    if not numbers:
        return 0 if greatest else len(choices) - 1
    return choices.index(max(numbers) if greatest else min(numbers))
