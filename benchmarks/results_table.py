"""Write the tables of `docs/results.md` and `README.md` from what was measured.

    python benchmarks/results_table.py

The text between comments like `<!-- methods -->` and `<!-- /methods -->` is replaced, and so are
those called reliability, choices, evidence and lab, and in the lab model's card. Numbers come from
`comparison/{methods,others}/summary.csv`, `comparison/lab/{lab,demo}/summary.csv`,
`results/reliability.json` and `results/evidence.json`. The README gets five of the rows
of methods.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUMMARY = HERE / "comparison" / "methods" / "summary.csv"
OTHERS = HERE / "comparison" / "others" / "summary.csv"
LAB = HERE / "comparison" / "lab"
RESULTS = HERE.parent / "docs" / "results.md"
README = HERE.parent / "README.md"
LAB_CARD = HERE.parent / "samples" / "lab" / "README.md"
LAB_RESULTS = HERE.parent / "samples" / "results" / "lab.json"
RELIABILITY = HERE / "results" / "reliability.json"
EVIDENCE = HERE / "results" / "evidence.json"
BUDGETS = ("0.5", "0.3", "0.2", "0.1", "0.05")
CONTROL = "unpruned"
SHORT = ("omnidrop-auto", "seats", "omnidrop-even", "omnidrop", "random")
SAID = {
    "omnidrop-even": "uniform+omnidrop",
    "random-sigmoid": "random, omnidrop's schedule",
    "omnidrop-auto-lab": "omnidrop-auto, lead 1.5, free 26",
}

Cells = dict[str, dict[str, dict[str, float]]]


def read(*paths: Path) -> tuple[Cells, dict[str, str]]:
    """Return accuracy by label, budget and part (all, sparse), and the method behind each label.

    A label is read from the first file that has it; by default those of the comparison.
    """
    cells: Cells = defaultdict(lambda: defaultdict(dict))
    methods: dict[str, str] = {}
    for path in paths or (SUMMARY, OTHERS):
        earlier = set(methods)
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row["label"] in earlier:
                    continue
                methods[row["label"]] = row["method"]
                if row["accuracy"] and (row["axis"] == "all" or row["group"] == "sparse"):
                    cells[row["label"]][row["budget"]][row["group"]] = float(row["accuracy"])
    return cells, methods


def display_name(label: str) -> str:
    """Return the name of a method as the table shows it."""
    return SAID.get(label, label.replace("-calibrated", ", calibrated"))


def pair(cell: dict[str, float]) -> str:
    """Return the accuracy on all questions and on the sparse half, in percent, as text."""
    return f"{100 * cell['all']:.1f} / {100 * cell['sparse']:.1f}" if cell else "–"


def table(cells: Cells, methods: dict[str, str]) -> str:
    """Return the whole table: the control, then methods with their variants.

    Methods are sorted by the best accuracy that one of their variants has at 20 %.
    """

    def at_20(label: str) -> float:
        return cells[label]["0.2"].get("all", 0.0)

    def place(label: str) -> tuple:
        mine = [other for other in cells if methods[other] == methods[label]]
        return (-max(map(at_20, mine)), methods[label], label != methods[label], label)

    head = " | ".join(f"{100 * float(b):g} %" for b in BUDGETS)
    rows = [f"| all / sparse half | {head} |", "|---|" + "---|" * len(BUDGETS)]
    rows.append(f"| {CONTROL} | {pair(cells[CONTROL]['1.0'])} |" + " |" * (len(BUDGETS) - 1))
    for label in sorted((label for label in cells if label != CONTROL), key=place):
        rows.append(
            f"| {display_name(label)} | "
            + " | ".join(pair(cells[label][b]) for b in BUDGETS)
            + " |"
        )
    return "\n".join(rows) + "\n"


def short_table(cells: Cells) -> str:
    """Return the README's table: accuracy of five methods on all questions at 30, 20 and 10 %."""
    budgets = ("0.3", "0.2", "0.1")
    unpruned = 100 * cells[CONTROL]["1.0"]["all"]
    head = " | ".join(f"{100 * float(b):g} %" for b in budgets)
    rows = [
        f"| right answers, % ({unpruned:.1f} unpruned) | {head} |",
        "|---|" + "---|" * len(budgets),
    ]
    for label in SHORT:
        found = " | ".join(f"{100 * cells[label][b]['all']:.1f}" for b in budgets)
        rows.append(f"| {display_name(label)} | {found} |")
    return "\n".join(rows) + "\n"


def lab_table(folder: Path = LAB) -> str:
    """Return the accuracy of the lab and the demo model on the same questions, by method."""
    models = {name: read(folder / name / "summary.csv")[0] for name in ("lab", "demo")}
    columns = [
        (name, budget)
        for name, cells in models.items()
        for budget in BUDGETS
        if any(budget in found for found in cells.values())
    ]

    def cell(label: str, name: str, budget: str) -> str:
        found = models[name].get(label, {}).get(budget, {}).get("all")
        return "–" if found is None else f"{100 * found:.1f}"

    def first(label: str) -> float:
        return -models["lab"][label].get("0.2", {}).get("all", 0.0)

    head = " | ".join(f"{name}, {100 * float(budget):g} %" for name, budget in columns)
    whole = [cell(CONTROL, name, "1.0") for name, _ in columns]
    rows = [f"| right answers, % | {head} |", "|---|" + "---|" * len(columns)]
    rows.append(f"| {CONTROL} | {' | '.join(whole)} |")
    for label in sorted((label for label in models["lab"] if label != CONTROL), key=first):
        found = " | ".join(cell(label, name, budget) for name, budget in columns)
        rows.append(f"| {display_name(label)} | {found} |")
    return "\n".join(rows) + "\n"


def lab_card(path: Path = LAB_RESULTS) -> str:
    """Return what was measured of the lab model: accuracy, blind test, depth, random dropping."""
    found = json.loads(path.read_text(encoding="utf-8"))
    said = {
        "all": "all questions",
        "family:sound": "about sound",
        "family:picture": "about the picture",
        "family:both": "about both",
        "sparse:True": "evidence short or sparse",
        "wording:unseen": "wordings kept from training",
    }
    rows = ["| AVSynth's test clips | questions | right, % | blind, % |", "|---|---|---|---|"]
    for key, name in said.items():
        value, count = found["accuracy"][key]
        rows.append(
            f"| {name} | {count} | {100 * value:.1f} | {100 * found['blind'][key][0]:.1f} |"
        )
    depth, drawn = found["depth"], found["random"]
    rows += [
        "",
        "| clip tokens removed before layer | " + " | ".join(map(str, depth["layers"])) + " |",
    ]
    rows += ["|---|" + "---|" * len(depth["layers"])]
    rows += ["| right, % | " + " | ".join(f"{100 * v:.1f}" for v in depth["all"]) + " |"]
    rows += [
        "",
        "| random tokens at entry | " + " | ".join(f"{100 * float(k):g} %" for k in drawn) + " |",
    ]
    rows += ["|---|" + "---|" * len(drawn)]
    rows += ["| right, % | " + " | ".join(f"{100 * v['all']:.1f}" for v in drawn.values()) + " |"]
    kept = found["language"]
    rows += [
        "",
        f"Plain text of topics kept from training, {kept['tokens']} tokens: the next token is the "
        f"pretrained model's in {100 * kept['same_next_token']:.1f} %, and the distributions are "
        f"{kept['divergence_nats']:.3f} nats apart (step {kept['step']}).",
    ]
    return "\n".join(rows) + "\n"


def reliability_tables(path: Path = RELIABILITY) -> str:
    """Return the tables of probabilities: bins, and scores of the curves."""
    found = json.loads(path.read_text(encoding="utf-8"))
    head = ("", "probability shown", "answers", "mean probability, %", "right, %")
    rows = [f"| {' | '.join(head)} |", "|---|---|---|---|---|"]
    for kind, said in (("answers", "generated"), ("choices", "choices")):
        for name in ("the model's own", "Platt"):
            shown = "calibrated" if name == "Platt" else name
            for one in found[kind]["bins"][name]:
                span = f"{100 * one['low']:g} to {100 * one['high']:g} %"
                rows.append(
                    f"| {said}, {shown} | {span} | {one['count']} | "
                    f"{100 * one['probability']:.1f} | {100 * one['right']:.1f} |"
                )
    rows += ["", "| | calibration error, % | Brier score | log loss |", "|---|---|---|---|"]
    for kind, said in (("answers", "generated"), ("choices", "choices")):
        for name, one in found[kind]["scores"].items():
            rows.append(
                f"| {said}, {name} | {100 * one['error']:.1f} | {one['brier']:.4f} | "
                f"{one['log_loss']:.3f} |"
            )
    return "\n".join(rows) + "\n"


def choices_table(path: Path = RELIABILITY) -> str:
    """Return how often it is said that no choice fits, of choices that do and that do not."""
    below = json.loads(path.read_text(encoding="utf-8"))["choice_mass"]["below"]["held out"]
    rows = ["| choices, clips of odd number | said that none fits |", "|---|---|"]
    for name, said in (
        ("fitting", "the question's own"),
        ("other kind", "of another kind (colours where an instrument is asked for)"),
        ("outside", "outside the model's world (Obama, Merkel, Macron)"),
    ):
        rows.append(f"| {said} | {below[name]['count']} of {below[name]['of']} |")
    return "\n".join(rows) + "\n"


def evidence_table(path: Path = EVIDENCE) -> str:
    """Return how often the strongest moment met the evidence, by method and budget."""
    found = json.loads(path.read_text(encoding="utf-8"))
    head = ("method", "budget", "evidence met, %", "95 % interval", "chance, %", "half met, %")
    rows = [f"| {' | '.join(head)} |", "|---|---|---|---|---|---|"]
    for rate, half in zip(found["rates"], found["half_met"], strict=True):
        name = "unpruned" if rate["method"] == "none" else rate["method"]
        met = 100 * rate["hits"] / rate["questions"]
        rows.append(
            f"| {name} | {100 * rate['budget']:g} % | {met:.1f} | "
            f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f} | {100 * rate['chance']:.1f} | "
            f"{100 * half:.1f} |"
        )
    return "\n".join(rows) + "\n"


def written(text: str, rows: str, name: str = "methods") -> str:
    """Return a document with its table of a name replaced by `rows`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{rows}\n{end}{rest.split(end)[1]}"


def documents() -> dict[Path, str]:
    """Return the wanted text of each document that holds a table."""
    cells, methods = read()
    results = written(RESULTS.read_text(encoding="utf-8"), table(cells, methods))
    results = written(results, reliability_tables(), "reliability")
    results = written(results, evidence_table(), "evidence")
    results = written(results, lab_table(), "lab")
    return {
        RESULTS: written(results, choices_table(), "choices"),
        README: written(README.read_text(encoding="utf-8"), short_table(cells)),
        LAB_CARD: written(LAB_CARD.read_text(encoding="utf-8"), lab_card(), "measured"),
    }


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
