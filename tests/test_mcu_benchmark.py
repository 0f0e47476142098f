"""The benchmark against CMSIS-NN: its lines come from runs, and say where a peer's figure does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesmith.targets import get

pytestmark = pytest.mark.emulator


def test_a_line_is_measured_and_a_published_figure_is_marked(tmp_path: Path) -> None:
    from edgesmith.benchmarks import cmsis, mcu, mcu_cases

    noise = np.random.default_rng(0)
    found = [
        mcu_cases.linear(noise, 49, 192, 192, {"cortex-m7": 0.98}),
        mcu_cases.depthwise(noise, 7, 8, 5, 1),
        mcu_cases.convolution(noise, "conv", 6, 4, 6, 3, 2),
    ]
    product, depthwise, dense = mcu.lines(get("stm32f746"), found, None, tmp_path)
    assert product.peer == cmsis.COUNTED["cortex-m7"]["matmul 49x192x192"] and not product.counted
    assert product.met and product.ours < product.peer / 1.4 and "*" in mcu.show(product)
    assert depthwise.peer is None and depthwise.goal is None and depthwise.met is None
    assert 0.5 < depthwise.ours < 4 and dense.ours > 0.5


def test_a_wrong_result_has_no_count(tmp_path: Path) -> None:
    from dataclasses import replace

    from edgesmith.benchmarks import mcu, mcu_cases

    contest = mcu_cases.depthwise(np.random.default_rng(0), 7, 4, 3, 1)
    wrong = replace(contest, ours=replace(contest.ours, expected=contest.ours.expected ^ 1))
    with pytest.raises(AssertionError, match="depthwise 3x3"):
        list(mcu.lines(get("stm32f746"), [wrong], None, tmp_path))
