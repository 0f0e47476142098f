"""A compile says why: where operands lie and what they cost, and what weights would take in every code."""

import re
import runpy
from pathlib import Path

import pytest

from edgesmith import targets
from edgesmith.driver.reasons import codes, placement
from edgesmith.ir.integer_codes import pair_bytes
from edgesmith.ir.memory import Rates, plan
from edgesmith.lowering.c.rates import rates

GRAPHS = runpy.run_path(str(Path(__file__).with_name("integer_graphs.py")))
F746, F207, V003 = (targets.get(name) for name in ("stm32f746", "stm32f207", "ch32v003"))


@pytest.fixture(scope="module")
def transformer():
    return GRAPHS["vit"](32, 8, 48, 3, depth=1)


def bytes_in(note, code):
    return int(re.search(rf"{code} ([\d,]+) bytes", note)[1].replace(",", ""))


def test_every_code_is_weighed_in_bytes_and_time(transformer):
    # Zeros fit in two bits: what was taken is ternary, and int8 is among the others.
    (note,) = codes(plan(transformer), F746)
    assert re.match(r"weights: \d+ in ternary, [\d,]+ bytes", note)
    shapes = [node.input(1).shape for node in transformer.nodes if type(node.op).__name__ == "QLinear"]
    for code in ("int8", "int4", "shift"):
        assert bytes_in(note, code) == sum(-(-n // 2) * pair_bytes(code, k) for n, k in shapes)
    assert bytes_in(note, "int8") > 1.8 * bytes_in(note, "int4") and "M instructions more" in note


def test_a_core_without_a_multiplier_shifts(transformer):
    assert "shifts instead of products" in codes(plan(transformer), V003)[0]
    told = [codes(plan(transformer), device)[0] for device in (F746, F207)]
    slower = [float(re.search(r"int4 .*? about ([\d.]+) M", note)[1]) for note in told]
    assert 0 < slower[0] <= slower[1]


def test_placement_is_told_where_memory_costs(transformer):
    known = rates(F746, 6_000_000)
    loop, place = placement(plan(transformer, rates=known), known, F746)
    assert f"{known.weight:.2f} multiply-accumulates" in loop and f"first {known.fast:,} bytes" in place
    assert placement(plan(transformer), Rates(), V003) == []
    assert len(placement(plan(transformer), rates(F207, 10_000), F207)) == 1
