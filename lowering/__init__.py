"""From a simplified graph to what a target runs: one folder a back end.

The back end `c` makes a program: its stages (integers, memory plan, kernels) are known to the driver. Every other one
translates the graph into one file (or package) that some runtime takes, and offers how as `BACKEND`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..ir.errors import UsageError
from .outline import Lack, Outline

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..ir.passes.base import Pass
    from ..ir.passes.quantise.observe import Observed
    from ..ir.passes.quantise.qdq import QdqOptions
    from ..targets import Target

__all__ = [
    "Backend", "Integers", "Job", "Lack", "Offer", "Option", "Outline", "Port", "Written", "load", "names", "offer",
]  # fmt: skip

Range = tuple[float, float]


@dataclass(frozen=True)
class Option:
    """A choice that a back end leaves to the user: one of `values`, or any text where there are none."""

    default: str
    values: tuple[str, ...] = ()
    help: str = ""


@dataclass(frozen=True)
class Offer:
    """What a back end lets the user choose: arithmetics, the default first, and options by name."""

    dtypes: tuple[str, ...]
    options: Mapping[str, Option]


@dataclass(frozen=True)
class Job:
    """What a back end is given to translate.

    Attributes:
        graph: After the back end's own passes; where `dtype` is "int8", with pairs of Quantize and Dequantize around
            what shall be computed in integers. The back end may change it: it is a copy.
        target: The device; its `format` table holds what this back end needs to know of it.
        dtype: Arithmetic asked for, one of the back end's `dtypes`.
        options: Every option that the back end has, as given or its default.
        ranges: Lowest and highest value seen on the data given, by name of the graph's values.
    """

    graph: Graph
    target: Target
    dtype: str
    options: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True)
class Port:
    """An input or output of a file that is not like the model's own.

    Attributes:
        of: Name of the model's input or output.
        name: Its name in the file.
        layout: `layout[i]` is the axis of the model's tensor that lies at position i; empty where the order is kept.
        factor: By channel of an image; where it is given, the file normalises by itself: of the number p that it takes
            the model makes factor * p + offset.
        offset: By channel, see there.
        classes: Names of the classes of a classifier, whose output of shape (1, n) the file gives as n probabilities.
    """

    of: str
    name: str
    layout: tuple[int, ...] = ()
    factor: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """What a back end has to say of the file it wrote.

    Attributes:
        operators: How often each operator of the format stands in it, constants apart.
        notes: What the user should know before trusting it, a sentence each.
        details: More, as plain data, for the manifest.
        ports: Inputs and outputs that differ from the model's own.
        graph: What the file computes, where an option made that something else than the job's graph; its inputs and
            outputs have the model's names, its inputs the file's numbers.
    """

    operators: Mapping[str, int]
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    graph: Graph | None = None


class Backend(Protocol):
    """A translation of float graphs; a folder here that offers one as `BACKEND` is all it takes."""

    @property
    def name(self) -> str:
        """How targets call it."""

    @property
    def file(self) -> str:
        """Name of the file or package it writes into an artifact."""

    @property
    def runner(self) -> str:
        """Name of the runner that checks the file on this computer."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Arithmetics it can write, the default first: of float32, float16, dynamic (int8 weights) and int8."""

    @property
    def options(self) -> Mapping[str, Option]:
        """Its own choices by name."""

    def why_not(self) -> str | None:
        """What to install before it can write; None when it can."""

    def passes(self, dtype: str) -> Sequence[Pass]:
        """The exact passes that bring a recognised graph into the form it writes best."""

    def outline(self, job: Job) -> Outline:
        """What `write` would write of a float graph and all that it would miss, found by the same survey, in seconds.

        Nothing is written or compiled. The graph of a job of "int8" has its pairs.
        """

    def write(self, job: Job, path: Path) -> Written:
        """Write the file; the same job gives the same bytes.

        Raises:
            Unsupported: Ops, or forms of them, that the format does not have: all are named.
            ModelError: The model cannot be written for another reason, such as its size.
        """


@runtime_checkable
class Integers(Protocol):
    """What a back end has as well whose runtime wants integers in a form of its own."""

    def integers(self, graph: Graph, seen: Observed, options: Mapping[str, str]) -> QdqOptions:
        """Which layers' operands and results shall be integers, and how these are made.

        Args:
            graph: The float graph, after the back end's passes; it is only read.
            seen: Statistics of its values.
            options: As in `Job`.
        """


OBSERVER = Option("mse", ("mse", "minmax", "percentile"), "How the range of int8 activations follows from the data.")


def names() -> tuple[str, ...]:
    """Names of the back ends that translate."""
    faces = sorted(Path(__file__).parent.glob("*/__init__.py"))
    return tuple(face.parent.name for face in faces if "\nBACKEND: Backend = " in face.read_text(encoding="utf-8"))


def load(name: str) -> Backend:
    """The back end of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in names():
        known = ", ".join(("c", *names()))
        raise UsageError(f"there is no back end '{name}'", do=f"name another in the target's file: {known}")
    backend: Backend = importlib.import_module(f".{name}", __package__).BACKEND
    return backend


def offer(name: str) -> Offer:
    """What the back end of that name, `c` or one that translates, lets the user choose."""
    if name == "c":
        from . import c

        found = Offer(c.DTYPES, c.OPTIONS)
    else:
        backend = load(name)
        found = Offer(backend.dtypes, backend.options)
    return Offer(found.dtypes, {**found.options, "observer": OBSERVER}) if "int8" in found.dtypes else found
