"""How often the strongest moment of an answer overlaps the evidence, on AVSynth's event times.

The reading (layer, rows, heads, correction) is chosen on every other clip, without pruning and with
omnidrop-auto at 20 %. The other clips tell how often it is right, for each method and budget, and
how often a moment of the same length at a random place would be. Questions that count, and those
whose answer is that something is absent, have no time of their own and are left out
(`samples/avsynth/evidence.py`).

    python samples/make_clips.py --out /tmp/avsynth
    python benchmarks/evidence.py --clips /tmp/avsynth --out benchmarks/results/avx2/evidence.json
    python benchmarks/evidence.py --clips /tmp/avsynth --reading samples/demo-model/evidence.json

--save also writes the reading with its rates, as a model's folder holds it. --reading chooses
nothing and checks the reading of a file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from common import ROOT, finish, table

import omnidrop
from omnidrop.engine.model import Model
from omnidrop.evaluation.evidence import choose, collect, halves, measure, with_evidence
from omnidrop.evaluation.items import Item
from omnidrop.evaluation.runner import RunOptions
from omnidrop.evaluation.sets import read_set
from omnidrop.evidence import EvidenceReading, Rate, read_reading
from omnidrop.pruning.method import Method

METHODS = ("omnidrop-auto", "seats", "uniform+omnidrop", "omnidrop")
BUDGETS = (0.3, 0.2)
SOURCE = "AVSynth, 50 clips that chose nothing (benchmarks/evidence.py)"


def search(model: Model, items: Sequence[Item]) -> EvidenceReading:
    """Choose the reading."""
    methods = (Method(), omnidrop.OmniDropAuto(budget=0.2))
    return choose(collect(model, items, methods, RunOptions(), style="plain"))


def check(
    model: Model, items: Sequence[Item], reading: EvidenceReading, methods: Sequence[Method]
) -> tuple[Rate, ...]:
    """Measure a reading; every clip is encoded once."""
    asked, total = 0, len(items) * len(methods)

    def on_pass() -> None:
        nonlocal asked
        asked += 1
        if asked % 100 == 0:
            print(f"{asked} of {total}", file=sys.stderr, flush=True)

    seen = collect(
        model,
        items,
        methods,
        RunOptions(),
        style="plain",
        rows=[reading.rows],
        reading=reading,
        on_pass=on_pass,
    )
    return measure(seen, reading)


def percent(rate: Rate) -> list[float]:
    """Return hits, the interval and chance in percent."""
    return [100 * value for value in (rate.share, rate.low, rate.high, rate.chance)]


def main() -> None:
    """Choose, measure, print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "samples" / "demo-model"))
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--budgets", nargs="*", type=float, default=BUDGETS)
    parser.add_argument("--reading", type=Path, help="file of the reading; nothing is chosen")
    parser.add_argument("--search-only", action="store_true")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    parser.add_argument("--save", type=Path, help="file for the reading with its rates")
    options = parser.parse_args()
    questions = with_evidence(read_set("avsynth", videos=options.clips))
    chosen_by, checked = halves(questions)
    model = omnidrop.load(options.model, device="cpu")
    reading = read_reading(options.reading) if options.reading else search(model, chosen_by)
    assert reading is not None
    print(reading, flush=True)
    if options.search_only:
        return
    methods = [
        Method(),
        *(omnidrop.get_method(m, budget=b) for m in options.methods for b in options.budgets),
    ]
    reading = reading.with_rates(check(model, checked, reading, methods), SOURCE)
    table(
        ["method", "budget", "questions", "hits, %", "low", "high", "chance, %"],
        [
            [
                r.method,
                r.budget,
                r.questions,
                *(100 * v for v in (r.share, r.low, r.high, r.chance)),
            ]
            for r in reading.rates
        ],
    )
    if options.save:
        options.save.write_text(json.dumps(reading.document(), indent=1) + "\n", encoding="utf-8")
    result = asdict(reading) | {
        "questions_chosen_by": len(chosen_by),
        "questions_checked": len(checked),
        "questions_without_a_time": 600 - len(questions.items),
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    finish(result)


if __name__ == "__main__":
    main()
