"""The app for an iPhone: what is written, what is read back, and the Mac's tools replaced by scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import re
import runpy
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith import runtimes
from edgesmith.ir.errors import MachineError, ModelError, UsageError
from edgesmith.lowering import artifact as artifacts
from edgesmith.runtimes.iphone import Iphone, Protocol, read_result, write_benchmark
from edgesmith.runtimes.iphone_app import digest

Package = runpy.run_path(str(Path(__file__).with_name("mil_packages.py")))["Package"]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def package(tmp_path):
    """A package that squares its input."""
    made = Package("CoreML8")
    made.input("x", (2, 3))
    made.add("square", "y", (2, 3), x="x")
    return made.save(tmp_path / "square.mlpackage", "y")


def tree(folder):
    """Hash by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_app_is_whole_and_always_the_same(package, tmp_path):
    """Sources, package, inputs and protocol; bytes depend on nothing but the artifact."""
    one, two = (write_benchmark(package, tmp_path / name, {"x": X}) for name in ("one.swiftpm", "two.swiftpm"))
    assert tree(one) == tree(two)
    resources = one / "Sources" / "Resources"
    assert tree(resources / "model.mlpackage") == tree(package)
    settings = json.loads((resources / "benchmark.json").read_text())
    assert (settings["rounds"], settings["inferences"], settings["warmup"], settings["dropped"]) == (20, 50, 1, 10)
    assert settings["digest"] == digest(package) and settings["units"] == "all"
    (entry,) = settings["inputs"]
    np.testing.assert_array_equal(np.fromfile(resources / entry["file"], "<f4").reshape(entry["shape"]), X)
    manifest = (one / "Package.swift").read_text()
    assert manifest.startswith("// swift-tools-version:") and '.iOS("18.0")' in manifest and "@" not in manifest
    assert "teamIdentifier" not in manifest
    signed = write_benchmark(package, tmp_path / "signed.swiftpm", team="A1B2C3")
    assert 'teamIdentifier: "A1B2C3",' in (signed / "Package.swift").read_text()


def test_swift_and_python_mean_the_same_keys(package, tmp_path):
    """Whatever the app decodes is written, and whatever is read here the app encodes."""
    app = write_benchmark(package, tmp_path / "app.swiftpm")
    source = "".join(path.read_text() for path in sorted((app / "Sources").glob("*.swift")))
    fields = {
        name: set(re.findall(r"(?:let|var) (\w+)", body))
        for name, body in re.findall(r"struct (\w+): (?:De|En)codable \{(.*?)\n\}", source, re.DOTALL)
    }
    settings = json.loads((app / "Sources/Resources/benchmark.json").read_text())
    assert fields["Settings"] <= set(settings) and fields["Feature"] == set(settings["inputs"][0])
    shown = json.loads(report())
    assert fields["Report"] == {*shown, "error"} and fields["Round"] == set(shown["rounds"][0])
    assert fields["Place"] == set(shown["placement"][0])
    assert set(shown["outputs"]["y"]) < fields["Output"] == {"shape", "data", "text", "classes"}


def test_sources_are_balanced():
    """Brackets close in order, outside of texts and comments; no line is too long."""
    folder = Path(sys.modules[write_benchmark.__module__].__file__).parent / "swift"
    files = sorted(folder.glob("*.swift"))
    assert [path.name for path in files] == ["App.swift", "Benchmark.swift", "Features.swift", "Package.swift"]
    for path in files:
        text = path.read_text()
        assert all(len(line) <= 120 for line in text.splitlines()), path.name
        bare = re.sub(r'"(?:\\.|[^"\\])*"|//[^\n]*', "", text)
        opened = []
        for letter in bare:
            if letter in "([{":
                opened.append(letter)
            elif letter in ")]}":
                assert opened and "([{".index(opened.pop()) == ")]}".index(letter), path.name
        assert not opened, path.name


def test_sources_parse():
    """As Swift, by tree-sitter's grammar (pip install tree-sitter tree-sitter-swift); no compiler is at hand here."""
    tree_sitter, grammar = pytest.importorskip("tree_sitter"), pytest.importorskip("tree_sitter_swift")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    folder = Path(sys.modules[write_benchmark.__module__].__file__).parent / "swift"
    for path in sorted(folder.glob("*.swift")):
        assert not parser.parse(path.read_bytes()).root_node.has_error, path.name
    assert parser.parse(b"func broken( {").root_node.has_error


def test_inputs_are_the_artifacts_own_sample(package, tmp_path):
    """The first one that the compile kept; noise that is always the same where there is none."""
    import shutil

    folder = tmp_path / "artifact"
    folder.mkdir()
    shutil.copytree(package, folder / "square.mlpackage")
    np.savez(folder / "vectors.npz", **{"in.x": np.stack([X + 1, X])})
    artifacts.seal(folder, {"name": "square", "file": {"name": "square.mlpackage"}})
    for source, name in ((folder, "kept"), (package, "noise")):
        app = write_benchmark(source, tmp_path / f"{name}.swiftpm")
        data = np.fromfile(app / "Sources/Resources/input0.bin", "<f4").reshape(2, 3)
        if name == "kept":
            np.testing.assert_array_equal(data, X + 1)
        else:
            assert data.std() > 0.1


def test_pictures_become_pixels(tmp_path):
    """Bytes in BGRA for Core Video, whatever the order of the program's channels."""
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for number, (colour, tensor) in enumerate(((20, pixels), (30, pixels[..., ::-1]))):
        made = Package()
        made.input("x", (1, 3, 2, 4))
        made.add("identity", "y", (1, 3, 2, 4), x="x")
        made.description = {"input": [{"name": "x", "type": {"imageType": {"colorSpace": colour}}}]}
        source = made.save(tmp_path / f"picture{number}.mlpackage", "y")
        for index, feed in enumerate((pixels, tensor.transpose(2, 0, 1)[None].astype(np.float32))):
            app = write_benchmark(source, tmp_path / f"app{number}{index}.swiftpm", {"x": feed})
            entry = json.loads((app / "Sources/Resources/benchmark.json").read_text())["inputs"][0]
            assert entry["kind"] == "image" and entry["shape"] == [2, 4, 4]
            found = np.fromfile(app / "Sources/Resources" / entry["file"], np.uint8).reshape(2, 4, 4)
            np.testing.assert_array_equal(found[..., :3], pixels[..., ::-1])
            assert (found[..., 3] == 255).all()


def test_what_cannot_be_measured(package, tmp_path):
    """Nothing of the user's is overwritten, and nothing half-written is left."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="exists"):
        write_benchmark(package, tmp_path / "taken")
    with pytest.raises(UsageError, match="shape"):
        write_benchmark(package, tmp_path / "odd.swiftpm", {"x": X[:1]})
    for protocol in (Protocol(rounds=0), Protocol(dropped=25), Protocol(warmup=0)):
        with pytest.raises(UsageError, match="nothing to measure"):
            write_benchmark(package, tmp_path / "app.swiftpm", protocol=protocol)
    with pytest.raises(UsageError, match="no compute units 'tpu'"):
        write_benchmark(package, tmp_path / "app.swiftpm", protocol=Protocol(units="tpu"))
    made = Package()
    made.input("x", (None, 3))
    made.add("relu", "y", (None, 3), x="x")
    with pytest.raises(ModelError, match="fixed shapes"):
        write_benchmark(made.save(tmp_path / "open.mlpackage", "y"), tmp_path / "app.swiftpm")
    assert not list(tmp_path.glob("*.swiftpm")) and not list(tmp_path.glob(".*.new"))


def report(rounds=3, digest="d", **changes):
    """A report as the app prints it: times 1, 2, ... 30 ms, and 100 more in the second round."""
    times = [[float(i + 1) + (100 if number == 1 else 0) for i in range(30)] for number in range(rounds)]
    data = {
        "format": 1, "digest": digest, "device": "iPhone13,2", "system": "Version 18.1", "units": "all",
        "compileMs": 300.0,
        "rounds": [{"loadMs": 40.0 + n, "ms": ms, "thermalState": 2 * (n == 2)} for n, ms in enumerate(times)],
        "outputs": {"y": {"shape": [2, 3], "data": base64.b64encode(X.tobytes()).decode()}},
        "placement": [
            {"name": "y", "kind": "square", "device": "Neural Engine", "share": 0.5},
            {"name": "z", "kind": "topk", "device": "CPU", "share": None},
        ],
    }  # fmt: skip
    return json.dumps({**data, **changes})


def test_a_report_is_read(tmp_path):
    """From a file, or from a console; means without the fastest and slowest, in a band over the rounds."""
    file = tmp_path / "report.json"
    file.write_text(report())
    console = f"started\nBENCHMARK BEGIN\n{report(1)}\nBENCHMARK END\nBENCHMARK BEGIN\n{report()}\nBENCHMARK END\n"
    for source in (file, console):
        result = read_result(source)
        assert result.means(10) == [15.5, 115.5, 15.5] and result.hot == 1
        found = result.measurement()
        assert found.latency_ms == (15.5, 115.5) and found.latency_kind == found.kind == "measured"
        assert "3 rounds of 30 inferences" in found.latency_because and "median of their means 15.500 ms" in (
            found.latency_because
        )
        assert "hot in 1 rounds" in found.latency_because and "median load 41 ms" in found.latency_because
        assert found.device == "iPhone13,2, Version 18.1, compute units: all (1 on Neural Engine, 1 on CPU)"
        np.testing.assert_array_equal(found.outputs["y"], X)
        assert result.placement[0].share == 0.5 and result.placement[1].device == "CPU"


def test_classes_are_read():
    """A label as text, probabilities in order of the classes' names, or as the model has them."""
    outputs = {"label": {"shape": [], "text": "cat"}, "odds": {"shape": [], "classes": {"dog": 0.25, "cat": 0.75}}}
    found = read_result(report(outputs=outputs)).outputs
    assert str(found["label"]) == "cat"
    np.testing.assert_array_equal(found["odds"], np.array([0.75, 0.25], np.float32))
    ordered = read_result(report(outputs=outputs), ("dog", "cat")).outputs
    np.testing.assert_array_equal(ordered["odds"], np.array([0.25, 0.75], np.float32))


def test_a_benchmark_that_ended_early_keeps_its_rounds():
    """One that ended in its first round is no measurement."""
    found = read_result(report(2, error="the model was unloaded")).measurement()
    assert "2 rounds" in found.latency_because and "ended early: the model was unloaded" in found.latency_because
    with pytest.raises(MachineError, match=r"(?s)before the end of its first round.*unloaded"):
        read_result(report(0, error="the model was unloaded")).measurement()


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "nonsense", report()[:-20], report(placement=[{}]), report(outputs={"y": {"data": "?"}})]
)
def test_other_texts_are_no_report(text, tmp_path):
    """In words, with what to copy."""
    with pytest.raises(ModelError, match="no report"):
        read_result(text)
    (tmp_path / "other.txt").write_text(text)
    with pytest.raises(ModelError, match=r"other\.txt"):
        read_result(tmp_path / "other.txt")


def test_reports_of_another_version():
    """Not guessed at."""
    with pytest.raises(ModelError, match="format 2"):
        read_result(report(format=2))


def test_elsewhere_it_says_why_not(package):
    """On Linux: that it takes a Mac, and what can be done here."""
    if platform.system() == "Darwin":
        pytest.skip("this is a Mac")
    runner = runtimes.load("iphone")
    assert runner.kind == "measured" and runner.backends == ("coreml",)
    assert "Mac with Xcode" in runner.why_not() and "write_benchmark" in runner.why_not()
    for call in (runner.open, lambda path: runner.run(path, {})):
        with pytest.raises(MachineError, match="no iPhone can be reached"):
            call(package)


@pytest.fixture
def mac(monkeypatch, tmp_path, package):
    """A computer that takes itself for a Mac with a phone: a function that says what the tools do."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setattr("edgesmith.runtimes.iphone.platform", SimpleNamespace(system=lambda: "Darwin"))
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    for name, value in (("EDGESMITH_IPHONE", "0000-1111"), ("EDGESMITH_TEAM", "TEAM42")):
        monkeypatch.setenv(name, value)

    def become(build="", launch=""):
        scripts = {
            "xcodebuild": f'echo "$@" >> {tools}/calls\n{build}\nwhile [ "$1" != -derivedDataPath ]; do shift; done\n'
            'mkdir -p "$2/Build/Products/Release-iphoneos/Benchmark.app"\n',
            "xcrun": f'echo "$@" >> {tools}/calls\ncase "$*" in *launch*) {launch} ;; esac\n',
        }
        for name, script in scripts.items():
            (tools / name).write_text(f"#!/bin/sh\n{script}")
            (tools / name).chmod(stat.S_IRWXU)
        return Iphone(), tools / "calls"

    return become


def printing(tmp_path, *reports):
    """A command that prints these reports."""
    text = "".join(f"BENCHMARK BEGIN\n{each}\nBENCHMARK END\n" for each in reports)
    (tmp_path / "console").write_text(f"launched\n{text}")
    return f"cat {tmp_path / 'console'}"


def test_the_phone_is_measured(mac, package, tmp_path):
    """Built for the phone and the team, installed, started, read."""
    runner, calls = mac(launch=printing(tmp_path, report(20, digest(package))))
    assert runner.why_not() is None
    found = runner.run(package, {"x": X})
    np.testing.assert_array_equal(found.outputs["y"], X)
    assert found.latency_ms == (15.5, 115.5) and "ended early" not in found.latency_because
    built, installed, launched = calls.read_text().splitlines()
    assert "id=0000-1111" in built and "DEVELOPMENT_TEAM=TEAM42" in built
    assert installed.startswith("devicectl device install app --device 0000-1111") and "Benchmark.app" in installed
    assert launched.endswith("--device 0000-1111 org.edgesmith.benchmark exit")
    session = runner.open(package)
    np.testing.assert_array_equal(session.run({"x": X})["y"], X)
    assert session.last.placement and session.layers({"x": X}, 1) == () and "iPhone13,2" in session.device
    session.close()


def test_a_phone_that_disappears(mac, package, tmp_path):
    """Rounds that were reported before are kept; without any it is an error of the machine."""
    lost = f"{printing(tmp_path, report(1, digest(package)), report(2, digest(package)))}; echo lost >&2; exit 1"
    found = mac(launch=lost)[0].run(package, {"x": X})
    assert "2 rounds" in found.latency_because and "ended early: the iPhone is gone" in found.latency_because
    for launch, words in (("echo disconnected >&2; exit 3", "disconnected"), ("echo started", "without a report")):
        with pytest.raises(MachineError, match=f"(?s)iPhone is gone.*{words}") as caught:
            mac(launch=launch)[0].run(package, {"x": X})
        assert caught.value.exit_code == 5


def test_failures_of_the_tools(mac, package, tmp_path, monkeypatch):
    """Each says what to do; a result of another package is not taken for this one's."""
    with pytest.raises(MachineError, match=r"(?s)cannot be built.*no such team"):
        mac(build="echo no such team >&2; exit 65")[0].run(package, {"x": X})
    with pytest.raises(MachineError, match="built no app"):
        mac(build="exit 0")[0].run(package, {"x": X})
    with pytest.raises(UsageError, match="another package"):
        mac(launch=printing(tmp_path, report(20, "other")))[0].run(package, {"x": X})
    monkeypatch.delenv("EDGESMITH_TEAM")
    assert Iphone().why_not() == "set EDGESMITH_TEAM"
    monkeypatch.setenv("PATH", "/nowhere")
    assert Iphone().why_not() == "install Xcode 16 or later"
