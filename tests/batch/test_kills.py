"""A batch that is killed, and two at once: every row once."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_batch_that_is_killed_ends_with_every_row_once(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import batch_kills

    draw = random.Random(1)
    model, questions = batch_kills.make(tmp_path, 30, 10, draw)
    out = tmp_path / "answers.jsonl"
    words = [str(questions), "--model", str(model), "--out", str(out), "--max-new-tokens", "2"]
    batch_kills.killed([*words, "--no-serve"], out, 30, 1, draw)
    found = batch_kills.read(out)
    assert len(found) == 30
    failed = [value for value in found.values() if str(value).startswith("error")]
    assert len(failed) == 3
    assert not list(tmp_path.glob(".*"))
