"""The text form of a graph: what `show` prints, `parse` reads back.

    graph mlp(%x: float32[1, 4]) {
      %w: float32[16, 4] = #8d1f04c2a97be611
      %b: float32[2] = [0.5, -1.0]
      %y: float32[1, 16] = Linear(%x, %w) from "fc1"
      return %y
    }

Arrays of more than `INLINE` elements appear as a fingerprint; `parse` looks it up in a dict that `arrays_of` makes.
Attributes at their default are left out. `as` gives a node's own name where it differs from its value's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ModelError
from .graph import Array, Graph, Node, Quant, Type, Value
from .op import Op
from .ops import registry

INLINE = 8
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
_TOKEN = re.compile(
    rf"""\s*(?: (?P<string>{_QUOTED}) | (?P<value>%(?:[A-Za-z0-9_./-]+|{_QUOTED})) | (?P<hash>\#[0-9a-f]+)
      | (?P<number>-?(?:inf|nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)\b)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*) | (?P<mark>[()\[\]{{}}:,=]) )""",
    re.VERBOSE,
)


# ---- printing ----


def show(graph: Graph) -> str:
    """The graph as text, nodes in order of execution; equal graphs print equal."""
    inputs = ", ".join(f"{_name(v)}: {_type(v.type)}" for v in graph.inputs)
    lines = [f"graph {json.dumps(graph.name)}({inputs}) {{"]
    lines += [f"  meta {json.dumps(key)} = {json.dumps(text)}" for key, text in graph.metadata.items()]
    lines += [f"  {_name(v)}: {_type(v.type)} = {_data(v.array)}" for v in graph.constants]
    lines += [f"  {show_node(node)}" for node in graph.nodes]
    lines += [f"  return {', '.join(map(_name, graph.outputs))}", "}"]
    return "\n".join(lines) + "\n"


def show_node(node: Node) -> str:
    """One node as its line of the text form."""
    results = ", ".join(f"{_name(v)}: {_type(v.type)}" for v in node.outputs)
    operands = ", ".join("None" if v is None else _name(v) for v in node.inputs)
    fields = dataclasses.fields(node.op)
    given = [(f.name, getattr(node.op, f.name)) for f in fields if not _is(getattr(node.op, f.name), f.default)]
    attributes = f" {{{', '.join(f'{key}={_literal(value)}' for key, value in given)}}}" if given else ""
    derived = _names(node.name, len(node.outputs)) == [v.name for v in node.outputs]
    named = "" if derived else f" as {json.dumps(node.name)}"
    sources = f" from {', '.join(map(json.dumps, node.sources))}" if node.sources else ""
    return f"{results} = {type(node.op).__name__}({operands}){attributes}{named}{sources}"


def arrays_of(graph: Graph) -> dict[str, Array]:
    """The arrays that `show` abbreviates, by fingerprint: what `parse` needs beside the text."""
    return {fingerprint(v.array): v.array for v in graph.constants if v.type.size > INLINE}


def fingerprint(array: Array) -> str:
    """Sixteen hexadecimal digits that stand for dtype, shape and bytes of an array."""
    head = f"{array.dtype.name}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def _names(node: str, count: int) -> list[str]:
    return [node] if count == 1 else [f"{node}_{i}" for i in range(count)]


def _is(value: object, default: object) -> bool:
    return type(value) is type(default) and value == default


def _name(value: Value) -> str:
    return f"%{value.name if _PLAIN.fullmatch(value.name) else json.dumps(value.name)}"


def _type(type: Type) -> str:
    quant = "" if type.quant is None else f" {_literal(type.quant)}"
    return f"{type.dtype}[{', '.join(map(str, type.shape))}]{quant}"


def _data(array: Array) -> str:
    if array.size > INLINE:
        return f"#{fingerprint(array)}"
    return f"[{', '.join(str(item) for item in array.reshape(-1))}]"


def _literal(value: Any) -> str:
    if isinstance(value, Quant):
        given = [value.scale, value.zero_point, value.axis]
        return f"Quant({', '.join(map(_literal, given))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, (bool, type(None), int)):
        return repr(value)
    raise TypeError(f"attributes hold numbers, strings, Quant and tuples of them, not {type(value).__name__}")


# ---- reading ----


def parse(text: str, arrays: Mapping[str, Array] | None = None) -> Graph:
    """The graph that `show` printed.

    Args:
        text: What `show` returned.
        arrays: Arrays by fingerprint (see `arrays_of`).

    Raises:
        ModelError: The text is not of this form, an array is missing, or a printed type is not the inferred one.
    """
    return _Parser(text, arrays or {}).graph()


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, arrays: Mapping[str, Array]) -> None:
        self.text, self.arrays = text, arrays
        self.at = 0
        self.result = Graph()

    def fail(self, complaint: str) -> ModelError:
        line = self.text.count("\n", 0, self.at) + 1
        shown = self.text.splitlines()[line - 1].strip() if self.text else ""
        return ModelError(f"line {line} of the graph text: {complaint}", where=[shown])

    def peek(self) -> tuple[str, str]:
        """Kind and text of the next token, which stays."""
        match = _TOKEN.match(self.text, self.at)
        return ("end", "") if match is None else (str(match.lastgroup), match[str(match.lastgroup)])

    def take(self, kind: str, expected: str = "") -> str:
        """The next token, which must be of that kind (and text)."""
        found, token = self.peek()
        if found != kind or (expected and token != expected):
            raise self.fail(f"expected {expected or kind}, found '{token}'")
        match = _TOKEN.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return token

    def skip(self, token: str) -> bool:
        """Take the next token if it is this one."""
        kind, found = self.peek()
        if found == token and kind in ("mark", "word"):
            self.take(kind)
            return True
        return False

    def graph(self) -> Graph:
        self.take("word", "graph")
        self.result = Graph(json.loads(self.take("string")))
        self.take("mark", "(")
        while not self.skip(")"):
            name, type = self.typed()
            self.result.input(name, type)
            self.skip(",")
        self.take("mark", "{")
        while not self.skip("return"):
            self.metadata() if self.skip("meta") else self.statement()
        while not self.skip("}"):
            self.result.output(self.value())
            self.skip(",")
        return self.result

    def metadata(self) -> None:
        key = json.loads(self.take("string"))
        self.take("mark", "=")
        self.result.metadata[key] = json.loads(self.take("string"))

    def statement(self) -> None:
        results = [self.typed()]
        while self.skip(","):
            results.append(self.typed())
        self.take("mark", "=")
        if self.peek()[0] == "word":
            self.node(results)
        else:
            name, type = results[0]
            self.result.constant(self.data(type), name, type.quant)

    def node(self, results: Sequence[tuple[str, Type]]) -> None:
        kind = self.take("word")
        ops = registry()
        if kind not in ops:
            raise self.fail(f"no op is called {kind}")
        operands = self.operands()
        op: Op = ops[kind](**self.attributes())
        names = [name for name, _ in results]
        node = json.loads(self.take("string")) if self.skip("as") else names[0] if len(names) == 1 else names[0][:-2]
        sources = []
        if self.skip("from"):
            sources.append(json.loads(self.take("string")))
            while self.skip(","):
                sources.append(json.loads(self.take("string")))
        made = self.result.add(op, *operands, name=node, sources=sources)
        values: tuple[Value, ...] = made if isinstance(made, tuple) else (made,)
        if [v.type for v in values] != [type for _, type in results]:
            raise self.fail(f"the op makes {', '.join(_type(v.type) for v in values)}")
        for value, name in zip(values, names, strict=True):
            if value.name != name:
                self.result.rename(value, name)

    def operands(self) -> list[Value | None]:
        self.take("mark", "(")
        found: list[Value | None] = []
        while not self.skip(")"):
            found.append(None if self.skip("None") else self.value())
            self.skip(",")
        return found

    def attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.skip("{"):
            while not self.skip("}"):
                key = self.take("word")
                self.take("mark", "=")
                found[key] = self.literal()
                self.skip(",")
        return found

    def data(self, type: Type) -> Array:
        if self.peek()[0] == "hash":
            key = self.take("hash")[1:]
            if key not in self.arrays:
                raise self.fail(f"no array with fingerprint {key} was given")
            return self.arrays[key]
        self.take("mark", "[")
        items = []
        while not self.skip("]"):
            items.append(self.literal())
            self.skip(",")
        return np.array(items, type.dtype).reshape(type.shape)

    def typed(self) -> tuple[str, Type]:
        name = self.name()
        self.take("mark", ":")
        dtype = self.take("word")
        self.take("mark", "[")
        shape = []
        while not self.skip("]"):
            shape.append(int(self.take("number")))
            self.skip(",")
        quant = self.literal() if self.peek()[1] == "Quant" else None
        return name, Type(dtype, tuple(shape), quant)

    def name(self) -> str:
        token = self.take("value")[1:]
        return str(json.loads(token)) if token.startswith('"') else token

    def value(self) -> Value:
        name = self.name()
        try:
            return self.result.value(name)
        except KeyError:
            raise self.fail(f"no value is called '{name}' up to here") from None

    def literal(self) -> Any:
        kind, token = self.peek()
        if self.skip("Quant"):
            return Quant(*self.literal())
        if self.skip("("):
            items = []
            while not self.skip(")"):
                items.append(self.literal())
                self.skip(",")
            return tuple(items)
        if kind == "string":
            return json.loads(self.take("string"))
        if kind == "number":
            token = self.take("number")
            return int(token) if token.lstrip("-").isdigit() else float(token)
        words = {"None": None, "True": True, "False": False}
        if token not in words:
            raise self.fail(f"'{token}' is no attribute value")
        self.take(kind)
        return words[token]


__all__ = ["INLINE", "arrays_of", "fingerprint", "parse", "show", "show_node"]
