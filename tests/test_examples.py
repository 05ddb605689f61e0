"""The examples run, and the notebook's stored output is what it computes."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
CLIP = str(ROOT / "samples" / "duet.mp4")

pytestmark = pytest.mark.slow


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a script of the examples with some words; returns what it printed."""

    def run(name: str, *words: str) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr("sys.argv", [name, *words])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_ask(script: Callable[..., str]) -> None:
    said = script("ask.py", CLIP)
    assert "What instrument plays first? piano" in said
    assert re.search(r"What instrument plays last\? [a-z]+\n", said)


def test_compare_methods(script: Callable[..., str]) -> None:
    lines = script("compare_methods.py", CLIP, "What instrument plays first?").splitlines()
    assert lines[1].split() == ["none", "100.0%", "100.0%", "piano"]
    budgets = [float(line.split()[1].rstrip("%")) for line in lines[2:]]
    assert len(budgets) == 5
    assert budgets == pytest.approx([20.0] * 5, abs=1.0)


def test_a_column_of_a_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kind = datasets.Features({"v": datasets.Video(decode=False)})
    cells = [{"bytes": Path(CLIP).read_bytes(), "path": "a.mp4"}, {"bytes": None, "path": CLIP},
             {"bytes": b"no clip", "path": "b.mp4"}]  # fmt: skip
    datasets.Dataset.from_list([{"v": cell} for cell in cells], features=kind).save_to_disk(
        str(tmp_path / "clips")
    )
    words = ["--clip", "v", "--ask", "What instrument plays first?", "--out", str(tmp_path / "out")]
    said = script("datasets_column.py", str(tmp_path / "clips"), *words)
    assert said.startswith("2 answered, 1 failed")
    found = datasets.load_from_disk(str(tmp_path / "out"))
    assert found["answer"][:] == ["piano", "piano", None]
    assert found["probability"][0] == found["probability"][1] > 0.5
    assert "b.mp4" not in str(found["error"][:2])
    assert found["error"][2]


def texts(notebook: dict) -> list[str]:
    """Return the text that each code cell printed, without figures and warnings."""
    return [
        "".join("".join(out["text"]) for out in cell["outputs"] if out.get("name") == "stdout")
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_the_notebook_shows_what_it_computes() -> None:
    import nbclient
    import nbformat

    path = EXAMPLES / "tour.ipynb"
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert any(texts(stored)), "the notebook was saved without its outputs"
    outputs = [out for cell in stored["cells"] for out in cell.get("outputs", ())]
    assert all(out.get("name") != "stderr" for out in outputs), "warnings were saved"
    assert any("image/png" in out.get("data", {}) for out in outputs), "no figure was saved"
    assert path.stat().st_size < 60_000
    fresh = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        fresh, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()
    assert texts(json.loads(nbformat.writes(fresh))) == texts(stored)
