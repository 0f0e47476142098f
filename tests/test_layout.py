"""Holds the house in order: who may import whom, how long files and functions may be, what an import costs."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("cli", "driver", "frontend", "ir", "lowering", "nas", "runtimes", "targets")
OTHERS = ("benchmarks", "samples", "tests")
FILE_LINES, FUNCTION_LINES, LINE_LENGTH = 400, 50, 120
IMPORT_SECONDS = 0.3
PRAGMA = re.compile(r"  # (type: ignore|noqa|fmt).*$")
"""Notes to tools at the end of a line; they do not count as its length, as ruff has it."""

ALLOWED = {
    "ir": {"ir"},
    "targets": {"targets"},
    "frontend": {"frontend", "ir"},
    "lowering": {"lowering", "ir", "targets"},
    "runtimes": {"runtimes", "ir", "targets", "lowering"},
    "nas": {"nas", "ir", "targets", "frontend", "lowering", "runtimes"},
    "driver": {"driver", "__version__", "ir", "targets", "frontend", "lowering", "runtimes", "nas"},
    "cli": {"cli", "driver", "__version__", "ir"},
}
"""Which folders a folder may import; files at the root may import all."""

HOMES = {
    "google": ("frontend/",),
    "onnx": ("frontend/", "lowering/onnx/", "runtimes/ort.py"),
    "onnxruntime": ("frontend/", "runtimes/ort.py"),
    "unicorn": ("runtimes/",),
    "elftools": ("runtimes/",),
    "capstone": ("runtimes/",),
    "ziglang": ("lowering/c/toolchain.py",),
    "jinja2": ("lowering/c/", "driver/report/"),
    "click": ("cli/",),
    "rich": ("cli/",),
    "coremltools": ("lowering/coreml/", "runtimes/coreml.py"),
    "PIL": ("runtimes/coreml.py", "nas/data.py"),
    "tvm": ("lowering/tvm/", "runtimes/tvm.py"),
    "ai_edge_litert": ("lowering/tflite/", "runtimes/litert"),
    "flatbuffers": ("lowering/tflite/",),
    "torch": ("nas/supernet/",),
    "networkx": ("ir/",),
    "ortools": ("ir/",),
    "scipy": ("ir/", "nas/latency.py"),
    "serial": ("runtimes/board.py",),
    "pymoo": ("nas/engine/strategies.py",),
    "ray": ("nas/engine/ray.py",),
}
"""Third-party packages beside numpy, and the only places that may import them."""

HEAVY = {"onnxruntime", "ortools", "unicorn", "coremltools", "tvm", "torch", "scipy", "pymoo", "ray"}
"""Slow to import: only inside the functions that use them, or at the top of a file among `LEAVES`."""

LEAVES = {"torch": ("nas/supernet/",)}
"""Files that are about one slow package; what imports them does so inside its functions."""


def files(*folders: str) -> list[Path]:
    """Python files under these folders, or at the root for "."."""
    found = [ROOT.glob("*.py") if folder == "." else (ROOT / folder).rglob("*.py") for folder in folders]
    return sorted(path for paths in found for path in paths if "__pycache__" not in path.parts)


def name(path: Path) -> str:
    """Path from the root, as messages and tables have it."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (first part of a third-party or standard name, whether at the top level) of each absolute import."""
    top = {id(node) for node in ast.iter_child_nodes(tree(path))}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).split(".")[0], id(node) in top


def climbs(path: Path) -> Iterator[str]:
    """Yield the folders (or root files) that a file's relative imports lead to."""
    here = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (".".join((*base, *str(each).split("."))) for each in names)


PACKAGE = files(".", *FOLDERS)
EVERYTHING = files(".", *FOLDERS, *OTHERS)


def test_there_is_a_house_to_hold() -> None:
    """The rules below run over something, and know every folder of the package."""
    assert len(PACKAGE) > 30
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} <= set(FOLDERS) == set(ALLOWED)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_only_what_they_may(folder: str) -> None:
    """Data runs one way through the house, and so do imports."""
    wrong = [
        f"{name(path)} imports {target}"
        for path in files(folder)
        for target in climbs(path)
        if target.split(".")[0] not in ALLOWED[folder]
    ]
    assert not wrong


def test_back_ends_do_not_know_each_other() -> None:
    """What two back ends share lies in lowering/ itself."""
    backends = {path.name for path in (ROOT / "lowering").iterdir() if (path / "__init__.py").is_file()}
    wrong = [
        f"{name(path)} imports {target}"
        for backend in backends
        for path in files(f"lowering/{backend}")
        for target in climbs(path)
        if target.split(".")[:1] == ["lowering"] and {*target.split(".")[1:2]} & (backends - {backend})
    ]
    assert backends and not wrong


def test_the_package_imports_itself_relatively() -> None:
    """An absolute import of the package would load a second copy in a clone of another name."""
    assert not [name(path) for path in PACKAGE for module, _ in imports(path) if module in ("edgesmith", *FOLDERS)]


def test_third_party_packages_stay_at_home() -> None:
    """Each is known to few files, and the command line starts without the slow ones."""
    own = {path.stem for path in ROOT.glob("*.py")}
    allowed = set(sys.stdlib_module_names) | {"numpy"} | own
    wrong = []
    for path in PACKAGE:
        for module, at_top in imports(path):
            if module in allowed or name(path) == "setup.py":
                continue
            if not name(path).startswith(HOMES.get(module, ())):
                wrong.append(f"{name(path)} imports {module}")
            elif module in HEAVY and at_top and not name(path).startswith(LEAVES.get(module, ())):
                wrong.append(f"{name(path)} imports {module} at its top")
    assert not wrong


def test_files_are_short() -> None:
    """A file is read in one sitting."""
    long = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYTHING}
    assert not {path: lines for path, lines in long.items() if lines > FILE_LINES}


def test_functions_are_short() -> None:
    """A function is seen at a glance."""
    long = [
        f"{name(path)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in EVERYTHING
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.end_lineno and node.end_lineno - node.lineno >= FUNCTION_LINES
    ]
    assert not long


def test_lines_are_short() -> None:
    """So that two files fit side by side; in C as well."""
    sources = [*EVERYTHING, *sorted((ROOT / "lowering" / "c").rglob("*.[ch]"))]
    long = [
        f"{name(path)}:{number}"
        for path in sources
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(PRAGMA.sub("", line)) > LINE_LENGTH
    ]
    assert not long


def test_every_file_says_its_idea() -> None:
    """The first line of each file says what it is about."""
    first = {name(path): (ast.get_docstring(tree(path)) or "").split("\n")[0] for path in EVERYTHING}
    assert not [path for path, line in first.items() if len(line) < 12]


def test_setup_lists_every_folder_of_the_package() -> None:
    """What is not listed is missing from the wheel, and only there."""
    found = sorted(
        ".".join(("edgesmith", *path.parent.relative_to(ROOT).parts))
        for path in ROOT.rglob("__init__.py")
        if not {"build", "dist", ".venv"} & set(path.relative_to(ROOT).parts)
    )
    spec = "from setuptools import find_packages as f; print(*sorted(['edgesmith', *('edgesmith.' + n for n in f())]))"
    listed = subprocess.run([sys.executable, "-c", spec], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed.split() == found
    assert not [package for package in found if package.split(".")[1:2] and package.split(".")[1] in OTHERS]


def test_every_data_file_of_the_package_is_shipped() -> None:
    """Kernels, templates and targets reach the wheel by a pattern of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = {
        path
        for package, globs in project["tool"]["setuptools"]["package-data"].items()
        for glob in globs
        for path in (ROOT / "/".join(package.split(".")[1:])).glob(glob)
    }
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    data = {path for path in found if path.suffix not in (".py", ".pyc")}
    assert not [name(path) for path in data - shipped]


def test_import_is_cheap() -> None:
    """Importing the package loads no part of it, no package but numpy, and takes no time."""
    code = (
        "import time; began = time.perf_counter(); import edgesmith; spent = time.perf_counter() - began\n"
        "import sys; print(spent, *sorted({name.split('.')[0] for name in sys.modules}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('edgesmith.')))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
        for _ in range(3)
    ]
    seconds = min(float(lines[0].split()[0]) for lines in runs)
    assert seconds < IMPORT_SECONDS
    assert not set(HOMES) & set(runs[0][0].split()[1:])
    assert not runs[0][1].split()


def test_public_names_exist() -> None:
    """Each name that the face promises leads somewhere."""
    import edgesmith

    assert sorted(edgesmith.HOMES) == sorted(edgesmith.__all__)
    for public in edgesmith.__all__:
        assert getattr(edgesmith, public).__doc__, public
    with pytest.raises(AttributeError, match="nonsense"):
        edgesmith.nonsense  # noqa: B018


def test_no_file_names_the_machine_it_was_written_on() -> None:
    """Paths of somebody's machine help nobody else."""
    suffixes = {".py", ".md", ".toml", ".c", ".h", ".html", ""}
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    listed = git.stdout.split("\n")
    if not listed[0]:
        pytest.skip("not a git clone")
    words = ["/" + word + "/" for word in ("work", "home", "Users")]
    wrong = [
        path
        for path in listed
        if path and (ROOT / path).is_file() and (ROOT / path).suffix in suffixes
        and any(word in (ROOT / path).read_text(encoding="utf-8", errors="replace") for word in words)
    ]  # fmt: skip
    assert not wrong


def test_the_installed_package_is_this_clone() -> None:
    """Tests judge the files beside them, not another copy."""
    found = importlib.util.find_spec("edgesmith")
    assert found and found.origin and Path(found.origin).resolve().parent == ROOT.resolve()
