"""Weights in fewer than eight bits: exact, alike for numpy's twin and every core, chosen when asked."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgesmith
from edgesmith import targets
from edgesmith.ir import integer, integer_layout
from edgesmith.ir.integer_codes import CODES, SHIFTS, encode, pair_bytes, smallest
from edgesmith.ir.passes.quantise.convert import QuantOptions
from edgesmith.ir.passes.quantise.fit_codes import FIT, coarse
from edgesmith.ir.passes.quantise.fit_weights import fit

CALLS = runpy.run_path(str(Path(__file__).with_name("kernel_calls.py")))
ORDER = ("int8", "int4", "shift", "ternary")
SHAPES = [(1, 1), (2, 4), (3, 33), (5, 31), (4, 64), (7, 200)]


def matrix(code, n, k, seed=0):
    """Random int8 [N, K] that the code holds, extremes included."""
    noise = np.random.default_rng(seed)
    if code == "int8":
        return noise.integers(-128, 128, (n, k)).astype(np.int8)
    if code == "int4":
        m = np.repeat(noise.integers(1, 16, (n, -(-k // 32))), 32, axis=1)[:, :k]
        return (noise.integers(-8, 8, (n, k)) * m).astype(np.int8)
    return noise.choice(SHIFTS if code == "shift" else np.array([-1, 0, 1], np.int8), (n, k))


def multiplierless(tmp_path):
    """RV32E with as much memory as the kernels' test program takes."""
    small = targets.get("ch32v003")
    regions = tuple(replace(region, size=region.size * 64) for region in small.regions)
    text = (targets.FOLDER / "ch32v003.toml").read_text()
    for region in small.regions:
        text = text.replace(f"size = {region.size:_}", f"size = {region.size * 64}")
    path = tmp_path / "large.toml"
    path.write_text(text)
    assert [r.size for r in targets.get(str(path)).regions] == [r.size for r in regions]
    return str(path)


@pytest.fixture(scope="module", params=["host", "stm32f746", "stm32f207", "esp32c3", "multiplierless"])
def call(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("codes")
    if request.param == "host":
        return CALLS["host_call"](folder)
    pytest.importorskip("unicorn")
    target = multiplierless(folder) if request.param == "multiplierless" else request.param
    return device_call(folder, target)


def device_call(folder, target):
    return CALLS["device_call"](folder, target, names=("t_codes",))


@pytest.mark.compiler
@pytest.mark.emulator
@pytest.mark.parametrize("code", ORDER)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_every_core_sums_what_the_code_stands_for(call, code, n, k):
    w = matrix(code, n, k, seed=n * k)
    x = np.random.default_rng(1).integers(-2000, 2000, (3, k)).astype(np.int16)
    sums = np.full((3, n + n % 2), 77, np.int32)
    coded = np.ascontiguousarray(encode(code, w)).view(np.int8)
    padded = np.concatenate([coded, np.zeros(-len(coded) % 8, np.int8)])
    decoded = np.zeros(pair_bytes("int8", k), np.int8)
    call("t_codes", integer_layout.pack_tile(x), k, padded, ORDER.index(code), n, decoded, sums)
    np.testing.assert_array_equal(sums[:, :n], integer.matmul(x, w))


@pytest.mark.parametrize("code", ORDER)
def test_the_smallest_code_that_holds_a_matrix_is_found_and_counted(code):
    w = matrix(code, 6, 96)
    assert smallest(w) == code
    assert encode(code, w).nbytes == 3 * pair_bytes(code, 96)


def test_bits_per_weight_with_all_metadata():
    assert pair_bytes("int4", 384) / pair_bytes("int8", 384) == pytest.approx(0.515625)
    assert pair_bytes("int4", 192) / pair_bytes("int8", 192) == pytest.approx(0.5208, abs=1e-4)
    assert pair_bytes("shift", 192) / pair_bytes("int8", 192) == 0.5
    assert pair_bytes("ternary", 192) / pair_bytes("int8", 192) == 0.25


@pytest.mark.parametrize("code", CODES)
def test_a_matrix_that_a_code_does_not_hold_is_refused(code):
    with pytest.raises(ValueError, match=code):
        encode(code, np.array([[3, 127, 89, -101]], np.int8))


@pytest.mark.parametrize("code", CODES)
def test_fitted_weights_are_storable_and_near(code):
    real = np.random.default_rng(3).standard_normal((8, 160)) * np.geomspace(0.01, 10, 8)[:, None]
    real[3] = 0
    fitted = fit(real, None, 5, 32767, "mse", code)
    assert smallest(fitted.w) in (code, "ternary" if code != "ternary" else code)
    errors = np.linalg.norm(fitted.w * fitted.scale[:, None] - real, axis=1)
    share = errors[real.any(1)] / np.linalg.norm(real[real.any(1)], axis=1)
    assert share.max() < {"int4": 0.11, "shift": 0.2, "ternary": 0.5}[code]  # powers of two: 1/3 off at most


@pytest.mark.parametrize("code", CODES)
def test_weights_that_a_code_holds_are_not_rounded_again(code):
    for seed in range(4):
        scale = np.random.default_rng(seed).uniform(1e-4, 10, (6, 1))
        held = (matrix(code, 6, 70, seed) * scale).astype(np.float32)
        fitted = fit(held, None, 0, 128, code=code)
        assert np.allclose(fitted.w * fitted.scale[:, None], held, rtol=1e-6, atol=0)


@pytest.mark.parametrize("code", CODES)
def test_no_other_scale_of_the_search_is_nearer(code):
    real = np.random.default_rng(4).standard_normal((3, 64))
    best = coarse(code, real)

    def error(scale):
        return ((FIT[code](real / scale[:, None]) * scale[:, None] - real) ** 2).sum(1)

    assert all((error(best) <= error(best * step) + 1e-9).all() for step in (2.0, 0.25))


@pytest.mark.compiler
@pytest.mark.emulator
@pytest.mark.parametrize("code", CODES)
def test_a_network_in_few_bits_is_bit_exact_and_smaller(code, tiny, tmp_path):
    plain = edgesmith.compile(tiny, "stm32f746", out=tmp_path / "int8")
    few = edgesmith.compile(tiny, "stm32f746", out=tmp_path / code, weights=code)
    rungs = json.loads((few.folder / "manifest.json").read_text())["verification"]
    assert [rung["equal"] for rung in rungs if rung["rung"].startswith("C on")] == [True, True]
    assert few.manifest["columns"]["weights_flash"] < plain.manifest["columns"]["weights_flash"]


def test_unknown_codes_are_refused():
    with pytest.raises(edgesmith.EdgesmithError, match="code"):
        QuantOptions(code="int3")


def test_the_benchmark_counts_bytes_without_a_compile(tiny):
    from edgesmith.benchmarks import codes

    graph, calibration = codes.seen(tiny)
    (plain, everything), (few, less) = (codes.constants(graph, calibration, code, "int8") for code in ("int8", "shift"))
    assert few * 2 == plain and everything - plain == less - few > 0
