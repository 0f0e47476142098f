"""A MIL program by kinds and shapes alone: it stands in for coremltools' builder where only an outline is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["MOVES", "Operation", "Sketch", "Variable", "live", "operators"]

Shape = tuple[int, ...]

MOVES = frozenset({"cast", "identity", "reshape", "transpose"})
"""What coremltools joins, moves or drops where it stands next to its like: so many or fewer stay in a package."""


@dataclass(eq=False)
class Operation:
    """An op: what it reads, and the bytes of constants that are given to it directly."""

    kind: str
    name: str
    operands: tuple[Variable, ...] = ()
    nbytes: int = 0
    outputs: list[Variable] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether its results are known at compile time."""
        return self.kind == "const" or (bool(self.operands) and all(each.op.known for each in self.operands))


@dataclass(eq=False)
class Variable:
    """A result: its shape and the op that makes it."""

    shape: Shape
    name: str
    op: Operation


class Sketch:
    """Takes the calls that coremltools' builder takes; nothing is computed."""

    def const(self, val: Any, name: str) -> Variable:
        """A constant."""
        return self._made("const", name, [np.shape(val)], (), np.asarray(val).nbytes)[0]

    def placeholder(self, shape: Sequence[int], name: str = "") -> Operation:
        """An input."""
        return self._made("placeholder", name, [tuple(shape)], ())[0].op

    def __getattr__(self, kind: str) -> Callable[..., Variable | tuple[Variable, ...]]:
        """The builder's method for an op."""

        def add(name: str, **given: Any) -> Variable | tuple[Variable, ...]:
            flat = [one for each in given.values() for one in (each if isinstance(each, list | tuple) else [each])]
            operands = tuple(each for each in flat if isinstance(each, Variable))
            constants = sum(each.nbytes for each in flat if isinstance(each, np.ndarray))
            shapes = list(RULES.get(kind, _broadcast)(given))
            made = self._made(kind, name, shapes, operands, constants)
            return made if kind in ("split", "topk") else made[0]

        return add

    def _made(
        self, kind: str, name: str, shapes: list[Shape], operands: tuple[Variable, ...], nbytes: int = 0
    ) -> tuple[Variable, ...]:
        made = Operation(kind, name, operands, nbytes)
        made.outputs = [Variable(shape, name, made) for shape in shapes]
        return tuple(made.outputs)


def live(outputs: Iterable[Variable]) -> list[Operation]:
    """The ops that some output depends on, constants with them."""
    found, waiting = set[Operation](), [each.op for each in outputs]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [each.op for each in op.operands]
    return list(found)


def operators(ops: Iterable[Operation]) -> dict[str, int]:
    """How often each kind of op is left when what is known at compile time has been computed."""
    kept = (op.kind for op in ops if op.kind != "placeholder" and not op.known)
    return dict(sorted(Counter(kept).items()))


# ---- shapes of results ----


def _of(operand: Any) -> Shape:
    return operand.shape if isinstance(operand, Variable) else np.shape(operand)


def _broadcast(given: dict[str, Any]) -> Iterator[Shape]:
    """As x, and y where there is one: whatever works element by element, along an axis, or only moves."""
    yield np.broadcast_shapes(*(_of(given[key]) for key in ("x", "y") if key in given))


def _matmul(given: dict[str, Any]) -> Iterator[Shape]:
    a, b = _of(given["x"]), _of(given["y"])
    rows = a[-1] if given.get("transpose_x") else a[-2]
    columns = b[-2] if given.get("transpose_y") else b[-1]
    yield (*np.broadcast_shapes(a[:-2], b[:-2]), rows, columns)


def _linear(given: dict[str, Any]) -> Iterator[Shape]:
    yield (*_of(given["x"])[:-1], _of(given["weight"])[0])


def _attention(given: dict[str, Any]) -> Iterator[Shape]:
    yield (*_of(given["query"])[:-1], _of(given["value"])[-1])


def _windows(size: Shape, kernel: Sequence[int], given: dict[str, Any]) -> Shape:
    """Pixels of a result of windows over an image."""
    pad = given.get("pad", (0,) * (2 * len(size)))
    strides, dilations = (given.get(key, (1,) * len(size)) for key in ("strides", "dilations"))
    return tuple(
        (n + pad[2 * i] + pad[2 * i + 1] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, n in enumerate(size)
    )  # fmt: skip


def _conv(given: dict[str, Any]) -> Iterator[Shape]:
    (batch, _, *size), (channels, _, *kernel) = _of(given["x"]), _of(given["weight"])
    yield (batch, channels, *_windows(tuple(size), kernel, given))


def _pool(given: dict[str, Any]) -> Iterator[Shape]:
    batch, channels, *size = _of(given["x"])
    yield (batch, channels, *_windows(tuple(size), given["kernel_sizes"], given))


def _pad(given: dict[str, Any]) -> Iterator[Shape]:
    x, pad = _of(given["x"]), given["pad"]
    pad = (*[0] * (2 * len(x) - len(pad)), *pad)
    yield tuple(n + pad[2 * i] + pad[2 * i + 1] for i, n in enumerate(x))


def _reduced(given: dict[str, Any]) -> Iterator[Shape]:
    x, keep = _of(given["x"]), given["keep_dims"]
    axes = {axis % len(x) for axis in given["axes"]}
    yield tuple(1 if i in axes else n for i, n in enumerate(x) if keep or i not in axes)


def _reshape(given: dict[str, Any]) -> Iterator[Shape]:
    shape = tuple(given["shape"])
    if -1 in shape:
        rest = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
        shape = tuple(int(np.prod(_of(given["x"]), dtype=np.int64)) // rest if n == -1 else n for n in shape)
    yield shape


def _transpose(given: dict[str, Any]) -> Iterator[Shape]:
    yield tuple(_of(given["x"])[axis] for axis in given["perm"])


def _concat(given: dict[str, Any]) -> Iterator[Shape]:
    shapes, axis = [_of(each) for each in given["values"]], given["axis"]
    yield tuple(sum(each[i] for each in shapes) if i == axis else n for i, n in enumerate(shapes[0]))


def _split(given: dict[str, Any]) -> Iterator[Shape]:
    x, axis, count = _of(given["x"]), given["axis"], given.get("num_splits")
    for size in (x[axis] // count,) * count if count else given["split_sizes"]:
        yield tuple(size if i == axis else n for i, n in enumerate(x))


def _slice(given: dict[str, Any]) -> Iterator[Shape]:
    x = _of(given["x"])
    stride, squeeze = (given.get(key, (default,) * len(x)) for key, default in (("stride", 1), ("squeeze_mask", False)))
    bounds = zip(given["begin"], given["end"], stride, squeeze, strict=True)
    yield tuple(len(range(first, last, step)) for first, last, step, gone in bounds if not gone)


def _gather(given: dict[str, Any]) -> Iterator[Shape]:
    x, axis = _of(given["x"]), given["axis"]
    yield (*x[:axis], *_of(given["indices"]), *x[axis + 1 :])


def _select(given: dict[str, Any]) -> Iterator[Shape]:
    yield _of(given["a"])


def _scatter(given: dict[str, Any]) -> Iterator[Shape]:
    yield _of(given["data"])


def _arg_max(given: dict[str, Any]) -> Iterator[Shape]:
    x = _of(given["x"])
    yield tuple(1 if i == given["axis"] else n for i, n in enumerate(x))


def _top_k(given: dict[str, Any]) -> Iterator[Shape]:
    for _ in ("values", "places"):
        yield tuple(given["k"] if i == given["axis"] else n for i, n in enumerate(_of(given["x"])))


def _tile(given: dict[str, Any]) -> Iterator[Shape]:
    yield tuple(n * times for n, times in zip(_of(given["x"]), given["reps"], strict=True))


def _upsampled(given: dict[str, Any]) -> Iterator[Shape]:
    batch, channels, height, width = _of(given["x"])
    yield batch, channels, height * given["scale_factor_height"], width * given["scale_factor_width"]


def _resized(given: dict[str, Any]) -> Iterator[Shape]:
    yield (*_of(given["x"])[:2], given["target_size_height"], given["target_size_width"])


RULES: dict[str, Callable[[dict[str, Any]], Iterator[Shape]]] = {
    "avg_pool": _pool, "concat": _concat, "conv": _conv, "gather": _gather, "linear": _linear, "matmul": _matmul,
    "max_pool": _pool, "pad": _pad, "reduce_max": _reduced, "reduce_mean": _reduced, "reduce_sum": _reduced,
    "reduce_argmax": _arg_max, "reduce_min": _reduced, "reduce_prod": _reduced,
    "reshape": _reshape, "resize_bilinear": _resized, "scaled_dot_product_attention": _attention, "scatter": _scatter,
    "select": _select, "slice_by_index": _slice, "split": _split, "tile": _tile, "topk": _top_k,
    "transpose": _transpose,
    "upsample_nearest_neighbor": _upsampled,
}  # fmt: skip
