"""Generated libraries as build systems take them: built and run where the tools are, held to their rules elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgesmith
from edgesmith.ir.errors import UsageError
from edgesmith.lowering import zig
from edgesmith.lowering.c import packaging

pytestmark = pytest.mark.compiler

ALL = ",".join(packaging.names())
MODELS = ["fashion", "tiny"]  # one asks for pixels, one has its input in the arena


@pytest.fixture(scope="module")
def packages(tmp_path_factory, fashion):
    """Folder of all packages by model's name."""
    import runpy

    import onnx

    root = tmp_path_factory.mktemp("packages")
    onnx.save(runpy.run_path(str(Path(__file__).with_name("conftest.py")))["tiny_network"](), root / "tiny.onnx")
    data = np.load(fashion / "images.npz")["images"][:2]
    options = {"package": ALL, "check": False}
    edgesmith.compile(fashion / "model.onnx", "stm32f746", out=root / "fashion", calibration=data, **options)
    edgesmith.compile(root / "tiny.onnx", "esp32c3", out=root / "tiny", **options)
    return {name: root / name / "package" for name in MODELS}


def only(folder):
    (found,) = folder.iterdir()
    return found


def copied(packages, model, name, tmp_path):
    """The package alone, away from the artifact: it has to be whole."""
    place = only(packages[model] / name)
    return shutil.copytree(place, tmp_path / place.name)


@pytest.fixture
def tools(tmp_path):
    """zig as cc and ar on paths without blanks, and the environment they run in."""
    for name, tool in (("cc", "cc"), ("ar", "ar"), ("ranlib", "ranlib")):
        path = tmp_path / "tools" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang {tool} "$@"\n')
        path.chmod(0o755)
    return tmp_path / "tools"


def ran(command, folder, **more):
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env={**zig.environment(), **more}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("model", MODELS)
def test_the_makefile_builds_tests_and_shows(packages, model, tools, tmp_path):
    if shutil.which("make") is None:
        pytest.skip("no make on this computer")
    folder = copied(packages, model, "make", tmp_path)
    wanted = ["make", f"CC={tools / 'cc'}", f"AR={tools / 'ar'}"]
    ran([*wanted, "test"], folder)
    ran([*wanted, "example"], folder)
    assert 0 <= int(ran([folder / "build" / "example"], folder)) < 10
    assert (folder / f"lib{folder.name}.a").is_file()


@pytest.mark.parametrize("model", MODELS)
def test_the_cmake_project_builds_tests_and_installs(packages, model, tools, tmp_path):
    if shutil.which("cmake") is None or shutil.which("make") is None:
        pytest.skip("no cmake and make on this computer")
    folder, build = copied(packages, model, "cmake", tmp_path), tmp_path / "build"
    given = [f"-DCMAKE_C_COMPILER={tools / 'cc'}", f"-DCMAKE_AR={tools / 'ar'}", f"-DCMAKE_RANLIB={tools / 'ranlib'}"]
    ran(["cmake", "-S", folder, "-B", build, "-G", "Unix Makefiles", "-DCMAKE_BUILD_TYPE=Release", *given], tmp_path)
    ran(["cmake", "--build", build], tmp_path)
    assert "100% tests passed" in ran(["ctest", "--test-dir", build], tmp_path)
    ran(["cmake", "--install", build, "--prefix", tmp_path / "root"], tmp_path)
    installed = {path.relative_to(tmp_path / "root").as_posix() for path in (tmp_path / "root").rglob("*.*")}
    assert installed == {f"include/{folder.name}.h", f"lib/lib{folder.name}.a"}


def test_a_cmake_project_takes_the_library_as_a_part(packages, tools, tmp_path):
    if shutil.which("cmake") is None or shutil.which("make") is None:
        pytest.skip("no cmake and make on this computer")
    folder = copied(packages, "tiny", "cmake", tmp_path)
    (tmp_path / "main.c").write_text('#include "tiny.h"\nint main(void) { return TINY_ARENA_BYTES == 0; }\n')
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.16)\nproject(app LANGUAGES C)\nadd_subdirectory({folder.name})\n"
        "add_executable(app main.c)\ntarget_link_libraries(app PRIVATE edgesmith::tiny)\n"
    )
    ran(["cmake", "-B", "out", "-G", "Unix Makefiles", f"-DCMAKE_C_COMPILER={tools / 'cc'}"], tmp_path)
    ran(["cmake", "--build", "out"], tmp_path)
    ran([tmp_path / "out" / "app"], tmp_path)


def program(tools, tmp_path, sources, include, main, *flags):
    """Build C sources with a file that stands in for the system, run the program, and give what it prints."""
    (tmp_path / "system.cpp").write_text(main)
    objects = []
    for path in sources:
        objects.append(tmp_path / f"{path.stem}.o")
        ran([tools / "cc", "-O1", *flags, *(f"-I{each}" for each in include), "-c", path, "-o", objects[-1]], tmp_path)
    # C++ without its library, whose first build takes zig minutes.
    system = tmp_path / "system.o"
    ran([tools / "cc", "-O1", "-x", "c++", f"-I{tmp_path}", "-c", tmp_path / "system.cpp", "-o", system], tmp_path)
    ran([tools / "cc", *objects, system, "-o", tmp_path / "app"], tmp_path)
    return ran([tmp_path / "app"], tmp_path)


ARDUINO = """\
#include <stdio.h>
#include <stdint.h>
#include "Arduino.h"
Port Serial;
void setup(); void loop();
#include SKETCH
int main() { setup(); loop(); }
"""
CORE = """\
#pragma once
#include <stdio.h>
struct Port {
    void begin(long) {}
    void println(int x) { printf("%d\\n", x); }
    void println(const char *x) { puts(x); }
};
extern Port Serial;
inline void delay(int) {}
"""


@pytest.mark.parametrize("model", MODELS)
def test_the_arduino_library_follows_the_specification(packages, model, tools, tmp_path):
    folder = copied(packages, model, "arduino", tmp_path)
    lines = (folder / "library.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    needed = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert needed <= set(properties) and all(properties.values())
    assert re.fullmatch(r"[A-Za-z0-9][\w .-]{0,62}", properties["name"])
    assert not properties["name"].lower().startswith("arduino") and properties["name"] == folder.name
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["version"])
    assert properties["category"] in ("Data Processing", "Other", "Sensors", "Signal Input/Output", "Uncategorized")
    assert (folder / "src" / properties["includes"]).is_file()
    (tmp_path / "Arduino.h").write_text(CORE)
    prefix = properties["includes"][:-2]
    for name, told in (("Example", r"\d"), ("SelfTest", "PASS")):
        sketch = folder / "examples" / name / f"{name}.ino"  # a sketch has the name of its folder
        code = ARDUINO.replace("SKETCH", f'"{sketch}"').replace("#include <stdint.h>", f'#include "{prefix}.h"')
        for header in (folder / "src").glob("*.h"):
            shutil.copy(header, tmp_path)
        sources = [*(folder / "src").glob("*.c"), *sketch.parent.glob("*.c")]
        assert re.fullmatch(told, program(tools, tmp_path, sources, [folder / "src"], code).strip())


def listed(text, pattern):
    """The C files that a list of CMake's names."""
    return re.findall(pattern, text)


@pytest.mark.parametrize("model", MODELS)
def test_the_component_is_one_of_esp_idf(packages, model, tools, tmp_path):
    yaml = pytest.importorskip("yaml")
    folder = copied(packages, model, "esp-idf", tmp_path)
    component = (folder / "CMakeLists.txt").read_text()
    assert component.startswith("idf_component_register(")
    named = listed(component, r'"(src/\w+\.c)"')
    assert sorted(named) == sorted(f"src/{path.name}" for path in (folder / "src").glob("*.c"))
    manifest = yaml.safe_load((folder / "idf_component.yml").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"]) and "idf" in manifest["dependencies"]
    entry = 'extern "C" void app_main(); int main() { app_main(); }\n'
    for project, told in (("examples/example", r"\d"), ("test_apps/selftest", "PASS")):
        main = folder / project / "main"
        lines = (folder / project / "CMakeLists.txt").read_text().splitlines()
        assert lines[0].startswith("cmake_minimum_required") and "IDF_PATH" in lines[1] and "project(" in lines[2]
        needs = yaml.safe_load((main / "idf_component.yml").read_text())["dependencies"][folder.name]
        assert (main / needs["override_path"]).resolve() == folder
        sources = [main / name for name in listed((main / "CMakeLists.txt").read_text(), r'"(\w+\.c)"')]
        files = [*(folder / name for name in named), *sources]
        assert re.fullmatch(told, program(tools, tmp_path, files, [folder / "src"], entry).strip())


@pytest.mark.parametrize("model", MODELS)
def test_the_module_is_one_of_zephyr(packages, model, tools, tmp_path):
    yaml = pytest.importorskip("yaml")
    folder = copied(packages, model, "zephyr", tmp_path)
    module = yaml.safe_load((folder / "zephyr" / "module.yml").read_text())
    assert set(module) <= {"name", "build", "samples", "tests"} and module["name"] == folder.name
    assert (folder / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    option = re.search(r"^config (\w+)\n\tbool", (folder / module["build"]["kconfig"]).read_text(), re.MULTILINE)[1]
    lists = (folder / "zephyr" / "CMakeLists.txt").read_text()
    assert f"if(CONFIG_{option})" in lists
    named = [folder / "src" / name for name in listed(lists, r"/\.\./src/(\w+\.c)")]
    assert sorted(named) == sorted((folder / "src").glob("*.c"))
    stand_in = tmp_path / "zephyr" / "sys"
    stand_in.mkdir(parents=True)
    (stand_in / "printk.h").write_text("#include <stdio.h>\n#define printk printf\n")
    for place, told in ((f"{module['samples'][0]}/example", r"\d"), (f"{module['tests'][0]}/selftest", "PASS")):
        application = folder / place
        assert (application / "prj.conf").read_text() == f"CONFIG_{option}=y\n"
        text = (application / "CMakeLists.txt").read_text()
        assert "find_package(Zephyr REQUIRED" in text and "LIST_DIR}/../..)" in text
        sources = [application / name for name in listed(text, r"(src/\w+\.c)")]
        # Zephyr's main is C's own here.
        rename = "-Dmain=zephyr_main"
        entry = 'extern "C" int zephyr_main(); int main() { return zephyr_main(); }\n'
        include = [folder / "src", tmp_path]
        assert re.fullmatch(told, program(tools, tmp_path, [*named, *sources], include, entry, rename).strip())
    twister = yaml.safe_load((folder / "tests" / "selftest" / "testcase.yaml").read_text())
    assert set(twister) == {"tests"} and f"{folder.name}.selftest" in twister["tests"]


def test_a_self_test_that_finds_a_fault_says_so(packages, tools, tmp_path):
    folder = copied(packages, "tiny", "esp-idf", tmp_path)
    weights = folder / "src" / "tiny_weights.c"
    text = weights.read_text()
    at = text.rindex('"', 0, text.rindex("};")) - 1
    while not text[at].isalpha():  # some letter of a string
        at -= 1
    weights.write_text(text[:at] + ("A" if text[at] != "A" else "Z") + text[at + 1 :])
    main = folder / "test_apps" / "selftest" / "main"
    entry = 'extern "C" void app_main(); int main() { app_main(); }\n'
    files = [*(folder / "src").glob("*.c"), *main.glob("*.c")]
    assert "WRONG" in program(tools, tmp_path, files, [folder / "src"], entry)


def test_examples_are_short_and_no_package_is_written_unasked(packages, tiny, tmp_path):
    for place in (file for each in packages.values() for file in (*each.rglob("main.c"), *each.rglob("*.ino"))):
        if "self" not in str(place).lower():
            assert len(place.read_text().splitlines()) <= 20
    plain = edgesmith.compile(tiny, "esp32c3", out=tmp_path / "plain", check=False).folder
    assert not (plain / "package").exists()
    with pytest.raises(UsageError, match="no packaging bazel"):
        edgesmith.compile(tiny, "esp32c3", out=tmp_path / "no", package="make,bazel")
    assert not (tmp_path / "no").exists()
