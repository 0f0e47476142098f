"""What the user decided, held against what the target's back end lets one choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import lowering
from ..ir.errors import UsageError
from ..lowering import Option
from ..targets import Target

__all__ = ["Choices", "choose"]


@dataclass(frozen=True)
class Choices:
    """Arithmetic, every option of the back end with its value, and whether to run the result."""

    dtype: str
    options: Mapping[str, str]
    check: bool


def choose(device: Target, dtype: str | None, given: Mapping[str, str | None], check: bool) -> Choices:
    """Fill in what was not given.

    Raises:
        UsageError: The back end has no such arithmetic, no such option, or not that value of it.
    """
    offer = lowering.offer(device.backend)
    whose = f"the {device.backend} back end of target '{device.name}'"
    if dtype is not None and dtype not in offer.dtypes:
        raise UsageError(f"{whose} does not compute in '{dtype}'", do=f"choose {_among(offer.dtypes)}")
    asked = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(set(asked) - set(offer.options)):
        have = ", ".join(offer.options) or "none"
        raise UsageError(f"{whose} has no option {', '.join(unknown)}", why=f"it has {have}", do="leave it out")
    for name, value in asked.items():
        _check(name, value, offer.options[name])
    return Choices(dtype or offer.dtypes[0], {k: asked.get(k, o.default) for k, o in offer.options.items()}, check)


def _check(name: str, value: str, option: Option) -> None:
    if option.values and value not in option.values:
        raise UsageError(f"{name} must be {_among(option.values)}, not '{value}'")


def _among(values: tuple[str, ...]) -> str:
    return " or ".join(values)
