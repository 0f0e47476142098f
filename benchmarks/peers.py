"""The same models through other converters, each in a process and a virtual environment of its own, with a time limit.

Run `python benchmarks/peers.py FOLDER [names...]` with the extra `train` installed: files go to
FOLDER/<tool>/<model>.<suffix>. The first run installs the converters (7 GB) below EDGESMITH_PEERS, by default
build/peers; onnx2tf needs Python 3.12 or newer, named by EDGESMITH_PEERS_PYTHON or found on the path.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "tests" / "corpus"
REQUIREMENTS = HERE / "requirements-peers.txt"
ENVIRONMENTS = Path(os.environ.get("EDGESMITH_PEERS", HERE.parent / "build" / "peers"))
INSTALL_SECONDS, CONVERT_SECONDS = 3600, 600
NAMES = ("deit_tiny_patch16_224", "efficientformer_l1")

TORCH_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import litert_torch, woken_timm
name, _, reparam = sys.argv[2].partition("-")
model, x = woken_timm.make_timm(name, reparam=bool(reparam))
litert_torch.convert(model, (x,)).export(sys.argv[3])
"""


@dataclass(frozen=True)
class Made:
    """What came of a conversion: the file, or why there is none; seconds are those of the whole process."""

    path: Path | None
    why: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0


@dataclass(frozen=True)
class Peer:
    """A converter: where it lives, what it writes, and how it is called with (name, model, place to write)."""

    environment: str
    suffix: str
    command: Callable[[str, Path, Path], list[str]]


def python(environment: str) -> Path:
    """The interpreter of one part of the requirements, installed at first use.

    Raises:
        RuntimeError: There is no Python for it, or the installation fails.
    """
    folder = ENVIRONMENTS / environment
    found = folder / "bin" / "python"
    if (folder / "installed").is_file():
        return found
    parts = re.split(r"^# environment: (\w+)$", REQUIREMENTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    wanted = parts[parts.index(environment) + 1].split()
    base = os.environ.get("EDGESMITH_PEERS_PYTHON") or shutil.which("python3.12") or shutil.which("python3.13")
    if base is None:
        raise RuntimeError("no Python 3.12 or newer on the path; set EDGESMITH_PEERS_PYTHON")
    for command in ([base, "-m", "venv", str(folder)], [str(found), "-m", "pip", "install", "--quiet", *wanted]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
        if done.returncode:
            raise RuntimeError(f"{environment} cannot be installed: {_last(done.stderr)}")
    (folder / "installed").touch()
    return found


def _onnx2tf(name: str, model: Path, out: Path) -> list[str]:
    return ["-m", "onnx2tf", "-i", str(model), "-o", str(out.parent), "-tb", "flatbuffer_direct", "-n"]


def _coreml(name: str, model: Path, out: Path) -> list[str]:
    return ["-m", "onnxsim", str(model), str(out.with_suffix(".onnx")), "--emit-coreml", str(out)]


PEERS = {
    "onnxsim": Peer("simplifiers", ".onnx", lambda name, model, out: ["-m", "onnxsim", str(model), str(out)]),
    "onnxslim": Peer("simplifiers", ".onnx", lambda name, model, out: ["-m", "onnxslim", str(model), str(out)]),
    "onnxsim_coreml": Peer("simplifiers", ".mlpackage", _coreml),
    "onnx2tf": Peer("onnx2tf", ".tflite", _onnx2tf),
    "litert_torch": Peer(
        "litert_torch", ".tflite", lambda name, model, out: ["-c", TORCH_SCRIPT, str(CORPUS), name, str(out)]
    ),
}
"""The tools by name. litert_torch reads no ONNX: it builds timm's model anew, with the weights of the corpus."""


def make(tool: str, name: str, model: Path, folder: Path, seconds: float = CONVERT_SECONDS) -> Made:
    """Convert a model with a tool to `folder`/<tool>/<name>.<suffix>; a file that lies there already is kept.

    Args:
        tool: A key of `PEERS`.
        name: The architecture's name in timm, with "-reparam" for merged branches; also the file's name.
        model: The ONNX file. The tool gets a copy: some of them write to their input.
        folder: Where results go.
        seconds: After so many the tool is stopped.
    """
    peer = PEERS[tool]
    result = folder.absolute() / tool / f"{name}{peer.suffix}"
    if result.exists():
        return Made(result)
    try:
        interpreter = python(peer.environment)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Made(None, str(error))
    result.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        copy, out = Path(work) / "in" / model.name, Path(work) / "out" / f"{name}{peer.suffix}"
        copy.parent.mkdir()
        out.parent.mkdir()
        shutil.copy(model, copy)
        # onnx2tf starts onnxsim by its bare name, and goes on silently where that fails.
        path = f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        used, began = _children(), time.perf_counter()
        command = [str(interpreter), *peer.command(name, copy, out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work, env=environment,
                                  timeout=seconds)  # fmt: skip
        except subprocess.TimeoutExpired:
            return Made(None, f"not done after {seconds:.0f} s", _children() - used, time.perf_counter() - began)
        spent = _children() - used, time.perf_counter() - began
        written = out if out.exists() else next(iter(sorted(out.parent.glob(f"*float32{peer.suffix}"))), None)
        if done.returncode or written is None:
            return Made(None, _last(done.stderr or done.stdout) or "it wrote nothing", *spent)
        shutil.move(written, result)
    return Made(result, "", *spent)


def _children() -> float:
    """Seconds of CPU that ended child processes have taken."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def main(folder: Path, names: list[str]) -> None:
    """Make the files of every tool for the models named, and say what came of it."""
    sys.path.insert(0, str(CORPUS))
    import timm_corpus

    for name in names or NAMES:
        model = timm_corpus.export(name, "legacy").model
        for tool in PEERS:
            made = make(tool, name, model, folder)
            print(f"{name:24} {tool:16} {made.cpu_s:6.1f} s CPU {made.wall_s:6.1f} s  {made.path or made.why}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
