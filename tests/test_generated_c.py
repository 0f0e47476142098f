"""Generated C is fit for other people's projects: no warnings, no undefined behaviour, no names but its own."""

from __future__ import annotations

import ast
import ctypes
import json
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgesmith
from edgesmith import frontend, targets
from edgesmith.ir import interpret
from edgesmith.ir.errors import BudgetError
from edgesmith.ir.graph import Array, Graph, Quant, Type
from edgesmith.ir.memory import plan
from edgesmith.ir.ops.integer import QLinear
from edgesmith.ir.ops.integer_attention import QAttention
from edgesmith.ir.ops.integer_conv import QPatchEmbed
from edgesmith.ir.passes.pipelines import FLOAT_C, run_pipeline
from edgesmith.lowering.c import toolchain
from edgesmith.lowering.c.constants import literal
from edgesmith.lowering.c.lower import CODE_RESERVE, Vector, lower, symbol
from edgesmith.targets import Target

pytestmark = pytest.mark.compiler

TESTS = Path(__file__).parent
GRAPHS = runpy.run_path(str(TESTS / "integer_graphs.py"))
OPS = runpy.run_path(str(TESTS / "test_lower_ops.py"))
F746 = targets.get("stm32f746")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-pedantic", "-Wno-overlength-strings")
"""Weights are long string literals on purpose: compilers read them a hundred times faster than numbers."""

TRAPPING = ("-fsanitize=undefined", "-fsanitize-trap=undefined")
Feeds = dict[str, Array]


@dataclass(frozen=True)
class Library:
    """A generated library on disk, its part of the manifest, and where it was made here what it was made of."""

    folder: Path
    part: Mapping[str, Any]
    graph: Graph | None = None
    feeds: Feeds = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.part["name"])

    @property
    def sources(self) -> list[Path]:
        return [*sorted((self.folder / "src").glob("*.c")), self.folder / "test" / "harness.c"]

    @property
    def selftest(self) -> Path:
        return self.folder / "test" / "selftest.c"


def make(folder: Path, graph: Graph, feeds: Feeds, name: str, target: Target = F746, **options: Any) -> Library:
    part = lower(graph, plan(graph, effort=0.1, **options), target, folder, name, Vector.of(graph, feeds))
    return Library(folder, part, graph, feeds)


def vit(seed: int, **options: Any) -> tuple[Graph, Feeds]:
    """A small transformer of random weights, with scales that keep its values in range, and an image."""
    graph = GRAPHS["vit"](**{"size": 16, "patch": 8, "width": 12, "heads": 2, "depth": 2, **options})
    draw = np.random.default_rng(seed)
    for value in graph.constants:
        if not np.any(value.array):
            value.data = draw.integers(-100, 101, value.shape).astype(value.dtype)
    for node in graph.nodes:
        if isinstance(node.op, QLinear | QPatchEmbed):
            x, weight = node.input(0), node.input(1)
            reach = 40.0 if x.dtype == "int8" else 2.0 ** getattr(x.producer.op, "bits", 13)
            spread = 60 * reach * (weight.type.size / weight.shape[0]) ** 0.5
            wanted = 40 if node.output.dtype == "int8" else 3000
            scale = draw.normal(wanted / spread, wanted / spread / 4, weight.shape[0])
            node.input(3).data = (scale * 2**32).astype(np.int32)
        elif isinstance(node.op, QAttention):
            node.input(3).data = draw.integers(2**20, 2**21, node.input(3).shape).astype(np.int32)
    return graph, {"image": draw.integers(-128, 128, graph.inputs[0].shape).astype(np.int8)}


def every_integer_op() -> tuple[Graph, Feeds]:
    """All examples of all integer ops side by side: every kernel."""
    graph, feeds = Graph("integers"), {}
    for number, (_, op, operands) in enumerate(OPS["cases"]()):
        values = []
        for index, array in enumerate(operands):
            if array is None or index >= OPS["COMPUTED"].get(type(op).__name__, 1):
                values.append(None if array is None else graph.constant(array))
                continue
            feeds[f"x{number}_{index}"] = array
            values.append(graph.input(f"x{number}_{index}", Type(array.dtype.name, array.shape, Quant(1.0))))
        made = graph.add(op, *values)
        for value in made if isinstance(made, tuple) else (made,):
            graph.output(value)
    return graph, feeds


def floats(path: Path) -> tuple[Graph, Feeds]:
    """The trained sample in single precision."""
    graph = frontend.load(path)
    run_pipeline(graph, FLOAT_C)
    noise = np.random.default_rng(1)
    return graph, {value.name: noise.normal(size=value.shape).astype(np.float32) for value in graph.inputs}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory, fashion: Path) -> dict[str, Library]:
    """By name: the trained sample as integers and as floats, a transformer, every integer op, and no op at all."""
    root = tmp_path_factory.mktemp("libraries")
    data = np.load(fashion / "images.npz")["images"][:2]
    found = edgesmith.compile(fashion / "model.onnx", F746.name, out=root / "fashion", calibration=data, check=False)
    idle = Graph("idle")
    idle.output(idle.input("x", Type("int8", (1, 5), Quant(1.0))))
    return {
        "fashion": Library(found.folder, found.manifest),
        "vit": make(root / "vit", *vit(0), "vit"),
        "integers": make(root / "integers", *every_integer_op(), "integers"),
        "floats": make(root / "floats", *floats(fashion / "model.onnx"), "floats"),
        "idle": make(root / "idle", idle, {"x": np.arange(5, dtype=np.int8)[None]}, "idle"),
    }


NAMES = ["fashion", "vit", "integers", "floats", "idle"]


def gcc() -> toolchain.Compiler:
    """The compiler of this computer."""
    path = shutil.which("gcc")
    if path is None:
        pytest.skip("no gcc on this computer")
    return toolchain.Compiler("gcc", (path,))


def build(sources: Sequence[Path], out: Path, *flags: str, compiler: toolchain.Compiler | None = None) -> Path:
    """Compile for this computer what `compile_shared` does not make: programs and objects."""
    folder = str(toolchain.cache_folder() / "zig")
    found = compiler or toolchain.find()
    command = [*found.command, "-O1", *flags, *(f"-I{path}" for path in sorted({path.parent for path in sources}))]
    environment = dict(os.environ, ZIG_GLOBAL_CACHE_DIR=folder, ZIG_LOCAL_CACHE_DIR=folder)
    command += [*map(str, sources), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return out


# ---- compilers have nothing to say ----


@pytest.mark.parametrize("name", NAMES)
def test_no_warning_for_this_computer(libraries: dict[str, Library], name: str, tmp_path: Path) -> None:
    library = libraries[name]
    build([*library.sources, library.selftest], tmp_path / "program", *STRICT)


@pytest.mark.parametrize("name", NAMES)
def test_no_warning_for_the_device(libraries: dict[str, Library], name: str, tmp_path: Path) -> None:
    library = libraries[name]
    entries = [library.part["symbols"]["run"]]
    toolchain.compile_elf(library.sources, F746, tmp_path / "device.elf", entries, optimise="-O1", flags=STRICT)


@pytest.mark.parametrize("name", NAMES)
def test_no_warning_from_gcc(libraries: dict[str, Library], name: str, tmp_path: Path) -> None:
    library = libraries[name]
    build([*library.sources, library.selftest], tmp_path / "program", *STRICT, compiler=gcc())


def test_strict_flags_do_find_fault(tmp_path: Path) -> None:
    (tmp_path / "narrow.c").write_text("int main(void) { long a = 3; signed char b = a; return b; }\n")
    with pytest.raises(AssertionError, match="conversion"):
        build([tmp_path / "narrow.c"], tmp_path / "program", *STRICT)


# ---- the self-test ----


def outcome(program: Path) -> int:
    return subprocess.run([program], capture_output=True, check=False, timeout=60).returncode


def test_undefined_behaviour_does_trap(tmp_path: Path) -> None:
    (tmp_path / "overflow.c").write_text("int main(int argc, char **argv) { return argv && 2147483647 + argc > 0; }\n")
    assert outcome(build([tmp_path / "overflow.c"], tmp_path / "program", *TRAPPING)) < 0


@pytest.mark.parametrize("name", NAMES)
def test_the_self_test_passes_where_undefined_behaviour_traps(
    libraries: dict[str, Library], name: str, tmp_path: Path
) -> None:
    library = libraries[name]
    assert outcome(build([*library.sources, library.selftest], tmp_path / "program", *TRAPPING)) == 0


@pytest.mark.parametrize("name", ["fashion", "integers", "floats"])
def test_the_self_test_passes_where_addresses_are_checked(
    libraries: dict[str, Library], name: str, tmp_path: Path
) -> None:
    library, probe = libraries[name], tmp_path / "probe.c"
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    probe.write_text("int main(void) { return 0; }\n")
    try:
        build([probe], tmp_path / "probe", *flags, compiler=gcc())
    except AssertionError:
        pytest.skip("gcc has no address sanitiser here")
    assert outcome(build([*library.sources, library.selftest], tmp_path / "program", *flags, compiler=gcc())) == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "idle"])  # where the input is what is expected
def test_the_self_test_fails_where_another_value_is_expected(
    libraries: dict[str, Library], name: str, tmp_path: Path
) -> None:
    library, changed = libraries[name], tmp_path / "selftest.c"
    text = library.selftest.read_text()
    start = text.rindex("= {\n", 0, text.index("int main")) + 4
    end = text.index("};\n", start)
    data = bytearray(b"".join(ast.literal_eval(f"b{line}") for line in text[start:end].splitlines()))
    data[-1] ^= 0x40  # the last expected value, in its highest byte but for the sign
    changed.write_text(text[:start] + literal(bytes(data)) + text[end:])
    header = f"-I{library.folder / 'src'}"
    assert outcome(build([*library.sources, changed], tmp_path / "program", header)) == 1


# ---- names ----


def public(path: Path) -> set[str]:
    """Symbols of an object file that a linker sees."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        symbols = [each for each in table.iter_symbols() if each["st_shndx"] != "SHN_UNDEF"]
        return {each.name for each in symbols if each["st_info"]["bind"] != "STB_LOCAL"}


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_begins_with_the_model_s(libraries: dict[str, Library], name: str, tmp_path: Path) -> None:
    library, found = libraries[name], set()
    for source in library.sources:
        found |= public(build([source], tmp_path / "object.o", "-c", f"-I{library.folder / 'src'}"))
    assert {f"{library.name}_run", f"{library.name}_step"} <= found
    assert {each for each in found if not each.startswith(f"{library.name}_")} == set()


def test_names_that_would_hide_a_header_are_given_another(tmp_path: Path) -> None:
    names = ["stdint", "string", "math", "kernels", "memory", "es", "es_tile", "int", "vector", "7up", "x" * 300]
    assert [symbol(name) for name in ("stdint", "memory", "es", "es_tile", "esprit", "7up")] == [
        "m_stdint", "m_memory", "m_es", "m_es_tile", "esprit", "m_7up",
    ]  # fmt: skip
    for name in names:
        library = make(tmp_path / name[:20], *vit(0, depth=1), name)
        assert outcome(build([*library.sources, library.selftest], tmp_path / "program", *STRICT)) == 0


def test_names_from_hostile_files_make_no_code(tmp_path: Path) -> None:
    hostile = runpy.run_path(str(TESTS / "corpus" / "hostile.py"), run_name="hostile")
    graph = frontend.load(hostile["evil_names"](tmp_path))
    evil = [name for node in graph.nodes for name in (node.name, *node.sources)]
    assert any("system" in name for name in evil) and any("#error" in name for name in evil)
    feeds = {"x": np.array([[-2.0, 1.0, 0.5, 3.0]], np.float32)}
    library = make(tmp_path / "evil", graph, feeds, '"; system("id"); //*/ #error')
    assert library.name == "system_id_error"
    assert outcome(build([*library.sources, library.selftest], tmp_path / "program", *STRICT)) == 0
    text = "".join(path.read_text(encoding="ascii") for path in library.sources)
    assert "/*/" not in text and "system(" not in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


# ---- side by side ----


@dataclass
class Instance:
    """A library in a shared object, with an arena of its own."""

    loaded: ctypes.CDLL
    library: Library
    feeds: Feeds

    def __post_init__(self) -> None:
        self.steps = len(self.library.part["steps"])
        self.image = np.ascontiguousarray(self.feeds["image"]).reshape(self.feeds["image"].shape[1], -1)
        header = (self.library.folder / "src" / f"{self.library.name}.h").read_text()
        size = re.search(r"_ARENA_BYTES (\d+)", header)
        place = re.search(r"_OUTPUT_0.*\n.*arena\) \+ (\d+)", header)
        assert size and place
        self.arena, self.at = np.zeros(-(-int(size[1]) // 8), np.int64), int(place[1])
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
        self.pixels = kind(self.read)

    def read(self, user: int, y: int, x: int, count: int, out: int) -> None:
        ctypes.memmove(out, self.image[y, x : x + count].ctypes.data, count)

    def step(self, number: int) -> None:
        if number < self.steps:
            arena = self.arena.ctypes.data_as(ctypes.c_void_p)
            self.loaded[f"{self.library.name}_step"](number, arena, self.pixels, None)

    def output(self) -> Array:
        value = self.library.graph.outputs[0]
        return self.arena.view(np.int8)[self.at :][: value.type.nbytes].view(value.dtype).reshape(value.shape)

    def expected(self) -> Array:
        return interpret.run(self.library.graph, self.feeds)[self.library.graph.outputs[0].name]


def test_two_arenas_and_two_libraries_run_in_turns(tmp_path: Path) -> None:
    """Two instances of one library and one of another in one program, step by step, as if each were alone."""
    first, second = make(tmp_path / "a", *vit(1), "first"), make(tmp_path / "b", *vit(2, depth=3, width=16), "second")
    loaded = ctypes.CDLL(str(toolchain.compile_shared([*first.sources, *second.sources], tmp_path / "both.so")))
    other = {"image": -1 - first.feeds["image"]}
    runs = (first, first.feeds), (second, second.feeds), (first, other)
    instances = [Instance(loaded, library, feeds) for library, feeds in runs]
    for number in range(max(each.steps for each in instances)):
        for each in instances:
            each.step(number)
    for each in instances:
        np.testing.assert_array_equal(each.output(), each.expected())
    assert not np.array_equal(instances[0].output(), instances[2].output())


# ---- flash ----


def board(internal: int, external: int) -> Target:
    """The device with other sizes of flash, nothing of them kept back."""
    sizes = {"flash": internal, "external_flash": external}
    regions = [replace(region, size=sizes.get(region.kind, region.size)) for region in F746.regions]
    kept = tuple(region for region in regions if region.size)
    return replace(F746, regions=kept, reserve=replace(F746.reserve, flash=0))


@pytest.mark.emulator
def test_weights_that_internal_flash_cannot_hold_are_read_from_outside(tmp_path: Path) -> None:
    from edgesmith.runtimes import emulator

    small = board(CODE_RESERVE + 8192, 1 << 20)
    library = make(tmp_path / "big", *vit(3, width=48), "big", small)
    folder = library.folder
    assert "ES_EXTERNAL const union" in (folder / "src" / "big_weights.c").read_text()
    (folder / "manifest.json").write_text(json.dumps({**library.part, "target": "stm32f746"}))
    elf = toolchain.compile_elf(library.sources, small, tmp_path / "big.elf", [library.part["symbols"]["run"]])
    sections = toolchain.section_sizes(elf, small).sections
    address, size = sections[".es_external"]
    assert address == F746.of_kind("external_flash")[0].origin
    assert sections[".rodata"][1] <= 8192 < size
    assert sections[".text"][1] + sections[".rodata"][1] <= CODE_RESERVE + 8192
    raw, _ = emulator.Program(folder).call([library.feeds["image"]])
    wanted = interpret.run(library.graph, library.feeds)["logits"]
    np.testing.assert_array_equal(raw[0], wanted)


@pytest.mark.parametrize(("external", "fits"), [(0, False), (8192, False), (1 << 20, True)])
def test_weights_that_fit_nowhere_are_refused(tmp_path: Path, external: int, fits: bool) -> None:
    small = board(CODE_RESERVE + 8192, external)
    if fits:
        assert make(tmp_path / "big", *vit(3, width=48), "big", small)
        return
    with pytest.raises(BudgetError, match=r"the weights take \d+ bytes and do not fit stm32f746") as caught:
        make(tmp_path / "big", *vit(3, width=48), "big", small)
    assert caught.value.exit_code == 4
