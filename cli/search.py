"""The verb `search`: what there is to choose, and budgets; the rest is `driver.search`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from ..driver import search as searches
from ..ir.errors import UsageError
from . import fronts
from .verbs import FILE, SHAPES, VALUES, Bytes, Data, Fixed, Named, commands, verb

__all__ = ["search"]

MORE = click.IntRange(1)


@commands.command()
@click.argument("model", type=FILE, required=False)
@click.option("--space", help="Search architectures: a space that is shipped, or a .toml file of your own.")
@click.option("--target", required=True, help="A device (see `edgesmith targets`), or a .toml file of your own.")
@click.option("-o", "--out", type=FILE, required=True, help="Folder to write; the same search there is gone on with.")
@click.option("--data", type=FILE, required=True, help="Typical inputs; with labels, quality is accuracy.")
@click.option("--labels", type=FILE, help="The class of each sample, .npy. Default: the array `labels` of the data.")
@SHAPES
@VALUES
@click.option("--ram", type=Bytes(), help="RAM budget instead of the target's own, for example 64K.")
@click.option("--flash", type=Bytes(), help="Flash budget, likewise.")
@click.option("--ms", type=click.FloatRange(0, min_open=True), help="Milliseconds of an inference at most; "
              "of an estimate for a microcontroller the slow end counts.")  # fmt: skip
@click.option("--macs", type=MORE, help="Multiply-accumulates at most.")
@click.option("--axes", default="", help="Costs to make small besides, with commas: ram, flash, macs, instructions, "
              "latency. Default: flash,ram on microcontrollers, else flash,macs.")  # fmt: skip
@click.option("--method", type=click.Choice(searches.METHODS), default=searches.METHODS[0], show_default=True,
              help="How candidates are chosen; random to compare with.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every draw.")
@click.option("--generations", type=MORE, default=20, show_default=True, help="How long to search.")
@click.option("--population", type=click.IntRange(2), default=32, show_default=True, help="Networks judged in each.")
@click.option("--steps", type=MORE, help="Batches to train the weights that a space's networks share. Default: 1500.")
@click.option("--tuning", type=MORE, help="Batches to train each network of the front on. Default: 500.")
@click.option("--workers", type=click.IntRange(0), help="Processes that judge; 0 is none but this. Default: each core.")
@click.option("--engine", type=click.Choice(searches.ENGINES), default="local", show_default=True,
              help="Processes of this computer, or a Ray cluster.")  # fmt: skip
@click.option("--address", help="Of the Ray cluster. Default: one begun on this computer.")
@click.option("--finalists", type=click.IntRange(0), help="Networks of the front to compile. Default: all of them.")
@click.option("--check/--no-check", default=True, show_default=True, help="Run and compare what is compiled.")
@partial(verb, printer=fronts.search)
def search(
    model: Path | None, space: str | None, shapes: tuple[Named, ...], values: tuple[Fixed, ...], axes: str,
    **options: Any,
) -> Data:  # fmt: skip
    """Find the best network within budgets: MODEL made smaller without training, or one of a space, trained."""
    if (model is None) == (space is None):
        raise UsageError("a search is for a MODEL or within a --space", do="give one of the two")
    options["axes"] = tuple(part.strip() for part in axes.split(",") if part.strip())
    training = {name: value for name in ("steps", "tuning") if (value := options.pop(name)) is not None}
    labels = options.pop("labels")
    foreign = training if space is None else labels or shapes or values
    if foreign:
        whose = "--steps and --tuning go with a --space" if space is None else "--labels, --shape, --value with a MODEL"
        raise UsageError(whose, do="leave them out")
    with fronts.watch() as shown:
        options |= {"on_round": shown.round, "progress": shown.stage}
        if space is not None:
            return searches.design(space, **training, **options)
        assert model is not None
        return searches.compress(model, labels=labels, shapes=dict(shapes), values=dict(values), **options)
