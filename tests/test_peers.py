"""Other converters: their files, or the reason why not, and never a changed input."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """The module, with environments that are this Python's own."""
    spec = importlib.util.spec_from_file_location("peers", BENCHMARKS / "peers.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "peers", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ENVIRONMENTS", tmp_path / "environments")
    folder = tmp_path / "environments" / "own"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "installed").touch()
    return module


@pytest.fixture
def convert(peers, monkeypatch, tmp_path):
    """A function that has a tool of these lines convert a file, and gives what came of it and the file."""
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")

    def run(lines, seconds=60):
        def command(name, model, out):
            return ["-c", lines, str(model), str(out)]

        monkeypatch.setitem(peers.PEERS, "tool", peers.Peer("own", ".bin", command))
        return peers.make("tool", "net", model, tmp_path / "made", seconds), model

    return run


def test_a_file_is_made_once_and_kept(convert, tmp_path):
    made, _ = convert("import sys; open(sys.argv[2], 'wb').write(open(sys.argv[1], 'rb').read() + b'!')")
    assert made.path == tmp_path / "made" / "tool" / "net.bin" and made.path.read_bytes() == b"model!"
    assert made.cpu_s > 0 and made.wall_s > 0
    again, _ = convert("raise SystemExit('not called')")
    assert again.path == made.path


def test_the_input_is_never_written_to(convert):
    made, model = convert("import sys; open(sys.argv[1], 'wb').write(b'spoilt'); open(sys.argv[2], 'wb')")
    assert made.path and model.read_bytes() == b"model"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("import no_such_converter", "No module named 'no_such_converter'"),
        ("import sys; sys.exit('no kernel for Erf')", "no kernel for Erf"),
        ("print('done')", "done"),
        ("", "it wrote nothing"),
    ],
)
def test_a_failure_is_told_in_the_tools_last_words(convert, lines, why):
    made, _ = convert(lines)
    assert made.path is None and why in made.why


def test_a_tool_that_hangs_is_stopped(convert):
    made, _ = convert("import time; time.sleep(60)", seconds=0.5)
    assert made.path is None and "not done after" in made.why and made.wall_s < 30


def test_each_environment_has_its_requirements(peers):
    text = peers.REQUIREMENTS.read_text(encoding="utf-8")
    assert {peer.environment for peer in peers.PEERS.values()} - {"own"} == {
        line.split(": ")[1] for line in text.splitlines() if line.startswith("# environment: ")
    }
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert pins and all("==" in line or "<=" in line for line in pins)


def test_without_a_python_for_them_it_says_so(peers, monkeypatch, tmp_path):
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    monkeypatch.delenv("EDGESMITH_PEERS_PYTHON", raising=False)
    made = peers.make("onnxsim", "net", tmp_path / "model.onnx", tmp_path / "made")
    assert made.path is None and "EDGESMITH_PEERS_PYTHON" in made.why
