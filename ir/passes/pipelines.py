"""Which passes run, in which order and why; and the driver that checks each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import InternalError
from ..graph import Array, Graph
from ..interpret import run
from ..verify import verify
from .base import Pass
from .exact.canonicalise_norms import CanonicaliseNorms
from .exact.eliminate_dead import EliminateDead
from .exact.fold_affine_norm import FoldAffineNorm
from .exact.fold_attention_bias import FoldAttentionBias
from .exact.fold_batchnorm import FoldBatchnorm
from .exact.fold_constants import FoldConstants
from .exact.fold_layer_scale import FoldLayerScale
from .exact.fold_linear_chain import FoldLinearChain
from .exact.fold_permutation import FoldPermutation
from .exact.fold_repnorm import FoldRepnorm
from .exact.fold_scalars import FoldScalars
from .exact.merge_branches import MergeBranches
from .exact.merge_heads import MergeHeads
from .exact.merge_slices import MergeSlices
from .exact.mix_in_place import MixInPlace
from .exact.narrow_tokens import NarrowTokens
from .exact.norm_to_rmsnorm import NormToRmsnorm
from .exact.pool_algebra import PoolAlgebra
from .exact.shift_and_add import ShiftAndAdd
from .exact.split_linear import SplitLinear
from .exact.split_phases import SplitPhases
from .exact.turn_products import TurnProducts
from .quantise.drop_pairs import DropPairs
from .recognise.joined_rows import RecogniseJoinedRows
from .recognise.patch_embed import RecognisePatchEmbed
from .recognise.simplify_shapes import SimplifyShapes

EXACT: tuple[Pass, ...] = (
    FoldConstants(),  # first: folds below look for constants, exporters write computations of them
    EliminateDead(),  # so that nothing dead counts as a second reader
    NarrowTokens(),  # early: fewer readers of whole sequences, and class heads see their norm directly
    PoolAlgebra(),  # before the folds: brings a final norm next to the head
    FoldScalars(),  # the attention scale must be in the weights before anything measures their range
    FoldLayerScale(),  # before NormToRmsnorm: a factor per channel does not commute with centring
    FoldBatchnorm(),  # before MergeBranches: a branch is then one layer
    FoldRepnorm(),  # likewise
    MergeSlices(),  # movement again, now that no factor or norm stands between: pieces of pieces ...
    TurnProducts(),  # ... transposed products of transposed factors ...
    RecogniseJoinedRows(),  # ... tokens that are narrow by now, as rows ...
    SimplifyShapes(),  # ... and what then cancels
    FoldPermutation(),  # channels in another order, where that is all that is left
    RecognisePatchEmbed(),  # again: a norm may have stood between the convolution and its tokens
    MergeBranches(),  # after the norms, before calibration: merged weights have other ranges
    SplitPhases(),  # after the norms are folded: from here on the layer is several
    MergeHeads(),  # the head is one Linear from here on
    FoldAffineNorm(),  # leaves norms without parameters, which NormToRmsnorm needs
    FoldAttentionBias(),  # after shifts of norms have become biases
    FoldLinearChain(),  # after all scales are inside the weights that it multiplies out
    NormToRmsnorm(),  # last change of numbers: all writers of the stream have their final weights
    CanonicaliseNorms(),  # what no layer could take
)

FLOAT: tuple[Pass, ...] = (
    *EXACT,
    MixInPlace(),  # not in EXACT: factors per channel in the stream are nothing to floats, but integers share a scale
)
"""What makes a float graph lean, whatever runs it."""

INTEGER: tuple[Pass, ...] = (
    DropPairs(),  # first: what stands between pairs is recognised then
    *EXACT,
)
"""What brings a float graph into a form whose operands can become integers with scales of our own."""

FLOAT_C: tuple[Pass, ...] = (
    DropPairs(),  # there are no kernels for them
    *FLOAT,
    SplitLinear(),  # after everything that joins layers; not in EXACT, as the integer lowering splits for itself
)
"""What brings a float graph into the form that `lowering.c.lower` takes for a library in single precision."""

FLOAT_ONNX: tuple[Pass, ...] = (
    DropPairs(),  # ONNX Runtime rounds weights anew between pairs, and half precision has no place for such steps
    *(each for each in FLOAT if not isinstance(each, FoldAffineNorm | NormToRmsnorm)),
)
"""What makes a float graph lean where a norm is one operator with a scale and a shift, as in ONNX and Core ML."""

INTEGER_ONNX: tuple[Pass, ...] = tuple(each for each in INTEGER if each in FLOAT_ONNX)
"""The same before operands become integers."""

FLOAT_TFLITE: tuple[Pass, ...] = FLOAT
"""What makes a float graph lean where a norm is several operators, as in TFLite: its affine part is folded."""

FLOAT_TVM: tuple[Pass, ...] = (
    FoldConstants(),  # exporters write powers of two as computations
    ShiftAndAdd(),  # before any fold gives each input channel a factor of its own
    *FLOAT,
)
"""What makes a float graph lean where every element-wise op runs on the results of a product at no cost."""

ROUNDS = 8
TOLERANCE = 1e-5


def run_pipeline(
    graph: Graph,
    passes: Sequence[Pass] = EXACT,
    check: Mapping[str, Array] | None = None,
    on_step: Callable[[Pass, int, Graph], None] | None = None,
) -> dict[str, int]:
    """Apply passes in order, again and again until none finds anything; the graph is verified after each.

    Args:
        graph: Changed in place.
        passes: What to apply.
        check: Feeds; with them the numpy oracle compares the outputs before and after every pass that is exact.
        on_step: Called after each pass that changed something, with the number of its rewrites.

    Returns:
        Rewrites per pass name.

    Raises:
        InternalError: A pass left an illegal graph, moved the numbers, or the passes undo each other for ever.
    """
    verify(graph, "import")
    expected = None if check is None else run(graph, check, "float64")
    counts = dict.fromkeys((p.name for p in passes), 0)
    for _ in range(ROUNDS):
        before = sum(counts.values())
        for p in passes:
            count = p.apply(graph)
            if not count:
                continue
            counts[p.name] += count
            verify(graph, p.name)
            if check is not None and expected is not None:
                actual = run(graph, check, "float64")
                if p.exact:
                    _compare(p, expected, actual)
                expected = actual
            if on_step is not None:
                on_step(p, count, graph)
        if sum(counts.values()) == before:
            return counts
    raise InternalError(f"the passes still find something after {ROUNDS} rounds", why=f"rewrites: {counts}")


def _compare(p: Pass, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> None:
    """Outputs equal within `TOLERANCE` of their largest element; weights are stored in float32 after a fold."""
    if list(expected) != list(actual):
        raise InternalError(f"pass {p.name} changed the outputs from {list(expected)} to {list(actual)}")
    for name, before in expected.items():
        error = float(np.max(np.abs(before - actual[name]), initial=0.0))
        scale = float(np.max(np.abs(before), initial=0.0))
        if not error <= TOLERANCE * max(scale, 1e-30):
            raise InternalError(f"pass {p.name} moved output '{name}' by {error:g}, its largest element is {scale:g}")
