"""Files that nobody should trust: each is refused in time, by an error that names the culprit."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from edgesmith.frontend import load
from edgesmith.ir.errors import EdgesmithError, ModelError, Unsupported


def hostile_module() -> ModuleType:
    """The makers of bad files in the corpus folder, which is no package."""
    path = Path(__file__).parent / "corpus" / "hostile.py"
    spec = importlib.util.spec_from_file_location("edgesmith_hostile", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


hostile = hostile_module()


@pytest.mark.parametrize("name", hostile.HOSTILE)
def test_refused_with_the_culprits_name(name: str, tmp_path: Path) -> None:
    """A ModelError (exit code 3) of the right kind that mentions what it must, within seconds."""
    case = hostile.HOSTILE[name]
    path = case.make(tmp_path)
    begin = time.process_time()
    with pytest.raises(ModelError) as caught:
        load(path)
    assert time.process_time() - begin < 10
    text = str(caught.value).lower()
    assert [word for word in case.mentions if word.lower() not in text] == []
    assert isinstance(caught.value, Unsupported) == case.unsupported
    assert caught.value.exit_code == 3
    assert caught.value.do or caught.value.why or caught.value.where


def test_strange_names_are_only_names(tmp_path: Path) -> None:
    """Quotes, comments and paths in node names load and stay what they are."""
    graph = load(hostile.evil_names(tmp_path))
    assert len(graph.nodes) == 10
    assert any("system" in source for node in graph.nodes for source in node.sources)


def test_split_that_lies_about_its_outputs(tmp_path: Path) -> None:
    """ONNX's own shape inference would abort the process on this file."""
    outputs = [hostile.value(name, (None, None)) for name in "abc"]
    split = hostile.node("Split", ["x"], ["a", "b", "c"], "liar", axis=1, num_outputs=2)
    with pytest.raises(ModelError, match="liar"):
        load(hostile.graphs([split], opset=18, outputs=outputs)(tmp_path))


@pytest.mark.parametrize("name", ["weights.pt", "model.tflite", "model"])
def test_other_formats_say_what_is_read(name: str, tmp_path: Path) -> None:
    """The error names ONNX and how to get it."""
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ModelError, match="ONNX"):
        load(tmp_path / name)


def test_every_prefix_of_a_model_is_refused_or_sound(tmp_path: Path) -> None:
    """A cut file never raises anything but an error of ours."""
    for size in range(0, len(hostile.SOUND), 3):
        path = tmp_path / "cut.onnx"
        path.write_bytes(hostile.SOUND[:size])
        with pytest.raises(EdgesmithError):
            load(path)


def test_flipped_bytes_never_escape_as_foreign_errors(tmp_path: Path) -> None:
    """One byte wrong at a time: the model loads or is refused by an error of ours."""
    import numpy as np

    content = bytearray(hostile.single("MatMul", hostile.tensor("w", np.ones((4, 3))))(tmp_path).read_bytes())
    refused = 0
    for position in range(len(content)):
        for flip in (0x01, 0x80):
            changed = bytearray(content)
            changed[position] ^= flip
            path = tmp_path / "flipped.onnx"
            path.write_bytes(changed)
            try:
                load(path)
            except EdgesmithError:
                refused += 1
    assert refused > len(content) // 2
