"""Trains the sample's network on Fashion-MNIST and writes `model.onnx` and `images.npz` beside this file.

Needs the extra `train` and the Debian package `dataset-fashion-mnist`; takes ten minutes of one core:

    python samples/fashion/train.py
"""

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from network import CLASSES, MEAN, SIDE, STD, Hybrid, normalise
from torch import Tensor, nn

HERE = Path(__file__).parent
DATA = Path("/usr/share/datasets/fashion-mnist")
SEED = 20
BATCH = 128
PEAK_RATE = 3e-3
TEST_IMAGES, CALIBRATION_IMAGES = 400, 64
IDX_HEADER = {"images": 16, "labels": 8}
"""Bytes before the payload of an IDX file of rank 3 and 1."""


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Read the uint8 [N, 28, 28] images and int64 [N] labels of `split`, "train" or "t10k"."""
    parts = {}
    for kind, rank in (("images", 3), ("labels", 1)):
        raw = gzip.decompress((folder / f"{split}-{kind}-idx{rank}-ubyte.gz").read_bytes())
        parts[kind] = torch.frombuffer(bytearray(raw[IDX_HEADER[kind] :]), dtype=torch.uint8)
    return parts["images"].reshape(-1, SIDE, SIDE), parts["labels"].long()


def parameter_groups(model: nn.Module) -> list[dict[str, object]]:
    """Decay the matrices and kernels only: norms and biases have no direction to shrink."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Give the share of `images` that `model` puts into the right class."""
    model.eval()
    with torch.inference_mode():
        answers = torch.cat([model(normalise(x)).argmax(1) for x in images.split(500)])
    return float((answers == labels).float().mean())


def train(model: nn.Module, train_set: tuple[Tensor, Tensor], test_set: tuple[Tensor, Tensor], epochs: int) -> None:
    """Fit `model` by AdamW under a one-cycle rate; pictures are mirrored at random, nothing else."""
    images, labels = train_set
    draw = torch.Generator().manual_seed(SEED)
    steps = len(images) // BATCH
    optimiser = torch.optim.AdamW(parameter_groups(model))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, epochs * steps, pct_start=0.15)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    started = time.monotonic()
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(images), generator=draw)[: steps * BATCH].split(BATCH)
        for step, chosen in enumerate(order, 1):
            mirrored = torch.rand(BATCH, 1, 1, generator=draw) < 0.5
            pixels = torch.where(mirrored, images[chosen].flip(2), images[chosen])
            loss = criterion(model(normalise(pixels)), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
            if step % 39 == 0:
                seconds = time.monotonic() - started
                done = f"epoch {epoch + 1}/{epochs}  {step}/{steps}"
                print(f"{done}  loss {loss.item():.3f}  {seconds:.0f} s", flush=True)
        print(f"epoch {epoch + 1}/{epochs}  test accuracy {accuracy(model, *test_set):.2%}", flush=True)


def export(model: nn.Module, path: Path) -> None:
    """Write what torch exports, with the normalisation its caller owes it in the metadata."""
    example = torch.zeros(1, 1, SIDE, SIDE)
    torch.onnx.export(
        model.eval(),
        (example,),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,
    )
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"edgesmith.mean": str(MEAN), "edgesmith.std": str(STD)})
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def check(model: nn.Module, path: Path, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Run `path` under ONNX Runtime; give its accuracy and the largest distance of a logit from torch's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    batches = normalise(images).split(1)
    exported = np.concatenate([session.run(None, {"image": x.numpy()})[0] for x in batches])
    with torch.inference_mode():
        original = torch.cat([model(normalise(x)) for x in images.split(500)]).numpy()
    right = np.mean(exported.argmax(1) == labels.numpy())
    return float(right), float(np.abs(exported - original).max())


def write_images(path: Path, train_images: Tensor, test_images: Tensor, test_labels: Tensor) -> None:
    """Keep a draw of the test set to judge by, and one of the training set to calibrate by."""
    draw = np.random.default_rng(SEED)
    tested = np.sort(draw.choice(len(test_images), TEST_IMAGES, replace=False))
    calibration = np.sort(draw.choice(len(train_images), CALIBRATION_IMAGES, replace=False))
    np.savez_compressed(
        path,
        images=test_images.numpy()[tested],
        labels=test_labels.numpy()[tested].astype(np.uint8),
        calibration=train_images.numpy()[calibration],
    )


def main() -> None:
    """Train, export, check and say what came of it."""
    parser = argparse.ArgumentParser(description="Train the Fashion-MNIST sample.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the four idx files (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this script)")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the order of additions depends on the number of threads
    torch.use_deterministic_algorithms(True)
    train_set, test_set = load(options.data, "train"), load(options.data, "t10k")
    model = Hybrid()
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {CLASSES} classes", flush=True)
    train(model, train_set, test_set, options.epochs)
    export(model, options.out / "model.onnx")
    write_images(options.out / "images.npz", train_set[0], *test_set)
    right, distance = check(model, options.out / "model.onnx", *test_set)
    print(f"torch {accuracy(model, *test_set):.2%}, exported {right:.2%}, largest difference of a logit {distance:.1e}")


if __name__ == "__main__":
    main()
