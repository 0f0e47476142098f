"""What each kernel costs: exact instruction counts on emulated cores, results checked against numpy first.

Run `python -m edgesmith.benchmarks.kernels [--target stm32f746 ...]`; every figure in the table comes from that run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesmith.ir import integer, integer_layout, integer_ops, integer_rows
from edgesmith.ir.memory.scratch import planes_bytes
from edgesmith.lowering.c import toolchain
from edgesmith.runtimes.machine import Machine
from edgesmith.runtimes.qemu_call import Caller
from edgesmith.targets import get

Array = NDArray[Any]
HERE = Path(__file__).parent
KERNELS = HERE.parent / "lowering" / "c" / "kernels"


@dataclass(frozen=True)
class Case:
    """One call: arguments in order (arrays by address), the array it must leave in argument `output`, units of work.

    `tolerance`: how far it may be off; what is ours is exact.
    """

    name: str
    function: str
    arguments: tuple[Array | int, ...]
    output: int
    expected: Array
    work: int
    unit: str
    tolerance: int = 0


def _bytes(noise: np.random.Generator, *shape: int) -> Array:
    return noise.integers(-127, 128, shape).astype(np.int8)


def matmul_cases(noise: np.random.Generator) -> Iterator[Case]:
    """The two matrix products that peers publish figures for."""
    x, w = _bytes(noise, 197, 192), _bytes(noise, 576, 192)
    bias, mult = noise.integers(-9999, 9999, 576).astype(np.int32), noise.integers(10**6, 10**7, 576).astype(np.int32)
    expected = integer.qlinear(x, w, bias, mult)
    tile, out = np.zeros(12 * 192, np.int16), np.zeros((197, 576), np.int8)
    arguments: tuple[Array | int, ...] = (x, integer_layout.pack(w), bias, mult, tile, out)
    yield Case("matmul 197x192x576", "bench_matmul", arguments, 5, expected, 197 * 192 * 576, "MAC")
    q, keys = noise.integers(-9999, 9999, (198, 64)).astype(np.int16), _bytes(noise, 197, 64)
    scores = np.zeros((3, 200), np.int32)
    scores[:, :197] = integer.matmul(q[195:], keys)
    arguments = (integer_layout.pack_tile(q), integer_layout.pack(keys), np.zeros((3, 200), np.int32))
    yield Case("scores 197x64x197", "bench_scores", arguments, 2, scores, 197 * 64 * 197, "MAC")


def attention_cases(noise: np.random.Generator) -> Iterator[Case]:
    """One head of a DeiT."""
    table = integer_rows.exp_table(197)
    scores = noise.integers(-(10**6), 10**6, (1, 197))
    e = integer_rows.exponentials(scores, 2 * 10**6, table)
    tile = np.zeros((50, 12), np.int16)
    tile[:, :4] = np.pad(e[0], (0, 3)).reshape(50, 4)
    arguments: tuple[Array | int, ...] = (scores.astype(np.int32), table, 2 * 10**6, np.zeros(600, np.int16))
    yield Case("softmax row of 197", "bench_softmax", arguments, 3, tile.reshape(-1), 197, "element")
    q, keys = noise.integers(-9999, 9999, (198, 64)).astype(np.int16), _bytes(noise, 197, 64)
    values, mult = _bytes(noise, 197, 64), np.full(64, 2**21, np.int32)
    expected = integer_rows.attention(q[:197], keys, values, 1, 2 * 10**6, mult, table)
    packed = integer_layout.pack_tile(q), integer_layout.pack(keys), integer_layout.pack(values.T)
    arguments = (*packed, table, 2 * 10**6, mult, np.zeros(14 * 200 // 4, np.int32), np.zeros((197, 64), np.int8))
    yield Case("attention head 197x64", "bench_attention", arguments, 7, expected, 2 * 197 * 64 * 197, "MAC")


def row_cases(noise: np.random.Generator) -> Iterator[Case]:
    """Residual additions, norms and a depthwise convolution."""
    x, y = _bytes(noise, 197 * 192), _bytes(noise, 197 * 192)
    wide = noise.integers(-30000, 30000, 197 * 192).astype(np.int16)
    expected = integer.qadd(x, y, 16000, 17000, 16384, 15)
    yield Case("add int8 + int8", "bench_add8", (x, y), 0, expected, x.size, "element")
    expected = integer.qadd(x, wide, 16000, 16384, 8192, 14, 16)
    yield Case("add int8 + int16", "bench_add16", (x, wide), 1, expected, x.size, "element")
    arguments: tuple[Array | int, ...]
    for bits, row in ((8, _bytes(noise, 12, 192)), (16, wide[: 12 * 192].reshape(12, 192))):
        expected = integer_layout.pack_tile(integer_rows.layernorm(row, 37))
        arguments = (row, np.zeros(12 * 192, np.int16))
        name = f"layernorm int{bits} row of 192"
        yield Case(name, f"bench_layernorm{bits}", arguments, 1, expected, row.size, "element")
    image, w = _bytes(noise, 14, 14, 64), _bytes(noise, 3, 3, 64)
    bias, mult = noise.integers(-99, 99, 64).astype(np.int32), np.full(64, 10**7, np.int32)
    expected = integer_ops.qdepthwise(image, w, bias, mult, pads=(1, 1, 1, 1), zero_x=5)
    arguments = (image, w, bias, mult, np.zeros(planes_bytes(14, (3, 3), (1, 1), 14), np.int8), np.zeros_like(image))
    yield Case("depthwise 3x3, 14x14x64", "bench_depthwise", arguments, 5, expected, 9 * image.size, "MAC")


def run(machine: Machine | Caller, case: Case) -> int:
    """Instructions of one call, after its result has been compared with what numpy has."""
    machine.release()
    places = []
    for argument in case.arguments:
        if isinstance(argument, int):
            places.append(argument)
            continue
        places.append(machine.buffer(argument.nbytes))
        machine.write(places[-1], argument)
    result = machine.call(case.function, *places)
    got = machine.read(places[case.output], case.expected.size, str(case.expected.dtype))
    np.testing.assert_allclose(got, case.expected.reshape(-1), rtol=0, atol=case.tolerance, err_msg=case.name)
    return result.instructions


def main() -> None:
    """Print one line per kernel, one column per target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", nargs="+", default=["stm32f746", "stm32f427"])
    targets = [get(name) for name in parser.parse_args().target]
    noise = np.random.default_rng(0)
    cases = [*matmul_cases(noise), *attention_cases(noise), *row_cases(noise)]
    entries = sorted({case.function for case in cases})
    print(f"{'instructions per unit of work':32}" + "".join(f"{target.name:>14}" for target in targets))
    with tempfile.TemporaryDirectory() as folder:
        machines = []
        for target in targets:
            elf = Path(folder) / f"{target.name}.elf"
            toolchain.compile_elf([HERE / "kernels.c"], target, elf, entries, flags=(f"-I{KERNELS}",))
            machines.append(Machine(target, elf))
        for case in cases:
            figures = [run(machine, case) / case.work for machine in machines]
            print(f"{case.name + ' / ' + case.unit:32}" + "".join(f"{figure:14.3f}" for figure in figures))


if __name__ == "__main__":
    main()
