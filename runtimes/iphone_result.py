"""Reads what the app on the iPhone reported: rounds of times, outputs, and where Core ML put each operation."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from ..ir.errors import MachineError, ModelError
from .coreml import Placement
from .runner import Measurement

__all__ = ["MARKS", "Result", "read_result"]

Array = np.ndarray[Any, np.dtype[Any]]

MARKS = re.compile(r"BENCHMARK BEGIN\s*(.*?)\s*BENCHMARK END", re.DOTALL)
"""A report in the console of the app, which prints one after every round."""

HOT = 2
"""Thermal states from here on ("serious", "critical") slow a phone down."""


@dataclass(frozen=True)
class Result:
    """A report of the app.

    Attributes:
        digest: Hash of the package that was measured.
        device: Model identifier of the phone, such as "iPhone13,2", and its system.
        units: Compute units that Core ML might use.
        rounds: Milliseconds of the inferences of each round, in order.
        load_ms: Milliseconds that loading took before each round.
        hot: Rounds at whose end the phone was slowing down for its heat.
        outputs: Outputs of the last inference.
        placement: Compute plan of the model on that phone; empty before iOS 17.4.
        error: What ended the benchmark early; "" if nothing did.
    """

    digest: str
    device: str
    units: str
    rounds: tuple[tuple[float, ...], ...]
    load_ms: tuple[float, ...]
    hot: int
    outputs: Mapping[str, Array]
    placement: tuple[Placement, ...]
    error: str = ""

    def means(self, dropped: int) -> list[float]:
        """Mean of each round without so many of its fastest and slowest inferences."""
        kept = [sorted(times)[dropped : len(times) - dropped] for times in self.rounds]
        return [fmean(times) for times in kept if times]

    def measurement(self, dropped: int = 10) -> Measurement:
        """The lowest and highest of the rounds' trimmed means, with the median of all in words.

        Raises:
            MachineError: The phone stopped before it finished a round.
        """
        means = self.means(dropped)
        if not means:
            what = "the phone stopped before the end of its first round"
            raise MachineError(what, where=[self.device], why=self.error, do="start the benchmark again")
        count = len(self.rounds[0])
        words = [f"{len(means)} rounds of {count} inferences, {dropped} lowest and highest of each left out"]
        words += [f"median of their means {median(means):.3f} ms, median load {median(self.load_ms):.0f} ms"]
        words += [f"hot in {self.hot} rounds"] if self.hot else []
        words += [f"ended early: {self.error}"] if self.error else []
        units = Counter(each.device for each in self.placement)
        where = ", ".join(f"{count} on {device}" for device, count in units.most_common())
        device = f"{self.device}, compute units: {self.units}" + (f" ({where})" if where else "")
        outputs = dict(self.outputs)
        band = min(means), max(means)
        return Measurement("iphone", device, "measured", outputs, outputs, band, "measured", "; ".join(words))


def read_result(report: Path | str, classes: Sequence[str] = ()) -> Result:
    """Read a report: a file, or text that holds one, such as the console of the app.

    Args:
        report: The file or the text.
        classes: Names of a classifier's classes in the order that its probabilities shall have; without, that of the
            names.

    Raises:
        ModelError: It holds none, or one of another format.
    """
    text = report.read_text(encoding="utf-8", errors="replace") if isinstance(report, Path) else report
    where = [str(report)] if isinstance(report, Path) else []
    marked = MARKS.findall(text)
    try:
        data = json.loads(marked[-1] if marked else text)
        if data["format"] != 1:
            raise ModelError(f"the report has format {data['format']}, this version reads 1", where=where)
        return _result(data, classes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        do = "copy the whole text from the app's screen, or between the lines BENCHMARK BEGIN and BENCHMARK END"
        raise ModelError("this is no report of the benchmark app", where=where, why=why, do=do) from error


def _result(data: Mapping[str, Any], classes: Sequence[str]) -> Result:
    rounds = data["rounds"]
    placement = tuple(
        Placement(each["name"], each["kind"], each["device"], (), each.get("share")) for each in data["placement"]
    )
    return Result(
        str(data["digest"]),
        f"{data['device']}, {data['system']}",
        str(data["units"]),
        tuple(tuple(float(each) for each in one["ms"]) for one in rounds),
        tuple(float(one["loadMs"]) for one in rounds),
        sum(int(one["thermalState"]) >= HOT for one in rounds),
        {name: _output(each, classes) for name, each in data["outputs"].items()},
        placement,
        str(data.get("error") or ""),
    )


def _output(entry: Mapping[str, Any], classes: Sequence[str]) -> Array:
    """An array, the predicted class, or the probabilities of the classes."""
    if entry.get("data") is not None:
        flat = np.frombuffer(base64.b64decode(entry["data"], validate=True), "<f4")
        return flat.astype(np.float32).reshape(entry["shape"])
    if entry.get("classes") is not None:
        odds = entry["classes"]
        order = classes if set(classes) == set(odds) else sorted(odds)
        return np.array([odds[name] for name in order], np.float32)
    return np.asarray(str(entry["text"]))
