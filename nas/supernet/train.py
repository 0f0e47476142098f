"""Training of one network, or of all networks of a space at once, in steps that can be interrupted and go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...ir.errors import MachineError, UsageError
from ..data import Data, Labelled
from .program import Phase, Program

__all__ = ["Pixels", "Recipe", "accuracy", "fit", "logits", "recalibrated", "threads"]

Weights = dict[str, Tensor]
Network = tuple[Program, Mapping[str, Tensor]]
Sampler = Callable[[int], Sequence[Network]]
"""The networks to train in a step, by its number, on weights that share storage with those that are optimised."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From a network's logits, the labels and the batch's pixels, normalised, to a number."""

EVALUATED = 250
"""Samples in a batch of an evaluation."""


@dataclass(frozen=True)
class Recipe:
    """How to train: AdamW under a one-cycle rate.

    Attributes:
        steps: Batches.
        batch: Samples of each.
        rate: The greatest learning rate.
        decay: Weight decay of matrices, kernels and tables.
        smoothing: Of the labels.
        mirror: Whether every other picture is mirrored left to right.
        shift: The most pixels that a picture is moved by, along each axis.
        layer_share: Part of the steps in which RepNorm still holds some LayerNorm; its share falls linearly from 1
            to 0 in them (PRepBN). 0 trains plain RepNorm. Source: Guo et al., SLAB, section 3.2.
        seed: Decides the order of samples and how they are moved.
        save_every: Steps between two checkpoints.
    """

    steps: int
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.05
    smoothing: float = 0.05
    mirror: bool = True
    shift: int = 0
    layer_share: float = 0.5
    seed: int = 0
    save_every: int = 100

    def share(self, step: int) -> float:
        """LayerNorm's share in RepNorm at a step."""
        end = self.layer_share * self.steps
        return max(0.0, 1 - step / end) if end else 0.0


@dataclass(frozen=True)
class Pixels:
    """From bytes to what a network takes: (pixel / 255 - mean) / std."""

    mean: float
    std: float

    @classmethod
    def of(cls, data: Data) -> Pixels:
        """By the training pixels."""
        return cls(round(data.mean, 3), round(data.std, 3))

    def __call__(self, images: np.ndarray | Tensor) -> Tensor:
        """uint8 [B, C, H, W] to float32."""
        x = (torch.as_tensor(images, device=device()).float() / 255 - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def threads(count: int = 1) -> None:
    """Use so many threads: sums are taken in another order, and rounded otherwise, with another number of them."""
    torch.set_num_threads(count)


def fit(
    weights: Weights,
    sampler: Sampler,
    data: Labelled,
    pixels: Pixels,
    recipe: Recipe,
    checkpoint: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    loss: Loss | None = None,
    frozen: bool = False,
) -> None:
    """Train `weights` in place.

    Every step depends on its number and the seed alone, so that training resumed from a checkpoint ends where it
    would have ended.

    Args:
        weights: Leaf tensors that are trained; all that `sampler` gives is made of them.
        sampler: The networks of each step. Gradients of several are added.
        data: Training samples.
        pixels: What turns their bytes into numbers.
        recipe: See there.
        checkpoint: A file to go on from, where it exists, and to save to.
        say: Told of the progress.
        loss: Cross entropy with smoothed labels by default.
        frozen: Whether norms keep the statistics that they have.

    Raises:
        UsageError: The checkpoint belongs to other weights or another recipe, or there is less than one batch.
        MachineError: The checkpoint cannot be written.
    """
    if len(data) < recipe.batch:
        raise UsageError(f"{len(data)} samples are no batch of {recipe.batch}", do="give more samples")
    loss = loss or (lambda scores, y, _: functional.cross_entropy(scores, y, label_smoothing=recipe.smoothing))
    _learn(weights, True)
    optimiser = torch.optim.AdamW(_groups(weights, recipe))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, max(2, recipe.steps), pct_start=0.15)
    for step in range(_resume(checkpoint, weights, optimiser, rate, recipe), recipe.steps):
        x, y = _batch(data, pixels, recipe, step)
        phase = Phase() if frozen else Phase(training=True, share=recipe.share(step))
        optimiser.zero_grad(set_to_none=True)
        for program, tensors in sampler(step):
            found = loss(program(tensors, x, phase), y, x)
            found.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        rate.step()
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            say(f"step {step + 1} of {recipe.steps}, loss {found.item():.3f}")
            _save(checkpoint, weights, optimiser, rate, recipe, step + 1)
    _learn(weights, False)


def _learn(weights: Weights, on: bool) -> None:
    for tensor in weights.values():
        tensor.requires_grad_(on)


def _groups(weights: Weights, recipe: Recipe) -> list[dict[str, object]]:
    """Decay matrices, kernels and tables only: norms and biases have no direction to shrink."""
    matrices = [tensor for tensor in weights.values() if tensor.ndim > 1]
    vectors = [tensor for tensor in weights.values() if tensor.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _batch(data: Labelled, pixels: Pixels, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """The samples of a step, moved and mirrored: whole epochs, each in an order of its own."""
    per_epoch = len(data) // recipe.batch
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((recipe.seed, epoch)).permutation(len(data))
    chosen = data.take(order[place * recipe.batch : (place + 1) * recipe.batch])
    images, draw = chosen.images, np.random.default_rng((recipe.seed, step, 1))
    if recipe.mirror:
        images = np.where(draw.random((len(images), 1, 1, 1)) < 0.5, images[..., ::-1], images)
    if recipe.shift:
        images = _shifted(images, draw.integers(0, 2 * recipe.shift + 1, (len(images), 2)), recipe.shift)
    return pixels(np.ascontiguousarray(images)), torch.as_tensor(chosen.labels, device=device())


def _shifted(images: np.ndarray, offsets: np.ndarray, most: int) -> np.ndarray:
    """Each picture moved by its offsets less `most`, zeros where it was not."""
    height, width = images.shape[2:]
    wide = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
    moved = (image[:, y : y + height, x : x + width] for image, (y, x) in zip(wide, offsets, strict=True))
    return np.stack(list(moved))


def _state(optimiser: torch.optim.Optimizer, rate: torch.optim.lr_scheduler.LRScheduler) -> dict[str, object]:
    return {"optimiser": optimiser.state_dict(), "rate": rate.state_dict()}


def _save(
    path: Path | None,
    weights: Weights,
    optimiser: torch.optim.Optimizer,
    rate: torch.optim.lr_scheduler.LRScheduler,
    recipe: Recipe,
    step: int,
) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        MachineError: It cannot be written; an earlier one stays.
    """
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    try:
        torch.save({"step": step, "recipe": str(recipe), "weights": weights, **_state(optimiser, rate)}, draft)
        os.replace(draft, path)
    except (OSError, RuntimeError) as error:  # PyTorch's writer has no error of its own for a full disk
        draft.unlink(missing_ok=True)
        do = "make room and train again: it goes on from the last checkpoint"
        raise MachineError("a checkpoint cannot be written", where=[str(path)], why=str(error), do=do) from error


def _resume(
    path: Path | None,
    weights: Weights,
    optimiser: torch.optim.Optimizer,
    rate: torch.optim.lr_scheduler.LRScheduler,
    recipe: Recipe,
) -> int:
    """Go back to a checkpoint; gives the step to go on with."""
    if path is None or not path.is_file():
        return 0
    saved = torch.load(path, map_location=device(), weights_only=True)
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    if saved["recipe"] != str(recipe) or {name: each.shape for name, each in saved["weights"].items()} != shapes:
        do = "delete it, or train as it was begun"
        raise UsageError(f"the checkpoint {path} is of another training", do=do)
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(saved["weights"][name])
    optimiser.load_state_dict(saved["optimiser"])
    rate.load_state_dict(saved["rate"])
    return int(saved["step"])


def _batches(data: Labelled, pixels: Pixels) -> Iterator[Tensor]:
    for start in range(0, len(data), EVALUATED):
        yield pixels(data.images[start : start + EVALUATED])


def recalibrated(network: Network, data: Labelled, pixels: Pixels) -> Weights:
    """The weights with the statistics that the network's own norms see on `data`."""
    program, weights = network
    phase = Phase(training=True, seen={})
    with torch.inference_mode():
        for x in _batches(data, pixels):
            program(weights, x, phase)
        result = dict(weights)
        for node in program.nodes:
            seen = (phase.seen or {}).get(node.inputs[3].name) if len(node.inputs) > 4 and node.inputs[3] else None
            if seen is not None:
                result[node.input(3).name], result[node.input(4).name] = seen.mean_and_variance()
    return result


def logits(network: Network, data: Labelled, pixels: Pixels) -> Tensor:
    """What a network says of every sample, as deployed: [N, classes]."""
    program, weights = network
    with torch.inference_mode():
        return torch.cat([program(weights, x) for x in _batches(data, pixels)])


def accuracy(network: Network, data: Labelled, pixels: Pixels) -> float:
    """The share of samples that a network puts into the right class."""
    right = logits(network, data, pixels).argmax(1).cpu().numpy() == data.labels
    return float(right.mean())
