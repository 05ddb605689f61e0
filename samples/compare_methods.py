"""Pruning methods on AVSynth with the demo model, at equal realised budget.

    python samples/make_clips.py --out /tmp/avsynth
    python samples/compare_methods.py --clips /tmp/avsynth --out samples/results

Each clip is encoded once; every question is answered by every method at every budget, one full
prefill each. Prints a table of accuracy (all, and the sparse half) with the realised budget, and
writes `methods.json`. A budget that a method cannot reach is shown as a dash.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from avsynth import testset  # noqa: E402

import omnidrop  # noqa: E402
from omnidrop.engine.decode import GenerateOptions  # noqa: E402
from omnidrop.errors import BudgetError  # noqa: E402

BUDGETS = (0.3, 0.2, 0.1)
#: Name in the table → method name and fields besides the budget.
METHODS: dict[str, tuple[str, dict[str, object]]] = {
    "omnidrop": ("omnidrop", {}),
    "omnidrop, uniform entry": ("omnidrop", {"entry": "uniform"}),
    "random at entry": ("random", {}),
    "random, omnidrop's schedule": ("random", {"schedule": "sigmoid"}),
    "uniform": ("uniform", {}),
    "fastv": ("fastv", {}),
}


def variants(settings: list[str]) -> dict[str, tuple[str, dict[str, object]]]:
    """Read NAME=VALUE,… lists as further OmniDrop variants."""
    found: dict[str, tuple[str, dict[str, object]]] = {}
    for text in settings:
        fields: dict[str, object] = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            try:
                fields[name] = json.loads(value)
            except json.JSONDecodeError:
                fields[name] = value
        found[f"omnidrop {text}"] = ("omnidrop", fields)
    return found


def right(said: str, answer: str) -> bool:
    """Whether an answer is the right one, letter case and a full stop aside."""
    return said.strip().rstrip(".").lower() == answer.lower()


def run(
    model: omnidrop.Model,
    clips: Path,
    methods: dict[str, tuple[str, dict[str, object]]],
    budgets: tuple[float, ...],
    limit: int | None,
) -> list[dict[str, float | int | str]]:
    """Answer everything; one row per method and budget."""
    by_clip: dict[str, list[dict]] = defaultdict(list)
    for line in testset.read()[:limit]:
        by_clip[line["video"]].append(line)
    hits: dict[tuple[str, float], list[tuple[bool, bool, float]]] = defaultdict(list)
    cells = [("unpruned", "none", {}, 1.0)]
    cells += [
        (label, name, fields, b) for label, (name, fields) in methods.items() for b in budgets
    ]
    for done, (video, lines) in enumerate(by_clip.items()):
        with model.open(clips / video) as clip:
            for label, name, fields, budget in cells:
                method = omnidrop.get_method(name, budget=budget, **fields)
                for number, line in enumerate(lines):
                    options = GenerateOptions(max_new_tokens=6, seed=number)
                    try:
                        answer = clip.ask(line["question"], method=method, options=options)
                    except BudgetError:
                        break
                    hit = right(answer.text, line["answer"])
                    hits[label, budget].append((hit, line["sparse"], answer.trace.realised_budget))
        print(f"\r{done + 1} of {len(by_clip)} clips", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows: list[dict[str, float | int | str]] = []
    for (label, budget), marks in hits.items():
        sparse = [hit for hit, is_sparse, _ in marks if is_sparse]
        dense = [hit for hit, is_sparse, _ in marks if not is_sparse]
        row: dict[str, float | int | str] = {
            "method": label,
            "budget": budget,
            "all": sum(hit for hit, _, _ in marks) / len(marks),
            "sparse": sum(sparse) / max(1, len(sparse)),
            "rest": sum(dense) / max(1, len(dense)),
            "realised": sum(share for _, _, share in marks) / len(marks),
            "questions": len(marks),
        }
        rows.append(row)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(HERE / "demo-model"))
    parser.add_argument("--clips", type=Path, required=True, help="folder written by make_clips.py")
    parser.add_argument("--out", type=Path, help="folder for methods.json")
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument("--only", nargs="+", help="methods of the table to run")
    parser.add_argument("--variant", nargs="+", default=[], help="e.g. diversity=0,rows=last")
    parser.add_argument("--limit", type=int, help="first so many questions only")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    methods = {k: v for k, v in METHODS.items() if not args.only or k in args.only}
    methods |= variants(args.variant)
    model = omnidrop.load(args.model, device="cpu", offline=True)
    rows = run(model, args.clips, methods, tuple(args.budgets), args.limit)
    width = max(len(str(row["method"])) for row in rows)
    print(f"{'method':{width}} budget  realised    all  sparse   rest  questions")
    for row in rows:
        parts = (100 * float(row[name]) for name in ("all", "sparse", "rest"))
        shares = "{:5.1f}% {:6.1f}% {:5.1f}%".format(*parts)
        head = f"{row['method']:{width}} {row['budget']:6.2f}  {row['realised']:8.3f}"
        print(f"{head} {shares} {row['questions']:10}")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(rows, indent=1) + "\n"
        (args.out / "methods.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
