"""Operators give the answers that ONNX's own cases ask for, or are refused by name; the counts are kept."""

from collections.abc import Callable

import onnx
import pytest
from onnx_cases import outcomes, table

COUNTED = "1.23.2"

RANDOM = {f"test_training_dropout{form}" for form in ("", "_default", "_mask", "_default_mask")}
"""What drops elements at random is for training."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cases(golden: Callable[[str, str], None]) -> None:
    """As imported and after all passes: everything claimed is right, nothing crashes, what is refused says so."""
    found = list(outcomes())
    assert {case.name: outcome.detail for case, outcome in found if outcome.kind == "wrong"} == {}
    refused = {case.name: outcome.detail for case, outcome in found if outcome.kind == "refused"}
    assert refused.keys() == RANDOM
    assert all("Dropout" in detail and "training_mode" in detail for detail in refused.values())
    if onnx.__version__ != COUNTED:
        pytest.skip(f"the counts are those of onnx {COUNTED}; the answers were right")
    golden("onnx_cases.txt", table(found))
