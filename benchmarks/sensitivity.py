"""Do the constants matter that papers leave open? One setting at a time, on AVSynth.

    python benchmarks/sensitivity.py --clips /tmp/avsynth --out /tmp/sensitivity
    python benchmarks/sensitivity.py --methods apack,omnipack --model /tmp/lab/lab-model ...

Each method is run with its defaults, and with every value that it names as worth trying
(`Method.tunable`), the other settings left at their defaults. Differences are paired, question by
question, with intervals over clips: `OUT/METHOD/summary.md` has them all, and the table printed
here the difference of each value to the default. A call that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from common import finish, table

from omnidrop.pruning.registry import get_method

METHODS = (
    "apack",
    "omnipack",
    "omnifocus",
    "omniroute",
    "evs",
    "contextguard",
    "uniform@omnidelta",
    "dash",
    "divprune",
)


def written(value: object) -> str:
    """Return a setting's value as `--variant` reads it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def variants(name: str) -> dict[str, str]:
    """Return each setting's other values, as label → specification of a variant."""
    method = get_method(name)
    used = method.settings()
    return {
        f"{setting} {written(value)}": f"{name}:{setting}={written(value)}"
        for setting, values in method.tunable().items()
        for value in values
        if value != used[setting]
    }


def measure(name: str, args: argparse.Namespace) -> list[tuple[object, ...]]:
    """Evaluate a method and its variants; return a row of the table for each.

    A row is the method, the setting and its value, right answers in %, and the difference to the
    default in points with the ends of its 95 % interval.
    """
    out = args.out / name.replace("@", "-")
    words: list[object] = [sys.executable, "-m", "omnidrop_cli", "eval", "avsynth"]
    words += ["--videos", args.clips, "--model", args.model, "--offline", "--max-new-tokens", 8]
    words += ["--limit", args.limit, "--out", out, "--budget", args.budget]
    words += ["--method", name, "--baseline", name]
    asked = variants(name)
    for label, variant in asked.items():
        words += ["--variant", f"{label}={variant}"]
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    whole = ("all", "all")
    right = {
        cell["label"]: cell["accuracy"]
        for cell in summary["cells"]
        if (cell["axis"], cell["group"]) == whole and cell["accuracy"] is not None
    }
    pairs = {
        pair["label"]: [100 * pair[end] for end in ("difference", "low", "high")]
        for pair in summary["pairs"]
        if (pair["axis"], pair["group"]) == whole and pair["baseline"] == name
    }
    rows: list[tuple[object, ...]] = [(name, "defaults", 100 * right[name], None, None, None)]
    for label in asked:
        found = 100 * right[label] if label in right else None
        rows.append((name, label, found, *pairs.get(label, (None, None, None))))
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="AVSynth's rendered clips")
    parser.add_argument("--out", type=Path, required=True, help="records and summaries")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--budget", type=float, default=0.2)
    parser.add_argument("--limit", type=int, default=120, help="questions")
    args = parser.parse_args()
    rows = []
    for name in args.methods.split(","):
        found = measure(name, args)
        rows += found
        print(f"{name}: {len(found) - 1} values", flush=True)
    head = ("method", "setting", "right, %", "points", "from", "to")
    table(head, rows)
    finish({"head": head, "rows": rows, "budget": args.budget, "questions": args.limit})


if __name__ == "__main__":
    main()
