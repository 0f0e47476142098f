"""Data sets are read in three forms, split the same way every time, and refused in words."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from edgesmith.ir.errors import ModelError, UsageError
from edgesmith.nas.data import Labelled, load, pad, split

DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (60, 6, 5), np.uint8)
LABELS = np.arange(60) % 3


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_an_npz_file_with_grey_or_coloured_pictures(tmp_path) -> None:
    data, test = load(saved(tmp_path / "grey.npz", images=IMAGES, labels=LABELS))
    assert test is None and data.images.shape == (60, 1, 6, 5) and (data.images[:, 0] == IMAGES).all()
    coloured = np.stack([IMAGES] * 3, axis=-1)
    arrays = {"test_images": coloured[:6], "test_labels": LABELS[:6]}
    data, test = load(saved(tmp_path / "rgb.npz", images=coloured, labels=LABELS, **arrays))
    assert data.images.shape == (60, 3, 6, 5) and test is not None and len(test) == 6
    assert data.labels.dtype == np.int64


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_folder_of_idx_files(tmp_path, packed: bool) -> None:
    for name, part in (("train", slice(0, 50)), ("t10k", slice(50, 60))):
        for kind, array in (("images-idx3", IMAGES[part]), ("labels-idx1", LABELS[part])):
            path = tmp_path / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    data, test = load(tmp_path)
    assert (data.images[:, 0] == IMAGES[:50]).all() and test is not None and (test.labels == LABELS[50:]).all()
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(ModelError, match=r"t10k-labels-idx1-ubyte.* is no idx file"):
        load(tmp_path)
    path.write_bytes(gzip.compress(idx(LABELS[50:], 0x0B)) if packed else idx(LABELS[50:], 0x0B))
    with pytest.raises(ModelError, match="is no idx file") as caught:
        load(tmp_path)
    assert "0xb, not bytes" in caught.value.why
    path.unlink()
    with pytest.raises(ModelError, match="has no t10k-labels-idx1-ubyte"):
        load(tmp_path)


def test_a_folder_of_class_folders(tmp_path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "ant"):
        (tmp_path / name).mkdir()
        for i in range(2):
            image.fromarray(IMAGES[i]).save(tmp_path / name / f"{i}.png")
    data, _ = load(tmp_path)
    assert data.labels.tolist() == [0, 0, 1, 1] and (data.images[:2, 0] == IMAGES[:2]).all()
    image.fromarray(IMAGES[0, :3]).save(tmp_path / "cat" / "9.png")
    with pytest.raises(ModelError, match="pictures differ in shape"):
        load(tmp_path)
    (tmp_path / "cat" / "9.png").write_bytes(b"GIF")
    with pytest.raises(ModelError, match=r"9\.png is no picture"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="neither idx files nor class folders"):
        load(tmp_path / "empty")


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (IMAGES.astype(np.float32), LABELS, "images are float32"),
        (IMAGES[0], LABELS, r"images are uint8 \(6, 5\)"),
        (np.stack([IMAGES] * 2, -1), LABELS, "images have 2 channels"),
        (IMAGES, LABELS[:-1], "60 images have 59 labels"),
        (IMAGES, LABELS / 2, "labels are float64"),
        (IMAGES, LABELS[:, None], r"labels are int64 \(60, 1\)"),
        (IMAGES, LABELS - 1, "label -1 is negative"),
        (IMAGES, LABELS * 1000, "label 2000 is greater"),
        (IMAGES[:0], LABELS[:0], "there are no images"),
    ],
)
def test_what_does_not_belong_together_is_refused(images, labels, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(lambda: (images, labels))


def test_files_and_loaders_that_fail_say_why(tmp_path) -> None:
    def broken():
        raise OSError("the card was pulled out")

    with pytest.raises(ModelError, match="the data loader raised an error") as caught:
        load(broken)
    assert "the card was pulled out" in caught.value.why
    with pytest.raises(UsageError, match="there is no data set"):
        load(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(ModelError, match=r"is no \.npz file"):
        load(tmp_path / "text.npz")
    with pytest.raises(ModelError, match="has no array 'labels'"):
        load(saved(tmp_path / "half.npz", images=IMAGES))
    with pytest.raises(ModelError, match="test_images without test_labels"):
        load(saved(tmp_path / "test.npz", images=IMAGES, labels=LABELS, test_images=IMAGES))
    arrays = {"test_images": IMAGES[:, 1:], "test_labels": LABELS}
    with pytest.raises(ModelError, match="test images differ in shape"):
        load(saved(tmp_path / "shape.npz", images=IMAGES, labels=LABELS, **arrays))


def numbered(count: int) -> Labelled:
    """Every picture says which one it is."""
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    return Labelled(images, np.arange(count) % 3)


def members(part: Labelled) -> set[int]:
    return set(part.images[:, 0, 0, 0].tolist())


def test_parts_share_no_sample_and_are_the_same_for_the_same_seed() -> None:
    first, again, other = (split(numbered(120), None, seed) for seed in (1, 1, 2))
    parts = [members(part) for part in (first.train, first.validation, first.test)]
    assert [len(part) for part in parts] == [96, 12, 12] and len(set.union(*parts)) == 120
    assert members(first.test) == members(again.test) != members(other.test)
    assert (first.train.images == again.train.images).all() and first.classes == 3
    own = split(numbered(120), numbered(30), 1)
    assert len(own.test) == 30 and len(own.train) == 108
    assert 0 < first.mean < 1 and 0 < first.std < 1


def test_groups_stay_together() -> None:
    data = split(numbered(120), None, 0, 0.2, groups=np.arange(120) // 2)
    for part in (data.train, data.validation, data.test):
        assert {each ^ 1 for each in members(part)} == members(part)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(ModelError, match="2 samples are too few"):
        split(numbered(2), None, 0)
    data = numbered(60)
    lonely = Labelled(data.images, np.where(data.labels == 2, 0, data.labels))
    with pytest.raises(ModelError, match="no training sample is of class 2 of 3"):
        split(lonely, numbered(3), 0)


def test_pictures_get_a_border_and_large_ones_are_refused() -> None:
    data, _ = load(lambda: (IMAGES, LABELS))
    wide = pad(data, 8)
    assert wide.images.shape == (60, 1, 8, 8) and (wide.images[:, 0, 1:7, 1:6] == IMAGES).all()
    assert wide.images.sum() == IMAGES.sum()
    with pytest.raises(ModelError, match="6x5 do not fit into 4x4"):
        pad(data, 4)
