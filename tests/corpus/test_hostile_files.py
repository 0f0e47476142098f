"""The hostile files are what they claim to be: bad by ONNX's own checker, or valid and bad for us alone."""

from pathlib import Path

import onnx
import pytest
from hostile import HOSTILE, TOO_MANY_NODES, evil_names, many_nodes, nested


def accepted(path: Path) -> bool:
    """Ask ONNX's checker, shape inference included."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "too_many_nodes"])
def test_checker_agrees_with_the_table(name: str, tmp_path: Path) -> None:
    assert accepted(HOSTILE[name].make(tmp_path)) is HOSTILE[name].valid


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.startswith("external")])
def test_external_files_leave_the_folder_only_where_they_say_so(name: str, tmp_path: Path) -> None:
    path = HOSTILE[name].make(tmp_path)
    outside = [found for found in tmp_path.iterdir() if found != path.parent]
    assert bool(outside) is (name in {"external_escapes", "external_absolute", "external_link"})


def test_many_nodes_is_one_model_of_that_many(tmp_path: Path) -> None:
    assert len(onnx.load(many_nodes(tmp_path)).graph.node) == TOO_MANY_NODES


def test_nested_is_a_model_but_for_its_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostile.NESTED", 3)
    graph = onnx.load(nested(tmp_path)).graph
    for name in ("if2", "if1", "if0"):
        (node,) = graph.node
        assert (node.name, node.op_type) == (name, "If")
        graph = node.attribute[0].g
    assert graph.node[0].name == "inmost"


def test_evil_names_are_valid(tmp_path: Path) -> None:
    assert accepted(evil_names(tmp_path))
