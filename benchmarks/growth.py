"""TTFT and peak memory as a clip gets longer, unpruned and pruned.

Clips of 10 s to 10 min are made (720p, slowly changing video and tone). One frame every two seconds
is sampled, with at most 128 tokens a frame. Each point of the curves is measured in a process of
its own, which loads the model, opens the clip and asks one question. TTFT counts from the call, so
it includes opening, decoding and the encoders; memory is the peak resident set up to the first
token. Two figures are drawn, one for time and one for memory, with a curve per budget.

    python benchmarks/growth.py [--seconds 10 30 60 180 600] [--budgets 0.3 0.1] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, finish, median, table
from reading_memory import make_clip

QUESTION = "What is heard?"
SHORT = 60  # seconds; for longer clips the question is asked only once


def point(options: argparse.Namespace) -> dict[str, Any]:
    """Ask in this process; return the median TTFT and the peak memory."""
    import omnidrop
    from omnidrop.pruning.method import Method

    model = omnidrop.load(str(options.model), device="cpu", offline=True)
    budget = options.budgets[0]
    method = Method() if budget == 1 else omnidrop.OmniDrop(budget=budget)
    answers = []
    for _ in range(options.repeats if options.seconds[0] <= SHORT else 1):
        looking = {"fps": options.fps, "max_pixels": options.max_pixels}
        with model.open(options.point, **looking) as clip:
            once = omnidrop.GenerateOptions(max_new_tokens=1)
            answers.append(clip.ask(QUESTION, method=method, options=once, anyway=True))
    trace = answers[-1].trace
    return {
        "ttft": median([answer.trace.ttft for answer in answers]),
        "prefill": median(
            [s.seconds for a in answers for s in a.trace.stages if s.name == "prefill"]
        ),
        "peak_mib": max(answer.trace.memory.host for answer in answers) / 2**20,
        "kv_mib": trace.memory.kv_cache / 2**20,
        "av_tokens": trace.av_tokens,
    }


def draw(rows: list[dict[str, Any]], key: str, label: str, path: Path) -> None:
    """Draw one curve per budget over the length of the clip."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    marks = zip(dict.fromkeys(row["method"] for row in rows), "os^Dv", strict=False)
    for name, mark in marks:
        mine = [row for row in rows if row["method"] == name]
        ax.plot([r["seconds"] for r in mine], [r[key] for r in mine], marker=mark, label=name)
    ax.set_xscale("log")
    lengths = sorted({row["seconds"] for row in rows})
    ax.set_xticks(lengths, [f"{s:g} s" if s < 60 else f"{s / 60:g} min" for s in lengths])
    if key == "ttft":
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
    else:
        ax.set_ylim(bottom=0)
    ax.minorticks_off()
    ax.set_xlabel("clip length")
    ax.set_ylabel(label)
    ax.grid(alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Make the clips, ask, draw, print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 30, 60, 180, 600])
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.3, 0.1])
    parser.add_argument("--fps", type=float, default=0.5, help="frames sampled a second")
    parser.add_argument("--max-pixels", type=int, default=128 * 28 * 28, help="of a frame")
    parser.add_argument(
        "--repeats", type=int, default=5, help="runs per point, for clips of up to a minute"
    )
    parser.add_argument("--model", type=Path, default=ROOT / "samples" / "demo-model")
    parser.add_argument("--folder", type=Path, help="keep the clips here for later runs")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the figures")
    parser.add_argument("--point", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(point(options)))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        for seconds in options.seconds:
            path = folder / f"{seconds / 60:.4g}-minutes.mp4"
            if not path.exists():
                make_clip(path, seconds / 60)
            for budget in (1.0, *options.budgets):
                command = [sys.executable, __file__, "--point", str(path)]
                for flag, value in (
                    ("--fps", options.fps),
                    ("--max-pixels", options.max_pixels),
                    ("--repeats", options.repeats),
                    ("--model", options.model),
                    ("--seconds", seconds),
                    ("--budgets", budget),
                ):
                    command += [flag, str(value)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                name = "unpruned" if budget == 1 else f"omnidrop {budget:g}"
                rows.append({"seconds": seconds, "method": name, **json.loads(done.stdout)})
    options.out.mkdir(parents=True, exist_ok=True)
    draw(rows, "ttft", "seconds to the first token", options.out / "growth-ttft.png")
    draw(rows, "peak_mib", "peak resident set, MiB", options.out / "growth-memory.png")
    head = ["method", "clip, s", "AV tokens", "TTFT, s", "prefill, s", "peak MiB", "KV MiB"]
    keys = ("method", "seconds", "av_tokens", "ttft", "prefill", "peak_mib", "kv_mib")
    table(head, [[row[key] for key in keys] for row in rows])
    finish({"fps": options.fps, "max_pixels": options.max_pixels, "rows": rows})


if __name__ == "__main__":
    main()
