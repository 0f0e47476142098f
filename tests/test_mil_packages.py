"""Packages that coremltools wrote, or that nobody here did: read and evaluated without its help, equal to its word."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import numpy as np
import pytest

from edgesmith.ir.errors import ModelError
from edgesmith.runtimes.mlprogram import MODES, evaluate, read

pytestmark = pytest.mark.coreml
ct = pytest.importorskip("coremltools")
logging.getLogger("coremltools").setLevel(logging.ERROR)

DRAW = np.random.default_rng(5)
X = DRAW.standard_normal((1, 3, 12, 10)).astype(np.float32)
KERNEL = (DRAW.standard_normal((16, 3, 3, 3)) / 5).astype(np.float32)
MATRIX = (DRAW.standard_normal((64, 16)) / 4).astype(np.float32)
SHIFT = DRAW.standard_normal(64).astype(np.float32)
CLASSES = [f"class {index}" for index in range(64)]


def builder():
    """coremltools' builder of programs."""
    from coremltools.converters.mil.mil import Builder

    return Builder


def small(mb, x):
    """Convolution, tokens, norm, GELU, linear, mean, softmax."""
    x = mb.conv(x=x, weight=KERNEL, strides=[2, 2], pad_type="same", name="conv")
    x = mb.transpose(x=mb.reshape(x=x, shape=[1, 16, 30]), perm=[0, 2, 1])
    x = mb.layer_norm(x=x, axes=[-1], gamma=MATRIX[0], beta=MATRIX[1], name="norm")
    x = mb.gelu(x=mb.linear(x=x, weight=MATRIX, bias=SHIFT), mode="TANH_APPROXIMATION", name="act")
    return mb.softmax(x=mb.reduce_mean(x=x, axes=[1]), name="odds")


def expected(x, kernel=KERNEL, matrix=MATRIX):
    """The same by the formulas, in double precision."""
    x, kernel, matrix = (each.astype(np.float64) for each in (x, kernel, matrix))
    room = np.pad(x, [(0, 0), (0, 0), (0, 1), (0, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(room, (3, 3), (2, 3))[:, :, ::2, ::2]
    tokens = np.einsum("nchwij,ocij->nhwo", windows, kernel).reshape(1, 30, 16)
    centred = tokens - tokens.mean(-1, keepdims=True)
    tokens = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * MATRIX[0] + MATRIX[1]
    wide = tokens @ matrix.T + SHIFT
    wide = wide / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    raised = np.exp(wide.mean(1))
    return raised / raised.sum()


def converted(release, precision="FLOAT32", network=small, **how):
    """A model in coremltools' hands."""
    mb = builder()
    specification = [mb.TensorSpec(shape=X.shape)]
    program = mb.program(input_specs=specification, opset_version=getattr(ct.target, release))(lambda x: network(mb, x))
    return ct.convert(
        program, convert_to="mlprogram", compute_precision=getattr(ct.precision, precision),
        minimum_deployment_target=getattr(ct.target, release), skip_model_load=True, **how,
    )  # fmt: skip


def saved(model, path):
    """Its package."""
    model.save(str(path / "model.mlpackage"))
    return path / "model.mlpackage"


@pytest.mark.parametrize("release", ["iOS15", "iOS16", "iOS17", "iOS18"])
@pytest.mark.parametrize(("precision", "bound"), [("FLOAT32", 1e-6), ("FLOAT16", 2e-3)])
def test_every_release_is_read(tmp_path, release, precision, bound):
    """Opsets 5 to 8, weights in both precisions; halves are rounded, single precision is not."""
    package = saved(converted(release, precision), tmp_path)
    program = read(package)
    assert program.opset == {"iOS15": "CoreML5", "iOS16": "CoreML6", "iOS17": "CoreML7", "iOS18": "CoreML8"}[release]
    wanted = expected(X)
    (odds,) = evaluate(program, {"x": X}, MODES["declared"]).values()
    error = np.abs(odds - wanted).max() / wanted.max()
    assert error < bound and (error > 1e-5) == (precision == "FLOAT16")
    (plain,) = evaluate(program, {"x": X}, MODES["float32"]).values()
    assert np.abs(plain - wanted).max() / wanted.max() < (1e-6 if precision == "FLOAT32" else 1e-3)


def test_programs_equal_the_loader_of_coremltools(tmp_path):
    """Constants, operations and their order, bit for bit."""
    from coremltools.converters.mil.frontend.milproto.load import load

    package = saved(converted("iOS17", "FLOAT16"), tmp_path)
    spec = ct.models.MLModel(str(package), skip_model_load=True).get_spec()
    weights = package / "Data/com.apple.CoreML/weights"
    theirs = load(spec, specification_version=spec.specificationVersion, file_weights_dir=str(weights)).functions[
        "main"
    ]
    ours = read(package)
    operations = [op for op in theirs.operations if op.op_type != "const"]
    assert [op.op_type for op in operations] == [op.kind for op in ours.operations]
    constants = {op.outputs[0].name: op.outputs[0].val for op in theirs.operations if op.op_type == "const"}
    assert constants
    for name, value in constants.items():
        np.testing.assert_array_equal(ours.constants[name], value)
        if isinstance(value, np.ndarray):
            assert ours.constants[name].dtype == value.dtype


def linear_int8(model, release):
    config = ct.optimize.coreml.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    return ct.optimize.coreml.linear_quantize_weights(model, ct.optimize.coreml.OptimizationConfig(config))


def linear_uint8(model, release):
    config = ct.optimize.coreml.OpLinearQuantizerConfig(mode="linear", dtype="uint8", weight_threshold=0)
    return ct.optimize.coreml.linear_quantize_weights(model, ct.optimize.coreml.OptimizationConfig(config))


def linear_int4(model, release):
    config = ct.optimize.coreml.OpLinearQuantizerConfig(
        dtype="int4", granularity="per_block", block_size=8, weight_threshold=0
    )
    return ct.optimize.coreml.linear_quantize_weights(model, ct.optimize.coreml.OptimizationConfig(config))


def palette(bits, **how):
    def compress(model, release):
        config = ct.optimize.coreml.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=0, **how)
        return ct.optimize.coreml.palettize_weights(model, ct.optimize.coreml.OptimizationConfig(config))

    return compress


def pruned(model, release):
    config = ct.optimize.coreml.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0)
    return ct.optimize.coreml.prune_weights(model, ct.optimize.coreml.OptimizationConfig(config))


def pruned_and_quantised(model, release):
    config = ct.optimize.coreml.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    config = ct.optimize.coreml.OptimizationConfig(config)
    return ct.optimize.coreml.linear_quantize_weights(pruned(model, release), config, joint_compression=True)


def pruned_and_palettised(model, release):
    config = ct.optimize.coreml.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
    config = ct.optimize.coreml.OptimizationConfig(config)
    return ct.optimize.coreml.palettize_weights(pruned(model, release), config, joint_compression=True)


COMPRESSED = [
    ("iOS16", linear_int8, "constexpr_affine_dequantize"),
    ("iOS16", linear_uint8, "constexpr_affine_dequantize"),
    ("iOS16", palette(6), "constexpr_lut_to_dense"),
    ("iOS16", palette(1), "constexpr_lut_to_dense"),
    ("iOS16", pruned, "constexpr_sparse_to_dense"),
    ("iOS18", linear_int8, "constexpr_blockwise_shift_scale"),
    ("iOS18", linear_int4, "constexpr_blockwise_shift_scale"),
    ("iOS18", palette(3), "constexpr_lut_to_dense"),
    ("iOS18", palette(4, granularity="per_grouped_channel", group_size=8), "constexpr_lut_to_dense"),
    ("iOS18", pruned, "constexpr_sparse_to_dense"),
    ("iOS18", pruned_and_quantised, "constexpr_sparse_blockwise_shift_scale"),
    ("iOS18", pruned_and_palettised, "constexpr_lut_to_sparse"),
]


@pytest.mark.parametrize(("release", "compress", "kind"), COMPRESSED)
@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
def test_compressed_weights_are_unpacked_as_coremltools_does(tmp_path, release, compress, kind, precision):
    """The package with its weights packed gives what the same package gives after coremltools unpacked them."""
    model = compress(converted(release, precision), release)
    (tmp_path / "plain").mkdir()
    packed = read(saved(model, tmp_path))
    plain = read(saved(ct.optimize.coreml.decompress_weights(model), tmp_path / "plain"))
    kinds = {each.kind for each in packed.operations}
    assert kind in kinds and not any(each.kind.startswith("constexpr") for each in plain.operations)
    (one,), (two,) = (evaluate(each, {"x": X}, MODES["float32"]).values() for each in (packed, plain))
    bound = 1e-6 if precision == "FLOAT32" else 2e-4
    np.testing.assert_allclose(one, two, atol=bound * two.max())
    assert np.abs(one - expected(X)).max() > 1e-6


def test_images_are_normalised_inside(tmp_path):
    """Scale and bias of an image input are operations of the program; the feed is pixels."""
    image = ct.ImageType(name="x", shape=X.shape, scale=1 / 127.5, bias=[-1.0, -1.0, -1.0], color_layout="BGR")
    package = saved(converted("iOS16", inputs=[image]), tmp_path)
    program = read(package)
    assert program.features["x"].kind == "image" and program.features["x"].colour == "BGR"
    pixels = DRAW.integers(0, 256, (12, 10, 3)).astype(np.uint8)
    real = pixels[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
    for feed in (pixels, pixels[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)):
        (odds,) = evaluate(program, {"x": feed}, MODES["declared"]).values()
        np.testing.assert_allclose(odds, expected(real), atol=1e-6)


def test_classifiers_give_a_label_and_probabilities(tmp_path):
    """Names of the classes are read from the program."""
    model = converted("iOS16", classifier_config=ct.ClassifierConfig(CLASSES))
    program = read(saved(model, tmp_path))
    made = evaluate(program, {"x": X}, MODES["declared"])
    wanted = expected(X)[0]
    assert str(made[program.label]) == CLASSES[int(wanted.argmax())]
    np.testing.assert_allclose(made[program.probabilities], wanted, atol=1e-6)


def test_halves_at_the_interface(tmp_path):
    """Float16 inputs and outputs, which need no casts."""
    from coremltools.converters.mil.mil import types

    mb = builder()

    @mb.program(input_specs=[mb.TensorSpec(shape=X.shape, dtype=types.fp16)], opset_version=ct.target.iOS17)
    def program(x):
        return mb.square(x=x, name="y")

    model = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17, skip_model_load=True)
    found = evaluate(read(saved(model, tmp_path)), {"x": X}, MODES["declared"])["y"]
    half = X.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found, (half * half).astype(np.float16))


def test_a_neural_network_is_refused(tmp_path):
    """The older format has no program."""
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder

    made = NeuralNetworkBuilder([("x", datatypes.Array(3))], [("y", datatypes.Array(3))])
    made.add_activation("relu", "RELU", "x", "y")
    ct.models.utils.save_spec(made.spec, str(tmp_path / "old.mlmodel"))
    with pytest.raises(ModelError, match="it is a neural network"):
        read(tmp_path / "old.mlmodel")


@pytest.mark.slow
def test_a_package_that_nobody_here_wrote():
    """Spotify's note detector (pip install --no-deps basic-pitch) holds one network as .mlpackage and as .onnx."""
    import onnxruntime

    found = importlib.util.find_spec("basic_pitch")
    if found is None or found.origin is None:
        pytest.skip("basic-pitch is not installed (pip install --no-deps basic-pitch)")
    folder = Path(found.origin).parent / "saved_models" / "icassp_2022"
    sound = (DRAW.standard_normal((1, 43844, 1)) / 10).astype(np.float32)
    session = onnxruntime.InferenceSession(str(folder / "nmp.onnx"), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: sound})
    program = read(folder / "nmp.mlpackage")
    made = evaluate(program, {"input_2": sound}, MODES["declared"])
    assert len(made) == len(wanted) == 3
    for array in made.values():
        assert min(np.abs(array - each).max() for each in wanted if each.shape == array.shape) < 1e-4
