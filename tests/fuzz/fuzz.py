"""Spoils ONNX models and looks for what the front end must never do: crash, hang, eat memory, or compute nonsense.

    python tests/fuzz/fuzz.py --minutes 10 [--seed 1] [--out build/fuzz]
    python tests/fuzz/fuzz.py --sweep [--minutes 15]
    python tests/fuzz/fuzz.py --file spoilt.onnx

Each model is tried in a process of its own limits on time and memory; what it dies of is a finding, as is every
exception that is no error of ours. Findings are kept in `--out`, the smallest model of each kind. Once mended, a
finding goes to tests/fuzz/found, where tests try it for ever, and where it is a seed of further ones.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from mmap import mmap
from pathlib import Path
from random import Random

from grown import grown
from mutations import mutated
from seeds import seeds
from sweep import swept
from trial import FOREIGN, PHASES, Wrong, judge

CPU_SECONDS = 30
"""Of one model: most take a hundredth."""
MEMORY = 3 * 2**30
"""Bytes of address space beyond what the process has when it starts."""
ROUND = 400
"""Models of one process."""
REPORTED = 20
"""Seconds of CPU time after which what was found so far is written and told."""


@dataclass(frozen=True)
class Finding:
    """What went wrong, and with which model; findings of one `kind` have one cause, as far as can be told."""

    kind: str
    text: str
    content: bytes


Case = tuple[str, bytes]


def spoilt(seed: int, start: int = 0) -> Iterator[Case]:
    """Endlessly, models by name: most are a seed mutated, some two seeds' worth of chance."""
    number = start
    while True:
        draw = Random(f"{seed}/{number}")
        content = grown(draw) if draw.random() < 0.3 else draw.choice(seeds())
        yield f"{seed}/{number}", content if draw.random() < 0.05 else mutated(content, draw)
        number += 1


def attempt(cases: Iterable[Case], cpu: float = float("inf")) -> tuple[Counter[str], list[Finding], float]:
    """Try models one after the other, each under its limits.

    Returns:
        How many were refused, sound, and found faulty; the findings, and the CPU seconds that all took.
    """
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    waiting = iter(cases)
    spent = 0.0
    with tempfile.TemporaryDirectory() as folder:
        while spent < cpu and (batch := list(islice(waiting, ROUND))):
            while batch:
                done, found, seconds = _process(batch, Path(folder), counts)
                batch, spent = batch[done:], spent + seconds
                findings += found
    return counts, findings, spent


def _process(batch: list[Case], folder: Path, counts: Counter[str]) -> tuple[int, list[Finding], float]:
    """Try models in a child until all are done or it dies; how many that were, what was found, CPU seconds."""
    phase, log = mmap(-1, 1), folder / "log"
    child = os.fork()
    if not child:
        try:
            _serve(batch, folder, log, phase)
        finally:
            os._exit(1)  # whatever happened: what lies further up the stack is the parent's business
    _, status, usage = os.wait4(child, 0)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    counts.update(line["outcome"] for line in lines)
    findings = [
        Finding(line["kind"], f"{batch[i][0]}\n{line['text']}", batch[i][1])
        for i, line in enumerate(lines)
        if line["outcome"] == "found"
    ]
    done = len(lines)
    if status and done < len(batch):
        where = PHASES[phase[0]]
        if phase[0] == FOREIGN:
            counts["onnxruntime died"] += 1
        else:
            counts["found"] += 1
            died = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit code {status >> 8}"
            kind = f"{'hangs' if died == 'SIGXCPU' else died} in {where}"
            findings.append(Finding(kind, f"{batch[done][0]}\nthe process ended: {kind}", batch[done][1]))
        done += 1
    return done, findings, usage.ru_utime + usage.ru_stime


def _serve(batch: list[Case], folder: Path, log: Path, phase: mmap) -> None:
    """The child: one line of the log for each model tried."""
    faulthandler.disable()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def enter(number: int) -> None:
        phase[0] = number

    path = folder / "model.onnx"
    with log.open("w", encoding="utf-8") as file:
        for _, content in batch:
            path.write_bytes(content)
            limit = int(time.process_time()) + CPU_SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            file.write(json.dumps(_outcome(path, enter)) + "\n")
            file.flush()
    os._exit(0)


def _outcome(path: Path, enter: Callable[[int], None]) -> dict[str, str]:
    try:
        return {"outcome": judge(path, enter)}
    except Wrong as wrong:
        return {"outcome": "found", "kind": f"wrong: {str(wrong).split(':')[0]}", "text": str(wrong)}
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
        place = f"{Path(last.filename).name}:{last.lineno}"
        kind = f"{type(error).__name__} at {place}"
        return {"outcome": "found", "kind": kind, "text": "".join(traceback.format_exception(error)[-6:])}


def keep(findings: Iterable[Finding], folder: Path) -> dict[str, Finding]:
    """Write the smallest model of each kind, and what happened; what lies there of earlier runs stays."""
    least: dict[str, Finding] = {}
    for each in findings:
        if each.kind not in least or len(each.content) < len(least[each.kind].content):
            least[each.kind] = each
    folder.mkdir(parents=True, exist_ok=True)
    for kind, each in least.items():
        name = "".join(c if c.isalnum() else "_" for c in kind)
        (folder / f"{name}.onnx").write_bytes(each.content)
        (folder / f"{name}.txt").write_text(f"{kind}\n{each.text}\n", encoding="utf-8")
    return least


def main() -> None:
    """The command line; exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of CPU time")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same models again")
    parser.add_argument("--sweep", action="store_true", help="every setting in turn instead of chance")
    parser.add_argument("--file", type=Path, help="try this one only, without limits")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where findings go")
    options = parser.parse_args()
    if options.file:
        print(judge(options.file, lambda number: print(PHASES[number])))
        return
    print(f"{'sweep' if options.sweep else f'seed {options.seed}'}, {len(seeds())} models to start from")
    cases = swept() if options.sweep else spoilt(options.seed)
    counts, findings, spent = Counter[str](), list[Finding](), 0.0
    while spent < options.minutes * 60:
        some, found, seconds = attempt(cases, REPORTED)
        if not some:
            break
        counts, findings, spent = counts + some, findings + found, spent + seconds
        keep(findings, options.out)
        print(f"{sum(counts.values())} models in {spent:.0f} s of CPU time: {dict(counts)}", flush=True)
    for kind, finding in sorted(keep(findings, options.out).items()):
        number = sum(each.kind == kind for each in findings)
        print(f"{number:5} x {kind} ({len(finding.content)} bytes, {finding.text.splitlines()[0]})")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
