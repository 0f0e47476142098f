"""Quantisation: a float graph and calibration data become an integer graph that needs no real number at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...errors import InternalError, ModelError, UsageError
from ...graph import Array, Graph, Node, Value
from ...interpret import run
from ...op import Op
from ...ops import activation, attention, conv, elementwise, linear, norm
from .calibrate import Calibration, Progress, Samples, calibrate
from .channels_last import Layout
from .choose_scales import ScaleChooser
from .fit_codes import CODES
from .integer_lowering import Lowering
from .legalise_integer import scalar_function
from .lower_elements import lower_affine, lower_product, lower_sum, lower_unary
from .lower_products import lower_conv, lower_linear, lower_matmul, lower_patch_embed
from .lower_rows import lower_attention, lower_group_norm, lower_norm, lower_softmax
from .lower_space import MOVING
from .observers import OBSERVERS

Lower = Callable[[Lowering, Node], None]
LOWER: dict[type[Op], Lower] = {
    **MOVING,
    linear.Linear: lower_linear,
    linear.MatMul: lower_matmul,
    conv.Conv: lower_conv,
    conv.PatchEmbed: lower_patch_embed,
    norm.LayerNorm: lower_norm,
    norm.RMSNorm: lower_norm,
    norm.GroupNorm: lower_group_norm,
    activation.Softmax: lower_softmax,
    attention.Attention: lower_attention,
    elementwise.Add: lower_sum,
    elementwise.Sub: lower_sum,
    elementwise.Mul: lower_product,
    elementwise.Div: lower_product,
    elementwise.Affine: lower_affine,
}


@dataclass(frozen=True)
class QuantOptions:
    """How to quantise.

    Attributes:
        stream: dtype of the residual stream of token networks: "int8" halves the memory, "int16" is nearly lossless,
            "auto" takes int8 if the outputs on calibration data then stay within `auto_cosine` of the float ones.
        output: dtype of the network's results, "int8" or "int16".
        observer: "minmax", "percentile" or "mse", for int8 activations per tensor.
        weights: "minmax" or "mse", for the scale of each row of weights.
        code: What weights are stored in: "int8", or fewer bits, see `fit_codes`.
        channels: Give keys, values and attention outputs a scale per channel.
        auto_cosine: See `stream`.
    """

    stream: str = "auto"
    output: str = "int16"
    observer: str = "mse"
    weights: str = "mse"
    code: str = "int8"
    channels: bool = True
    auto_cosine: float = 0.995

    def __post_init__(self) -> None:
        """Refuse values that are not among those listed."""
        known = {
            "stream": ("int8", "int16", "auto"), "output": ("int8", "int16"), "observer": OBSERVERS,
            "weights": ("minmax", "mse"), "code": CODES,
        }  # fmt: skip
        for name, allowed in known.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class Quantised:
    """An integer graph and its ties to the float graph it came from.

    Attributes:
        graph: The integer graph; images have channels last, inputs are int8.
        source: The prepared float graph, value by value comparable.
        twins: (integer value, layout) by the name of each float value that has one.
        calibration: What the scales were chosen from.
        options: The options, `stream` resolved.
        notes: What the user should know.
    """

    graph: Graph
    source: Graph
    twins: Mapping[str, tuple[Value, Layout]]
    calibration: Calibration
    options: QuantOptions
    notes: tuple[str, ...] = ()

    def feeds(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Float inputs of the source as integer inputs of the graph."""
        made = {}
        for value in self.graph.inputs:
            if value.type.quant is None:
                raise InternalError(f"the integer input '{value.name}' has no scale")
            array = np.asarray(arrays[value.name]).transpose(self.twins[value.name][1])
            made[value.name] = value.type.quant.quantise(array, value.dtype)
        return made

    def real(self, name: str, integers: Array) -> Array:
        """The integers of a float value's twin as real numbers in the float order."""
        value, layout = self.twins[name]
        if value.type.quant is None:
            raise InternalError(f"the integer value '{value.name}' has no scale")
        return np.asarray(value.type.quant.dequantise(integers).transpose(np.argsort(layout)))

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The network's real outputs, computed in integers, for one sample."""
        made = run(self.graph, self.feeds(arrays))
        return {
            old.name: self.real(old.name, made[new.name])
            for old, new in zip(self.source.outputs, self.graph.outputs, strict=True)
        }


def quantise(
    graph: Graph,
    data: Calibration | Samples | None = None,
    options: QuantOptions | None = None,
    progress: Progress | None = None,
) -> Graph:
    """The integer graph of a float graph of batch 1; arguments and errors as for `convert`."""
    return convert(graph, data, options, progress).graph


def convert(
    graph: Graph,
    data: Calibration | Samples | None = None,
    options: QuantOptions | None = None,
    progress: Progress | None = None,
) -> Quantised:
    """Quantise, and keep the ties between float and integer values for `fidelity.report`.

    Args:
        graph: A float graph after its exact passes; left as it is.
        data: What `calibrate` made of this graph, or samples for it.
        options: See there.
        progress: Called with (samples done, samples in all) while calibrating.

    Raises:
        Unsupported: Operators without an integer form, all of them by name.
        ModelError: The calibration data does not fit, or a layer's scales are too far apart for 32-bit multipliers.
    """
    options = options or QuantOptions()
    calibration = data if isinstance(data, Calibration) else calibrate(graph, data, progress)
    if options.stream != "auto":
        return lower(calibration, options)
    narrow = lower(calibration, replace(options, stream="int8"))
    wide = lower(calibration, replace(options, stream="int16"))
    if [v.type for v, _ in narrow.twins.values()] == [v.type for v, _ in wide.twins.values()]:
        return narrow
    cosine = _worst_cosine(narrow)
    taken, comparison = (narrow, ">=") if cosine >= options.auto_cosine else (wide, "<")
    note = f"residual stream {taken.options.stream}: int8 gives cosine {cosine:.5f} {comparison} {options.auto_cosine}"
    return replace(taken, notes=(*taken.notes, note))


def lower(calibration: Calibration, options: QuantOptions) -> Quantised:
    """The integer graph of a calibrated one; `options.stream` must be "int8" or "int16"."""
    source = calibration.graph
    chooser = ScaleChooser(source, calibration, options.stream, options.output, options.observer, options.channels)
    lowering = Lowering(source, chooser, options.weights, options.code)
    lower_all(lowering)
    kept = {id(v) for n in lowering.graph.nodes for v in n.outputs} | {id(v) for v in lowering.graph.inputs}
    twins = {name: twin for name, twin in lowering.twins.items() if id(twin[0]) in kept}
    return Quantised(lowering.graph, source, twins, calibration, options, calibration.warnings)


def lower_all(lowering: Lowering) -> None:
    """Every node of the prepared graph in its integer form.

    Raises:
        ModelError: A layer's scales are too far apart for 32-bit multipliers.
    """
    for node in lowering.source.nodes:
        rule = LOWER.get(type(node.op)) or (lower_unary if scalar_function(node) else None)
        if rule is None:
            raise InternalError(f"'{node.name}' ({type(node.op).__name__}) passed the check but has no lowering")
        try:
            rule(lowering, node)
        except OverflowError as error:
            raise ModelError(
                "a layer joins scales that are too far apart for 32-bit multipliers",
                where=node.sources or (node.name,),
                why=str(error),
                do="scale the weights before the export, or compile with --dtype float32",
            ) from error
    lowering.finish()
    lowering.graph.prune()
    lowering.graph.metadata.update(lowering.source.metadata)


def _worst_cosine(quantised: Quantised, samples: int = 4) -> float:
    """The least cosine between integer and float outputs over some calibration samples."""
    worst = 1.0
    for feeds in quantised.calibration.samples[:samples]:
        expected, made = run(quantised.source, feeds), quantised.run(feeds)
        worst = min([worst, *(cosine(expected[name], made[name]) for name in expected)])
    return worst


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two arrays read as vectors; 1 for two zero vectors."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / length if length else float(not x.any() and not y.any())
