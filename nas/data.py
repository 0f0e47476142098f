"""Labelled images for searches: read from npz, idx files or folders of pictures, and split once and for all."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..ir.errors import EdgesmithError, ModelError, UsageError
from ..ir.graph import Array

__all__ = ["Data", "Labelled", "load", "pad", "split"]

IDX_BYTES = 0x08
"""The code of unsigned bytes in an idx file's header."""


@dataclass(frozen=True)
class Labelled:
    """Images uint8 [N, C, H, W] and the class of each, int64 [N]."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        """How many."""
        return len(self.labels)

    def take(self, chosen: Array) -> Labelled:
        """Some of them, in the order given."""
        return Labelled(self.images[chosen], self.labels[chosen])

    def first(self, count: int) -> Labelled:
        """The first `count`, or all."""
        return Labelled(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Data:
    """A data set in three parts that share no sample.

    Attributes:
        train: What weights are fitted to.
        validation: What candidates are compared by during a search.
        test: What a search's result is judged by, once.
        classes: How many there are.
    """

    train: Labelled
    validation: Labelled
    test: Labelled
    classes: int

    @property
    def mean(self) -> float:
        """Of the training pixels, 0 to 1."""
        return float(self.train.images.mean(dtype=np.float64) / 255)

    @property
    def std(self) -> float:
        """Of the training pixels, 0 to 1; 1 where they are all equal."""
        return float(self.train.images.std(dtype=np.float64) / 255) or 1.0


def load(source: str | Path | Callable[[], tuple[Array, Array]]) -> tuple[Labelled, Labelled | None]:
    """Read a data set; the second part is a test set, where it brings one of its own.

    Args:
        source: An `.npz` with `images` (uint8 [N, H, W] or [N, H, W, C]) and `labels` [N], and perhaps `test_images`
            and `test_labels`; a folder of idx files named as MNIST's; a folder with one folder of PNG files a class;
            or a function that returns images and labels.

    Raises:
        UsageError: There is nothing there.
        ModelError: Images or labels are missing, of another form, or do not belong together; or the function raised.
    """
    if callable(source):
        try:
            images, labels = source()
        except EdgesmithError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise ModelError("the data loader raised an error", why=why, do="correct the loader") from error
        return _labelled(images, labels, "the data loader"), None
    path = Path(source)
    if not path.exists():
        raise UsageError(f"there is no data set {path}", do="give an .npz file, or a folder of idx or class folders")
    if path.is_file():
        return _npz(path)
    idx = sorted(path.glob("*-idx3-ubyte*"))
    return _idx(path) if idx else (_pictures(path), None)


def split(data: Labelled, test: Labelled | None, seed: int, share: float = 0.1, groups: Array | None = None) -> Data:
    """Cut a data set into training, validation and, where it brings none of its own, test samples.

    Args:
        data: All samples that may be trained on.
        test: A test set that is already apart.
        seed: Decides who goes where; the same seed gives the same parts.
        share: Of the samples for validation, and as many for the test.
        groups: A number per sample; samples of one group stay together (one emoji drawn by several vendors).

    Raises:
        ModelError: Too few samples for three parts.
    """
    groups = np.arange(len(data)) if groups is None else groups
    names = np.unique(groups)
    order = np.random.default_rng(seed).permutation(len(names))
    count = max(1, round(share * len(names)))
    if len(names) < 3 * count or count * 2 >= len(names):
        raise ModelError(f"{len(names)} samples are too few to split", do="give more samples")
    held = [np.isin(groups, names[order[i * count : (i + 1) * count]]) for i in (0, 1)]
    tested = data.take(np.flatnonzero(held[1])) if test is None else test
    rest = ~held[0] & ~held[1] if test is None else ~held[0]
    classes = int(max(data.labels.max(), tested.labels.max())) + 1
    # A class of which nothing is learned would spoil every figure silently.
    train = data.take(np.random.default_rng((seed, 1)).permutation(np.flatnonzero(rest)))
    if missing := sorted(set(range(classes)) - set(train.labels.tolist())):
        do = "number the classes 0, 1, ... and give samples of each"
        raise ModelError(f"no training sample is of class {missing[0]} of {classes}", do=do)
    return Data(train, data.take(np.flatnonzero(held[0])), tested, classes)


def pad(data: Labelled, side: int) -> Labelled:
    """Images of `side` x `side` pixels, with a border of zeros around smaller ones.

    Raises:
        ModelError: They are larger.
    """
    height, width = data.images.shape[2:]
    if max(height, width) > side:
        raise ModelError(f"images of {height}x{width} do not fit into {side}x{side}", do="scale them down first")
    top, left = (side - height) // 2, (side - width) // 2
    border = ((0, 0), (0, 0), (top, side - height - top), (left, side - width - left))
    return Labelled(np.pad(data.images, border), data.labels)


def _labelled(images: Array, labels: Array, where: str) -> Labelled:
    """Check what was read, and bring it into one form."""
    images, labels = np.asarray(images), np.asarray(labels)
    wrong = ""
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        wrong = f"images are {images.dtype} {images.shape}, not uint8 [N, H, W] or [N, H, W, C]"
    elif images.ndim == 4 and images.shape[3] not in (1, 3):
        wrong = f"images have {images.shape[3]} channels, not 1 or 3"
    elif labels.ndim != 1 or labels.dtype.kind not in "iu":
        wrong = f"labels are {labels.dtype} {labels.shape}, not whole numbers [N]"
    elif len(labels) != len(images):
        wrong = f"{len(images)} images have {len(labels)} labels"
    elif not len(labels):
        wrong = "there are no images"
    elif labels.min() < 0:
        wrong = f"label {labels.min()} is negative"
    elif labels.max() >= len(labels):
        wrong = f"label {labels.max()} is greater than {len(labels)} samples can have classes"
    if wrong:
        raise ModelError(f"{where}: {wrong}", do="correct the data set")
    channels = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Labelled(np.ascontiguousarray(channels), labels.astype(np.int64))


def _npz(path: Path) -> tuple[Labelled, Labelled | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path} is no .npz file", why=str(error), do="write it with numpy.savez") from error
    if missing := [name for name in ("images", "labels") if name not in arrays]:
        raise ModelError(f"{path} has no array '{missing[0]}'", do="name the arrays images and labels")
    data = _labelled(arrays["images"], arrays["labels"], str(path))
    if "test_images" not in arrays:
        return data, None
    if "test_labels" not in arrays:
        raise ModelError(f"{path} has test_images without test_labels", do="add them")
    test = _labelled(arrays["test_images"], arrays["test_labels"], f"{path}, test")
    if test.images.shape[1:] != data.images.shape[1:]:
        raise ModelError(f"{path}: test images differ in shape", do="give images of one shape")
    return data, test


def _idx(folder: Path) -> tuple[Labelled, Labelled | None]:
    parts = []
    for name in ("train", "t10k"):
        images, labels = (_idx_array(folder, f"{name}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        parts.append(_labelled(images, labels, f"{folder}, {name}"))
    return parts[0], parts[1]


def _idx_array(folder: Path, stem: str) -> Array:
    """One idx file, plain or gzipped. Source of the format: LeCun, Cortes and Burges, the MNIST database."""
    path = next((each for each in (folder / f"{stem}.gz", folder / stem) if each.is_file()), None)
    if path is None:
        raise ModelError(f"{folder} has no {stem}, nor {stem}.gz", do="give the folder of all four files")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        _, kind, rank = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        if kind != IDX_BYTES:
            raise ValueError(f"its elements have type {kind:#x}, not bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise ModelError(f"{path} is no idx file", why=str(error), do="fetch the data set again") from error


def _pictures(folder: Path) -> Labelled:
    """Class folders of PNG files; classes are numbered in the order of their names."""
    from PIL import Image

    folders = sorted(each for each in folder.iterdir() if each.is_dir())
    files = [(path, label) for label, each in enumerate(folders) for path in sorted(each.glob("*.png"))]
    if not files:
        raise ModelError(f"{folder} has neither idx files nor class folders of .png files", do="give another folder")
    images = []
    for path, _ in files:
        try:
            with Image.open(path) as picture:
                grey = picture.mode in ("1", "L", "I;16", "I")
                images.append(np.asarray(picture.convert("L" if grey else "RGB")))
        except OSError as error:
            raise ModelError(f"{path} is no picture", why=str(error), do="remove or replace it") from error
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise ModelError(f"{folder}: pictures differ in shape: {sorted(shapes)[:3]}", do="bring them to one size")
    return _labelled(np.stack(images), np.array([label for _, label in files]), str(folder))
