"""What a compile lets its user choose, and what it tells of the result: layouts, options, notes."""

import pytest

import edgesmith
from edgesmith.driver import library
from edgesmith.ir.errors import BudgetError, UsageError
from edgesmith.ir.ops.linear import MatMul
from edgesmith.ir.ops.shape import Transpose

pytestmark = pytest.mark.compiler
TARGET = "stm32f746"


def channels_last_input(net):
    x = net.input(1, 6, 6, 3)
    return net.output(net.conv(net.add(Transpose((0, 3, 1, 2)), x, name="first"), 4, 3, name="conv"))


def input_read_both_ways(net):
    x = net.input(1, 5, 5)
    return net.output(net.add(MatMul(), x, net.add(Transpose((0, 2, 1)), x, name="turned"), name="gram"))


def output_turned(net):
    y = net.conv(net.input(1, 3, 6, 6), 6, name="conv")
    return net.output(net.add(Transpose((0, 2, 3, 1)), y, name="turned"))


@pytest.mark.parametrize("make", [channels_last_input, input_read_both_ways, output_turned])
def test_a_program_takes_its_input_the_way_its_manifest_says(build, make, tmp_path):
    found = edgesmith.compile(make(build.Net("float32")), "host", out=tmp_path / "out")
    assert found.verification[-1]["equal"] and found.verification[-1]["cosine"] > 0.99


def test_observers_are_a_choice(build, tmp_path):
    graph, errors = build.vit("float32"), set()
    for observer in ("mse", "minmax", "percentile"):
        found = edgesmith.compile(graph, "host", out=tmp_path / observer, observer=observer, stream="int8")
        errors.add(found.verification[-1]["max_error"])
    assert len(errors) > 1
    with pytest.raises(UsageError, match="observer"):
        edgesmith.compile(graph, "host", out=tmp_path / "no", observer="guess")


def test_the_image_s_place_is_a_choice(build, tmp_path):
    graph = build.vit("float32")
    asked, held = (
        edgesmith.compile(graph, "host", out=tmp_path / image, image=image) for image in ("callback", "buffer")
    )
    assert (asked.memory["plan"]["streamed"], held.memory["plan"]["streamed"]) == (["image"], [])
    assert any(buffer["kind"] == "input" for buffer in held.memory["plan"]["buffers"])
    with pytest.raises(UsageError, match="image"):
        edgesmith.compile(graph, "host", out=tmp_path / "no", image="film")


def test_a_budget_beyond_the_device_is_refused(build, tmp_path):
    with pytest.raises(UsageError, match="bytes of RAM"):
        edgesmith.compile(build.vit("float32"), TARGET, out=tmp_path / "no", ram=1 << 24)
    with pytest.raises(BudgetError):
        edgesmith.compile(build.vit("float32"), TARGET, out=tmp_path / "no", ram=0)


def test_a_program_that_loses_much_says_so(build, tmp_path, monkeypatch):
    graph = build.vit("float32")
    calm = edgesmith.compile(graph, "host", out=tmp_path / "calm")
    assert not any("lose much" in note for note in calm.manifest["notes"])
    monkeypatch.setattr(library, "POOR_COSINE", 1.1)
    found = edgesmith.compile(graph, "host", out=tmp_path / "found")
    assert any("lose much" in note for note in found.manifest["notes"])
    assert "lose much" in found.report.read_text(encoding="utf-8")
