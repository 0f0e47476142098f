"""How many nodes the exact passes leave of models that nobody here wrote, as a table; `--update-golden` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgesmith import frontend
from edgesmith.ir.passes.pipelines import run_pipeline

pytestmark = pytest.mark.corpus

TABLE = Path(__file__).parents[1] / "golden" / "node_counts.txt"
HEAD = f"{'model':48}{'recognised':>12}{'simplified':>12}\n"
QUICK = ("vit_xs-legacy17", "test_vit-legacy17", "vit_tiny_patch16_224-legacy17", "levit_128s-legacy17")
"""Exported anew where nothing is kept; the other models are counted where the folder of the corpus has them."""
MOST = {"swin_tiny_patch4_window7_224-legacy17": 350, "efficientformer_l1-legacy17": 140}


def rows() -> dict[str, tuple[int, int]]:
    """The table: nodes after recognition and after the exact passes, by the stem of the model's file."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()[1:] if TABLE.is_file() else []
    return {stem: (int(first), int(second)) for stem, first, second in map(str.split, lines)}


def counted(path: Path) -> tuple[int, int]:
    graph = frontend.load(path)
    recognised = len(graph.nodes)
    run_pipeline(graph)
    return recognised, len(graph.nodes)


def write(found: dict[str, tuple[int, int]]) -> None:
    lines = (f"{stem:48}{first:12}{second:12}\n" for stem, (first, second) in sorted(found.items()))
    TABLE.write_text(HEAD + "".join(lines), encoding="utf-8")


@pytest.mark.parametrize("stem", sorted({*rows(), *QUICK}))
def test_nodes_that_are_left(stem: str, request: pytest.FixtureRequest) -> None:
    from timm_corpus import corpus_folder, export, read_case

    case = export(stem.removesuffix("-legacy17")) if stem in QUICK else read_case(corpus_folder(), stem)
    if case is None:
        pytest.skip(f"{stem} is not in the folder of the corpus")
    found = counted(case.model)
    if request.config.getoption("--update-golden"):
        write({**rows(), stem: found})
    assert found == rows()[stem]


def test_bounds() -> None:
    """What the project promises of single models."""
    assert {stem: bound for stem, bound in MOST.items() if rows()[stem][1] > bound} == {}


if __name__ == "__main__":  # the whole table, of all files in the folders named
    paths = [path for folder in sys.argv[1:] for path in sorted(Path(folder).glob("*.onnx"))]
    write({path.stem: counted(path) for path in paths})
