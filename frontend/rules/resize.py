"""Resizing along any axes: as an op where images are resized plainly, else as a matrix along each axis."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ...ir.graph import Array, Value
from ...ir.ops.linear import Linear
from ...ir.ops.shape import Gather, Resize
from ..call import Call, Result, rule
from .terms import add, axis_last, turn

PLAIN = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")

LONGEST = 2**16
"""Elements of an axis that is resized by a matrix, before and after."""
LARGEST_MATRIX = 2**24
"""Its elements: those of images of 4096 pixels."""
LONGEST_GATHERED = 2**20
"""Elements of an axis after the nearest ones were picked: half a minute of sound."""


@dataclass(frozen=True)
class Sampling:
    """How the positions of one axis are read. Source: ONNX operator Resize."""

    mode: str
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False

    def bounded(self, source: int, target: int) -> bool:
        """Whether an axis has a sane number of positions, and its matrix a sane size if it gets one."""
        if self.mode == "nearest" and self.coordinates != "tf_crop_and_resize":
            return target <= LONGEST_GATHERED
        return max(source, target) <= LONGEST and source * target <= LARGEST_MATRIX

    def positions(self, source: int, target: int, scale: float, span: tuple[float, float]) -> Array:
        """Where each output element lies in the input, as float64 element numbers."""
        i, exact = np.arange(target, dtype=np.float64), scale * source
        if self.coordinates == "tf_crop_and_resize":
            steps = i / (exact - 1) if exact > 1 else np.full(target, 0.5)
            return np.asarray((span[0] + steps * (span[1] - span[0])) * (source - 1))
        if self.coordinates == "align_corners":
            return i * (source - 1) / (exact - 1) if exact != 1 else i * 0
        if self.coordinates == "asymmetric":
            return i / scale
        if self.coordinates == "pytorch_half_pixel" and exact == 1:
            return np.full(target, -0.5)
        shift = source / 2 * (1 - target / exact) if self.coordinates == "half_pixel_symmetric" else 0.0
        return shift + (i + 0.5) / scale - 0.5

    def picks(self, at: Array, source: int) -> Array:
        """Nearest element of each position."""
        rounded = {
            "floor": np.floor(at),
            "ceil": np.ceil(at),
            "round_prefer_floor": np.ceil(at - 0.5),
            "round_prefer_ceil": np.floor(at + 0.5),
        }[self.nearest]
        return np.clip(rounded, 0, source - 1).astype(np.int64)

    def matrix(self, at: Array, source: int, scale: float) -> Array:
        """Weights [target, source] of the elements around each position, edges repeated."""
        shrink = min(scale, 1.0) if self.antialias else 1.0
        radius = math.ceil((2 if self.mode == "cubic" else 1) / shrink)
        base, rows = np.floor(at), np.zeros((len(at), source))
        for offset in range(-radius, radius + 2):
            place = base + offset
            weight = self._kernel((at - place) * shrink)
            if self.exclude_outside:
                weight = np.where((place < 0) | (place >= source), 0.0, weight)
            np.add.at(rows, (np.arange(len(at)), np.clip(place, 0, source - 1).astype(np.int64)), weight)
        sums = rows.sum(axis=1, keepdims=True)
        return rows / np.where(sums == 0, 1.0, sums)

    def _kernel(self, distance: Array) -> Array:
        """Linear, or cubic. Source: Keys 1981, equation 15."""
        d, a = np.abs(distance), self.cubic
        if self.mode == "linear":
            return np.asarray(np.maximum(1 - d, 0))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


@dataclass
class _Plan:
    """Sizes, scales and regions of the axes that are resized."""

    axes: tuple[int, ...]
    sizes: list[int] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)


def _plan(call: Call) -> _Plan:
    x = call.x
    rank = len(x.shape)
    plan = _Plan(tuple(call.axis(a, rank) for a in call.attr("axes", range(rank))))
    count = len(plan.axes)
    given = call.get(3)
    sources = [x.shape[axis] for axis in plan.axes]
    if given is not None and given.type.size:
        plan.sizes = list(call.ints(3, "sizes"))
        plan.scales = [size / source for size, source in zip(plan.sizes, sources, strict=True)]
        policy = call.attr("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scale = max(plan.scales) if policy == "not_smaller" else min(plan.scales)
            plan.scales = [scale] * count
            plan.sizes = [math.floor(scale * source + 0.5) for source in sources]
    else:
        plan.scales = [float(scale) for scale in call.array(2, "scales").reshape(-1)]
        plan.sizes = [_scaled(n, scale) for n, scale in zip(sources, plan.scales, strict=True)]
    roi = call.get(1)
    region = call.array(1, "roi").reshape(-1) if roi is not None and roi.type.size else None
    ends = [(0.0, 1.0)] * count if region is None else list(zip(region[:count], region[count:], strict=True))
    plan.spans = [(float(a), float(b)) for a, b in ends]
    return plan


def _scaled(source: int, scale: float) -> int:
    """Elements of an axis by its scale, in single precision as ONNX has it: there 7 * (5 / 7) is 5."""
    return math.floor(np.float32(source) * np.float32(scale))


@rule("Resize")
def resize(call: Call) -> Result:
    """To sizes or by scales; in opset 10 it is what Upsample was."""
    if call.opset < 11:
        return upsample(call)
    how = Sampling(
        call.attr("mode", "nearest"),
        call.attr("coordinate_transformation_mode", "half_pixel"),
        call.attr("nearest_mode", "round_prefer_floor"),
        call.attr("cubic_coeff_a", -0.75),
        call.flag("antialias", 0),
        call.flag("exclude_outside", 0),
    )
    return _resized(call, how, _plan(call), call.attr("extrapolation_value", 0.0))


@rule("Upsample")
def upsample(call: Call) -> Result:
    """Whole and half pixels are not told apart: element i of the result lies at i / scale."""
    mode = {"bilinear": "linear"}.get(call.attr("mode", "nearest"), call.attr("mode", "nearest"))
    scales = [float(s) for s in (call.attr("scales") or call.array(1, "scales").reshape(-1))]
    sizes = [_scaled(n, scale) for n, scale in zip(call.x.shape, scales, strict=True)]
    plan = _Plan(tuple(range(len(call.x.shape))), sizes)
    plan.scales, plan.spans = scales, [(0.0, 1.0)] * len(scales)
    return _resized(call, Sampling(mode, "asymmetric", "floor"), plan, 0.0)


def _resized(call: Call, how: Sampling, plan: _Plan, outside: float) -> Value:
    x = call.x
    call.require(how.mode in ("nearest", "linear", "cubic"), f"mode {how.mode}")
    call.require(how.coordinates in (*PLAIN, "half_pixel_symmetric", "tf_crop_and_resize"), f"with {how.coordinates}")
    call.require(how.nearest in ROUNDINGS, f"with nearest_mode {how.nearest}")
    call.require(min(plan.sizes, default=1) > 0, f"to the sizes {plan.sizes}")
    op = _as_op(x, how, plan)
    if op is not None:
        result: Value = call.add(op, x)
        return result
    # Backwards: last axes are resized without moving anything.
    for axis, size, scale, span in reversed(list(zip(plan.axes, plan.sizes, plan.scales, plan.spans, strict=True))):
        whole = how.coordinates != "tf_crop_and_resize" or span == (0.0, 1.0)
        if not (whole and size == x.shape[axis] and math.isclose(scale, 1.0)):
            source = x.shape[axis]
            call.demand(how.bounded(source, size), f"an axis of {source} is resized to {size}")
            x = _along(call, x, axis, how, how.positions(source, size, scale, span), scale, outside)
    return x


def _as_op(x: Value, how: Sampling, plan: _Plan) -> Resize | None:
    """The op, if images alone are resized, by exactly what their sizes say."""
    moved = {axis for axis, size, scale in zip(plan.axes, plan.sizes, plan.scales, strict=True)
             if size != x.shape[axis] or not math.isclose(scale, 1.0)}  # fmt: skip
    size = dict(zip(plan.axes, plan.sizes, strict=True))
    exact = all(math.isclose(scale * x.shape[axis], size[axis], rel_tol=1e-6)
                for axis, scale in zip(plan.axes, plan.scales, strict=True))  # fmt: skip
    plain = how.mode != "cubic" and how.coordinates in PLAIN and not (how.antialias or how.exclude_outside)
    if len(x.shape) != 4 or not moved or not moved <= {2, 3} or not exact or not plain:
        return None
    return Resize((size.get(2, x.shape[2]), size.get(3, x.shape[3])), how.mode, how.coordinates, how.nearest)


def _along(call: Call, x: Value, axis: int, how: Sampling, at: Array, scale: float, outside: float) -> Value:
    """One axis: nearest elements are gathered, others are a product with a matrix."""
    source = x.shape[axis]
    beyond = (at < 0) | (at > source - 1) if how.coordinates == "tf_crop_and_resize" else np.zeros(len(at), np.bool_)
    if how.mode == "nearest" and not beyond.any():
        picks = call.constant(how.picks(at, source), "picks", "int64")
        result: Value = call.add(Gather(axis), x, picks)
        return result
    if how.mode == "nearest":
        matrix = np.zeros((len(at), source))
        matrix[np.arange(len(at)), how.picks(at, source)] = 1
    else:
        matrix = how.matrix(at, source, scale)
    call.require(x.dtype == "float32", f"of {x.dtype}")
    matrix[beyond] = 0
    rows, back = axis_last(call, x, axis)
    rows = call.add(Linear(), rows, call.constant(matrix, f"axis{axis}"))
    if outside and beyond.any():
        rows = add(call, rows, call.constant(beyond * outside, "outside"))
    return turn(call, rows, back)
