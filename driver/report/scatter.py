"""A plot of one figure against another as an SVG element: all that was judged, the front, a budget, or a course."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Plot"]

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 78, 14, 14, 44
TICKS = 5
"""Lines of the grid in each direction, about."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Plot:
    """What a plot shows.

    Attributes:
        x, y: What the axes are.
        points: Small dots, (x, y).
        front: Large dots with their names.
        course: Points that a line joins.
        budget: The greatest x that is allowed.
    """

    x: str
    y: str
    points: Sequence[Point] = ()
    front: Sequence[tuple[str, Point]] = ()
    course: Sequence[Point] = ()
    budget: float | None = None

    def svg(self) -> str:
        """The element; colours are those of the page around it."""
        parts = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.y)} over'
                 f' {escape(self.x)}">']  # fmt: skip
        parts += self._grid()
        if self.budget is not None and self.budget <= self._span(0)[1]:
            at = self._across(self.budget)
            parts.append(f'<line class="most" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in map(self._place, self.points)]
        if self.course:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._place, self.course))
            parts.append(f'<polyline class="course" points="{line}"/>')
        for name, point in self.front:
            x, y = self._place(point)
            told = f"{name}: {self.x} {figure(point[0])}, {self.y} {figure(point[1])}"
            parts.append(f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(told)}</title></circle>')
        return "\n".join([*parts, "</svg>"])

    def _grid(self) -> list[str]:
        right, low = WIDTH - RIGHT, HEIGHT - BOTTOM
        parts = []
        for value in ticks(*self._span(0)):
            at = self._across(value)
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{low}"/>'
                         f'<text x="{at:.1f}" y="{low + 16}" text-anchor="middle">{figure(value)}</text>')  # fmt: skip
        for value in ticks(*self._span(1)):
            at = self._up(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
                         f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{figure(value)}</text>')  # fmt: skip
        parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(self.x)}</text>')
        middle = (TOP + low) / 2
        turned = f'transform="rotate(-90 12 {middle})"'
        parts.append(f'<text x="12" y="{middle}" text-anchor="middle" {turned}>{escape(self.y)}</text>')
        return parts

    def _span(self, axis: int) -> tuple[float, float]:
        """Least and greatest value, with a margin."""
        values = [point[axis] for point in (*self.points, *(point for _, point in self.front), *self.course)]
        low, high = min(values), max(values)
        margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
        return low - margin, high + margin

    def _across(self, value: float) -> float:
        low, high = self._span(0)
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def _up(self, value: float) -> float:
        low, high = self._span(1)
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def _place(self, point: Point) -> Point:
        return self._across(point[0]), self._up(point[1])


def ticks(low: float, high: float) -> list[float]:
    """Round values between two others: 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(each for each in (1, 2, 5, 10) if each * power >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def figure(value: float) -> str:
    """A number in few digits: 1.5M, 20k, 0.91."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"
