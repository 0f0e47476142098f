"""Check 4: multiply-accumulates and parameters of imported models, against counts made by others."""

from __future__ import annotations

import pytest

from edgesmith import frontend
from edgesmith.ir.cost import cost

pytestmark = pytest.mark.corpus

# Millions of parameters and of products in convolutions and matrix products, from PyTorch's own counters.
COUNTED = {
    "vit_tiny_patch16_224": (5.72, 1254),
    "deit_tiny_distilled_patch16_224": (5.91, 1261),
    "test_vit": (0.37, 38),
    "efficientformer_l1": (12.29, 1291),
    "efficientformerv2_s0": (3.60, 396),
    "mobilevit_xxs": (1.27, 407),
    "mobileone_s0": (5.29, 1052),
    "poolformer_s12": (11.92, 1812),
    "repvit_m0_9": (5.49, 817),
    "levit_128s": (7.78, 305),
    "mobilenetv4_conv_small": (3.77, 186),
}


@pytest.mark.parametrize("name", COUNTED)
def test_check_4_imported_costs(name: str) -> None:
    import timm_corpus

    parameters, macs = COUNTED[name]
    found = cost(frontend.load(timm_corpus.export(name).model))
    assert found.macs / 1e6 == pytest.approx(macs, rel=0.01)
    # A table of relative positions is stored as the bias it expands to, which PyTorch does not count.
    grown = 1.07 if name in ("efficientformerv2_s0", "levit_128s") else 1.02
    assert 0.98 * parameters < found.parameters / 1e6 < grown * parameters
