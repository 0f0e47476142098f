"""The order in which an imported graph is recognised, one reason per line."""

from __future__ import annotations

from ..base import Pass
from .activation import RecogniseActivation
from .attention import RecogniseAttention
from .duplicates import RecogniseDuplicates
from .groupnorm import RecogniseGroupnorm
from .layernorm import RecogniseLayernorm
from .linear import RecogniseLinear
from .patch_embed import RecognisePatchEmbed
from .repnorm import RecogniseRepnorm
from .simplify_shapes import SimplifyShapes
from .tokennorm import RecogniseTokennorm

RECOGNISE: tuple[Pass, ...] = (
    RecogniseDuplicates(),  # first: patterns ask for the same value twice, exporters may have computed it twice
    SimplifyShapes(),  # squeezes and flattens gone, movement is in one form
    RecogniseLinear(),  # biases in place, so that weight rows can be chosen together with them
    RecogniseLayernorm(),  # decomposed norms, before their products look like anything else
    RecogniseGroupnorm(),  # needs the Reshapes around it as the exporter wrote them
    RecogniseActivation(),  # before anything folds a factor that is part of one
    RecogniseTokennorm(),  # norms over tokens move before Reshapes ...
    SimplifyShapes(),  # ... which then cancel, and attention sees Linear and BatchNorm side by side
    RecogniseRepnorm(),  # needs norm and tokens in one shape
    RecogniseAttention(),  # after everything that may stand between projections and heads
    SimplifyShapes(),  # the heads' transpositions meet those that recognition left
    RecognisePatchEmbed(),  # last: movement after the convolution is in its shortest form
)

__all__ = ["RECOGNISE"]
