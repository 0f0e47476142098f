"""How many nodes the exact passes leave of models that nobody here wrote, as a table; `--update-golden` writes it.

What the architectures say of attention is written down here, from their descriptions: the table has to agree.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from edgesmith import frontend
from edgesmith.ir.passes.pipelines import run_pipeline

pytestmark = pytest.mark.corpus

TABLE = Path(__file__).parents[1] / "golden" / "node_counts.txt"
HEAD = f"{'model':48}{'recognised':>12}{'simplified':>12}{'attention':>12}\n"
Row = tuple[int, int, int]
QUICK = ("vit_xs-legacy17", "test_vit-legacy17", "vit_tiny_patch16_224-legacy17", "levit_128s-legacy17")
"""Exported anew where nothing is kept; the other models are counted where the folder of the corpus has them."""
MOST = {"swin_tiny_patch4_window7_224-legacy17": 350, "efficientformer_l1-legacy17": 140}
STRAY = {"BatchNorm", "Erf", "Expand", "Pow", "Reciprocal", "Where"}
REPEATED = {"gcvit_xxtiny"}
"""Its global queries are repeated for every window: there an Expand is no debris."""
ATTENTION = {
    "beit_base_patch16_224": 12,
    "cait_xxs24_224": 2,  # of the class token; the 24 blocks before have talking heads
    "coat_tiny": 0,  # factorised: softmax over keys alone
    "coatnet_pico_rw_224": 5 + 2,
    "convit_tiny": 2,  # after 10 blocks that mix their scores with positions
    "crossvit_9_240": 3 * (1 + 3 + 2),  # of two branches, and across them
    "crossvit_9_dagger_240": 3 * (1 + 3 + 2),
    "davit_tiny": 2 * (1 + 1 + 3 + 1),  # of windows, and of channels
    "deit_small_patch16_224": 12,
    "deit_tiny_distilled_patch16_224": 12,
    "deit_tiny_patch16_224": 12,
    "edgenext_x_small": 3,
    "efficientformer_l1": 1,
    "efficientformerv2_s0": 1,  # where it downsamples; the other four have talking heads
    "efficientvit_m0": (1 + 2 + 3) * 4,  # a head after the other
    "eva02_tiny_patch14_224": 12,
    "fastvit_mci0": 2,
    "fastvit_sa12": 2,
    "gcvit_xxtiny": 2 + 2 + 6 + 2,
    "hiera_tiny_224": 1 + 2 + 7 + 2,
    "levit_128s": 2 + 1 + 3 + 1 + 4,
    "levit_conv_128s": 2 + 1 + 3 + 1 + 4,
    "maxvit_pico_rw_256": 2 * (2 + 2 + 5 + 2),  # of blocks, and of grids
    "maxvit_rmlp_pico_rw_256": 2 * (2 + 2 + 5 + 2),
    "maxvit_tiny_tf_224": 2 * (2 + 2 + 5 + 2),
    "mobilenetv4_hybrid_medium": 4 + 4,
    "mobilevit_xs": 2 + 4 + 3,
    "mobilevit_xxs": 2 + 4 + 3,
    "nest_tiny": 2 + 2 + 8,
    "nextvit_small": 1 + 2 + 1,
    "pit_ti_224": 2 + 6 + 4,
    "pvt_v2_b0": 2 + 2 + 2 + 2,
    "pvt_v2_b2_li": 3 + 4 + 6 + 3,
    "shvit_s1": 4 + 5,
    "swin_tiny_patch4_window7_224": 2 + 2 + 6 + 2,
    "swinv2_cr_tiny_224": 2 + 2 + 6 + 2,
    "swinv2_tiny_window8_256": 2 + 2 + 6 + 2,
    "test_coatnet": 3,
    "test_maxvit": 2 * (1 + 2 + 1),
    "test_vit": 6,
    "test_vit2": 8,
    "test_vit3": 9 + 1,  # the last one pools
    "test_vit_relpos": 9,
    "tiny_vit_5m_224": 2 + 6 + 2,
    "tnt_s_legacy_patch16_224": 12 + 12,
    "tnt_s_patch16_224": 12 + 12,  # of pixels, and of patches
    "twins_svt_small": 2 + 2 + 10 + 4,
    "visformer_tiny": 4 + 4,
    "vit_base_patch16_224": 12,
    "vit_mcu": 6,
    "vit_small_patch16_rope_224": 12,
    "vit_tiny_patch16_224": 12,
    "vit_tiny_r_s16_p8_224": 12,
    "vit_xs": 4,
    "xcit_nano_12_p16_224": 12 + 2,  # of channels, then of the class token
}
"""How often each architecture attends by softmax over the scores of two operands; not at all where it is not named."""


def rows() -> dict[str, Row]:
    """The table by the stem of the model's file: nodes after recognition, after the exact passes, and attentions."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()[1:] if TABLE.is_file() else []
    return {stem: (int(first), int(second), int(third)) for stem, first, second, third in map(str.split, lines)}


def counted(path: Path) -> tuple[Row, set[str]]:
    """The row of a model, and what is left of spellings."""
    graph = frontend.load(path)
    recognised = len(graph.nodes)
    attentions = Counter(type(node.op).__name__ for node in graph.nodes)["Attention"]
    run_pipeline(graph)
    stray = STRAY & {type(node.op).__name__ for node in graph.nodes}
    return (recognised, len(graph.nodes), attentions), stray


def write(found: dict[str, Row]) -> None:
    lines = (f"{stem:48}{''.join(f'{n:12}' for n in row)}\n" for stem, row in sorted(found.items()))
    TABLE.write_text(HEAD + "".join(lines), encoding="utf-8")


def architecture(stem: str) -> str:
    return stem.split("-")[0]


@pytest.mark.parametrize("stem", sorted({*rows(), *QUICK}))
def test_nodes_that_are_left(stem: str, request: pytest.FixtureRequest) -> None:
    from timm_corpus import corpus_folder, export, read_case

    case = export(stem.removesuffix("-legacy17")) if stem in QUICK else read_case(corpus_folder(), stem)
    if case is None:
        pytest.skip(f"{stem} is not in the folder of the corpus")
    found, stray = counted(case.model)
    if request.config.getoption("--update-golden"):
        write({**rows(), stem: found})
    assert found == rows()[stem]
    assert not stray or (stray == {"Expand"} and architecture(stem) in REPEATED)


def test_attention_is_found_as_often_as_the_architecture_has_it() -> None:
    found = {stem: row[2] for stem, row in rows().items()}
    assert found == {stem: ATTENTION.get(architecture(stem), 0) for stem in found}


def test_the_table_has_every_architecture_that_attends() -> None:
    assert ATTENTION.keys() <= {architecture(stem) for stem in rows()}


def test_bounds() -> None:
    """What the project promises of single models."""
    assert {stem: bound for stem, bound in MOST.items() if rows()[stem][1] > bound} == {}


if __name__ == "__main__":  # the whole table, of all files in the folders named
    paths = [path for folder in sys.argv[1:] for path in sorted(Path(folder).glob("*.onnx"))]
    write({path.stem: counted(path)[0] for path in paths})
