"""`ask --evidence`, `ask --cut` and `calibrate --evidence`, on a tiny checkpoint."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from fakes import ROOT

sys.path.insert(0, str(ROOT))
from omnidrop.evidence import FILE, EvidenceReading, Rate
from omnidrop.models.qwen2_5_omni import tiny as checkpoints
from omnidrop.testing import media

RATES = (Rate("uniform", 0.5, 100, 90, 0.8, 0.95, 0.5),)
READING = EvidenceReading((1,), "last", (0,), rates=RATES, source="a test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a reading in its folder."""
    made = checkpoints.tiny_thinker(tmp_path_factory.mktemp("model"), layers=4)
    (made / FILE).write_text(json.dumps(READING.document()))
    return made


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.mp4(tmp_path_factory.mktemp("media") / "film.mp4", seconds=8.0)


@pytest.fixture
def ask(run, folder, film):
    def call(*words: object, clip: Path = film, model: Path = folder):
        return run("ask", "--model", model, "--device", "cpu", "--dtype", "float32", "--offline",
                   "--max-new-tokens", "2", "--method", "uniform", "--budget", "0.5",
                   clip, "What plays?", *words)  # fmt: skip

    return call


def test_the_models_folder_says_where_to_look(ask) -> None:
    code, out, _ = ask("--json")
    trace = json.loads(out)["trace"]
    assert code == 0
    assert trace["moments"]
    first = trace["moments"][0]
    inside = [c for c in trace["chunks"] if first["start"] <= c["start"] < first["end"]]
    assert sum(c["relevance"] for c in inside) == pytest.approx(first["share"])


def test_a_budget_that_was_not_measured_shows_nothing(ask) -> None:
    assert json.loads(ask("--json", "--budget", "0.4")[1])["trace"]["moments"] == []


def test_evidence_says_what_the_answer_hangs_on(ask) -> None:
    code, out, err = ask("--json", "--evidence")
    found = json.loads(out)
    assert code == 0
    assert [one["moment"] for one in found["left_out"]] == found["trace"]["moments"]
    assert err == ""
    assert any(n.startswith("Evidence: without") for n in found["trace"]["notices"])
    assert found["text"] == json.loads(ask("--json")[1])["text"]


@pytest.mark.slow
def test_cut_writes_the_moments(ask, tmp_path) -> None:
    import omnidrop

    target = tmp_path / "cut.mp4"
    code, out, err = ask("--json", "--cut", target)
    moments = json.loads(out)["trace"]["moments"]
    assert code == 0
    assert f"omnidrop: cut: wrote {target}" in " ".join(err.split())
    wanted = sum(moment["end"] - moment["start"] for moment in moments)
    with omnidrop.open_clip(target) as cut:
        assert cut.has_audio
        assert cut.info.video is not None
        assert wanted < cut.duration <= min(wanted + len(moments), 8.0) + 0.1
    assert ask("--cut", target)[0] == 2
    assert ask("--cut", target, "--force", "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cut", "cut.gif"], "written as video"),
        (["--cut", "cut.mp4", "-q", "One?", "-q", "Two?"], "one answer"),
        (["--cut", "no/such/cut.mp4"], "folder does not exist"),
        (["--cut", "film.mp4", "--force"], "the clip itself"),
    ],
)
def test_a_cut_that_cannot_be_is_refused_at_once(
    run, film, tmp_path, monkeypatch, words, said
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(film, "film.mp4")
    question = [] if "-q" in words else ["What?"]
    code, _, err = run("ask", "film.mp4", *question, *words, "--model", "no/such/model")
    assert code == 2
    assert said in " ".join(err.split())


def test_without_a_known_moment_nothing_is_cut(ask, tmp_path) -> None:
    bare = checkpoints.tiny_thinker(tmp_path / "bare", layers=4)
    target = tmp_path / "cut.mp4"
    code, out, err = ask("--cut", target, model=bare)
    assert code == 3
    assert out
    assert "nothing was cut" in " ".join(err.split())
    assert not target.exists()


@pytest.mark.slow
def test_calibrate_writes_a_reading_that_a_preset_brings_back(run, ask, tmp_path, folder) -> None:
    for number in range(2):
        media.mp4(tmp_path / f"{number}.mp4", seconds=5.0, fps=4)
    lines = [
        {"id": f"{i}", "video": f"{i % 2}.mp4", "question": "What?", "answer": "piano",
         "evidence": [[2.2, 3.0]]}
        for i in range(40)
    ]  # fmt: skip
    questions, preset = tmp_path / "set.jsonl", tmp_path / "mine.json"
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    where = ["--model", folder, "--device", "cpu", "--dtype", "float32", "--offline"]
    words = [questions, "--evidence", "--method", "uniform", "--budget", "0.5", *where]
    assert run("calibrate", *words, "--dry-run")[0] == 0
    code, out, err = run("calibrate", *words, "--out", preset)
    assert code == 0
    assert "20 questions to choose by, 20 held out" in err
    for part in ("held out", "none 1", "uniform 0.5", "chance, %"):
        assert part in out
    found = json.loads(preset.read_text())
    assert found["method"] == "uniform"
    assert [rate["questions"] for rate in found["evidence"]["rates"]] == [20, 20]
    code, out, _ = run("ask", *where, "--preset", preset, tmp_path / "0.mp4", "What?", "--json")
    assert code == 0
    above = {r["method"]: r["low"] > r["chance"] for r in found["evidence"]["rates"]}
    assert bool(json.loads(out)["trace"]["moments"]) <= above["uniform"]


def test_a_set_without_times_is_refused(run, tmp_path) -> None:
    media.mp4(tmp_path / "a.mp4", seconds=1.0)
    questions = tmp_path / "set.jsonl"
    line = {"id": "1", "video": "a.mp4", "question": "What?", "answer": "piano"}
    questions.write_text(json.dumps(line) + "\n")
    code, _, err = run("calibrate", questions, "--evidence", "--out", tmp_path / "mine.json")
    assert code == 2
    assert "No question says when its evidence is" in " ".join(err.split())
    words = ["calibrate", questions, "--evidence", "--try", "t_mid=0.4", "--out", "x.json"]
    assert run(*words)[0] == 2
