"""The figures of a compile as plain data: what a manifest says of memory, flash, cost and tools."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.errors import BudgetError

if TYPE_CHECKING:
    from ..ir.graph import Graph, Value
    from ..ir.memory import Plan
    from ..lowering import Port
    from ..lowering.c.toolchain import Sizes
    from ..runtimes import Measurement
    from ..targets import Estimate, Target

__all__ = ["check_fit", "columns", "cost", "flash", "looks", "memory", "origin", "outline", "ports", "tensors",
           "versions", "work"]  # fmt: skip

TOOLS = ("numpy", "onnx", "onnxruntime", "ortools", "unicorn", "ziglang")
STATIC_SECTIONS = (".data", ".bss")


def looks(graph: Graph, macs: int, most: int) -> int:
    """How many samples numpy can run for so many multiply-accumulates; at least one, at most `most`."""
    from ..ir.cost import cost as cost_of

    return max(1, min(most, macs // max(1, cost_of(graph).macs)))


def tensors(
    values: Iterable[Value], layouts: Mapping[str, Sequence[int]], ports: Iterable[Port] = ()
) -> list[dict[str, Any]]:
    """Inputs or outputs of what runs as a manifest has them: real = scale * (integer - zero_point).

    `of` is the name of the model's own tensor, and `layout[i]` the axis of it that lies at position i: images may have
    their channels last. `factor` and `offset` belong to pixels that the file normalises by itself, `classes` to
    probabilities that it gives by name.
    """
    differing = {port.of: port for port in ports}
    return [_tensor(value, layouts[value.name], differing.get(value.name)) for value in values]


def _tensor(value: Value, layout: Sequence[int], port: Port | None) -> dict[str, Any]:
    order = port.layout if port and port.layout else layout
    shape = [value.shape[axis] for axis in order] if port and port.layout else value.shape
    quant = value.type.quant
    return {
        "name": port.name if port else value.name,
        "of": value.name,
        "dtype": value.dtype,
        "shape": list(shape),
        "layout": list(order),
        "scale": None if quant is None else _plain(quant.scale),
        "zero_point": None if quant is None else quant.zero_point,
        "factor": list(port.factor) if port else [],
        "offset": list(port.offset) if port else [],
        "classes": list(port.classes) if port else [],
    }


def _plain(scale: float | tuple[float, ...]) -> float | list[float]:
    return [float(each) for each in scale] if isinstance(scale, tuple) else float(scale)


def origin(model: str | PathLike[str] | None) -> dict[str, Any]:
    """Name and hash of the file a model came from; both None for a graph made in Python."""
    if model is None:
        return {"file": None, "sha256": None}
    return {"file": Path(model).name, "sha256": hashlib.sha256(Path(model).read_bytes()).hexdigest()}


def memory(
    plan: Plan, sizes: Sizes | None, stack: int | None, run: Measurement | None, budget: int | None
) -> dict[str, Any]:
    """RAM in bytes. `total` is the arena, the stack and statics.

    The stack's bound holds for the library on every input; what is measured includes the harness around it.
    """
    measured = run.stack_high_water if run else None
    deepest = max(stack or 0, measured or 0)
    static = sum(sizes.sections.get(name, (0, 0))[1] for name in STATIC_SECTIONS) if sizes else None
    return {
        "arena_bytes": plan.arena_bytes,
        "arena_measured": run.arena_high_water if run else None,
        "stack_bytes": deepest,
        "stack_bound": stack,
        "stack_measured": measured,
        "static_bytes": static,
        "total": plan.arena_bytes + deepest + (static or 0),
        "budget": budget,
        "lower_bound": plan.lower_bound,
        "gap": plan.gap,
        "plan": plan.to_json(),
    }


def flash(sizes: Sizes | None, device: Target) -> dict[str, Any]:
    """Flash in bytes: by what it holds, and by where it lies, internal and external apart."""
    if sizes is None:
        return dict.fromkeys(("code", "weights", "internal", "budget", "external", "external_budget", "functions"))
    section = {name: length for name, (_, length) in sizes.sections.items()}
    external = section.get(".es_external", 0)
    internal = sum(section.get(name, 0) for name in (".text", ".rodata", ".data"))
    if device.external_flash_budget is None:
        internal, external = internal + external, 0
    return {
        "code": section.get(".text", 0),
        "weights": section.get(".rodata", 0) + section.get(".es_external", 0),
        "internal": internal,
        "budget": device.flash_budget,
        "external": external,
        "external_budget": device.external_flash_budget,
        "functions": sizes.functions,
    }


def columns(memory: Mapping[str, Any], flash: Mapping[str, Any]) -> dict[str, Any]:
    """The four columns in which ST's users compare: activations and runtime in RAM, weights and code in flash."""
    return {
        "activation_ram": memory["arena_bytes"],
        "runtime_ram": memory["total"] - memory["arena_bytes"],
        "weights_flash": flash["weights"],
        "code_flash": flash["code"],
    }


def cost(graph: Graph, steps: Sequence[Mapping[str, Any]], run: Measurement | None) -> dict[str, Any]:
    """Work and time of one inference; layers by instructions where they were counted, else by multiply-accumulates."""
    from ..ir.cost import cost as cost_of

    counts = run.per_step if run else ()
    costs = counts or tuple(step["macs"] for step in steps)
    return {
        "macs": cost_of(graph).macs,
        "instructions": run.instructions if run else None,
        "latency_ms": list(run.latency_ms) if run and run.latency_ms else None,
        "latency_kind": run.latency_kind if run else "unknown",
        "latency_because": run.latency_because if run else "",
        "estimate": run.estimate.json() if run and run.estimate else None,
        "functions": run.per_function if run else {},
        "unit": "instructions" if counts else "MACs",
        "layers": [
            {**{key: step[key] for key in ("name", "kind", "sources", "macs")}, "cost": count}
            for step, count in zip(steps, costs, strict=True)
        ],
    }


def work(graph: Graph) -> dict[str, Any]:
    """Work of one inference wherever it runs: multiply-accumulates, parameters, and the layers that multiply."""
    from ..ir.cost import cost as cost_of
    from ..ir.cost import node_macs

    total = cost_of(graph)
    layers = [(node, node_macs(node)) for node in graph.nodes]
    return {
        "macs": total.macs,
        "parameters": total.parameters,
        "unit": "MACs",
        "layers": [
            {"name": node.name, "kind": type(node.op).__name__, "sources": list(node.sources), "macs": n, "cost": n}
            for node, n in layers
            if n
        ],
    }


def forecast(graph: Graph, estimate: Estimate | None) -> dict[str, Any]:
    """Latency by the device's model of it, for a graph in the form in which a back end writes it; {} without one."""
    from ..ir.workload import workload

    if estimate is None:
        return {}
    low, high = estimate.band(workload(graph))
    return {"latency_ms": [low, high], "latency_kind": "estimated", "latency_because": estimate.because}


def outline(graph: Graph) -> dict[str, Any]:
    """What a recognised model is made of: ports, ops by family (the files under ir/ops), work and parameters."""
    from ..ir.cost import cost as cost_of

    families = {type(node.op).__name__: type(node.op).__module__.rpartition(".")[2] for node in graph.nodes}
    total = cost_of(graph)
    blocks: dict[str, dict[str, int]] = {}
    for kind, count in total.ops.items():
        blocks.setdefault(families[kind], {})[kind] = count
    return {
        "inputs": ports(graph.inputs),
        "outputs": ports(graph.outputs),
        "blocks": dict(sorted(blocks.items())),
        "nodes": total.nodes,
        "macs": total.macs,
        "parameters": total.parameters,
    }


def ports(values: Iterable[Value]) -> list[dict[str, Any]]:
    """Names, element types and shapes."""
    return [{"name": value.name, "dtype": value.dtype, "shape": list(value.shape)} for value in values]


def versions() -> dict[str, str]:
    """The tools whose releases may change a result."""
    from .. import __version__

    return {"edgesmith": __version__, **{name: metadata.version(name) for name in TOOLS}}


def check_fit(memory: Mapping[str, Any], flash: Mapping[str, Any], device: Target) -> None:
    """Hold what the program needs against every budget.

    Raises:
        BudgetError: It needs more; says of what and by how much.
    """
    rows = [
        ("RAM", memory["total"], memory["budget"], "give a larger --ram if the application leaves it"),
        ("internal flash", flash["internal"], flash["budget"], "choose a smaller model, or a device with more flash"),
        ("external flash", flash["external"], flash["external_budget"], "choose a smaller model"),
    ]
    for what, used, budget, do in rows:
        if used is not None and budget is not None and used > budget:
            over = f"{used - budget:,} more than the budget of {budget:,}"
            raise BudgetError(f"the program needs {used:,} bytes of {what} on {device.name}, {over}", do=do)
