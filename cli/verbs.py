"""The command line: verbs and options. What a verb finds is plain data, printed for people or given as JSON."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from .. import __version__
from ..driver import bench as benches
from ..driver import execution, queries, stages, survey
from ..ir.errors import EdgesmithError, InternalError
from . import console

__all__ = ["commands", "main"]

Data = dict[str, Any]
Named = tuple[str, tuple[int, ...]]
Fixed = tuple[str, float]
UNITS = {"": 1, "B": 1, "K": 1024, "KIB": 1024, "M": 1024**2, "MIB": 1024**2}
FILE = click.Path(path_type=Path)


class Bytes(click.ParamType[int]):
    """A number of bytes: 262144, 256K, 0.5M."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value.strip())
        if not found or found[2].upper() not in UNITS or not float(found[1]):
            self.fail(f"'{value}' is not a size; write for example 262144, 256K or 0.5M", param, ctx)
        return int(float(found[1]) * UNITS[found[2].upper()])


class Shape(click.ParamType[Named]):
    """The full shape of one input: x=1x3x224x224."""

    name = "name=AxBxC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Named:
        """Split the text."""
        name, sign, sizes = value.rpartition("=")
        if not sign or not name or not re.fullmatch(r"[1-9]\d*([x,][1-9]\d*)*", sizes):
            self.fail(f"'{value}' is not a shape; write for example x=1x3x224x224", param, ctx)
        return name, tuple(int(size) for size in re.split("[x,]", sizes))


class Value(click.ParamType[tuple[str, float]]):
    """What an input always is: sr=16000."""

    name = "name=number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Split the text."""
        name, _, number = value.rpartition("=")
        if not name or not re.fullmatch(r"-?\d+(\.\d*)?", number):
            self.fail(f"'{value}' is not a value; write for example sr=16000", param, ctx)
        return name, float(number)


def verb(function: Callable[..., Data], printer: Callable[[Data], None] | None = None) -> Callable[..., None]:
    """Make a command of a function that returns plain data; errors of the contract end in their own exit codes.

    People see the data by `printer`, or by that of the verb's name in `console`.

    Data that says of itself that samples differ (`equal` below `samples`) end in the code of an internal error, data
    that says why it is not complete (`stopped`) in that of the error it names.
    """

    @functools.wraps(function)
    def run(json_: bool, **options: Any) -> None:
        try:
            data = function(**options)
        except EdgesmithError as error:
            _fail(error, json_)
        except Exception as error:
            if os.environ.get("EDGESMITH_DEBUG"):
                raise
            do = "please report it, with the model if you can; with EDGESMITH_DEBUG=1 the traceback is shown"
            _fail(InternalError(f"{type(error).__name__}: {error}", do=do), json_)
        if json_:
            click.echo(json.dumps(data, indent=2))
        else:
            (printer or getattr(console, function.__name__))(data)
        if data.get("equal") is not None and data["equal"] < data["samples"]:
            sys.exit(InternalError.exit_code)
        if data.get("stopped"):
            sys.exit(data["stopped"]["exit_code"])

    return click.option("--json", "json_", is_flag=True, help="Print the result as JSON.")(run)


def _fail(error: EdgesmithError, json_: bool) -> NoReturn:
    """Print an error for whoever reads, and end in its exit code."""
    if json_:
        click.echo(json.dumps(error.json(), indent=2))
    else:
        console.error(error)
    sys.exit(error.exit_code)


SHAPES = click.option("--shape", "shapes", type=Shape(), multiple=True, help="Full shape of an input, once for each.")

VALUES = click.option("--value", "values", type=Value(), multiple=True, help="A number that an input always is.")



def _take(context: click.Context, option: click.Parameter, name: str | None) -> None:
    if name:
        context.with_resource(queries.compiler(name))


COMPILER = click.option("--compiler", callback=_take, expose_value=False, help="Builds C for devices: zig, gcc, or the "
                        "name or path of a GCC. Default: $EDGESMITH_COMPILER, else zig.")  # fmt: skip


def choices(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of every back end; which of them a target has, the compile checks."""
    for name, (values, default, text, whose) in reversed(queries.options().items()):
        kind = click.Choice(values) if values else None
        told = f"{text} [{whose}; default: {default or 'none'}]"
        function = click.option(f"--{name.replace('_', '-')}", name, type=kind, help=told)(function)
    return function


@click.group(name="edgesmith", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def commands() -> None:
    """Compile ONNX vision transformers for microcontrollers and phones."""


@commands.command()
@click.argument("model", type=FILE)
@click.option("--target", required=True, help="A device (see `edgesmith targets`), or a .toml file of your own.")
@click.option("-o", "--out", type=FILE, required=True, help="Folder to write; a previous artifact there is replaced.")
@click.option("--calibration", type=FILE, help="Typical inputs, .npz or .npy. Without: noise, and no word on accuracy.")
@SHAPES
@VALUES
@click.option("--ram", type=Bytes(), help="RAM budget instead of the target's own, for example 256K.")
@click.option("--dtype", type=click.Choice(queries.dtypes()),
              help="Arithmetic. Default: that of the back end, int8 for C.")  # fmt: skip
@choices
@COMPILER
@click.option("--check/--no-check", default=True, show_default=True, help="Run the result and compare it.")
@verb
def compile(model: Path, shapes: tuple[Named, ...], values: tuple[Fixed, ...], **options: Any) -> Data:
    """Turn an ONNX model into a C library that fits a device, or into a file that a runtime takes."""
    with console.progress() as progress:
        artifact = stages.compile(model, shapes=dict(shapes), values=dict(values), progress=progress, **options)
    return {"folder": str(artifact.folder), **artifact.manifest}


@commands.command()
@click.argument("model", type=FILE)
@click.option("--target", "targets", multiple=True, help="A device or a .toml file, once for each. Default: all.")
@SHAPES
@VALUES
@verb
def check(model: Path, shapes: tuple[Named, ...], values: tuple[Fixed, ...], targets: tuple[str, ...]) -> Data:
    """Tell in seconds what becomes of a model on each target, and all that is missing."""
    with console.progress() as progress:
        return survey.check(model, targets, dict(shapes), dict(values), progress)


PORT = click.option("--port", help="Serial port of the board, with --on board: /dev/ttyACM0, socket://host:port.")

FLASH = click.option("--flash", is_flag=True, help="Write the firmware to the board first, with OpenOCD.")


@commands.command()
@click.argument("artifact", type=FILE)
@click.option("--on", help="Runner: emulator or host for C; others have their own. Default: the artifact's.")
@click.option("--inputs", type=FILE, help="Inputs as .npy or .npz. Without: the samples kept in the artifact.")
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="Samples to run at most.")
@click.option("--check", is_flag=True, help="Compare with the reference, integers bit for bit.")
@click.option("--profile", is_flag=True, help="Tell where instructions go: by layer, per MAC, by kind of work.")
@click.option("--arithmetic", help="What an evaluator rounds to float16: declared (by the file), float32 (nothing), "
              "float16 (all results); with -accumulate16 sums as well.")  # fmt: skip
@click.option("--save", type=FILE, help="Write the outputs to this .npz.")
@click.option("--calibrate", type=FILE, help="With --on board: write what it measured beside the estimate.")
@click.option("--calibration", type=FILE, help="Narrow the emulator's estimate by a file that --calibrate wrote.")
@COMPILER
@PORT
@FLASH
@verb
def run(artifact: Path, **options: Any) -> Data:
    """Run an artifact in the emulator, on this computer, on a board, or in the runtime it is for."""
    with console.progress() as progress:
        return execution.run(artifact, progress=progress, **options).json()


@commands.command()
@click.argument("artifact", type=FILE)
@click.option("--on", help="Runner. Default: the one for the artifact, or for the kind of file.")
@click.option("--runs", type=click.IntRange(1), default=50, show_default=True, help="Inferences to time.")
@click.option("--vs", type=FILE, help="Another artifact or file, run in turns with the first.")
@click.option("--save", type=FILE, help="Write each time as it is taken to this file, a JSON object a line.")
@COMPILER
@PORT
@FLASH
@verb
def bench(artifact: Path, **options: Any) -> Data:
    """Time an artifact, or anybody's .tflite or .onnx file, alone or against another."""
    with console.progress(animated=False) as progress:
        return benches.bench(artifact, progress=progress, **options).json()


@commands.command()
@click.argument("model", type=FILE)
@SHAPES
@VALUES
@click.option("--after", metavar="PASS", help="Stop after this pass. Default: after recognition.")
@verb
def show(model: Path, shapes: tuple[Named, ...], values: tuple[Fixed, ...], after: str | None) -> Data:
    """Print a model as the compiler sees it."""
    return queries.show(model, shapes=dict(shapes), values=dict(values), after=after)


@commands.command()
@verb
def targets() -> Data:
    """List the devices and their budgets."""
    return queries.targets()


@commands.command()
@click.option("--build", is_flag=True, help="Also compile a probe for every device.")
@verb
def doctor(build: bool) -> Data:
    """Tell what works on this computer, and why the rest does not."""
    return queries.doctor(build=build)


def main() -> None:
    """Entry point of the installed command."""
    commands()
