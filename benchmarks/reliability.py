"""Are the demo model's probabilities true? Fit its calibration and write the reliability table.

    python samples/make_clips.py --out CLIPS
    python benchmarks/reliability.py --clips CLIPS --rows rows.jsonl
    python benchmarks/reliability.py --rows rows.jsonl --fit   fit again, asking nothing

Each AVSynth question is asked unpruned and with omnidrop-auto: as text, and with its choices; every
fourth with two sets of choices that do not fit, too. Curves are fitted on the clips of even number
and judged on the odd ones. Written are `results/reliability.json` and the model's
`calibration.json`; `results_table.py` puts the tables into `docs/results.md`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import omnidrop
from omnidrop.engine.decode import score_choices
from omnidrop.evaluation.benchmarks.avsynth import avsynth
from omnidrop.evaluation.items import Item
from omnidrop.evaluation.reliability import Reliability, isotonic, platt, reliability
from omnidrop.evaluation.scoring import read_reply
from omnidrop.files import to_json
from omnidrop.models.calibration import NAME, SCHEMA, Curve

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"
MODEL = ROOT / "samples" / "demo-model"

METHODS = {
    "unpruned": omnidrop.Method(),
    "omnidrop-auto 30 %": omnidrop.OmniDropAuto(budget=0.3),
    "omnidrop-auto 10 %": omnidrop.OmniDropAuto(budget=0.1),
}

#: Of the probabilities in a reliability table.
EDGES = (0.0, 0.6, 0.8, 0.9, 0.95, 0.98, 1.0)
#: Key and outcome of each kind of answer in a row.
KINDS_OF_ANSWER = {"answers": ("probability", "right"), "choices": ("share", "right_choice")}
#: Sets of choices: the question's own, of another kind, and from outside the model's world.
SETS = ("fitting", "other kind", "outside")
#: Share of questions of whose choices it may be said that none fits, though one does.
ALARMS = 0.01
#: Choices from outside the model's world.
OUTSIDE = ("Obama", "Merkel", "Macron")
#: Words of its world by kind, from which choices of another kind are taken.
KINDS = (
    ("piano", "guitar", "violin", "trumpet", "flute", "organ", "marimba", "drums"),
    ("circle", "square", "triangle", "star", "cross", "ring"),
    ("red", "green", "blue", "yellow", "purple", "orange"),
)


def other_kind(item: Item) -> tuple[str, ...]:
    """Return choices of the model's world that do not answer the question."""
    own = {choice.casefold() for choice in item.choices or ()}
    fitting = [kind for kind in KINDS if not own & set(kind)]
    return fitting[sum(map(ord, item.id)) % len(fitting)][:3]


def collect(clips: Path, rows: Path, limit: int | None) -> None:
    """Ask every question with every method; write a line for each."""
    model = omnidrop.load("demo")
    model.adapter.calibration = None  # the model's own probabilities
    items = avsynth(None, clips).items[:limit]
    by_clip: dict[Path, list[Item]] = {}
    for item in items:
        by_clip.setdefault(item.video, []).append(item)
    done = {tuple(json.loads(line)["key"]) for line in rows.open()} if rows.is_file() else set()
    with rows.open("a", encoding="utf-8") as file:
        for video, group in by_clip.items():
            with model.open(video) as clip:
                for item in group:
                    for label, method in METHODS.items():
                        if (item.id, label) not in done:
                            row = asked(clip, item, method)
                            file.write(json.dumps({"key": [item.id, label], **row}) + "\n")
            file.flush()
            print(video.name, flush=True)


def asked(clip: omnidrop.Session, item: Item, method: omnidrop.Method) -> dict[str, Any]:
    """Ask one question as text and with all its choices, from one prefill."""
    sets = {"fitting": item.choices or ()}
    if sum(map(ord, item.id)) % 4 == 0:  # these depend little on the question
        sets |= {"other kind": other_kind(item), "outside": OUTSIDE}
    found: dict[str, Any] = {}

    def score(prefilled: Any) -> None:
        for name, choices in sets.items():
            scored = score_choices(clip.adapter, prefilled, choices)
            found[name] = [scored[0].text, scored[0].probability, [c.logprob for c in scored]]

    answer = clip.ask(item.question, method=method, on_prefill=score)
    best, share, _ = found["fitting"]
    return {
        "clip": item.video.name,
        "text": answer.text,
        "probability": answer.probability,
        "right": read_reply(answer.text, item, "plain").right,
        "share": share,
        "right_choice": best == item.answer,
        "mass": {name: math.fsum(map(math.exp, one[2])) for name, one in found.items()},
    }


def fitting_half(row: dict[str, Any]) -> bool:
    """Return whether a row's clip belongs to the half that curves are fitted on."""
    return int("".join(c for c in row["clip"].rsplit(".", 1)[0] if c.isdigit())) % 2 == 0


def judged(
    rows: Sequence[dict[str, Any]], key: str, outcome: str, curve: Callable[[float], float]
) -> Reliability:
    """Return the reliability of rows under a curve."""
    return reliability([curve(row[key]) for row in rows], [row[outcome] for row in rows], EDGES)


def scores(found: Reliability) -> dict[str, float]:
    """Return the figures of a reliability, without its bins."""
    return {name: round(getattr(found, name), 4) for name in ("error", "brier", "log_loss")}


def fit_curves(rows: Sequence[dict[str, Any]], kind: str) -> tuple[dict[str, Any], Curve]:
    """Fit the curves of one kind of answer; return how they do on the other half, and Platt's."""
    key, outcome = KINDS_OF_ANSWER[kind]
    known = [row for row in rows if row[key] is not None]
    train = [row for row in known if fitting_half(row)]
    held = [row for row in known if not fitting_half(row)]
    p, y = [row[key] for row in train], [row[outcome] for row in train]
    curve = platt(p, y)
    fits = {"the model's own": lambda p: p, "Platt": curve, "isotonic": isotonic(p, y)}
    found = {name: judged(held, key, outcome, one) for name, one in fits.items()}
    both = ("the model's own", "Platt")
    by_method = {}
    for label in METHODS:
        mine = [row for row in held if row["key"][1] == label]
        by_method[label] = {name: scores(judged(mine, key, outcome, fits[name])) for name in both}
    return {
        "fitted_on": len(train),
        "judged_on": len(held),
        "scores": {name: scores(one) for name, one in found.items()},
        "by_method": by_method,
        "bins": {
            name: [
                {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(b).items()}
                for b in found[name].bins
            ]
            for name in both
        },
    }, curve


def fit(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results and the calibration."""
    fitted = {kind: fit_curves(rows, kind) for kind in KINDS_OF_ANSWER}
    halves = {
        "fitted": [row for row in rows if fitting_half(row)],
        "held out": [row for row in rows if not fitting_half(row)],
    }
    least = fitting_mass(halves["fitted"])
    results = {
        "questions": len({row["key"][0] for row in rows}),
        "clips": len({row["clip"] for row in rows}),
        "methods": list(METHODS),
        **{kind: found for kind, (found, _) in fitted.items()},
        "choice_mass": {
            "threshold": least,
            "quantiles": {name: quantiles(masses(rows, name)) for name in SETS},
            "below": {
                half: {
                    name: {"count": sum(m < least for m in found), "of": len(found)}
                    for name in SETS
                    for found in [masses(part, name)]
                }
                for half, part in halves.items()
            },
        },
    }
    calibration = {
        "schema": SCHEMA,
        "source": "calibrated on AVSynth",
        **{
            kind: {"scale": round(curve.scale, 4), "shift": round(curve.shift, 4)}
            for kind, (_, curve) in fitted.items()
        },
        "fitting_mass": least,
        "methods": smallest_budgets(),
        "made": {
            "by": "benchmarks/reliability.py",
            "questions": len({row["key"][0] for row in halves["fitted"]}),
            "methods": list(METHODS),
        },
    }
    return results, calibration


def smallest_budgets() -> dict[str, float]:
    """Return the methods that the curves are fitted with, and the smallest budget of each."""
    found: dict[str, float] = {}
    for method in METHODS.values():
        found[method.name] = min(method.budget, found.get(method.name, 1.0))
    return found


def masses(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    """Return the probability of all choices of a set together, of each row that has it."""
    return [row["mass"][name] for row in rows if name in row["mass"]]


def fitting_mass(rows: Sequence[dict[str, Any]]) -> float:
    """Return the largest power of ten that choices that fit fall below in few questions.

    Few are at most `ALARMS`. Questions are counted, not answers: the methods' answers to one
    question are alike.
    """
    least: dict[str, float] = {}
    for row in rows:
        mass, question = row["mass"]["fitting"], row["key"][0]
        least[question] = min(mass, least.get(question, mass))
    return 10.0 ** math.floor(math.log10(sorted(least.values())[int(ALARMS * len(least))]))


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return some quantiles, smallest and largest included."""
    ordered = sorted(values)
    return {
        f"{share:g}": float(f"{ordered[round(share * (len(ordered) - 1))]:.3g}")
        for share in (0, 0.01, 0.05, 0.5, 0.95, 0.99, 1)
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, help="folder written by make_clips.py")
    parser.add_argument("--rows", type=Path, required=True, help="a line for each question asked")
    parser.add_argument("--limit", type=int, help="ask only so many questions")
    parser.add_argument("--fit", action="store_true", help="ask nothing, use the rows there are")
    args = parser.parse_args()
    if not args.fit:
        if args.clips is None:
            parser.error("--clips is missing")
        collect(args.clips, args.rows, args.limit)
    rows = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines()]
    results, calibration = fit(rows)
    RESULTS.write_text(to_json(results, indent=1) + "\n", encoding="utf-8")
    (MODEL / NAME).write_text(to_json(calibration, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
