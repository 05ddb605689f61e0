"""What the tests of evaluation share: a stub of a model and a small set about two clips."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from omnidrop.evaluation.items import QuestionSet
from omnidrop.evaluation.sets import read_set


@pytest.fixture
def questions(tmp_path: Path) -> QuestionSet:
    """Six questions about two clips; the odd ones are sparse and wait for "no"."""
    rows = []
    for number in range(6):
        rows.append(
            {
                "id": f"q{number}",
                "video": f"clip{number // 3}.mp4",
                "question": f"Is it {number}?",
                "choices": ["yes", "no"],
                "answer": "no" if number % 2 else "yes",
                "category": "sound" if number < 3 else "picture",
                "groups": {"evidence": "sparse" if number % 2 else "long"},
            }
        )
    for number in range(2):
        (tmp_path / f"clip{number}.mp4").write_text(f"clip {number}")
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_set(path)
