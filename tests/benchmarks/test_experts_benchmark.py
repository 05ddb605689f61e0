"""The benchmark of quantised experts: the published sizes, and a run of the tiny ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import experts
from omnidrop.models.family import published


def test_its_sizes_are_the_published_ones() -> None:
    from omnidrop.models.qwen3_omni import FAMILY

    found = published("Qwen/Qwen3-Omni-30B-A3B-Instruct")
    assert found is not None
    made = FAMILY.shapes(experts.published())
    assert (made.vision, made.audio) == (found[1].vision, found[1].audio)
    assert {**vars(made.text), "vocab": 0} == {**vars(found[1].text), "vocab": 0}


def test_it_runs_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["experts", "--tiny", "--device", "cpu", "--seconds", "2", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", [*words, "--tokens", "3", "--out", str(tmp_path)])
    experts.main()
    rows = json.loads((tmp_path / "experts.json").read_text())["rows"]
    assert [(row["method"], row["budget"]) for row in rows] == list(experts.RUNS)
    assert all(row["ttft"] > 0 and row["tokens"] == 38 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
