"""Each rule of the evaluator against somebody else's: coremltools' own inference, PyTorch, or the formula."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgesmith.runtimes.mlprogram.arithmetic import HALF, SINGLE
from edgesmith.runtimes.mlprogram.ops import RULES


def load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INFERRED = load("mil_cases").INFERRED


def computed(name, parameters, arithmetic=SINGLE):
    """The rule's results, as a list."""
    operands = {
        key: tuple(map(np.asarray, value)) if key == "values" else (np.asarray(value),)
        for key, value in parameters.items()
    }
    made = RULES[name](arithmetic, operands)
    return list(made) if isinstance(made, tuple) else [made]


def close(found, wanted, bound=2e-6):
    """Same shapes, and numbers within a share of the largest."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.shape == other.shape
        if other.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=bound, atol=bound * max(1.0, np.abs(other).max(initial=0)))
        else:
            np.testing.assert_array_equal(one, other)


@pytest.mark.coreml
@pytest.mark.parametrize(("name", "parameters"), INFERRED, ids=[f"{i}-{case[0]}" for i, case in enumerate(INFERRED)])
def test_rules_equal_the_inference_of_coremltools(name, parameters):
    """coremltools folds constants with code of its own; where it can, it must come to the same numbers."""
    ct = pytest.importorskip("coremltools")
    from coremltools.converters.mil.mil import Builder, types

    wanted = []

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(1,), dtype=types.fp32)], opset_version=ct.target.iOS18)
    def program(x):
        made = getattr(Builder, name)(**parameters)
        wanted.extend(each.val for each in (made if isinstance(made, (list, tuple)) else [made]))
        return Builder.identity(x=x)

    assert all(each is not None for each in wanted)
    close(computed(name, parameters), wanted)


def onnx(kind, inputs, outputs=1, opset=20, **attributes):
    """What ONNX Runtime makes of one operator; a list."""
    import onnxruntime
    from onnx import TensorProto, helper

    kinds = {
        "float32": TensorProto.FLOAT,
        "int64": TensorProto.INT64,
        "int8": TensorProto.INT8,
        "bool": TensorProto.BOOL,
    }
    feeds = {f"i{at}": each for at, each in enumerate(inputs) if each is not None}
    names = [f"i{at}" if each is not None else "" for at, each in enumerate(inputs)]
    results = [f"o{at}" for at in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(kind, names, results, **attributes)], "one",
        [helper.make_tensor_value_info(key, kinds[each.dtype.name], each.shape) for key, each in feeds.items()],
        [helper.make_empty_tensor_value_info(key) for key in results],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(results, feeds)


def onnx_pads(pad):
    """Before and after for each axis, as ONNX has it: all before, then all after."""
    return [*pad[::2], *pad[1::2]]


CONVOLUTIONS = [
    ((2, 4, 9, 7), (6, 4, 3, 2), {"strides": (2, 1), "pad_type": "custom", "pad": (1, 0, 2, 1)}),
    ((1, 4, 9, 7), (6, 2, 3, 3), {"groups": 2, "dilations": (2, 1)}),
    ((1, 4, 9, 8), (4, 1, 3, 3), {"groups": 4, "pad_type": "same", "strides": (2, 2)}),
    ((1, 4, 9, 8), (8, 1, 2, 2), {"groups": 4, "pad_type": "same_lower"}),
    ((1, 3, 8, 8), (5, 3, 4, 4), {"strides": (4, 4)}),
    ((1, 3, 8, 8), (5, 3, 1, 1), {}),
    ((2, 1, 4, 4), (5, 1, 3, 3), {}),
    ((1, 3, 11), (5, 3, 4), {"strides": (3,), "pad_type": "same_lower"}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 2), {"strides": (1, 2, 1), "pad_type": "same"}),
]


@pytest.mark.parametrize(("x", "weight", "how"), CONVOLUTIONS)
def test_convolutions(x, weight, how):
    """Strides, dilations, groups and every kind of border, in one to three dimensions."""
    draw = np.random.default_rng(1)
    arrays = {"x": x, "weight": weight, "bias": weight[:1]}
    arrays = {key: draw.standard_normal(shape).astype(np.float32) for key, shape in arrays.items()}
    kinds = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID", "custom": "NOTSET"}
    attributes = {"auto_pad": kinds[how.get("pad_type", "valid")], "group": how.get("groups", 1)}
    attributes |= {key: how[key] for key in ("strides", "dilations") if key in how}
    attributes |= {"pads": onnx_pads(how["pad"])} if "pad" in how else {}
    close(computed("conv", {**arrays, **how}), onnx("Conv", arrays.values(), **attributes), 1e-5)
    without = {key: array for key, array in arrays.items() if key != "bias"}
    close(computed("conv", {**without, **how}), onnx("Conv", without.values(), **attributes), 1e-5)


TRANSPOSED = [
    ((2, 4, 5, 4), (4, 3, 3, 2), {"strides": (2, 3)}, {}),
    ((1, 4, 5, 4), (4, 3, 3, 3), {"strides": (2, 2), "pad_type": "custom", "pad": (1, 1, 0, 2)}, {}),
    ((1, 4, 5, 4), (4, 2, 3, 3), {"groups": 2, "dilations": (1, 2)}, {}),
    ((1, 4, 5), (4, 1, 4), {"groups": 4, "strides": (2,), "pad_type": "custom", "pad": (1, 1)}, {}),
    (
        (1, 4, 5, 4), (4, 3, 3, 3),
        {"strides": (2, 2), "pad_type": "custom", "pad": (1, 1, 1, 1), "output_shape": (1, 3, 10, 8)},
        {"output_padding": [1, 1]},
    ),
    ((1, 4, 5, 4), (4, 3, 3, 3), {"strides": (2, 2), "pad_type": "same"}, {"auto_pad": "SAME_UPPER"}),
    (
        (1, 4, 5, 4), (4, 3, 2, 5), {"strides": (3, 2), "pad_type": "same"},
        {"output_padding": [1, 0], "pads": [0, 1, 0, 2]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("x", "weight", "how", "attributes"), TRANSPOSED)
def test_transposed_convolutions(x, weight, how, attributes):
    """Strides, dilations, groups and borders; a border of "same" cuts the odd element off at the end."""
    draw = np.random.default_rng(1)
    arrays = {"x": x, "weight": weight, "bias": (weight[1] * how.get("groups", 1),)}
    arrays = {key: draw.standard_normal(shape).astype(np.float32) for key, shape in arrays.items()}
    attributes = {"group": how.get("groups", 1), **attributes}
    attributes |= {key: how[key] for key in ("strides", "dilations") if key in how}
    attributes |= {"pads": onnx_pads(how["pad"])} if "pad" in how else {}
    close(computed("conv_transpose", {**arrays, **how}), onnx("ConvTranspose", arrays.values(), **attributes), 1e-5)


POOLS = [
    {"kernel_sizes": (3, 2), "pad_type": "valid", "strides": (2, 2)},
    {"kernel_sizes": (3, 3), "pad_type": "custom", "strides": (2, 2), "pad": (1, 1, 1, 1)},
    {"kernel_sizes": (3, 3), "pad_type": "custom", "strides": (2, 2), "pad": (1, 1, 1, 1), "ceil_mode": True},
    {"kernel_sizes": (2, 3), "pad_type": "custom", "pad": (1, 0, 2, 1)},
    {"kernel_sizes": (3, 3), "pad_type": "valid", "strides": (2, 3), "ceil_mode": True},
    {"kernel_sizes": (3, 2), "pad_type": "same", "strides": (2, 2)},
    {"kernel_sizes": (3, 2), "pad_type": "same_lower", "strides": (2, 2)},
]


@pytest.mark.parametrize("how", POOLS)
def test_pools(how):
    """All kinds of border, rounding up, and averages with and without the border."""
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 7)).astype(np.float32)
    kinds = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID", "custom": "NOTSET"}
    attributes = {"kernel_shape": how["kernel_sizes"], "strides": how.get("strides", (1, 1))}
    attributes |= {"ceil_mode": 1} if how.get("ceil_mode") else {"auto_pad": kinds[how["pad_type"]]}
    attributes |= {"pads": onnx_pads(how["pad"])} if "pad" in how else {}
    close(computed("max_pool", {"x": x, **how}), onnx("MaxPool", [x], **attributes))
    apart = {**how, "exclude_padding_from_average": True}
    close(computed("avg_pool", {"x": x, **apart}), onnx("AveragePool", [x], **attributes))
    close(computed("avg_pool", {"x": x, **how}), onnx("AveragePool", [x], count_include_pad=1, **attributes))
    if not how.get("ceil_mode"):
        close(computed("l2_pool", {"x": x, **how}), onnx("LpPool", [x], p=2, **attributes))


IMAGE = np.random.default_rng(2).standard_normal((2, 8, 6, 4)).astype(np.float32)
VECTORS = np.random.default_rng(3).uniform(0.5, 2, (4, 8)).astype(np.float32)
SAMPLING = [("DEFAULT", "asymmetric"), ("STRICT_ALIGN_CORNERS", "align_corners"), ("UNALIGN_CORNERS", "half_pixel")]


@pytest.mark.parametrize(("mode", "name"), SAMPLING)
@pytest.mark.parametrize("size", [(12, 9), (4, 11), (6, 4)])
def test_resized_images(mode, name, size):
    """Three of the grids are those of ONNX; nearest elements are too, where that grid rounds the same way."""
    sizes = np.array([2, 8, *size], np.int64)
    how = {"coordinate_transformation_mode": name, "mode": "linear"}
    wanted = onnx("Resize", [IMAGE, None, None, sizes], **how)
    target = {"target_size_height": size[0], "target_size_width": size[1]}
    close(computed("resize_bilinear", {"x": IMAGE, **target, "sampling_mode": mode}), wanted, 1e-5)
    whole = {"x": IMAGE, "shape": np.array(size), "resized_dims": 2, "sampling_mode": mode}
    close(computed("resize", whole), wanted, 1e-5)
    how = {"coordinate_transformation_mode": name, "mode": "nearest"}
    rounding = "floor" if mode == "DEFAULT" else "round_prefer_ceil"
    wanted = onnx("Resize", [IMAGE, None, None, sizes], nearest_mode=rounding, **how)
    close(computed("resize", {**whole, "interpolation_mode": "NEAREST_NEIGHBOR"}), wanted)
    if mode == "DEFAULT":
        close(computed("resize_nearest_neighbor", {"x": IMAGE, **target}), wanted)


def test_upsampled_images():
    """Factors, whole and broken."""
    factors = {"scale_factor_height": 2, "scale_factor_width": 2.5}
    scales = np.array([1, 1, 2, 2.5], np.float32)
    for given, name in (({}, "align_corners"), ({"align_corners": False}, "half_pixel")):
        wanted = onnx("Resize", [IMAGE, None, scales], mode="linear", coordinate_transformation_mode=name)
        close(computed("upsample_bilinear", {"x": IMAGE, **factors, **given}), wanted, 1e-5)
    wanted = onnx("Resize", [IMAGE, None, scales], coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    close(computed("upsample_nearest_neighbor", {"x": IMAGE, **factors}), wanted)


def test_grids_are_those_of_the_documentation():
    """The examples that come with MIL's resize_bilinear, for two elements."""
    from edgesmith.runtimes.mlprogram.ops.resize import grid

    for mode, five, six in (
        ("STRICT_ALIGN_CORNERS", [0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ("DEFAULT", [0, 0.4, 0.8, 1, 1], [0, 1 / 3, 2 / 3, 1, 1, 1]),
        ("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9], [1 / 12, 0.25, 5 / 12, 7 / 12, 0.75, 11 / 12]),
    ):
        np.testing.assert_allclose(grid(2, 5, mode), five, atol=1e-7)
        np.testing.assert_allclose(grid(2, 6, mode), six, atol=1e-7)
    assert grid(5, 1, "ALIGN_CORNERS") == [2.0]


KEYS = np.random.default_rng(6).standard_normal((2, 5, 3, 8)).astype(np.float32)
SQUARES, ON_OFF = IMAGE.reshape(2, 3, 8, 8), np.array([2, -1], np.float32)
PLACES = np.array([[[0, 1]], [[1, 5]]], np.int64)
ALONG = np.random.default_rng(4).integers(0, 8, (2, 3, 6, 4))
STEPS, ZEROS = ALONG.astype(np.int8), np.array([1, -2, 3], np.int8)
NAMED = [
    ("batch_norm", dict(zip(("x", "gamma", "beta", "mean", "variance"), (IMAGE, *VECTORS), strict=True)),
     "BatchNormalization", [IMAGE, *VECTORS], {}),
    ("instance_norm", {"x": IMAGE, "gamma": VECTORS[0], "beta": VECTORS[1], "epsilon": 1e-3},
     "InstanceNormalization", [IMAGE, *VECTORS[:2]], {"epsilon": 1e-3}),
    ("local_response_norm", {"x": IMAGE, "size": 3, "alpha": 0.2, "beta": 0.6, "k": 1.5},
     "LRN", [IMAGE], {"size": 3, "alpha": 0.2, "beta": 0.6, "bias": 1.5}),
    ("silu", {"x": IMAGE}, "Swish", [IMAGE], {"opset": 24}),
    ("depth_to_space", {"x": IMAGE, "block_size": 2}, "DepthToSpace", [IMAGE], {"blocksize": 2}),
    ("pixel_shuffle", {"x": IMAGE, "upscale_factor": 2}, "DepthToSpace", [IMAGE], {"blocksize": 2, "mode": "CRD"}),
    ("space_to_depth", {"x": IMAGE, "block_size": 2}, "SpaceToDepth", [IMAGE], {"blocksize": 2}),
    ("gather_nd", {"x": IMAGE, "indices": PLACES}, "GatherND", [IMAGE, PLACES], {}),
    ("gather_nd", {"x": IMAGE, "indices": PLACES, "batch_dims": 1}, "GatherND", [IMAGE, PLACES], {"batch_dims": 1}),
    ("gather_along_axis", {"x": IMAGE, "indices": ALONG, "axis": 1}, "GatherElements", [IMAGE, ALONG], {"axis": 1}),
    ("scatter_along_axis", {"data": IMAGE, "indices": ALONG, "updates": IMAGE[:, :3], "axis": 1, "mode": "add"},
     "ScatterElements", [IMAGE, ALONG, IMAGE[:, :3]], {"axis": 1, "reduction": "add"}),
    ("scatter_nd", {"data": IMAGE, "indices": PLACES, "updates": IMAGE[:, :1], "mode": "update"},
     "ScatterND", [IMAGE, PLACES, IMAGE[:, :1]], {}),
    ("one_hot", {"indices": ALONG, "one_hot_vector_size": 8, "axis": 1, "on_value": ON_OFF[0], "off_value": ON_OFF[1]},
     "OneHot", [ALONG, np.array(8), ON_OFF[::-1]], {"axis": 1}),
    ("layer_norm", {"x": IMAGE}, "LayerNormalization", [IMAGE, np.ones_like(IMAGE)], {"axis": 0}),
    ("einsum", {"values": (IMAGE, IMAGE[:, :, :3]), "equation": "bchq,bckq->bhqk"},
     "Einsum", [IMAGE, IMAGE[:, :, :3]], {"equation": "bchq,bckq->bhqk"}),
    ("einsum", {"values": (IMAGE[:, :, :3], KEYS), "equation": "bchq,bkhc->bkhq"},
     "Einsum", [IMAGE[:, :, :3], KEYS], {"equation": "bchq,bkhc->bkhq"}),
    ("cumsum", {"x": IMAGE, "axis": 2, "exclusive": True, "reverse": True},
     "CumSum", [IMAGE, np.array(2)], {"exclusive": 1, "reverse": 1}),
    ("dequantize", {"input": STEPS, "scale": VECTORS[0, :3], "zero_point": ZEROS, "axis": 1},
     "DequantizeLinear", [STEPS, VECTORS[0, :3], ZEROS], {"axis": 1}),
    ("matmul", {"x": VECTORS[0], "y": SQUARES}, "MatMul", [VECTORS[0], SQUARES], {}),
    ("matmul", {"x": SQUARES, "y": VECTORS[0]}, "MatMul", [SQUARES, VECTORS[0]], {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "kind", "inputs", "attributes"), NAMED, ids=[case[0] for case in NAMED])
def test_rules_equal_operators_of_onnx(name, parameters, kind, inputs, attributes):
    """What coremltools cannot infer, ONNX Runtime can, under another name."""
    close(computed(name, parameters), onnx(kind, inputs, **attributes), 1e-5)


def test_rules_without_another_judge():
    """Few rules have none: these follow their documentation's own examples, or undo what another rule did."""
    one, two = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[7, 8], [9, 10], [11, 12]])
    taken = computed("concat", {"values": (one, two), "axis": 0, "interleave": True})
    np.testing.assert_array_equal(taken[0], [[1, 2], [7, 8], [3, 4], [9, 10], [5, 6], [11, 12]])
    folded = computed("space_to_batch", {"x": IMAGE, "block_shape": (2, 2), "paddings": np.array([[2, 0], [1, 1]])})[0]
    assert folded.shape == (8, 8, 4, 3)
    unfolded = {"x": folded, "block_shape": (2, 2), "crops": np.array([[2, 0], [1, 1]])}
    np.testing.assert_array_equal(computed("batch_to_space", unfolded)[0], IMAGE)
    for there, back, key in (("pixel_shuffle", "pixel_unshuffle", "scale"), ("depth_to_space", "space_to_depth", "")):
        names = ("upscale_factor", "downscale_factor") if key else ("block_size", "block_size")
        made = computed(there, {"x": IMAGE, names[0]: 2})[0]
        np.testing.assert_array_equal(computed(back, {"x": made, names[1]: 2})[0], IMAGE)
    windows = computed("sliding_windows", {"x": np.arange(7), "axis": 0, "size": 3, "stride": 2})[0]
    np.testing.assert_array_equal(windows, [[0, 1, 2], [2, 3, 4], [4, 5, 6]])
    np.testing.assert_array_equal(
        computed("crop", {"x": IMAGE, "crop_height": (1, 2), "crop_width": (0, 1)})[0], IMAGE[:, :, 1:4, :3]
    )
    changed = computed("slice_update", {"x": one, "update": two[:1], "begin": (1, 0), "end": (2, 2)})[0]
    np.testing.assert_array_equal(changed, [[1, 2], [7, 8], [5, 6]])
    added = computed("scatter", {"data": one, "indices": np.array([0, 0]), "updates": two[:2], "axis": 0})[0]
    np.testing.assert_array_equal(added, [[17, 20], [3, 4], [5, 6]])
    label, odds = computed("classify", {"probabilities": np.array([[0.1, 0.7, 0.2]]), "classes": np.array(list("abc"))})
    assert label == "b" and odds.shape == (3,)


def test_sums_in_half_precision():
    """Each step is rounded: small terms vanish beside a large sum, squares above 65504 overflow."""
    ones = np.ones((1, 4096), np.float32)
    assert HALF.matmul(ones, ones.T)[0, 0] == 2048 and SINGLE.matmul(ones, ones.T)[0, 0] == 4096
    assert HALF.sum(ones, 1)[0] == 2048 and HALF.mean(ones, 1)[0] == 0.5
    assert computed("reduce_sum", {"x": ones, "axes": [1], "keep_dims": True}, HALF)[0].shape == (1, 1)
    spread = np.array([[-300.0, 300, -300, 300]], np.float32)
    np.testing.assert_allclose(computed("layer_norm", {"x": spread}, SINGLE)[0], np.sign(spread), rtol=1e-6)
    assert not computed("layer_norm", {"x": spread}, HALF)[0].any()
    tokens = np.random.default_rng(5).standard_normal((1, 2, 9, 8)).astype(np.float32)
    exact, rounded = (
        computed("scaled_dot_product_attention", {"query": tokens, "key": tokens, "value": tokens}, f)[0]
        for f in (SINGLE, HALF)
    )
    assert 0 < np.abs(exact - rounded).max() < 0.01
