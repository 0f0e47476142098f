"""What users bring as data: every form that is understood, and a plain word on every form that is not."""

import numpy as np
import pytest

from edgesmith import frontend
from edgesmith.driver.feeds import Input, inputs_of, read, samples, synthetic
from edgesmith.ir.errors import ModelError
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.ops.logic import Cast
from edgesmith.ir.ops.shape import Gather, Reshape

COLOUR = Input("x", (1, 3, 4, 6), (0.5, 0.25, 0.0), (0.5, 0.5, 1.0))
GREY = Input("x", (1, 1, 4, 6), (0.5,), (0.25,))
PLAIN = Input("x", (1, 3, 4, 6))
FLOATS = np.random.default_rng(0).standard_normal((5, 3, 4, 6)).astype(np.float32)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


def stacked(given, *inputs, key="calibration"):
    return np.concatenate([each["x"] for each in samples(given, inputs, key)])


def test_float_samples_pass_unchanged():
    assert np.array_equal(stacked(FLOATS, PLAIN), FLOATS)
    assert np.array_equal(stacked(FLOATS[0], PLAIN), FLOATS[:1])
    assert [each["x"].shape for each in samples(FLOATS, [PLAIN], "")] == [(1, 3, 4, 6)] * 5


@pytest.mark.parametrize("layout", ["channels last", "channels first", "single"])
def test_pixels_are_normalised_by_channel(layout):
    given = {"channels last": PIXELS, "channels first": PIXELS.transpose(0, 3, 1, 2), "single": PIXELS[0]}[layout]
    wanted = (PIXELS / 255 - [0.5, 0.25, 0.0]) / [0.5, 0.5, 1.0]
    found = stacked(given, COLOUR)
    assert np.allclose(found, wanted.transpose(0, 3, 1, 2)[: len(found)], atol=1e-6)
    assert found.dtype == np.float32


def test_grey_pixels_need_no_channel_axis():
    grey = PIXELS[..., 0]
    assert np.allclose(stacked(grey, GREY)[:, 0], (grey / 255 - 0.5) / 0.25, atol=1e-6)
    assert stacked(grey[0], GREY).shape == (1, 1, 4, 6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (FLOATS[:, :, :3], ["another shape", "[5, 3, 3, 6]", "[N, 3, 4, 6]", "--shape"]),
        (FLOATS[:0], ["no samples"]),
        (np.where(FLOATS > 2, np.nan, FLOATS), ["NaN"]),
        (np.full((2, 3, 4, 6), np.inf), ["infinity"]),
        (FLOATS.astype(complex), ["complex128"]),
        (PIXELS, ["uint8", "edgesmith.mean"]),
        ({"z": FLOATS, "w": FLOATS}, ["lacks", "'x'", "'z', 'w'"]),
        ({}, ["lacks", "none"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(given, words):
    with pytest.raises(ModelError) as caught:
        samples(given, [PLAIN], "calibration")
    assert caught.value.exit_code == 3
    assert all(word in str(caught.value) for word in words)


def test_an_archive_may_name_arrays_three_ways(tmp_path):
    other = FLOATS + 1
    for arrays in ({"x": FLOATS, "y": other}, {"calibration": FLOATS, "labels": other[0]}, {"anything": FLOATS}):
        np.savez(tmp_path / "data.npz", **arrays)
        assert np.array_equal(stacked(tmp_path / "data.npz", PLAIN), FLOATS)


def test_several_inputs_need_their_names_and_equal_counts():
    second = Input("m", (1, 2))
    both = samples({"x": FLOATS, "m": np.ones((5, 2))}, [PLAIN, second], "calibration")
    assert [set(each) for each in both] == [{"x", "m"}] * 5
    with pytest.raises(ModelError, match="x: 5, m: 4"):
        samples({"x": FLOATS, "m": np.ones((4, 2))}, [PLAIN, second], "calibration")
    with pytest.raises(ModelError, match="lacks"):
        samples(FLOATS, [PLAIN, second], "calibration")


def test_files_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    np.save(tmp_path / "trap.npy", np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(ModelError, match="cannot be read"):
        read(tmp_path / "trap.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"no array at all", b"PK\x03\x04broken", b"\x93NUMPY\x01\x00"])
def test_broken_files_are_the_data_s_fault(tmp_path, content):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.npz"):
        read(tmp_path / "broken.npz")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="there is no such file"):
        read(tmp_path / "nowhere.npz")


def test_inputs_carry_the_model_s_normalisation(tiny_pixels, tiny):
    (found,) = inputs_of(frontend.load(tiny_pixels))
    assert (found.name, found.shape, found.mean, found.std) == ("x", (1, 3, 8, 8), (0.5,) * 3, (0.25,) * 3)
    assert Input(**found.json()).mean == found.mean
    (bare,) = inputs_of(frontend.load(tiny))
    assert bare.mean == () == bare.std


def test_integers_are_taken_as_they_are_and_noise_knows_how_many_there_are():
    graph = Graph("reader")
    tokens, mask = (graph.input(name, Type("int64", (1, 5))) for name in ("tokens", "mask"))
    table = graph.constant(np.ones((11, 4), np.float32))
    row = graph.add(Reshape((5,)), tokens)
    graph.output(graph.add(Gather(0), table, row), "rows")
    graph.output(graph.add(Cast("float32"), mask), "mask_out")
    inputs = inputs_of(graph)
    assert [(each.dtype, each.kinds) for each in inputs] == [("int64", 11), ("int64", 2)]
    noise = synthetic(inputs, 40)
    assert {each["tokens"].dtype.name for each in noise} == {"int64"}
    assert set(np.unique([each["tokens"] for each in noise])) == set(range(11))
    given = {"tokens": np.arange(10, dtype=np.uint8).reshape(2, 5), "mask": np.ones((2, 5), np.int32)}
    found = samples(given, inputs, "")
    assert found[1]["tokens"].tolist() == [[5, 6, 7, 8, 9]] and found[0]["mask"].dtype == np.int64
    with pytest.raises(ModelError, match="takes integers"):
        samples({**given, "mask": np.ones((2, 5), np.float32)}, inputs, "")
    again = Input(**inputs[0].json())
    assert (again.dtype, again.kinds, again.shape) == ("int64", 11, (1, 5))
