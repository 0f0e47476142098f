"""A search that is killed again and again, beside one that is left alone: both have to end with the same front.

The search is a compression of the sample, judged by what its target computes. Every `kill -9` comes a few
lines of the journal, and a random time on top, after the search was begun again; nothing may be judged twice.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE = Path(__file__).parents[1] / "samples" / "fashion"
LINES, SECONDS = 2, 4.0
"""What is waited for at most before a kill: lines that are new in the journal, and then time."""

Row = dict[str, Any]


def command(out: Path, options: argparse.Namespace) -> list[str]:
    """The search, in one process or more."""
    given = ["--target", options.target, "--data", str(out.parent / "data.npz"), "--finalists", "0"]
    numbers = [f"--{name}={getattr(options, name)}" for name in ("seed", "generations", "population", "workers")]
    return [sys.executable, "-m", "edgesmith", "search", str(SAMPLE / "model.onnx"), *given, *numbers, "-o", str(out)]


def lines(journal: Path) -> list[Row]:
    """Whole lines of a journal but its header."""
    whole = journal.read_bytes().rpartition(b"\n")[0].splitlines() if journal.exists() else []
    return [json.loads(line) for line in whole[1:]]


def kill(out: Path, options: argparse.Namespace, draw: random.Random) -> str:
    """Begin or go on, and kill at a random moment; says when."""
    journal = out / "journal.jsonl"
    wanted = len(lines(journal)) + draw.randint(0, LINES)
    process = subprocess.Popen(command(out, options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(lines(journal)) < wanted:
        time.sleep(0.05)
    time.sleep(draw.uniform(0, SECONDS))
    process.send_signal(signal.SIGKILL)
    ended = process.wait()
    return f"{len(lines(journal))} lines" if ended == -signal.SIGKILL else f"it had ended by itself ({ended})"


def finished(out: Path, options: argparse.Namespace) -> list[Row]:
    """Go on to the end; the front."""
    subprocess.run(command(out, options), check=True, stdout=subprocess.DEVNULL)
    front: list[Row] = json.loads((out / "result.json").read_text(encoding="utf-8"))["front"]
    return [{key: row[key] for key in ("genome", "quality", "costs")} for row in front]


def main() -> None:
    """Both searches, and whether they agree."""
    parser = argparse.ArgumentParser(description="Kill a search again and again, and compare its front.")
    parser.add_argument("--target", default="stm32f746")
    parser.add_argument("--samples", type=int, default=400, help="that networks are judged on")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--population", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        alone, killed = Path(scratch) / "alone", Path(scratch) / "killed"
        with np.load(SAMPLE / "images.npz") as data:
            kept = {name: data[name][: options.samples] for name in ("images", "labels")}
        np.savez(Path(scratch) / "data.npz", allow_pickle=False, **kept)
        for number in range(options.kills):
            print(f"kill {number + 1}: {kill(killed, options, draw)}", flush=True)
        fronts = finished(killed, options), finished(alone, options)
        names = [json.dumps(line["genome"]) for line in lines(killed / "journal.jsonl") if "quality" in line]
        print(f"judged {len(names)}, twice {len(names) - len(set(names))}; rows of the front {len(fronts[1])}")
        print("the same front" if fronts[0] == fronts[1] else "DIFFERENT FRONTS")
        sys.exit(fronts[0] != fronts[1] or len(names) != len(set(names)))


if __name__ == "__main__":
    main()
