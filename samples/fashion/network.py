"""The sample's network: a convolution stem and three transformer blocks, the shape of EfficientFormer at 28x28."""

import torch
from torch import Tensor, nn

MEAN, STD = 0.286, 0.353
"""Of the pixels (0..1) of the 60 000 training pictures."""

SIDE, CLASSES = 28, 10
DIM, HEADS, DEPTH, RATIO = 64, 4, 3, 2
STEM = 32


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the picture's size up to its stride, without bias, and its BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class DepthwiseBlock(nn.Module):
    """Mixes space by a depthwise 3x3, then channels by two 1x1 convolutions; [B, C, H, W] to the same."""

    def __init__(self, channels: int) -> None:
        """Take the number of channels, which the block keeps."""
        super().__init__()
        self.mix = convolution(channels, channels, 3, groups=channels)
        self.expand = convolution(channels, channels * RATIO, 1)
        self.act = nn.GELU()
        self.project = convolution(channels * RATIO, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the block found to its input."""
        return x + self.project(self.act(self.expand(self.mix(x))))


class Attention(nn.Module):
    """Multi-head self-attention written in primitives, so that every exporter shows it; [B, N, DIM] to the same."""

    def __init__(self) -> None:
        """Lay out one matrix for queries, keys and values, and the projection."""
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.proj = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        """Let each token read all of them."""
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, HEADS, dim // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * (dim // HEADS) ** -0.5) @ k.transpose(-2, -1)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, dim))


class TransformerBlock(nn.Module):
    """Pre-LayerNorm transformer block; [B, N, DIM] to the same."""

    def __init__(self) -> None:
        """Lay out attention and the feed-forward network, each behind its LayerNorm."""
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(DIM), Attention()
        self.norm2 = nn.LayerNorm(DIM)
        self.mlp = nn.Sequential(nn.Linear(DIM, DIM * RATIO), nn.GELU(), nn.Linear(DIM * RATIO, DIM))

    def forward(self, x: Tensor) -> Tensor:
        """Add both branches to the tokens in turn."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Hybrid(nn.Module):
    """[B, 1, 28, 28] normalised pixels to [B, 10] logits; the stem halves the picture twice, to 7x7 tokens."""

    def __init__(self) -> None:
        """Lay out stem, blocks and head."""
        super().__init__()
        self.stem = nn.Sequential(
            convolution(1, STEM, 3, stride=2),
            nn.ReLU(),
            DepthwiseBlock(STEM),
            convolution(STEM, DIM, 3, stride=2),
            nn.ReLU(),
            DepthwiseBlock(DIM),
        )
        self.position = nn.Parameter(torch.randn(1, (SIDE // 4) ** 2, DIM) * 0.02)
        self.blocks = nn.Sequential(*[TransformerBlock() for _ in range(DEPTH)])
        self.norm = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Classify the mean of the tokens."""
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens).mean(1)))


def normalise(pixels: Tensor) -> Tensor:
    """From uint8 [B, 28, 28] to what the network takes: float32 [B, 1, 28, 28]."""
    return (pixels[:, None].float() / 255 - MEAN) / STD
