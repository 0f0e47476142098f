"""The front end refuses every hostile file in words that name what is wrong, and loads what only looks hostile."""

from pathlib import Path

import pytest
from hostile import HOSTILE, evil_names

from edgesmith.frontend import load
from edgesmith.ir.errors import ModelError, Unsupported


@pytest.mark.parametrize("name", HOSTILE)
def test_refusal_names_the_trouble(name: str, tmp_path: Path) -> None:
    hostile = HOSTILE[name]
    with pytest.raises(ModelError) as caught:
        load(hostile.make(tmp_path))
    assert isinstance(caught.value, Unsupported) is hostile.unsupported
    said = str(caught.value).lower()
    assert [text for text in hostile.mentions if text.lower() not in said] == []


def test_evil_names_load(tmp_path: Path) -> None:
    assert load(evil_names(tmp_path)).outputs
