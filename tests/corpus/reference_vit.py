"""The two ViTs by which microcontroller costs are compared: `vit_xs` (32 px) and `vit_mcu` (112 px), random weights.

Their weights come from one random stream, read in a fixed order: parameters as their layers are built, then the
matrices again at a larger spread, then the input picture, `vit_xs` before `vit_mcu`. Figures taken on either hold for
exactly these weights, so the order of the layers below is part of the definition.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SEED = 0
SPREAD = 0.05
"""Standard deviation of every matrix, kernel, token and table."""


@dataclass(frozen=True)
class Shape:
    """What tells one reference ViT from another; lengths in pixels, channels and blocks."""

    side: int
    patch: int
    dim: int
    heads: int
    depth: int
    ratio: int
    classes: int


SHAPES = {
    "vit_xs": Shape(side=32, patch=4, dim=64, heads=4, depth=4, ratio=2, classes=10),
    "vit_mcu": Shape(side=112, patch=16, dim=192, heads=3, depth=6, ratio=2, classes=100),
}


class Attention(nn.Module):
    """Multi-head self-attention in primitives; the scale stands on the scores, not on the queries."""

    def __init__(self, shape: Shape) -> None:
        """Build the joint matrix first, the projection second."""
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.dim, 3 * shape.dim)
        self.proj = nn.Linear(shape.dim, shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, dim] to the same."""
        batch, tokens, dim = x.shape
        each = dim // self.heads
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, each).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * each**-0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Pre-LayerNorm transformer block; [B, N, dim] to the same."""

    def __init__(self, shape: Shape) -> None:
        """Build norm, attention, norm and the feed-forward network, in this order."""
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(shape.dim), Attention(shape))
        hidden = shape.dim * shape.ratio
        self.feed = nn.Sequential(
            nn.LayerNorm(shape.dim), nn.Linear(shape.dim, hidden), nn.GELU(), nn.Linear(hidden, shape.dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add both branches to the tokens in turn."""
        x = x + self.attend(x)
        return x + self.feed(x)


class ViT(nn.Module):
    """[B, 3, side, side] to [B, classes] logits, read off the class token."""

    def __init__(self, shape: Shape) -> None:
        """Build patches, class token, positions, blocks and head, in this order."""
        super().__init__()
        self.embed = nn.Conv2d(3, shape.dim, shape.patch, shape.patch)
        self.token = nn.Parameter(torch.randn(1, 1, shape.dim))
        self.position = nn.Parameter(torch.randn(1, (shape.side // shape.patch) ** 2 + 1, shape.dim))
        self.blocks = nn.Sequential(*[Block(shape) for _ in range(shape.depth)])
        self.norm = nn.LayerNorm(shape.dim)
        self.head = nn.Linear(shape.dim, shape.classes)

    def forward(self, image: Tensor) -> Tensor:
        """Put the class token before the patches and classify by what it has become."""
        patches = self.embed(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(image), -1, -1), patches], 1) + self.position
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def make_vit(name: str) -> tuple[nn.Module, Tensor]:
    """Build `vit_xs` or `vit_mcu` in inference mode, with the picture [1, 3, side, side] that belongs to it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for each, shape in SHAPES.items():
            model = ViT(shape).eval()
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=SPREAD)
            image = torch.randn(1, 3, shape.side, shape.side)
            if each == name:
                return model, image
    raise KeyError(f"no reference ViT {name!r}; there are {', '.join(SHAPES)}")
