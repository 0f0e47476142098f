"""Time on a device, and whether one of two is faster: both in one interleaved run, with an interval for their ratio."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..ir.errors import EdgesmithError, MachineError, ModelError, UsageError
from ..ir.graph import Array
from .boards import is_board
from .contenders import Contender, Difference, Place, compare, enter

if TYPE_CHECKING:
    from ..lowering.artifact import Artifact
    from ..runtimes.runner import Layer

__all__ = ["Bench", "Ratio", "Side", "Spread", "Stopped", "bench", "ratio", "spread"]

WARM_UPS = 3
LAYER_RUNS = 20
RESAMPLES, LEVEL, SEED = 2000, 0.95, 0
"""Of the bootstrap: how often rounds are drawn anew, and the share of the ratios that the interval holds."""


class Stopped(EdgesmithError):  # noqa: N818  (what happened, not what failed)
    """Whoever started it wants no more (exit code 130, as every shell has it)."""

    exit_code: ClassVar[int] = 130


@dataclass(frozen=True)
class Spread:
    """Milliseconds: the median, and what one run in ten stays below and above."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Ratio:
    """A median over another one, and the interval that holds it at `LEVEL` confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Side:
    """What is known of one contender.

    Attributes:
        name: Of its artifact or file.
        path: Where it lies.
        runner: What ran it.
        device: What it ran on, in words.
        kind: "measured" (time on real hardware) or "emulated" (exact instruction counts; time is an estimate).
        runs: How many were timed.
        wall_ms: Time that passed; None where nothing is timed.
        cpu_ms: Time that processor cores spent in this process; on a shared computer the steadier figure.
        instructions: Of one inference, exact, where they are counted.
        estimate_ms: The band that instructions make of time, where they are counted.
        because: Where the band comes from, or how a device took its own time.
        layers: Time by operator.
        why_no_layers: Why there is none.
    """

    name: str
    path: str
    runner: str
    device: str
    kind: str
    runs: int = 0
    wall_ms: Spread | None = None
    cpu_ms: Spread | None = None
    instructions: int | None = None
    estimate_ms: tuple[float, float] | None = None
    because: str = ""
    layers: tuple[Layer, ...] = ()
    why_no_layers: str = ""


@dataclass(frozen=True)
class Bench:
    """The outcome.

    Attributes:
        sides: The artifact; the one it is held against behind it.
        warm_ups: Runs of each before the first that was timed.
        ratios: By "cpu", "wall" or "instructions": the artifact over the other; below 1 the artifact is faster.
        difference: Of their outputs on the same input, where these can be compared.
        stopped: Why there are fewer rounds than asked for; None when there are all.
    """

    sides: tuple[Side, ...]
    warm_ups: int
    ratios: dict[str, Ratio]
    difference: Difference | None = None
    stopped: EdgesmithError | None = None

    def json(self) -> dict[str, Any]:
        """Plain data; `docs/json.md` says what each key means."""
        return {
            "sides": [asdict(side) for side in self.sides],
            "warm_ups": self.warm_ups,
            "ratios": {name: asdict(found) for name, found in self.ratios.items()},
            "confidence": LEVEL,
            "difference": asdict(self.difference) if self.difference else None,
            "stopped": self.stopped.json() if self.stopped else None,
        }


def bench(
    artifact: Artifact | Place,
    on: str | None = None,
    *,
    runs: int = 50,
    vs: Artifact | Place | None = None,
    save: str | PathLike[str] | None = None,
    port: str | None = None,
    flash: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Bench:
    """Measure an artifact, alone or against another one.

    Args:
        artifact: What `compile` returned, its folder, or a bare file such as a `.tflite` of whatever origin.
        on: The runner. Without, the one for what it is.
        runs: How many inferences of each are timed.
        vs: Another of the same, run in turns with the first on the same inputs.
        save: Write each time as it is taken to this file, a JSON object a line; it must not exist.
        port: Of the board, with `on="board"`: a serial port, or a URL of pyserial.
        flash: Write the firmware to the board first.
        progress: Called with the name of each stage.

    Returns:
        What was measured; where the device vanished or somebody pressed Ctrl-C, all until then, and `stopped`.

    Raises:
        UsageError: Nothing to run there, no such runner, kinds of figures that cannot be compared, or `save` exists.
        ModelError: The runtime refuses a file.
        MachineError: Something is missing on this computer, or the device is gone before the first round is complete.
    """
    say = progress or (lambda stage: None)
    both = [enter(artifact, on, port=port, flash=flash)] + ([] if vs is None else [enter(vs, on, strict=False)])
    if len({each.runner.kind for each in both}) > 1:
        kinds = " and ".join(f"{each.runner.kind} on the {each.runner.name}" for each in both)
        raise UsageError("figures of different kinds make no ratio", why=kinds, do="choose one runner with --on")
    if len(both) > 1 and is_board(both[0].runner):
        raise UsageError("a board holds one firmware at a time", do="measure one after the other, without --vs")
    if both[0].runner.kind == "emulated":
        return _counted(both, say)
    with _lines(save) as file:
        try:
            return _timed(both, runs, file, say)
        finally:
            for each in both:
                each.close()


def _counted(both: Sequence[Contender], say: Callable[[str], None]) -> Bench:
    """Exact counts need no repetition, and no interval."""
    sides = []
    for each in both:
        each.feed(both[0].samples())
        say(f"count the instructions of {each.path.name}")
        found = each.runner.run(each.path, each.feeds[0])
        sides.append(Side(_name(each), str(each.path), each.runner.name, found.device, found.kind, 1,
                          instructions=found.instructions, estimate_ms=found.latency_ms,
                          because=found.latency_because,
                          why_no_layers="they are in the artifact's report"))  # fmt: skip
    counts = [side.instructions for side in sides if side.instructions]
    exact = {"instructions": Ratio(*[counts[0] / counts[1]] * 3)} if len(counts) == 2 else {}
    return Bench(tuple(sides), 0, exact)


def _timed(both: Sequence[Contender], runs: int, file: IO[str] | None, say: Callable[[str], None]) -> Bench:
    """Load, warm up, and take turns."""
    for each in both:
        say(f"load {each.path.name}")
        each.open()
    samples = both[0].samples()
    fits = [each.feed(samples) for each in both]
    say("warm up")
    answers = [each.answer() for each in both]
    for each in both:
        for _ in range(WARM_UPS - 1):
            _run(each, 0)
    taken: list[Array] = []
    stopped: EdgesmithError | None = None
    try:
        for times in _rounds(both, runs, file, say):
            taken.append(times)
    except KeyboardInterrupt:
        stopped = Stopped(f"stopped by hand after {len(taken)} of {runs} rounds")
    except (MachineError, ModelError) as error:
        what = f"the device is gone after {len(taken)} of {runs} rounds"
        stopped = MachineError(what, where=error.where, why=f"{error.what} {error.why}".strip(), do=error.do)
    if stopped and not taken:
        raise stopped
    ratios = {}
    if len(both) > 1:
        ratios = {key: ratio(*np.array(taken)[:, :, column].T) for column, key in ((1, "cpu"), (0, "wall"))}
    difference = compare(*answers) if len(both) > 1 and all(fits) else None
    sides = [_side(each, np.array(taken)[:, number], stopped, say) for number, each in enumerate(both)]
    return Bench(tuple(sides), WARM_UPS, ratios, difference, stopped)


def _rounds(both: Sequence[Contender], runs: int, file: IO[str] | None, say: Callable[[str], None]) -> Iterator[Array]:
    """Yield each round's [sides, (wall, CPU)] milliseconds; who goes first alternates, the garbage has to wait."""
    if file:
        heads = [{"path": str(each.path), "runner": each.runner.name} for each in both]
        print(json.dumps({"sides": heads, "runs": runs, "warm_ups": WARM_UPS}), file=file, flush=True)
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(runs):
            say(f"measure: round {number + 1} of {runs}")
            times = np.zeros((len(both), 2))
            order = range(len(both)) if number % 2 == 0 else range(len(both) - 1, -1, -1)
            for side in order:
                times[side] = _run(both[side], number)
                if file:
                    line = {"round": number, "side": side, "wall_ms": times[side, 0], "cpu_ms": times[side, 1]}
                    print(json.dumps(line), file=file, flush=True)
            yield times
    finally:
        if collects:
            gc.enable()


def _run(each: Contender, number: int) -> tuple[float, float]:
    """Milliseconds of one inference: wall and CPU; both the device's own where it tells them."""
    session, feeds = each.loaded, each.feeds[number % len(each.feeds)]
    wall, cpu = time.perf_counter(), time.process_time()
    session.run(feeds)
    used, passed = time.process_time() - cpu, time.perf_counter() - wall
    own: float | None = getattr(session, "device_ms", None)
    return (passed * 1e3, used * 1e3) if own is None else (own, own)


def _side(each: Contender, times: Array, stopped: EdgesmithError | None, say: Callable[[str], None]) -> Side:
    """Figures of one contender from its [rounds, (wall, CPU)] milliseconds."""
    layers: tuple[Layer, ...] = ()
    why = "the measurement was cut short"
    if not stopped:
        say(f"profile {each.path.name}")
        layers, why = each.layers(min(len(times), LAYER_RUNS))
    wall, cpu = spread(times[:, 0]), spread(times[:, 1])
    return Side(_name(each), str(each.path), each.runner.name, each.loaded.device, each.kind, len(times),
                wall, cpu, because=each.because, layers=layers, why_no_layers=why)  # fmt: skip


def _name(each: Contender) -> str:
    return each.artifact.name if each.artifact else each.path.name


def spread(times: Array) -> Spread:
    """Median and outer tenths."""
    return Spread(*map(float, np.quantile(times, (0.5, 0.1, 0.9))))


def ratio(one: Array, other: Array) -> Ratio:
    """The ratio of two medians over the same rounds, with its bootstrap interval.

    Neighbouring rounds share what else the computer does, so that stretches of them are drawn, in a ring, not single
    ones; their length grows as the cube root of the rounds.
    """
    count = len(one)
    length = max(1, round(count ** (1 / 3)))
    starts = np.random.default_rng(SEED).integers(0, count, (RESAMPLES, -(-count // length)))
    rows = ((starts[..., None] + np.arange(length)) % count).reshape(RESAMPLES, -1)[:, :count]
    drawn = np.median(one[rows], 1) / np.median(other[rows], 1)
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Ratio(float(np.median(one) / np.median(other)), float(low), float(high))


@contextmanager
def _lines(save: str | PathLike[str] | None) -> Iterator[IO[str] | None]:
    """The file for the times as they come."""
    if save is None:
        yield None
        return
    try:
        file = Path(save).open("x", encoding="utf-8")
    except FileExistsError as error:
        do = "choose another name, or remove it"
        raise UsageError("the file to save to exists", where=[str(save)], do=do) from error
    except OSError as error:
        raise UsageError("the file to save to cannot be made", where=[str(save)], why=str(error)) from error
    with file:
        yield file
