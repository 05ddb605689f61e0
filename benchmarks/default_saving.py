"""Does the default drop where that pays? Its arithmetic against measured processor time.

    python benchmarks/default_saving.py

Every sample clip is opened and asked anew, unpruned and with the demo model's recommended method,
in turns. The processor time of the whole process is taken, best of the rounds, so that other
programs hardly matter; torch runs with one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import common
import torch

import omnidrop
from omnidrop.engine import worth

QUESTION = "What instrument plays first?"
ONE = omnidrop.GenerateOptions(max_new_tokens=1)


def seconds(model: omnidrop.Model, path: Path, method: omnidrop.Method | None) -> tuple:
    """Return the processor time to the first token of a fresh session, and the trace."""
    began = time.process_time()
    with model.open(path) as clip:
        trace = clip.ask(QUESTION, method=method, options=ONE).trace
    return time.process_time() - began, trace


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("clips", nargs="*", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = omnidrop.load("demo", device="cpu")
    clips = args.clips or sorted((common.ROOT / "samples").glob("*.mp4"))
    rows, results = [], []
    for path in clips:
        _, trace = seconds(model, path, None)  # warm, and the default's own decision
        runs = {
            "unpruned": lambda path=path: seconds(model, path, omnidrop.Method())[0],
            "dropped": lambda path=path: seconds(model, path, model.method())[0],
        }
        best = {name: min(found) for name, found in common.in_turns(runs, args.rounds).items()}
        row = {
            "clip": path.name,
            "tokens": trace.av_tokens,
            "arithmetic": trace.method["default"]["saving"],
            "measured": round(1 - best["dropped"] / best["unpruned"], 3),
            "drops": trace.drops,
        }
        rows.append(list(row.values()))
        results.append(row)
    common.table(list(results[0]), rows)
    common.finish({"least": worth.LEAST, "clips": results})


if __name__ == "__main__":
    main()
