"""Waiting threads: how long do answers take alone, and beside another process on the same cores?

Threads of OpenMP spin for a while when they have nothing to do. Alone that saves waking them;
beside another process it takes the cores from it, and from oneself. Runs the same questions with
several settings of the wait, in turns, alone and beside a process that multiplies matrices on as
many threads, which waits as PyTorch does by default.

    python benchmarks/threads.py                        # the command line's own wait, and others
    python benchmarks/threads.py --waits own,default    # two of them
    python benchmarks/threads.py --rows 80 --rounds 1   # as long as the figures in the results

A wait is "own" (what the command line sets), "default" (what PyTorch's OpenMP does), "passive"
(OMP_WAIT_POLICY), or a number (GOMP_SPINCOUNT).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")

NEIGHBOUR = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
a, b = torch.randn(256, 1024), torch.randn(1024, 1024)
print("ready", flush=True)
while True:
    torch.nn.functional.gelu(a @ b)
"""


def environment(wait: str, threads: int) -> dict[str, str]:
    """Return a process's environment with a wait."""
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    kept |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    kept |= {"OMP_NUM_THREADS": str(threads), "OMNIDROP_NO_SERVE": "1"}
    if wait == "passive":
        return kept | {"OMP_WAIT_POLICY": "passive"}
    if wait == "default":
        # Spelled out, so that the command line does not set its own.
        return kept | {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
    return kept if wait == "own" else kept | {"GOMP_SPINCOUNT": wait}


@contextmanager
def neighbour(threads: int) -> Iterator[None]:
    """Run the other process during the block."""
    command = [sys.executable, "-c", NEIGHBOUR, str(threads)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment("default", threads)
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def run(questions: Path, rows: int, wait: str, threads: int) -> tuple[float, float]:
    """Answer the rows; return wall and processor seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "omnidrop_cli", "eval", str(questions), "--model", "demo"]
        command += ["--budget", "0.3", "--limit", str(rows), "--out", f"{folder}/out", "--quiet"]
        before, began = os.times(), time.perf_counter()
        subprocess.run(
            command, check=True, env=environment(wait, threads), cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        after = os.times()
    used = after.children_user + after.children_system - before.children_user
    return time.perf_counter() - began, used - before.children_system


def repeated(folder: Path, rows: int) -> Path:
    """Write a question set of that many rows from the one that comes with the samples."""
    lines = (ROOT / "samples/questions.jsonl").read_text(encoding="utf-8").splitlines()
    path = folder / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = json.loads(lines[number % len(lines)])
            row |= {"id": f"{number}", "video": str(ROOT / "samples" / row["video"])}
            file.write(json.dumps(row) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--waits", default="own,default,passive,1000,100000")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--alone", action="store_true", help="leave the other process out")
    options = parser.parse_args()
    waits = options.waits.split(",")
    walls: dict[tuple[str, bool], list[float]] = {}
    cores: dict[tuple[str, bool], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        questions = repeated(Path(folder), options.rows)
        for _ in range(options.rounds):
            for wait in waits:
                for beside in (False,) if options.alone else (False, True):
                    if beside:
                        with neighbour(options.threads):
                            wall, used = run(questions, options.rows, wait, options.threads)
                    else:
                        wall, used = run(questions, options.rows, wait, options.threads)
                    walls.setdefault((wait, beside), []).append(wall)
                    cores.setdefault((wait, beside), []).append(used)
                    print(f"{wait:>8} {'beside' if beside else 'alone':6} {wall:6.1f} s, "
                          f"{used:6.1f} s of cores", file=sys.stderr)  # fmt: skip
    medians = {key: statistics.median(found) for key, found in walls.items()}
    used = {key: statistics.median(found) for key, found in cores.items()}
    print(f"{options.rows} rows, {options.threads} threads, median of {options.rounds}")
    print(f"{'wait':>8}  {'alone':>8}  {'cores':>8}  {'beside':>8}  {'cores':>8}  {'ratio':>6}")
    for wait in waits:
        line = f"{wait:>8}  {medians[wait, False]:6.1f} s  {used[wait, False]:6.1f} s"
        if not options.alone:
            ratio = medians[wait, True] / medians[wait, False]
            line += f"  {medians[wait, True]:6.1f} s  {used[wait, True]:6.1f} s  {ratio:5.2f}x"
        print(line)
    print(json.dumps({
        "rows": options.rows, "threads": options.threads, "rounds": options.rounds,
        "seconds": {f"{w} {'beside' if b else 'alone'}": v for (w, b), v in medians.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
