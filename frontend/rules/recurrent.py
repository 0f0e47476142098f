"""Recurrent layers, written out step by step. Source: the equations of ONNX's operators LSTM, GRU and RNN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Value
from ...ir.op import Op
from ...ir.ops import activation as ops
from ...ir.ops.linear import Linear
from ...ir.ops.shape import Concat, Slice, Split, Transpose
from ..call import Call, Result, rule
from .terms import add, mul, sub, view

MOST_STEPS = 256
"""A step is a dozen ops: longer sequences would be graphs that nothing can plan."""

DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS: dict[str, tuple[type[Op], tuple[float, ...]]] = {
    "Sigmoid": (ops.Sigmoid, ()),
    "Tanh": (ops.Tanh, ()),
    "Relu": (ops.Relu, ()),
    "LeakyRelu": (ops.LeakyRelu, (0.01,)),
    "HardSigmoid": (ops.HardSigmoid, (0.2, 0.5)),
}
"""Activations and the numbers they take where none are given."""


@dataclass(frozen=True)
class Direction:
    """One way through the sequence: its weights, state and functions."""

    call: Call
    w: Value
    r: Value
    bias_w: Value | None
    bias_r: Value | None
    peepholes: Value | None
    functions: tuple[Op, ...]

    def apply(self, index: int, x: Value) -> Value:
        """One of the functions, of what the layer clips first."""
        limit = self.call.attr("clip", math.inf)
        self.call.demand(limit > 0, f"a clip of {limit}")
        x = self.call.add(ops.Clip(-limit, limit), x) if limit < math.inf else x
        result: Value = self.call.add(self.functions[index], x)
        return result

    @property
    def bias(self) -> Value | None:
        """Both biases together."""
        if self.bias_w is None or self.bias_r is None:
            return None
        if self.bias_w.data is not None and self.bias_r.data is not None:
            return self.call.constant(self.bias_w.data + self.bias_r.data, "bias")
        return add(self.call, self.bias_w, self.bias_r)


State = tuple[Value, Value | None]
"""Output and, for LSTM, cell of the last step, each [1, B, H]: one step of a sequence."""


@rule("LSTM", "GRU", "RNN")
def recurrent(call: Call) -> Result:
    """Sequences [T, B, I], or [B, T, I] in layout 1 -> outputs of all steps, and the last state."""
    batch_first = call.flag("layout", 0)
    x = call.add(Transpose((1, 0, 2)), call.x) if batch_first else call.x
    steps, batch, _ = x.shape
    call.require(steps <= MOST_STEPS, f"over {steps} steps; at most {MOST_STEPS} are written out")
    lengths = call.get(4)
    whole = lengths is None or bool((call.array(4, "sequence_lens") == steps).all())
    call.require(whole, "with sequences of different lengths")
    way = call.attr("direction", "forward")
    ways = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[way]
    outputs, states = [], []
    for number, backwards in enumerate(ways):
        direction = _direction(call, number, len(ways))
        hidden = direction.r.shape[1]
        start = tuple(_start(call, i, number, (batch, hidden), batch_first) for i in (5, 6))
        found, state = _run(direction, x, (start[0], start[1] if call.node.op_type == "LSTM" else None), backwards)
        outputs.append(found)
        states.append(state)
    shape = (steps, 1, batch, outputs[0][0].shape[-1])
    every = _joined(call, 1, [call.reshape(_joined(call, 0, each), shape) for each in outputs])
    kinds = [[state for state in kind if state is not None] for kind in zip(*states, strict=True)]
    last = [_joined(call, 0, kind) for kind in kinds if kind]
    if batch_first:
        every = call.add(Transpose((2, 0, 1, 3)), every)
        last = [call.add(Transpose((1, 0, 2)), each) for each in last]
    return every, *last


def _joined(call: Call, axis: int, parts: list[Value]) -> Value:
    result: Value = parts[0] if len(parts) == 1 else call.add(Concat(axis), *parts)
    return result


def _part(call: Call, value: Value, axis: int, start: int, stop: int) -> Value:
    """A piece along an axis; of a constant it is one."""
    cut = Slice((start,), (stop,), (axis,), (1,))
    if value.data is not None:
        return call.graph.constant(np.array(cut.reference(value.data)), value.name)
    result: Value = call.add(cut, value)
    return result


def _own(call: Call, index: int, number: int, axis: int = 0) -> Value | None:
    """What an operand has for one direction."""
    value = call.get(index)
    if value is None:
        return None
    piece = value if value.shape[axis] == 1 else _part(call, value, axis, number, number + 1)
    return view(call, piece, (*value.shape[:axis], *value.shape[axis + 1 :]))


def _start(call: Call, index: int, number: int, shape: tuple[int, int], batch_first: bool) -> Value:
    """The state before the first step, [1, B, H]."""
    given = _own(call, index, number, int(batch_first))
    return call.constant(np.zeros((1, *shape)), "nothing") if given is None else view(call, given, (1, *shape))


def _direction(call: Call, number: int, count: int) -> Direction:
    w, r, both = _own(call, 1, number), _own(call, 2, number), _own(call, 3, number)
    call.demand(w is not None and r is not None and len(r.shape) == 2, "it has no weights")
    assert w is not None and r is not None
    call.demand(r.shape[0] == GATES[call.node.op_type] * r.shape[1], f"recurrent weights {r.shape} are no gates")
    size = r.shape[0]
    of_w, of_r = (None if both is None else _part(call, both, 0, i * size, (i + 1) * size) for i in (0, 1))
    return Direction(call, w, r, of_w, of_r, _own(call, 7, number), _functions(call, number, count))


def _functions(call: Call, number: int, count: int) -> tuple[Op, ...]:
    """Of one direction; numbers are handed out in order to the functions that take some."""
    names = call.attr("activations") or DEFAULTS[call.node.op_type] * count
    names = [name.decode() if isinstance(name, bytes) else name for name in names]
    given = [iter(call.attr(f"activation_{kind}", ())) for kind in ("alpha", "beta")]
    made = []
    for name in names:
        call.require(name in FUNCTIONS, f"with the activation {name}")
        op, defaults = FUNCTIONS[name]
        made.append(op(*(next(numbers, default) for numbers, default in zip(given, defaults, strict=False))))
    each = len(made) // count
    call.demand(each == len(DEFAULTS[call.node.op_type]), f"{len(made)} activations for {count} directions")
    return tuple(made[number * each : (number + 1) * each])


def _run(way: Direction, x: Value, state: State, backwards: bool) -> tuple[list[Value], State]:
    """Outputs of all steps in the order of the sequence, and the state after the last."""
    call, steps = way.call, x.shape[0]
    step = STEPS[call.node.op_type]
    separate = call.node.op_type == "GRU" and call.flag("linear_before_reset", 0)
    inputs = call.add(Linear(), x, way.w, way.bias_w if separate else way.bias)
    rows = list(call.add(Split(0, (1,) * steps), inputs)) if steps > 1 else [inputs]
    found: list[Value] = []
    for row in reversed(rows) if backwards else rows:
        state = step(way, row, state)
        found.append(state[0])
    return found[::-1] if backwards else found, state


def _pieces(call: Call, x: Value, count: int) -> Iterator[Value]:
    width = x.shape[-1] // count
    yield from call.add(Split(2, (width,) * count), x)


def _lstm(way: Direction, row: Value, state: State) -> State:
    call, (h, c) = way.call, state
    assert c is not None
    i, o, f, g = _pieces(call, add(call, row, call.add(Linear(), h, way.r)), 4)
    hidden = h.shape[2]
    peep = [
        None if way.peepholes is None else _part(call, way.peepholes, 0, k * hidden, (k + 1) * hidden) for k in range(3)
    ]
    i = i if peep[0] is None else add(call, i, mul(call, c, peep[0]))
    f = f if peep[2] is None else add(call, f, mul(call, c, peep[2]))
    i = way.apply(0, i)
    f = sub(call, 1.0, i) if call.flag("input_forget", 0) else way.apply(0, f)
    c = add(call, mul(call, f, c), mul(call, i, way.apply(1, g)))
    o = way.apply(0, o if peep[1] is None else add(call, o, mul(call, c, peep[1])))
    return mul(call, o, call.add(way.functions[2], c)), c


def _gru(way: Direction, row: Value, state: State) -> State:
    call, (h, _) = way.call, state
    hidden = h.shape[2]
    xz, xr, xn = _pieces(call, row, 3)
    if call.flag("linear_before_reset", 0):
        hz, hr, hn = _pieces(call, call.add(Linear(), h, way.r, way.bias_r), 3)
        z, r = way.apply(0, add(call, xz, hz)), way.apply(0, add(call, xr, hr))
        inner = mul(call, r, hn)
    else:
        hz, hr = _pieces(call, call.add(Linear(), h, _part(call, way.r, 0, 0, 2 * hidden)), 2)
        z, r = way.apply(0, add(call, xz, hz)), way.apply(0, add(call, xr, hr))
        inner = call.add(Linear(), mul(call, r, h), _part(call, way.r, 0, 2 * hidden, 3 * hidden))
    n = way.apply(1, add(call, xn, inner))
    return add(call, mul(call, sub(call, 1.0, z), n), mul(call, z, h)), None


def _rnn(way: Direction, row: Value, state: State) -> State:
    call, (h, _) = way.call, state
    return way.apply(0, add(call, row, call.add(Linear(), h, way.r))), None


STEPS: dict[str, Callable[[Direction, Value, State], State]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
