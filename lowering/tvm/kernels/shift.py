"""Products without a multiplier: weights of four bits that are powers of two, and operands that are -1, 0 or 1.

In floats a power of two is an exponent, so decoding a weight puts its bits together and the fused multiply-add that
follows rounds no more than an addition of exponents and a sum would: the product itself is exact. It is also one
instruction where those are two. In integers the kernel shifts and adds as the paper has it, and is exact throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..machine import Machine
from .body import Body, Buffer, Expr
from .product import Product, tile_product

__all__ = ["IntegerShift", "ShiftProduct", "SignProduct"]

BIAS, MANTISSA = 127, 23
SPAN = 6
"""Greatest power; codes count down from it. See `ir.ops.shift`."""


@dataclass(frozen=True)
class ShiftProduct(Product):
    """`Product` with a weight of codes: `pack_columns` of bytes that hold two neighbours along the inner axis."""

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"shift_{self.rows}x{self.depth}x{self.columns}{self.epilogue.formula.label}"

    def emit(self, body: Body, operands: Sequence[Buffer], result: Buffer, machine: Machine) -> None:
        """See `Kernel`."""
        a, codes, *more = operands
        width = self.tile.vectors * machine.lanes
        with body.team(-(-self.columns // width), self.rows * self.depth * self.columns) as share:
            sums = body.registers(self.tile.rows * self.tile.vectors, machine.lanes, self.numbers)
            room = body.scratch(self._room(width), self.numbers)
            with share() as panel:
                self._decode(body, codes, room, panel, width, machine.lanes)
                with body.loop(-(-self.rows // self.tile.rows)) as at:
                    row, column = self._corner(body, panel, at, width)
                    self._sum(body, sums, a, (room, 0), (row,), machine)
                    self._finish(body, sums, more, result, (row, column), machine)

    def _room(self, width: int) -> int:
        return self.depth * width

    def _decode(self, body: Body, codes: Buffer, room: Buffer, panel: Expr, width: int, lanes: int) -> None:
        """A panel of codes as weights."""
        pairs = -(-self.depth // 2)

        def visit(pair: Expr, halves: int) -> None:
            with body.loop(width // lanes) as j:
                place = (panel * pairs + pair) * width + j * lanes
                both = body.cast(body.load(codes, place, lanes), "int32", lanes)
                for half in range(halves):
                    code = body.tir.shift_right(both, body.number(4 * half, lanes, "int32"))
                    self._weight(body, code, room, ((pair * 2 + half) * width + j * lanes, width), lanes)

        with body.loop(self.depth // 2) as pair:
            visit(pair, 2)
        if self.depth % 2:
            visit(self.depth // 2, 1)

    def _weight(self, body: Body, code: Expr, room: Buffer, place: tuple[Expr, int], lanes: int) -> None:
        """Store the weights of a vector of codes, whose upper bits mean nothing."""
        shift, sign, zero = parts(body, code, lanes)
        exponent = body.number(BIAS + SPAN, lanes, "int32") - shift
        bits = body.tir.shift_left(exponent, body.number(MANTISSA, lanes, "int32"))
        bits = body.tir.bitwise_or(bits, body.tir.shift_left(sign, body.number(28, lanes, "int32")))
        value = body.bits(body.choose(zero, body.number(0, lanes, "int32"), bits), "float32", lanes)
        body.store(room, value, place[0], lanes)


@dataclass(frozen=True)
class IntegerShift(ShiftProduct):
    """The same of integers, in 32 bits, by shifts to the left: three numbers a weight say how far, whether, which sign.

    Where `epilogue` has steps, the first one makes a real number of the sum.
    """

    numbers: ClassVar[str] = "int32"

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"intshift_{self.rows}x{self.depth}x{self.columns}{self.epilogue.formula.label}"

    def _room(self, width: int) -> int:
        return 3 * self.depth * width

    def _weight(self, body: Body, code: Expr, room: Buffer, place: tuple[Expr, int], lanes: int) -> None:
        shift, sign, zero = parts(body, code, lanes)
        none, every = body.number(0, lanes, "int32"), body.number(-1, lanes, "int32")
        left = body.tir.Max(body.number(SPAN, lanes, "int32") - shift, none)
        planes = (left, body.choose(zero, none, every), body.choose(sign > none, every, none))
        at, width = place
        for number, plane in enumerate(planes):
            body.store(room, plane, at + number * (self.depth * width), lanes)

    def _sum(
        self, body: Body, sums: Buffer, a: Buffer, panel: tuple[Buffer, Expr], index: tuple[Expr, ...],
        machine: Machine,
    ) -> None:  # fmt: skip
        (row,), (room, _), lanes = index, panel, machine.lanes
        width = self.tile.vectors * lanes

        def planes(k: Expr, j: int) -> tuple[Expr, ...]:
            first = k * width + j * lanes
            return tuple(body.load(room, first + number * (self.depth * width), lanes) for number in range(3))

        def term(x: Expr, weight: tuple[Expr, Expr, Expr]) -> Expr:
            left, some, sign = weight
            value = body.tir.bitwise_and(body.tir.shift_left(x, left), some)
            return body.tir.bitwise_xor(value, sign) - sign

        tile_product(
            body, sums, self.tile, lanes, self.depth,
            lambda i, k: body.cast(body.load(a, self.a(row + i, k)), "int32"), planes, self.numbers, term,
        )  # fmt: skip


@dataclass(frozen=True)
class SignProduct(Product):
    """`Product` whose first operand holds -1, 0 and 1: each term is the other one, without or with its sign turned."""

    @property
    def label(self) -> str:
        """See `Kernel`."""
        return f"add_{self.rows}x{self.depth}x{self.columns}{self.epilogue.formula.label}"

    def _sum(
        self, body: Body, sums: Buffer, a: Buffer, panel: tuple[Buffer, Expr], index: tuple[Expr, ...],
        machine: Machine,
    ) -> None:  # fmt: skip
        (*batch, row), (packed, first), lanes = index, panel, machine.lanes
        width = self.tile.vectors * lanes
        one, top = body.number(1, lanes, "int32"), body.number(-(2**31), lanes, "int32")

        def term(sign: Expr, x: Expr) -> Expr:
            some = body.number(0, lanes, "int32") - body.tir.bitwise_and(sign, one)
            kept = body.tir.bitwise_and(body.bits(x, "int32", lanes), some)
            return body.bits(body.tir.bitwise_xor(kept, body.tir.bitwise_and(sign, top)), "float32", lanes)

        tile_product(
            body, sums, self.tile, lanes, self.depth,
            lambda i, k: body.cast(body.load(a, self.a(*batch, row + i, k)), "int32"),
            lambda k, j: body.load(packed, first + k * width + j * lanes, lanes), "float32", term,
        )  # fmt: skip


def parts(body: Body, code: Expr, lanes: int) -> tuple[Expr, Expr, Expr]:
    """Shift, sign bit (in its place) and whether the weight is zero."""
    shift = body.tir.bitwise_and(code, body.number(7, lanes, "int32"))
    return shift, body.tir.bitwise_and(code, body.number(8, lanes, "int32")), shift > body.number(SPAN, lanes, "int32")
