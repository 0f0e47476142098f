"""Generated C keeps nothing between calls: no heap, no variables, instances in threads; cppcheck finds nothing."""

from __future__ import annotations

import ctypes
import re
import runpy
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith import targets
from edgesmith.lowering.c import toolchain

pytestmark = pytest.mark.compiler

C = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_generated_c.py"))))
SHF_WRITE, SHF_ALLOC = 1, 2


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """A transformer of two seeds, and every integer op."""
    root = tmp_path_factory.mktemp("hygiene")
    return {
        "first": C.make(root / "first", *C.vit(1), "first"),
        "second": C.make(root / "second", *C.vit(2, depth=3, width=16), "second"),
        "integers": C.make(root / "integers", *C.every_integer_op(), "integers"),
    }


def sections(path):
    """(name, bytes) of what an object file keeps in memory that can be written to."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        both = SHF_WRITE | SHF_ALLOC
        found = [each for each in ELFFile(file).iter_sections() if each["sh_flags"] & both == both]
        return {each.name: each["sh_size"] for each in found if each["sh_size"]}


def undefined(path):
    """Symbols that an object file takes from elsewhere."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {each.name for each in table.iter_symbols() if each["st_shndx"] == "SHN_UNDEF" and each.name}


def device_objects(library, target, tmp_path):
    device = targets.get(target)
    for source in sorted((library.folder / "src").glob("*.c")):
        flags = [*toolchain.find().target_flags(device), "-ffreestanding", f"-I{library.folder / 'src'}", "-c"]
        yield C.build([source], tmp_path / f"{source.stem}.o", *flags)


@pytest.mark.parametrize("target", ["stm32f746", "esp32c3"])
@pytest.mark.parametrize("name", ["first", "integers"])
def test_no_variable_and_no_heap(libraries, name, target, tmp_path):
    library = libraries[name]
    objects = list(device_objects(library, target, tmp_path))
    assert [sections(each) for each in objects] == [{}] * len(objects)
    outside = set().union(*map(undefined, objects))
    own = {each for each in outside if each.startswith(f"{library.name}_")}
    # What is left are functions that compilers call unasked: copies, and long arithmetic where the core has none.
    assert {each for each in outside - own if not re.fullmatch(r"mem(cpy|set|move)|__\w+", each)} == set()


def test_a_variable_would_be_found(libraries, tmp_path):
    (tmp_path / "counted.c").write_text("int calls, last = 3; int f(int x) { calls++; return last += x; }\n")
    assert set(sections(C.build([tmp_path / "counted.c"], tmp_path / "counted.o", "-c"))) == {".bss", ".data"}


def test_threads_share_nothing(libraries, tmp_path):
    """Two libraries and three arenas, many runs at once (ctypes lets go of the interpreter meanwhile)."""
    first, second = libraries["first"], libraries["second"]
    loaded = ctypes.CDLL(str(toolchain.compile_shared([*first.sources, *second.sources], tmp_path / "both.so")))
    other = {"image": -1 - first.feeds["image"]}
    runs = (first, first.feeds), (second, second.feeds), (first, other)
    instances = [C.Instance(loaded, library, feeds) for library, feeds in runs]

    def repeat(instance):
        for _ in range(40):
            for number in range(instance.steps):
                instance.step(number)
            yield instance.output().copy()

    with ThreadPoolExecutor(len(instances)) as pool:
        results = list(pool.map(lambda instance: list(repeat(instance)), instances))
    for instance, outputs in zip(instances, results, strict=True):
        wanted = instance.expected()
        assert all(np.array_equal(each, wanted) for each in outputs)
    assert not np.array_equal(results[0][0], results[2][0])


@pytest.mark.skipif(shutil.which("cppcheck") is None, reason="needs cppcheck")
@pytest.mark.parametrize("name", ["first", "integers"])
def test_cppcheck_finds_nothing(libraries, name):
    source = libraries[name].folder / "src"
    checks = "--enable=warning,performance,portability"
    command = ["cppcheck", "--quiet", "--std=c99", "--error-exitcode=1", checks, "--inline-suppr", f"-I{source}"]
    done = subprocess.run([*command, str(source / f"{name}.c")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("cppcheck") is None, reason="needs cppcheck")
def test_cppcheck_does_find_fault(tmp_path):
    (tmp_path / "past.c").write_text("int f(void) { int a[2] = {1, 2}; return a[2]; }\n")
    command = ["cppcheck", "--quiet", "--error-exitcode=1", str(tmp_path / "past.c")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
