"""A generated library as other build systems take it: one file a packaging, a folder of its own for each.

A file here offers `PACKAGE`; every package is whole, with the sources, an example of use, and the self-test.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....ir.errors import UsageError
from ..text import render

__all__ = ["FLAGS", "Package", "chosen", "names", "write"]

FLAGS = ("-ffp-contract=off", "-fno-strict-aliasing")
"""What GCC and Clang have to be told, for the same bits everywhere."""


@dataclass(frozen=True)
class Package:
    """What a build system wants beside the sources.

    Attributes:
        files: Templates by path; paths are templates too.
        sources: Folder of the library's C files.
        test: Folder of the self-test.
        main: Whether the self-test is a program; else the package calls `<prefix>_selftest` itself.
        folder: Name of the package's folder, a template.
    """

    files: Mapping[str, str]
    sources: str = "src"
    test: str = "test"
    main: bool = True
    folder: str = "{{ prefix }}"


BEFORE = """\
#include "{{ prefix }}.h"

{% if pixels %}
static void pixels(void *user, int y, int x, int count, int8_t *out)
{
    for (int i = 0; i < count; i++)
        out[i] = 0; /* here: value x + i of row y of your image */
}
{% endif %}
"""
"""What the examples of all packages begin with."""

INFERENCE = """\
    static int64_t arena[({{ upper }}_ARENA_BYTES + 7) / 8]; /* 8-byte alignment */
{% for port in inputs if port.offset is not none %}
    for (int i = 0; i < {{ port.size }}; i++)
        {{ upper }}_INPUT_{{ inputs.index(port) }}(arena)[i] = 0; /* here: your data */
{% endfor %}
    {{ prefix }}_run(arena{% if pixels %}, pixels, 0{% endif %});
    int best = 0;
    for (int i = 1; i < {{ outputs[0].size }}; i++)
        best = {{ upper }}_OUTPUT_0(arena)[i] > {{ upper }}_OUTPUT_0(arena)[best] ? i : best;
"""
"""The use of a library, in a function that then prints `best`: the place of the largest output."""


def names() -> tuple[str, ...]:
    """Names of the packagings in this folder, as the command line has them."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    found = (file.stem for file in files if "\nPACKAGE = " in file.read_text(encoding="utf-8"))
    return tuple(name.replace("_", "-") for name in found)


def chosen(text: str) -> tuple[str, ...]:
    """Names separated by commas, each once.

    Raises:
        UsageError: One is unknown.
    """
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if unknown := [name for name in found if name not in names()]:
        raise UsageError(f"there is no packaging {', '.join(unknown)}", do=f"use some of {', '.join(names())}")
    return found


def write(folder: Path, packages: Sequence[str], context: Mapping[str, Any]) -> None:
    """Write packages of the library that lies in `folder`, as `package/<name>/`.

    Args:
        folder: With the sources in `src` and the self-test in `test`.
        packages: Names.
        context: What the templates of the library were filled in with.
    """
    sources = sorted(path.name for path in (folder / "src").glob("*.c"))
    whole = {**context, "sources": sources, "flags": " ".join(FLAGS)}
    whole |= {"before": render(BEFORE, **context).rstrip(), "inference": render(INFERENCE, **context).rstrip()}
    for name in packages:
        package: Package = importlib.import_module(f".{name.replace('-', '_')}", __package__).PACKAGE
        place = folder / "package" / name / render(package.folder, **whole)
        _copy(folder / "src", place / package.sources, "")
        _copy(folder / "test", place / package.test, "" if package.main else "#define ES_NO_MAIN\n")
        for path, template in package.files.items():
            file = place / render(path, **whole)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(render(template, **whole), encoding="ascii")


def _copy(source: Path, to: Path, before: str) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.[ch]")):
        (to / path.name).write_bytes(before.encode() + path.read_bytes())
