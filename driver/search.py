"""A search from end to end: what is asked, the engine's front, and every network of it as a file ready to compile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import BudgetError, UsageError
from ..lowering.artifact import digest
from . import questions
from .feeds import Source
from .library import budget
from .queries import find_target

if TYPE_CHECKING:
    from ..nas.engine.crew import Crew
    from ..nas.engine.search import Result, Round
    from ..nas.problem import Budgets, Problem
    from ..targets import Target

__all__ = ["ENGINES", "JOURNAL", "METHODS", "compress", "design"]

ENGINES = ("local", "ray")
METHODS = ("evolution", "random")
JOURNAL = "journal.jsonl"

AXES = {"c": ("flash", "ram"), "": ("flash", "macs")}
"""Costs that are to be small where the user does not say which, by back end."""

UNITS = {"macs": "MACs", "flash": "bytes of flash", "ram": "bytes of RAM", "instructions": "instructions",
         "latency": "ms"}  # fmt: skip


def compress(
    model: str | PathLike[str], target: str | Target, *, out: str | PathLike[str], data: Source,
    labels: Source | None = None, shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, object] | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Search for compressed forms of a trained model, without training.

    Args:
        model: An `.onnx` file; it is only read.
        target: Name of a device, a path to a `.toml` file of your own, or a `Target`.
        out: Folder for the result. One that holds the same search, broken off or ended, is gone on with.
        data: Typical inputs, as for `compile`; with an array `labels`, quality is accuracy.
        labels: The class of each sample, if they are not among the data.
        shapes: A full shape for each input with symbolic dimensions.
        values: Inputs that never change, by name.
        options: As `conduct` takes them.

    Returns:
        What `result.json` says.

    Raises:
        BudgetError: Nothing that was found meets the budgets; says what comes closest.
        ModelError, MachineError, UsageError: As for `compile`.
    """
    device = find_target(target)
    inquiry = questions.compression(
        model, device, data, labels, shapes, values, _given(device, **options), options.get("progress") or _silent
    )
    return conduct(inquiry, target, Path(out), **options)


def design(
    space: str | Path, target: str | Target, *, out: str | PathLike[str], data: str | PathLike[str],
    steps: int = 1500, tuning: int = 500, seed: int = 0, progress: Callable[[str], None] | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Search for an architecture: all networks of a space are trained at once, the best are trained on.

    Args:
        space: The name of one that is shipped, or the path of a `.toml` file of your own.
        target: As for `compress`; so is `out`.
        out: Folder for the result.
        data: Labelled pictures: `.npz` with `images` and `labels`, a folder of idx files, or one of folders of PNGs.
        steps: Batches to train the weights that all networks share.
        tuning: Batches to train each network of the front on from them.
        seed: Of training and search.
        progress: Called with the name of each stage.
        options: As `conduct` takes them.

    Returns:
        What `result.json` says.

    Raises:
        BudgetError: Nothing that was found meets the budgets; says what comes closest.
        ModelError, MachineError, UsageError: As for `compile`.
    """
    say = progress or _silent
    _check_folder(Path(out))
    device = find_target(target)
    limits, given = _budgets(device, *map(options.get, ("ram", "flash", "macs"))), _given(device, **options)
    inquiry = questions.architecture(space, device, data, Path(out), steps, tuning, seed, limits, given, say)
    return conduct(inquiry, target, Path(out), seed=seed, progress=progress, **options)


def conduct(
    inquiry: questions.Inquiry, target: str | Target, out: Path, *, ram: int | None = None, flash: int | None = None,
    ms: float | None = None, macs: int | None = None, axes: Sequence[str] = (), seed: int = 0, generations: int = 20,
    population: int = 32, method: str = "evolution", workers: int | None = None, engine: str = "local",
    address: str | None = None, finalists: int | None = None, check: bool = True,
    on_round: Callable[[Round], None] | None = None, progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Search, and write what was found.

    Args:
        inquiry: What is searched.
        target: What it is for.
        out: Folder for the result.
        ram: Bytes of RAM at most; the target's own budget if nothing is said. So for `flash`.
        flash: Bytes of internal flash at most.
        ms: Milliseconds of an inference at most; on a microcontroller by the slow end of the estimate.
        macs: Multiply-accumulates at most.
        axes: Costs that are to be small besides; of `Costs`.
        seed: Of every draw.
        generations: With `population`, how many networks are judged at most.
        population: How many networks are bred from.
        method: "evolution", or "random" to compare with.
        workers: Processes or actors; as many as there are cores if nothing is said; 0 is this process itself.
        engine: One of `ENGINES`.
        address: Of the Ray cluster; without, one is begun on this computer.
        finalists: How many networks of the front are compiled, and told with the figures of their programs; all of them
            if nothing is said.
        check: Whether they are also run and compared, as by `compile`.
        on_round: Called with where the search stands.
        progress: Called with the name of each stage.
    """
    from ..nas.engine.search import Plan, search
    from .finalists import publish

    say = progress or _silent
    device = find_target(target)
    _check_folder(out)
    if address and engine != "ray":
        raise UsageError("an address is that of a Ray cluster", do="add --engine ray")
    budgets = replace(_budgets(device, ram, flash, macs), latency=ms)
    plan = Plan(budgets, _axes(device, axes), seed, generations, population, method)
    about = {**_identity(device), **inquiry.about}
    say("search")
    with _crew(inquiry.problem, engine, workers, address) as crew:
        result = search(
            inquiry.problem, plan, journal=out / JOURNAL, crew=crew, about=about, progress=on_round
        )  # fmt: skip
    if not result.front:
        raise _unmet(result, budgets)
    return publish(inquiry, target, plan, result, out, finalists, check, say)


def _budgets(device: Target, ram: int | None, flash: int | None, macs: int | None) -> Budgets:
    """What a network may take of a device: what was said, or what it has."""
    from ..nas.problem import Budgets

    return Budgets(macs, device.flash_budget if flash is None else flash, budget(device, ram))


def _axes(device: Target, axes: Sequence[str]) -> tuple[str, ...]:
    """Costs that are to be small."""
    return tuple(axes) or AXES.get(device.backend, AXES[""])


def _given(device: Target, ram: int | None = None, axes: Sequence[str] = (), **others: Any) -> int | None:
    """The RAM that compiles of the result are given: none where it is to be little, so that plans are the smallest."""
    return None if "ram" in _axes(device, axes) else budget(device, ram)


def _silent(stage: str) -> None:
    """Says nothing."""


@contextmanager
def _crew(problem: Problem, engine: str, workers: int | None, address: str | None) -> Iterator[Crew]:
    """Who judges."""
    from ..nas.engine.crew import Here
    from ..nas.engine.local import Local

    if engine == "ray":
        from ..nas.engine.ray import Cluster

        with Cluster(problem, workers, address) as cluster:
            yield cluster
    elif engine not in ENGINES:
        raise UsageError(f"there is no engine '{engine}'", do=f"use {' or '.join(ENGINES)}")
    elif workers == 0:
        yield Here(problem)
    else:
        with Local(problem, workers or os.cpu_count() or 1) as local:
            yield local


def _check_folder(out: Path) -> None:
    """Refuse a folder that holds something else than a search."""
    begun = any((out / name).exists() for name in (JOURNAL, questions.SUPERNET))
    if out.exists() and not begun and (not out.is_dir() or any(out.iterdir())):
        do = "choose another folder, or remove it yourself"
        raise UsageError("the output holds something else than a search", where=[str(out)], do=do)


def _identity(device: Target) -> dict[str, Any]:
    """What tells a search for this device by this version from others."""
    from .. import __version__

    return {"version": __version__, "target": device.name, "device": digest(repr(device).encode())}


def _unmet(result: Result, budgets: Budgets) -> BudgetError:
    """That nobody meets the budgets, and who comes closest."""
    what = f"none of {result.illegal} networks that were looked at meets the budgets"
    do = "give larger budgets, or search longer: with more --generations the same folder is gone on with"
    if result.closest is None or result.closest.costs is None:
        return BudgetError(what, why=f"no network comes of any: {result.refused}", do="look at the space or the model")
    costs = result.closest.costs
    misses = [
        f"{getattr(costs, name):,} {UNITS[name]}, {factor:.3g} times the budget of {getattr(budgets, name):,}"
        for name, factor in result.closest.over.items()
    ]
    genes = ", ".join(f"{name} {_short(choice)}" for name, choice in result.closest.genome.items())
    return BudgetError(what, why=f"the closest takes {' and '.join(misses)}; it is {genes}", do=do)


def _short(choice: object) -> str:
    return "/".join(map(str, choice)) if isinstance(choice, tuple) else str(choice)
