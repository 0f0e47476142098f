"""C text from templates: Jinja with no forgiveness, so that a misspelt name fails at generation, not on the device."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )


@cache
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


def render(template: str, **context: Any) -> str:
    """Fill in a template.

    Raises:
        jinja2.UndefinedError: It names something that the context lacks.
    """
    return _compiled(template).render(**context)


def comment(text: str) -> str:
    """Text that cannot end the comment it stands in: names come from the user's file."""
    return "".join(char if char.isascii() and char.isprintable() and char not in "*\\?" else "_" for char in text)[:200]


def up(count: int, to: int) -> int:
    """`count` rounded up to a multiple of `to`."""
    return -(-count // to) * to
