"""Windows over one plane at a time: depthwise convolutions and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..machine import Machine
from .body import Body, Buffer, Expr
from .spec import PLAIN, Epilogue
from .window import Window

__all__ = ["Depthwise", "Pooling"]


@dataclass(frozen=True)
class Depthwise:
    """A kernel per output channel over images [batch * channels, H, W] in order; each image has `multiplier` outputs.

    `epilogue` has an index (channel of the batch, y, x).
    """

    batch: int
    channels: int
    multiplier: int
    window: Window
    start: int = 0
    epilogue: Epilogue = PLAIN

    @property
    def label(self) -> str:
        """See `Kernel`."""
        kernel, out = self.window.kernel, self.window.out
        shape = f"{self.channels}x{kernel[0]}x{kernel[1]}_{out[0]}x{out[1]}"
        return f"depthwise_{shape}{self.epilogue.formula.label}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        x, w, *more = operands
        window, lanes, each = self.window, machine.lanes, self.multiplier
        (high, wide), taps, planes = window.out, math.prod(window.kernel), self.batch * self.channels
        work = planes * each * high * wide * taps
        with window.walk(body, (x, self.start), planes, 0.0, work, lanes) as walk:
            with body.loop(each) as m, body.loop(high) as y:
                image = walk.number * each + m
                channel = body.tir.floormod(image, self.channels * each) if self.batch > 1 else image

                def visit(at: Expr, n: int) -> None:
                    total = body.number(0.0, n)
                    for tap in range(taps):
                        factor = body.spread(body.load(w, channel * taps + tap), n)
                        total = total + factor * walk.tap(tap, y, at, n)
                    value = self.epilogue(body, total, more, (image, y, at), n)
                    body.store(result, value, (image * high + y) * wide + at, n)

                body.strip(wide, lanes, visit)


@dataclass(frozen=True)
class Pooling:
    """Greatest element or sum of each window over `planes` images in order.

    A mean is the sum times the second operand, one factor per output pixel. `epilogue` has an index (plane, y, x).
    """

    mean: bool
    planes: int
    window: Window
    start: int = 0
    epilogue: Epilogue = PLAIN

    @property
    def label(self) -> str:
        """See `Kernel`."""
        kernel, out = self.window.kernel, self.window.out
        shape = f"{self.planes}x{kernel[0]}x{kernel[1]}_{out[0]}x{out[1]}"
        return f"{'average' if self.mean else 'max'}pool_{shape}{self.epilogue.formula.label}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        window, lanes, mean = self.window, machine.lanes, self.mean
        x, more = operands[0], operands[2 if mean else 1 :]
        (high, wide), taps = window.out, math.prod(window.kernel)
        border, work = 0.0 if mean else -math.inf, self.planes * high * wide * taps
        with window.walk(body, (x, self.start), self.planes, border, work, lanes) as walk:
            with body.loop(high) as y:

                def visit(at: Expr, n: int) -> None:
                    value = walk.tap(0, y, at, n)
                    for tap in range(1, taps):
                        part = walk.tap(tap, y, at, n)
                        value = value + part if mean else body.most(value, part)
                    if mean:
                        value = value * body.load(operands[1], y * wide + at, n)
                    value = self.epilogue(body, value, more, (walk.number, y, at), n)
                    body.store(result, value, (walk.number * high + y) * wide + at, n)

                body.strip(wide, lanes, visit)
