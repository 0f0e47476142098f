"""The order in which an imported graph is recognised, one reason per line."""

from __future__ import annotations

from ..base import Pass
from ..exact.split_linear import SplitLinear
from .activation import RecogniseActivation
from .attention import RecogniseAttention
from .broadcasts import RecogniseBroadcasts
from .cuts import RecogniseCuts
from .differences import RecogniseDifferences
from .duplicates import RecogniseDuplicates
from .gated_linear import RecogniseGatedLinear
from .groupnorm import RecogniseGroupnorm
from .head_factors import RecogniseHeadFactors
from .headwise import RecogniseHeadwise
from .joined_rows import RecogniseJoinedRows
from .l2norm import RecogniseL2norm
from .layernorm import RecogniseLayernorm
from .linear import RecogniseLinear
from .linear_attention import RecogniseLinearAttention
from .patch_embed import RecognisePatchEmbed
from .powers import RecognisePowers
from .projections import RecogniseProjections
from .repnorm import RecogniseRepnorm
from .response_norm import RecogniseResponseNorm
from .rotary import RecogniseRotary
from .simplify_shapes import SimplifyShapes
from .softmax import RecogniseSoftmax
from .squeeze_excite import RecogniseSqueezeExcite
from .talking_heads import RecogniseTalkingHeads
from .token_order import RecogniseTokenOrder
from .tokennorm import RecogniseTokennorm

RECOGNISE: tuple[Pass, ...] = (
    RecogniseDuplicates(),  # first: patterns ask for the same value twice, exporters may have computed it twice
    SimplifyShapes(),  # squeezes and flattens gone, movement is in one form
    RecogniseBroadcasts(),  # likewise: they ask for the small operand
    RecogniseCuts(),  # before pieces are taken for selections of a few tokens
    RecogniseLinear(),  # biases in place, so that weight rows can be chosen together with them
    RecogniseSoftmax(),  # before its exponential looks like part of an activation
    RecogniseLayernorm(),  # decomposed norms, before their products look like anything else
    RecogniseL2norm(),  # likewise lengths
    RecogniseResponseNorm(),  # and ratios of lengths
    RecogniseGroupnorm(),  # needs the Reshapes around it as the exporter wrote them
    RecogniseActivation(),  # before anything folds a factor that is part of one
    RecognisePowers(),  # those that are left
    RecogniseDifferences(),  # after norms and activations, whose patterns have their own signs
    RecogniseTokennorm(),  # norms over tokens move before Reshapes ...
    RecogniseJoinedRows(),  # ... as do layers ...
    SimplifyShapes(),  # ... which then cancel, and attention sees Linear and BatchNorm side by side
    RecogniseRepnorm(),  # needs norm and tokens in one shape
    RecogniseSqueezeExcite(),  # gates, whose activations are known by now
    RecogniseGatedLinear(),
    SplitLinear(),  # other products that are cut; after gates, whose halves have names of their own
    RecogniseRotary(),  # rows of queries and keys in the order of halves, before they are cut apart
    RecogniseProjections(),  # queries, keys and values apart, whatever is done with them
    RecogniseHeadwise(),  # what is done with them one by one, before heads are turned to the front
    RecogniseHeadFactors(),  # factors per head where attention looks for them
    RecogniseTalkingHeads(),  # scores that are no attention of one op
    RecogniseAttention(),  # after everything that may stand between projections and heads
    RecogniseLinearAttention(),  # products that attention has left
    SimplifyShapes(),  # the heads' transpositions meet those that recognition left
    RecogniseTokenOrder(),  # needs attention to be one op
    RecognisePatchEmbed(),  # last: movement after the convolution is in its shortest form
)

__all__ = ["RECOGNISE"]
