"""timm models whose every branch shows in the answer: initial weights hide bugs, so they are drawn anew.

As built, layer scales of 1e-5, BatchNorms of gain zero and near-zero attention logits make whole branches vanish.
"""

import numpy as np
import timm
import torch
from timm.layers import set_fused_attn
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SEED = 20
PASSES, BATCH = 2, 8
VARIANCE_FLOOR = 0.05
"""A BatchNorm over features that hardly vary would amplify mere rounding."""


def pictures(count: int, channels: int, side: int, seed: int) -> Tensor:
    """Draw structured pictures [count, channels, side, side]: waves, a box, a little noise; contrast 1/4 to 2."""
    draw = np.random.default_rng(seed)
    row, column = np.meshgrid(*[np.linspace(0, 1, side)] * 2, indexing="ij")
    result = np.empty((count, channels, side, side))
    for picture in result:
        for plane in picture:
            plane[:] = draw.normal(0, 0.3)
            for frequency in (1, 3, 9):
                angle, phase = draw.uniform(0, 2 * np.pi, 2)
                plane += np.sin(2 * np.pi * frequency * (np.cos(angle) * row + np.sin(angle) * column) + phase) * 0.6
        top, left = draw.integers(0, side * 3 // 4, 2)
        picture[:, top : top + side // 4, left : left + side // 4] += draw.normal(0, 1, (channels, 1, 1))
        picture += draw.normal(0, 0.1, picture.shape)
        picture *= draw.uniform(0.25, 2)
    return torch.from_numpy(result.astype(np.float32))


def wake_parameters(model: nn.Module, draw: torch.Generator) -> None:
    """Redraw every parameter: matrices keep the variance of what they read, scales leave no branch near zero."""
    for module in model.modules():
        kind = type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            if "Scale" in kind:
                parameter.uniform_(0.2, 0.5, generator=draw)
            elif "Norm" in kind and name == "weight":
                parameter.uniform_(0.7, 1.3, generator=draw)
            elif name == "weight":
                parameter.normal_(0, (parameter[0].numel()) ** -0.5, generator=draw)
            else:  # biases, tokens, tables of positions
                parameter.normal_(0, 0.1, generator=draw)


def settle_batchnorms(model: nn.Module, channels: int, side: int) -> None:
    """Give every BatchNorm the statistics of what it sees, averaged over a few batches."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain average over the batches
    model.train()
    for index in range(PASSES):
        model(pictures(BATCH, channels, side, SEED + 1 + index))
    for norm in norms:
        norm.running_var.clamp_(min=VARIANCE_FLOOR)


def make_timm(name: str, *, fused_attn: bool = False, reparam: bool = False) -> tuple[nn.Module, Tensor]:
    """Build timm's `name` in inference mode with woken weights, and a picture [1, C, side, side] for it.

    Args:
        name: The architecture.
        fused_attn: Attention as torch's one function instead of matrix products and a softmax.
        reparam: Merge parallel branches of training into one convolution.
    """
    set_fused_attn(fused_attn)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)  # some models draw buffers or dropout
        model = timm.create_model(name)
        channels, side, _ = model.default_cfg["input_size"]
        wake_parameters(model, torch.Generator().manual_seed(SEED))
        settle_batchnorms(model, channels, side)
        # through train(): some attentions keep a table made of their old biases until then
        model = model.train().eval()
        if reparam:
            model = reparameterize_model(model)
    return model, pictures(1, channels, side, SEED)
