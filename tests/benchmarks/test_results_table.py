"""The tables of methods in the documents hold the measured accuracies."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "results_table", raising=False)
    import results_table

    return results_table


def test_documents_hold_the_measured_tables(script) -> None:
    for path, text in script.documents().items():
        assert path.read_text(encoding="utf-8") == text


def test_a_changed_accuracy_changes_its_row_only(script, tmp_path: Path) -> None:
    with script.SUMMARY.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        if row["label"] == "uniform" and row["budget"] == "0.1" and row["axis"] == "all":
            row["accuracy"] = "0.4321"
    other = tmp_path / "summary.csv"
    with other.open("w", encoding="utf-8", newline="") as out:
        sheet = csv.DictWriter(out, rows[0])
        sheet.writeheader()
        sheet.writerows(rows)
    before, after = script.table(*script.read()), script.table(*script.read(other, script.OTHERS))
    changed = [b for a, b in zip(before.split("\n"), after.split("\n"), strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0].startswith("| uniform |")
    assert "43.2 / " in changed[0]


def test_a_changed_rate_of_evidence_changes_its_row_only(script, tmp_path: Path) -> None:
    found = json.loads(script.EVIDENCE.read_text(encoding="utf-8"))
    place = next(i for i, rate in enumerate(found["rates"]) if rate["method"] == "seats")
    found["rates"][place] |= {"hits": 27, "questions": 270}
    other = tmp_path / "evidence.json"
    other.write_text(json.dumps(found), encoding="utf-8")
    before, after = script.evidence_table().split("\n"), script.evidence_table(other).split("\n")
    changed = [b for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0].startswith("| seats | 30 % | 10.0 |")


def test_the_demo_model_ships_the_measured_reading(script) -> None:
    shipped = json.loads((ROOT / "samples" / "demo-model" / "evidence.json").read_text("utf-8"))
    measured = json.loads(script.EVIDENCE.read_text(encoding="utf-8"))
    for name in ("layers", "rows", "heads", "correction", "rates"):
        assert shipped[name] == measured[name]
