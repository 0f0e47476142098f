"""Edges of what generated programs take: lengths at the bound of 32-bit sums, indivisible shapes, odd addresses."""

import ctypes
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.ir.errors import ModelError
from edgesmith.ir.integer import INT32_MAX
from edgesmith.ir.interpret import run
from edgesmith.ir.passes.quantise import QuantOptions, convert, cosine
from edgesmith.ir.passes.quantise.fit_weights import fit
from edgesmith.lowering.c import toolchain

pytestmark = pytest.mark.compiler

C = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_generated_c.py"))))
CHECKED = ("-fsanitize=undefined", "-fsanitize-trap=undefined")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A transformer none of whose sizes has a common divisor: 10 tokens of 11 channels, hidden layers of 33."""
    return C.make(tmp_path_factory.mktemp("extremes"), *C.vit(3, size=21, patch=7, width=11, heads=1, ratio=3), "odd")


@pytest.fixture(scope="module")
def loaded(library, tmp_path_factory):
    """The library on this computer, where undefined behaviour traps: misaligned loads among it."""
    shared = tmp_path_factory.mktemp("loaded") / "odd.so"
    return ctypes.CDLL(str(toolchain.compile_shared(library.sources, shared, flags=CHECKED)))


def started(loaded, library, offset):
    """An instance whose arena begins `offset` bytes after a boundary of 64."""
    instance = C.Instance(loaded, library, library.feeds)
    whole = np.zeros(instance.arena.nbytes + 128, np.int8)
    begin = -whole.ctypes.data % 64 + offset
    instance.arena = whole[begin : begin + instance.arena.nbytes].view(np.int64)
    assert instance.arena.ctypes.data % 64 == offset
    return instance


@pytest.mark.parametrize("offset", [0, 8, 24, 56])
def test_an_arena_may_begin_on_any_boundary_of_eight(loaded, library, offset):
    """Wider boundaries, as vectors like them, are not assumed."""
    instance = started(loaded, library, offset)
    for number in range(instance.steps):
        instance.step(number)
    np.testing.assert_array_equal(instance.output(), instance.expected())


@pytest.mark.parametrize("seed", [1, 2])
def test_images_may_lie_at_any_address(loaded, library, seed):
    """The caller's pixels have no boundary of their own, and rows of 63 bytes have none either."""
    instance = started(loaded, library, 0)
    whole = np.zeros(instance.image.size + 8, np.int8)
    begin = -whole.ctypes.data % 4 + seed
    whole[begin : begin + instance.image.size] = instance.image.reshape(-1)
    instance.image = whole[begin : begin + instance.image.size].reshape(instance.image.shape)
    assert instance.image.ctypes.data % 4 == seed
    for number in range(instance.steps):
        instance.step(number)
    np.testing.assert_array_equal(instance.output(), instance.expected())


@pytest.mark.parametrize("target", ["stm32f746", "esp32c3"])
def test_constants_lie_on_the_boundaries_their_readers_want(library, target, tmp_path):
    """Weights of any length in a row, and yet every next one starts where double words may be loaded."""
    from elftools.elf.elffile import ELFFile

    flags = [*toolchain.find().target_flags(targets.get(target)), "-ffreestanding", f"-I{library.folder / 'src'}", "-c"]
    built = C.build([library.folder / "src" / "odd_weights.c"], tmp_path / "weights.o", *flags)
    with built.open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".symtab")
        symbols = [each for each in table.iter_symbols() if each["st_info"]["type"] == "STT_OBJECT"]
        assert len(symbols) > 10
        assert {each["st_value"] % 8 for each in symbols} == {0}
        assert {elf.get_section(each["st_shndx"])["sh_addralign"] % 8 for each in symbols} == {0}


@pytest.mark.parametrize("stream", ["int8", "int16"])
def test_equal_weights_past_the_bound_of_a_sum(build, stream):
    """140,000 products of 127 and 128 pass 2^31: weights are rounded more coarsely, and the answer is still right."""
    net = build.Net("float32")
    weight = net.constant(np.ones((2, 140_000)) * [[1.0], [-0.5]], "w")
    graph = net.output(net.linear(net.input(1, 1, 140_000), 2, weight=weight, bias=False, name="long"))
    draw = np.random.default_rng(0)
    x = (draw.standard_normal((6, 1, 140_000)) + 0.1).astype(np.float32)
    made = convert(graph, x, QuantOptions(stream=stream))
    node = next(node for node in made.graph.nodes if node.name == "long")
    weights, biases = (node.input(index).array.astype(np.int64) for index in (1, 2))
    reach = np.abs(weights).sum(axis=1) * 128 + np.abs(biases)
    assert 0.5 * INT32_MAX < reach.max() <= INT32_MAX
    feeds = {graph.inputs[0].name: x[:1]}
    assert cosine(run(graph, feeds)[graph.outputs[0].name], made.run(feeds)[made.graph.outputs[0].name]) > 0.999


@pytest.mark.parametrize(("count", "most"), [(2**16, 2**15), pytest.param(2**24, 2**7, marks=pytest.mark.slow)])
def test_so_many_equal_weights_that_none_is_left_are_refused(count, most):
    """65,536 of them for int16, 16.7 million for int8: the sum of ones passes 2^31 by one."""
    with pytest.raises(ModelError, match="too long for 32 bits"):
        fit(np.full((1, count), 0.25), None, 0, most)
    kept = fit(np.full((1, count - 1), 0.25), None, 0, most)
    assert kept.w.min() == kept.w.max() == 1 and kept.bound == (count - 1) * most <= INT32_MAX


@pytest.fixture(params=["rp2040", "esp32c3", "stm32f746"])
def board(request, tmp_path):
    """(how to run a transformer on an emulated core that faults off boundaries, what it has to answer).

    The first two cannot load a word off its boundary at all, the last no pairs of words.
    """
    pytest.importorskip("unicorn")
    from edgesmith.runtimes.machine import Machine

    graph, feeds = C.vit(3, size=21, patch=7, width=11, heads=1, ratio=3)
    made = C.make(tmp_path, graph, feeds, "odd", targets.get(request.param))
    entries, path = ["odd_run", "odd_harness_step", "odd_arena"], tmp_path / "odd.elf"
    toolchain.compile_elf(made.sources, targets.get(request.param), path, entries)
    machine = Machine(targets.get(request.param), path, strict=True)
    header = (made.folder / "src" / "odd.h").read_text()
    size, place = (int(re.search(each, header)[1]) for each in (r"_ARENA_BYTES (\d+)", r"_OUTPUT_0.*\n.*\) \+ (\d+)"))
    wanted = run(graph, feeds)[graph.outputs[0].name]

    def call(arena_off, image_off):
        machine.release()
        image, arena, user = (machine.buffer(n) for n in (feeds["image"].size + 8, size + 16, 4))
        machine.write(image + image_off, feeds["image"])
        machine.write(user, np.array([image + image_off], np.uint32))
        callback = machine.address("read_image") | (machine.isa.machine == "EM_ARM")
        machine.call("odd_run", arena + arena_off, callback, user)
        return machine.read(arena + arena_off + place, wanted.nbytes).view(wanted.dtype).reshape(wanted.shape)

    return call, wanted


@pytest.mark.emulator
@pytest.mark.parametrize("image_off", [1, 2, 3])
def test_images_may_lie_at_any_address_on_cores_that_fault(board, image_off):
    call, wanted = board
    np.testing.assert_array_equal(call(0, image_off), wanted)


@pytest.mark.emulator
def test_an_arena_off_a_word_faults_and_one_off_eight_does_not(board):
    """Eight is what the header asks for, for cores to come; words are what these need, and they say so."""
    from edgesmith.runtimes.machine import Fault

    call, wanted = board
    np.testing.assert_array_equal(call(4, 0), wanted)
    for off in (1, 2):
        with pytest.raises(Fault, match="misaligned"):
            call(off, 0)
