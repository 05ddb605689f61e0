"""Start-up: seconds until `--help` is printed, and what a first answer spends its time on.

Processes run one after the other; medians are reported. The steps of an answer are timed in one
process that does what `omnidrop ask` does. Import times are summed per package from Python's
`-X importtime` in another process; that tool adds some time of its own.

    python benchmarks/startup.py [--clip samples/long.mp4 --end 10] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "Which instrument plays first?"

STEPS = """
import json, sys, time
marks, last = {}, time.perf_counter()
def mark(name):
    global last
    now = time.perf_counter()
    marks[name], last = now - last, now
clip, end, question = sys.argv[1], float(sys.argv[2]), sys.argv[3]
import typer, omnidrop_cli.app
mark("import the command line")
from omnidrop_cli.libraries import silence_warnings
silence_warnings(False)
import torch
mark("import torch")
import omnidrop.clip.clip
mark("import PyAV, numpy, soundfile")
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni
mark("import the model family")
import omnidrop.engine.model, omnidrop.pruning.methods.omnidrop
mark("import the rest of omnidrop")
import omnidrop
model = omnidrop.load("demo", device="cpu")
mark("load the model")
with model.open(clip, end=end) as session:
    mark("open the clip")
    answer = session.ask(question, anyway=True)
stages = {s.name: s.seconds for s in answer.trace.stages if not (s.within or s.overlapped)}
stages.pop("open")
mark("answer")
marks["answer"] -= sum(stages.values())
marks |= {"answer: " + name: seconds for name, seconds in stages.items()}
marks["answer: the rest"] = marks.pop("answer")
from omnidrop_cli.terminal import answer as views
from omnidrop_cli.terminal.console import recorder
recorder(colour=True).render_lines(views.full(answer))
mark("report")
print(json.dumps(marks))
"""


def timed(*words: str) -> tuple[float, float]:
    """Run a process; return its wall-clock seconds and its CPU seconds (user and system)."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=ROOT)
    wall, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system
    return wall, used - before.children_user - before.children_system


def first_sign(*words: str) -> float:
    """Run a process on a terminal; return the seconds until anything is written to it."""
    import pty

    ours, theirs = pty.openpty()
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    os.read(ours, 1)
    seconds = time.perf_counter() - start
    process.kill()
    process.wait()
    os.close(ours)
    return seconds


def steps(clip: Path, end: float) -> dict[str, float]:
    """Return the seconds of each step of a first answer, measured in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(clip), str(end), QUESTION],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def imports(words: list[str]) -> Counter[str]:
    """Return the import seconds of each package, without the modules that it imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "omnidrop_cli", *words],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    found: Counter[str] = Counter()
    for own, name in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", done.stderr):
        found[name.split(".")[0]] += int(own)
    return Counter({name: own / 1e6 for name, own in found.items()})


def table(title: str, rows: dict[str, float], limit: int = 100) -> None:
    """Print seconds with a bar of proportional length."""
    print(f"\n{title}")
    top = max(rows.values())
    for name, seconds in list(rows.items())[:limit]:
        print(f"  {name:32} {seconds:8.3f} s  {'#' * round(24 * seconds / top)}")


def main() -> None:
    """Print the tables, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, default=ROOT / "samples" / "long.mp4")
    parser.add_argument("--end", type=float, default=10.0, help="seconds of the clip to take")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    ask = ["ask", str(options.clip), QUESTION, "--end", str(options.end), "--model", "demo"]
    ask += ["--device", "cpu"]
    calls = {
        "python -c pass": ("-c", "pass"),
        "omnidrop --version": ("-m", "omnidrop_cli", "--version"),
        "omnidrop --help": ("-m", "omnidrop_cli", "--help"),
        "omnidrop ask --help": ("-m", "omnidrop_cli", "ask", "--help"),
        "omnidrop ask": ("-m", "omnidrop_cli", *ask),
    }
    timed(*calls["omnidrop ask"])  # warm the file cache
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    parts: list[dict[str, float]] = []
    signs: list[float] = []
    for _ in range(options.repeats):
        for name, words in calls.items():
            seconds[name].append(timed(*words))
        parts.append(steps(options.clip, options.end))
        signs.append(first_sign(*calls["omnidrop ask"]))
    whole = {name: statistics.median(w for w, _ in taken) for name, taken in seconds.items()}
    used = {name: statistics.median(u for _, u in taken) for name, taken in seconds.items()}
    spent = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    for_help, for_ask = imports(["--help"]), imports(ask)
    sign = statistics.median(signs)
    table("Whole process, wall", whole | {"omnidrop ask, first sign of life": sign})
    table("Whole process, CPU time (a busy machine changes it little)", used)
    table(f"A first answer about {options.end:g} s, step by step", spent)
    table("Imports for --help, by package", dict(for_help.most_common()), 8)
    table("Imports for ask, by package", dict(for_ask.most_common()), 16)
    print()
    print(json.dumps({
        "seconds": whole,
        "processor_seconds": used,
        "steps": spent,
        "imports_ask": round(sum(for_ask.values()), 3),
        "help_within_0.3_s": whole["omnidrop --help"] <= 0.3,
        "spinner_seconds": sign,
        "spinner_within_0.3_s": sign <= 0.3,
        "repeats": options.repeats,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
