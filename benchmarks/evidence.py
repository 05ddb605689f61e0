"""How often the strongest moment of an answer overlaps the evidence, on AVSynth's event times.

The reading (layer, rows, heads, correction) is chosen on every other clip, without pruning and with
omnidrop-auto at 20 %. The other clips tell how often it is right, for each method and budget, and
how often a moment of the same length at a random place would be. Questions that count, and those
whose answer is that something is absent, have no time of their own and are left out
(`samples/avsynth/evidence.py`).

    python samples/make_clips.py --out /tmp/avsynth
    python benchmarks/evidence.py --clips /tmp/avsynth --out benchmarks/results/evidence.json
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
from itertools import count
from pathlib import Path
from typing import Any

from common import ROOT, finish, table

import omnidrop
from omnidrop.engine.evidence import moments
from omnidrop.engine.model import Model
from omnidrop.evaluation.evidence import (
    Seen,
    choose,
    collect,
    halves,
    margin,
    measure,
    with_evidence,
)
from omnidrop.evaluation.items import Item
from omnidrop.evaluation.runner import RunOptions
from omnidrop.evaluation.sets import read_set
from omnidrop.evidence import EvidenceReading, Rate, read_reading
from omnidrop.pruning.method import Method
from omnidrop.report.trace import Moment

BUDGETS = {
    "omnidrop-auto": (0.3, 0.2, 0.1),
    "seats": (0.3, 0.2, 0.1),
    "dash": (0.5, 0.3, 0.2),
    "uniform+omnidrop": (0.3, 0.2),
    "uniform": (0.3, 0.2),
    "omnizip": (0.3, 0.2),
    "divprune": (0.3, 0.2),
    "omnidrop": (0.3, 0.2),
}
SOURCE = "AVSynth, 50 clips that chose nothing (benchmarks/evidence.py)"


def search(model: Model, items: Sequence[Item]) -> tuple[EvidenceReading, dict[str, list[float]]]:
    """Choose the reading; return it with `margins`."""
    methods = (Method(), omnidrop.OmniDropAuto(budget=0.2))
    seen = collect(model, items, methods, RunOptions(), style="plain")
    return choose(seen), margins(seen)


def margins(seen: Sequence[Seen]) -> dict[str, list[float]]:
    """Return hits less chance of each layer with all heads, by kind of rows."""
    layers = len(seen[0].alive)
    return {
        rows: [round(margin(seen, EvidenceReading((n,), rows))[0], 3) for n in range(layers)]
        for rows in seen[0].attention
    }


def look(
    model: Model, items: Sequence[Item], reading: EvidenceReading, methods: Sequence[Method]
) -> list[Seen]:
    """Run the questions under every method; each clip is encoded once."""
    asked, total = 0, len(items) * len(methods)

    def on_pass() -> None:
        nonlocal asked
        asked += 1
        if asked % 100 == 0:
            print(f"{asked} of {total}", file=sys.stderr, flush=True)

    return collect(
        model,
        items,
        methods,
        RunOptions(),
        style="plain",
        rows=[reading.rows],
        reading=reading,
        on_pass=on_pass,
    )


def summary(seen: Sequence[Seen], reading: EvidenceReading, chosen_by: int) -> dict[str, Any]:
    """Return the reading with its rates, and a stricter measure beside each.

    `half_met` is the share of questions whose strongest moment has at least half of the shorter of
    moment and evidence in common with it; `seconds` is the mean length of the strongest moment.
    """
    reading = reading.with_rates(measure(seen, reading), SOURCE)
    groups: dict[tuple[str, float], list[Seen]] = {}
    for one in seen:
        groups.setdefault((one.method, one.budget), []).append(one)
    half, seconds = [], []
    for group in groups.values():
        found = [moments(one.chunks, _shares(one, reading)) for one in group]
        pairs = [(m[0], one.evidence) for one, m in zip(group, found, strict=True) if m]
        half.append(sum(mostly(m, evidence) for m, evidence in pairs) / len(group))
        seconds.append(sum(m.end - m.start for m, _ in pairs) / len(pairs))
    asked = len({one.clip for one in seen})
    return asdict(reading) | {
        "half_met": [round(value, 4) for value in half],
        "seconds": [round(value, 2) for value in seconds],
        "questions_chosen_by": chosen_by,
        "clips_checked": asked,
    }


def mostly(moment: Moment, evidence: Sequence[tuple[float, float]]) -> bool:
    """Return whether half of the shorter of moment and evidence lies in the other."""
    return any(
        min(moment.end, end) - max(moment.start, start)
        >= min(moment.end - moment.start, end - start) / 2
        for start, end in evidence
    )


def _shares(seen: Seen, reading: EvidenceReading) -> list[float]:
    shares = seen.shares(reading)
    return [] if shares is None else shares.tolist()


def percent(rate: Rate) -> list[float]:
    """Return hits, the interval and chance in percent."""
    return [100 * value for value in (rate.share, rate.low, rate.high, rate.chance)]


def main() -> None:
    """Choose, measure, print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "samples" / "demo-model"))
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=list(BUDGETS), choices=BUDGETS)
    parser.add_argument("--reading", type=Path, help="file of the reading; nothing is chosen")
    parser.add_argument("--search-only", action="store_true")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    parser.add_argument("--save", type=Path, help="file for the reading with its rates")
    options = parser.parse_args()
    questions = with_evidence(read_set("avsynth", videos=options.clips))
    chosen_by, checked = halves(questions)
    model = omnidrop.load(options.model, device="cpu")
    by_layer: dict[str, list[float]] = {}
    if options.reading:
        reading = read_reading(options.reading)
        assert reading is not None
    else:
        reading, by_layer = search(model, chosen_by)
        table(["layer", *by_layer], [list(row) for row in zip(count(), *by_layer.values())])
    print(reading, flush=True)
    if options.search_only:
        return
    methods = [
        Method(),
        *(omnidrop.get_method(m, budget=b) for m in options.methods for b in BUDGETS[m]),
    ]
    seen = look(model, checked, reading, methods)
    result = summary(seen, reading, len(chosen_by)) | {"margins": by_layer}
    reading = reading.with_rates(measure(seen, reading), SOURCE)
    table(
        ["method", "budget", "questions", "met, %", "low", "high", "chance, %", "half met, %"],
        [
            [r.method, r.budget, r.questions, *percent(r), 100 * half]
            for r, half in zip(reading.rates, result["half_met"], strict=True)
        ],
    )
    if options.save:
        options.save.write_text(json.dumps(reading.document(), indent=1) + "\n", encoding="utf-8")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    finish(result)


if __name__ == "__main__":
    main()
