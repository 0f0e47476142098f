"""Fine-tuning of a compressed network by what the original says: no labels are needed, and the graph stays as it is.

Source: Hinton et al., Distilling the Knowledge in a Neural Network (2015), section 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ...ir.graph import Graph
from ..data import Labelled
from .program import Program
from .train import Pixels, Recipe, fit

__all__ = ["TEMPERATURE", "distil"]

TEMPERATURE = 2.0
"""Divides the logits of both: how much the order of the unlikely classes counts."""


def distil(
    compressed: Graph,
    original: Graph,
    data: Labelled,
    pixels: Pixels,
    recipe: Recipe,
    say: Callable[[str], None] = lambda line: None,
) -> Graph:
    """Train the constants of a float graph towards the outputs of another.

    Args:
        compressed: A graph of logits [1, classes]; it is not changed.
        original: One with the same input and output.
        data: Training samples, as many channels and pixels as the graphs take; labels are not read.
        pixels: The normalisation that both expect.
        recipe: See there; norms keep their statistics.
        say: Told of the progress.

    Returns:
        A graph with the same nodes as `compressed` and other weights.

    Raises:
        Unsupported: One of the graphs has ops that PyTorch has no form of here.
    """
    student, teacher = Program(compressed), Program(original)
    learnt, known = _tensors(student), _tensors(teacher)

    def loss(logits: Tensor, labels: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(known, x)
        said, wanted = (functional.log_softmax(each / TEMPERATURE, -1) for each in (logits, wanted))
        return functional.kl_div(said, wanted, log_target=True, reduction="batchmean") * TEMPERATURE**2

    leaves = {name: learnt[name] for name in student.trained}
    fit(leaves, lambda step: [(student, learnt)], data, pixels, recipe, say=say, loss=loss, frozen=True)
    made = compressed.copy()
    for name, tensor in leaves.items():
        old = made.value(name)
        made.replace(old, made.constant(tensor.cpu().numpy().copy(), f"{name}.tuned"))
    return made


def _tensors(program: Program) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in program.constants.items()}
