"""A search that is killed again and again, beside one that is left alone: both have to end with the same front.

The search is a compression of the sample, without labels: its quality is how little the integers that the target
computes diverge from the model's answers. Kills are spread over all that the undisturbed search wrote into its journal,
each at a random line and a random time on top; nothing may be judged twice. `--victim worker` kills processes that
judge, local ones or a Ray cluster's, and the search has to go on by itself.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE = Path(__file__).parents[1] / "samples" / "fashion"
WORKERS = ("multiprocessing.spawn", "ray::_Actor")
"""What the command lines of processes that judge have in them, by engine."""

Row = dict[str, Any]
Line = tuple[str, str]


def command(out: Path, options: argparse.Namespace) -> list[str]:
    """The search, in one process or more."""
    given = ["--target", options.target, "--data", str(out.parent / "data.npz"), "--finalists", "0"]
    names = ("seed", "generations", "population", "workers", "engine")
    numbers = [f"--{name}={getattr(options, name)}" for name in names]
    return [sys.executable, "-m", "edgesmith", "search", str(SAMPLE / "model.onnx"), *given, *numbers, "-o", str(out)]


def lines(journal: Path) -> list[Row]:
    """Whole lines of a journal but its header."""
    whole = journal.read_bytes().rpartition(b"\n")[0].splitlines() if journal.exists() else []
    return [json.loads(line) for line in whole[1:]]


def asked(out: Path) -> list[Line]:
    """What was asked of which network, by the lines of the journal."""
    found = lines(out / "journal.jsonl")
    return [(kind, json.dumps(line["genome"])) for line in found for kind in line if kind != "genome"]


def begun(out: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """The search on its way, from its beginning or from where it was."""
    return subprocess.Popen(command(out, options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(out: Path, process: subprocess.Popen[bytes], options: argparse.Namespace) -> list[Row]:
    """Let it come to its end; the front."""
    if process.wait():
        subprocess.run(command(out, options), check=True)  # again, for what it says
    front: list[Row] = json.loads((out / "result.json").read_text(encoding="utf-8"))["front"]
    return [{key: row[key] for key in ("genome", "quality", "costs")} for row in front]


def reached(out: Path, process: subprocess.Popen[bytes], wanted: int, pause: float) -> bool:
    """Wait for so many lines, and then so many seconds; whether the search is still on its way."""
    while process.poll() is None and len(lines(out / "journal.jsonl")) < wanted:
        time.sleep(0.05)
    time.sleep(pause)
    return process.poll() is None


def family(root: int) -> Iterator[int]:
    """Processes that a process began, and those that they began, where the system lists them as Linux does."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended since
        parents.setdefault(parent, []).append(int(stat.parent.name))
    waiting = parents.get(root, [])
    while waiting:
        yield (each := waiting.pop())
        waiting += parents.get(each, [])


def worker(root: int, draw: random.Random) -> int | None:
    """One of the processes that judge for a search."""
    found = []
    for pid in family(root):
        try:
            text = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if any(name in text for name in WORKERS):
            found.append(pid)
    return draw.choice(sorted(found)) if found else None


def searches_killed(out: Path, options: argparse.Namespace, moments: list[tuple[int, float]]) -> list[Row]:
    """Begin, kill, go on, as often as there are moments; the front in the end."""
    for number, (wanted, pause) in enumerate(moments, 1):
        process = begun(out, options)
        there = reached(out, process, wanted, pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"kill {number}: {len(asked(out))} lines{'' if there else ', it had ended by itself'}", flush=True)
    return finished(out, begun(out, options), options)


def workers_killed(out: Path, options: argparse.Namespace, moments: list[tuple[int, float]]) -> list[Row]:
    """Begin once, and kill one of the workers at each moment; the front in the end."""
    draw, process = random.Random(options.seed), begun(out, options)
    for number, (wanted, pause) in enumerate(moments, 1):
        victim = worker(process.pid, draw) if reached(out, process, wanted, pause) else None
        if victim is not None:
            os.kill(victim, signal.SIGKILL)
        print(f"kill {number}: {len(asked(out))} lines, process {victim or 'none'}", flush=True)
    return finished(out, process, options)


def parsed() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Kill a search again and again, and compare its front.")
    parser.add_argument("--target", default="stm32f746")
    parser.add_argument("--victim", choices=("search", "worker"), default="search")
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--samples", type=int, default=32, help="that networks are judged on")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generations", type=int, default=2)
    parser.add_argument("--population", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Both searches, and whether they agree."""
    options = parsed()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        alone, killed = Path(scratch) / "alone", Path(scratch) / "killed"
        with np.load(SAMPLE / "images.npz") as data:
            np.savez(Path(scratch) / "data.npz", images=data["images"][: options.samples])
        start = time.monotonic()
        wanted = finished(alone, begun(alone, options), options)
        seconds, whole = time.monotonic() - start, asked(alone)
        print(f"undisturbed: {seconds:.0f} s, {len(whole)} lines, {len(wanted)} rows of the front", flush=True)
        pause = seconds / len(whole)
        places = sorted(draw.sample(range(len(whole)), min(options.kills, len(whole))))
        moments = [(place, draw.uniform(0, pause)) for place in places]
        found = {"search": searches_killed, "worker": workers_killed}[options.victim](killed, options, moments)
        names = asked(killed)
        print(f"asked {len(names)}, twice {len(names) - len(set(names))}")
        for row in found:
            print(f"  quality {row['quality']:.4f}, RAM {row['costs']['ram']:,}, flash {row['costs']['flash']:,}")
        print("the same front" if found == wanted else "DIFFERENT FRONTS")
        sys.exit(found != wanted or len(names) != len(set(names)) or sorted(names) != sorted(whole))


if __name__ == "__main__":
    main()
