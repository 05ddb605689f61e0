"""A warm model: how long does a call take beyond the model's own work, and without it?

Runs `omnidrop ask` on the same clip with a warm model (A) and by itself (B), in turns, and compares
the wall time of each process with what its own report says the model took: the stages of the
answer, from opening the clip to the last token. What is left is starting the process, finding the
warm model, reading the options and writing the answer.

    python benchmarks/warm.py [--clip samples/duet.mp4] [--rounds 20] [--own-rounds 5]
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
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "What instrument plays first?"
PROGRAM = [sys.executable, "-m", "omnidrop_cli"]


def environment(socket: Path) -> dict[str, str]:
    """Return the environment of every process."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMNIDROP_")}
    return kept | {"PYTHONPATH": paths, "OMNIDROP_SOCKET": str(socket)}


@contextmanager
def served(model: str, socket: Path) -> Iterator[None]:
    """Run `omnidrop serve` during the block."""
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--model", model], env=environment(socket), cwd=ROOT,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        if "is served at" not in line:
            raise SystemExit(line + process.stderr.read())
        yield
    finally:
        process.terminate()
        process.wait(30)


def ask(clip: Path, model: str, socket: Path, *more: str) -> dict[str, Any]:
    """Ask once; return wall and processor seconds of the call, and those of the model."""
    words = [*PROGRAM, "ask", str(clip), QUESTION, "--model", model, "--json", *more]
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(words, env=environment(socket), cwd=ROOT, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, os.times()
    trace = json.loads(done.stdout)["trace"]
    stages = [s for s in trace["stages"] if not (s["within"] or s["overlapped"] or s["reused"])]
    model_seconds = sum(stage["seconds"] for stage in stages)
    return {
        "wall": wall,
        "client": after.children_user - before.children_user
        + after.children_system - before.children_system,
        "model": model_seconds,
        "rest": wall - model_seconds,
        "load": 0.0 if trace["warm"] else trace["load_seconds"],
        "warm": trace["warm"],
        "text": json.loads(done.stdout)["text"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, default=ROOT / "samples/duet.mp4")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rounds", type=int, default=20, help="calls with the warm model")
    parser.add_argument("--own-rounds", type=int, default=5, help="calls without it")
    options = parser.parse_args()
    warm, own = [], []
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "serve.sock"
        with served(options.model, socket):
            ask(options.clip, options.model, socket)
            for turn in range(options.rounds):
                warm.append(ask(options.clip, options.model, socket))
                if turn * options.own_rounds // options.rounds >= len(own):
                    own.append(ask(options.clip, options.model, socket, "--no-serve"))
    assert all(one["warm"] for one in warm), "the warm model was not used"
    assert not any(one["warm"] for one in own)
    assert len({one["text"] for one in (*warm, *own)}) == 1
    print(f"{options.clip.name}, {options.model}, medians of {len(warm)} and {len(own)} calls")
    print(f"{'':12} {'call':>8} {'model':>8} {'the rest':>9} {'worst':>8} {'this process':>13}")
    found = {}
    for name, calls in (("warm", warm), ("by itself", own)):
        middle = {key: statistics.median(one[key] for one in calls)
                  for key in ("wall", "model", "rest", "client")}  # fmt: skip
        found[name] = middle | {"worst_rest": max(one["rest"] for one in calls)}
        print(
            f"{name:12} {middle['wall']:6.2f} s {middle['model']:6.2f} s {middle['rest']:7.2f} s "
            f"{found[name]['worst_rest']:6.2f} s {middle['client']:11.2f} s"
        )
    print(json.dumps({"clip": options.clip.name, "model": options.model, **found}))


if __name__ == "__main__":
    main()
