"""The runner for TVM's libraries: sessions here and behind a tracker, times by kernel, and all that it refuses."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import edgesmith
from edgesmith import runtimes, targets
from edgesmith.ir.errors import MachineError, ModelError, UsageError
from edgesmith.ir.graph import Graph, Type
from edgesmith.ir.interpret import run
from edgesmith.ir.ops.activation import Gelu, Softmax
from edgesmith.ir.ops.conv import Conv
from edgesmith.ir.ops.linear import Linear
from edgesmith.ir.ops.pool import Mean
from edgesmith.lowering.tvm import child
from edgesmith.lowering.tvm.lower import lower
from edgesmith.lowering.tvm.machine import Machine
from edgesmith.lowering.tvm.tune import address
from edgesmith.runtimes import ort
from edgesmith.runtimes import tvm as runner

pytestmark = pytest.mark.tvm
REGISTER_SECONDS = 300
"""For two messages on loopback between processes that are there."""


def network():
    """An image to five odds."""
    draw = np.random.default_rng(1)
    graph = Graph("net")
    x = graph.input("image", Type("float32", (1, 3, 16, 16)))
    w = graph.constant(draw.standard_normal((8, 3, 3, 3)).astype(np.float32))
    x = graph.add(Gelu(), graph.add(Conv((2, 2), (1, 1, 1, 1)), x, w, name="stem"), name="act")
    x = graph.add(Mean((2, 3)), x, name="pool")
    x = graph.add(Linear(), x, graph.constant(draw.standard_normal((5, 8)).astype(np.float32)), name="head")
    graph.output(graph.add(Softmax(), x, name="odds"), "odds")
    return graph


FEEDS = {"image": np.random.default_rng(2).standard_normal((1, 3, 16, 16)).astype(np.float32)}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    pytest.importorskip("tvm", reason="pip install edgesmith[tvm]")
    path = tmp_path_factory.mktemp("tvm") / "model.so"
    child.build(lower(network(), Machine.of(targets.get("tvm-cpu").format))[0], path)
    return path


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    pytest.importorskip("tvm", reason="pip install edgesmith[tvm]")
    folder = tmp_path_factory.mktemp("tvm") / "out"
    return edgesmith.compile(network(), "tvm-cpu", out=folder).folder


def close_to(found, wanted):
    return np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_an_artifact_runs_and_is_measured(artifact):
    measured = runner.RUNNER.run(artifact, FEEDS)
    assert close_to(measured.outputs["odds"], run(network(), FEEDS)["odds"])
    assert measured.kind == "measured" and 0 < measured.latency_ms[0] <= measured.latency_ms[1]
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["file"]["operators"] == {"conv": 1, "linear": 1, "reduce": 1, "softmax": 1}


def test_times_by_kernel_have_the_layers_names(library):
    session = runner.RUNNER.open(library)
    rows = session.layers(FEEDS, 3)
    assert [(row.name, row.kind) for row in rows] == [
        ("act", "Conv+Gelu"), ("pool", "Mean"), ("head", "Linear"), ("odds", "Softmax")
    ]  # fmt: skip
    assert all(0 < row.ms < 1000 for row in rows)
    assert close_to(session.run(FEEDS)["odds"], run(network(), FEEDS)["odds"])
    session.close()


def test_wrong_inputs_are_named(library):
    session = runner.RUNNER.open(library)
    with pytest.raises(UsageError, match="image"):
        session.run({"picture": FEEDS["image"]})
    with pytest.raises(UsageError, match="wrong shape"):
        session.run({"image": FEEDS["image"][:, :2]})
    session.close()


def test_changed_artifacts_are_not_loaded(artifact, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(artifact, folder)
    with (folder / "model.so").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(UsageError, match="changed"):
        runner.RUNNER.open(folder)


def test_files_that_are_no_library_are_refused(library, tmp_path, tiny):
    whole = library.read_bytes()
    broken = {"empty": b"", "text": b"no library\n" * 9, "cut": whole[: len(whole) // 2], "head": whole[:64]}
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match="no library"):
            runner.RUNNER.open(tmp_path / name)
    with pytest.raises(UsageError, match="no such file"):
        runner.RUNNER.open(tmp_path / "missing.so")
    with pytest.raises(ModelError, match="without __tvm_ffi__library_bin"):
        runner.RUNNER.open(_foreign(tmp_path))
    edgesmith.compile(tiny, "onnx", out=tmp_path / "other", check=False)
    with pytest.raises(UsageError, match="no library for TVM"):
        runner.RUNNER.open(tmp_path / "other")


def _foreign(folder):
    """A shared object of somebody else, whose code must not run: it would leave a file."""
    source, made = folder / "foreign.c", folder / "foreign.so"
    source.write_text('#include <stdlib.h>\n__attribute__((constructor)) void start(void) { abort(); }\n')
    link = [*child.zig.command(), *Machine.of(targets.get("tvm-cpu").format).link]
    subprocess.run([*link, "-o", str(made), str(source)], check=True, env=child.zig.environment())
    return made


def test_libraries_for_other_processors_are_refused(tmp_path):
    pytest.importorskip("tvm", reason="pip install edgesmith[tvm]")
    child.build(lower(network(), Machine.of(targets.get("tvm-cpu-aarch64").format))[0], tmp_path / "model.so")
    with pytest.raises(MachineError, match="EM_AARCH64"):
        runner.RUNNER.open(tmp_path / "model.so")


def test_vectors_that_are_missing_are_refused(library, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("flags : fpu sse2\n")
    monkeypatch.setattr(runner, "CPU", tmp_path / "cpuinfo")
    with pytest.raises(MachineError, match="avx2"):
        runner.RUNNER.open(library)


def test_without_tvm(monkeypatch, library):
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    assert runner.RUNNER.why_not() == "pip install edgesmith[tvm]"
    with pytest.raises(MachineError, match=r"edgesmith\[tvm\]"):
        runner.RUNNER.open(library)


def test_tvms_own_import_opens_like_a_library_of_ours(tiny, tmp_path):
    """What benchmarks compare with."""
    library, script = tmp_path / "imported.so", Path(edgesmith.__file__).parent / "benchmarks" / "untuned.py"
    subprocess.run([sys.executable, str(script), str(tiny), str(library)], check=True)
    session = runner.RUNNER.open(library)
    (port,) = session.about["inputs"]
    feeds = {port["name"]: np.random.default_rng(3).standard_normal(port["shape"]).astype(port["dtype"])}
    (found,), (wanted,) = (each.values() for each in (session.run(feeds), next(iter(ort.reference(tiny, [feeds])))))
    session.close()
    assert close_to(found, wanted)


def test_the_runner_is_found_by_name():
    assert runtimes.load("tvm") is runner.RUNNER and runner.RUNNER.backends == ("tvm",)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder, module, *arguments):
    """A server of TVM's that says it is bound to its port; what it says goes on to a pipe that somebody reads."""
    # TVM's bridge loads PyTorch wherever it is installed, in each of the processes that a server is made of.
    (folder / "torch.py").write_text("raise ImportError")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "TVM_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", module, "--host=127.0.0.1", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if "bind to" in line:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process
    process.wait()
    pytest.fail(f"{module} ended: {''.join(said)}")


def end(process):
    """End a process that `start` made, with those that it made."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    process.wait()


@pytest.fixture
def farm(tmp_path):
    """A tracker and one device on this computer: the tracker's address, and the device's process."""
    pytest.importorskip("tvm", reason="pip install edgesmith[tvm]")
    pytest.importorskip("tornado", reason="TVM's tracker needs it: pip install tornado")
    port = free_port()
    with ExitStack() as stack:
        # A server gives up on a tracker that is late: it has to be there first.
        tracker = start(tmp_path, "tvm.exec.rpc_tracker", f"--port={port}", f"--port-end={port + 1}")
        stack.callback(end, tracker)
        server = start(tmp_path, "tvm.exec.rpc_server", f"--tracker=127.0.0.1:{port}", "--key=board")
        stack.callback(end, server)
        _wait_for_device(port, server)
        yield f"127.0.0.1:{port}/board", server


def _wait_for_device(port, server):
    """Until the server, which is bound, has registered; it ends where it cannot."""
    runner._tvm()
    from tvm import rpc

    tracker, limit = rpc.connect_tracker("127.0.0.1", port), time.monotonic() + REGISTER_SECONDS
    while not tracker.summary()["queue_info"].get("board", {}).get("free"):
        assert server.poll() is None and time.monotonic() < limit, "the device did not register"
        time.sleep(0.05)


def test_a_device_behind_a_tracker_runs_and_may_vanish(library, farm, monkeypatch):
    place, server = farm
    monkeypatch.setenv(runner.DEVICE, place)
    session = runner.RUNNER.open(library)
    assert "board" in session.device and session.layers(FEEDS, 1) == ()
    assert close_to(session.run(FEEDS)["odds"], run(network(), FEEDS)["odds"])
    with pytest.raises(UsageError, match="wrong shape"):
        session.run({"image": FEEDS["image"][:, :2]})
    end(server)
    with pytest.raises(MachineError, match="does not answer") as caught:
        session.run(FEEDS)
    assert caught.value.exit_code == 5
    session.close()


def test_tiles_are_measured_on_a_device(farm, monkeypatch, tmp_path):
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))
    found = edgesmith.compile(network(), "tvm-cpu", out=tmp_path / "out", tune="1", device=farm[0], check=False)
    assert set(found.manifest["details"]["tiles"]) == {"conv 3x3x3x8 8x8 /2"}


def test_no_tracker_and_no_device(library, monkeypatch):
    monkeypatch.setenv(runner.DEVICE, f"127.0.0.1:{free_port()}/board")
    with pytest.raises(MachineError, match="no RPC tracker"):
        runner.RUNNER.open(library)
    for wrong in ("board", "host/board", "host:port/board", "host:1/"):
        with pytest.raises(UsageError, match="HOST:PORT/KEY"):
            address(wrong)
