"""The benchmark of a CPU's weights runs, each way in a process of its own."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import cpu_weights


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cpu_weights", "--tiny", "--rows", "20", "--steps", "3", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", [*words, "--runs", "mapped", "4bit"])
    cpu_weights.main()
    out = capsys.readouterr().out.splitlines()
    found = json.loads(out[-1])["rounds"]
    assert list(found) == ["mapped", "4bit"]
    assert all(
        value > 0
        for rounds in found.values()
        for value in (rounds[0]["load"], rounds[0]["prefill"])
    )
