"""The data sets of the search benchmark: Fashion-MNIST, and emoji by two vendors; nothing of them is shipped.

Fashion-MNIST comes with the Debian package dataset-fashion-mnist, emoji with the npm packages emoji-datasource-google
and emoji-datasource-twitter, which `npm pack` fetches.
"""

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from edgesmith.nas.data import Data, load, pad, split

FASHION = Path("/usr/share/datasets/fashion-mnist")
VENDORS = ("google", "twitter")
SIDE = 32
VALIDATED = 2000
"""Samples of Fashion-MNIST's 60,000 that candidates are compared by; its own 10,000 test samples judge the result."""

EMOJI_SHARE = 0.15
"""Of the emoji for validation, and as many for the test; both vendors' pictures of an emoji are in the same part."""


def fashion() -> Data:
    """Pictures padded to 32 x 32, ten classes."""
    train, test = load(FASHION)
    assert test is not None
    return split(pad(train, SIDE), pad(test, SIDE), seed=0, share=VALIDATED / len(train))


def emoji(folder: Path) -> Data:
    """Pictures scaled to 32 x 32 x 3 on white; the class is one of nine categories."""
    path = folder / "emoji.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _collect(path)
    with np.load(path) as arrays:
        groups = arrays["groups"]
    return split(load(path)[0], None, seed=0, share=EMOJI_SHARE, groups=groups)


def _collect(path: Path) -> None:
    """Fetch both vendors' packages and write all their pictures."""
    from PIL import Image

    images, categories, codes = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for vendor in VENDORS:
            name = f"emoji-datasource-{vendor}"
            subprocess.run(["npm", "pack", "--silent", name], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
            (package,) = Path(scratch).glob(f"{name}-*.tgz")
            with tarfile.open(package) as tar:
                listed = tar.extractfile("package/emoji.json")
                assert listed is not None
                for each in sorted(json.load(listed), key=lambda each: str(each["unified"])):
                    if not each[f"has_img_{vendor}"] or each["category"] == "Component":
                        continue
                    member = tar.extractfile(f"package/img/{vendor}/64/{each['image']}")
                    assert member is not None
                    with Image.open(member) as file:
                        picture = file.convert("RGBA")
                    white = Image.new("RGBA", picture.size, "white")
                    white.alpha_composite(picture)
                    images.append(np.asarray(white.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)))
                    categories.append(each["category"])
                    codes.append(each["unified"])
            package.unlink()
    labels, groups = (np.unique(names, return_inverse=True)[1] for names in (categories, codes))
    np.savez(path, images=np.stack(images), labels=labels, groups=groups)
