"""`omnidrop train-selector`: from questions to a selector that `ask` takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fakes import ROOT

sys.path.insert(0, str(ROOT))
from omnidrop.models.qwen2_5_omni import tiny as checkpoints
from omnidrop.testing import media
from omnidrop.training.resuming import STATE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.tiny_thinker(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("media")
    lines = []
    for i in range(2):
        media.mp4(place / f"film{i}.mp4", seconds=4.0)
        lines.append({"video": f"film{i}.mp4", "question": "What plays?", "answer": "flute",
                      "choices": ["piano", "flute"]})  # fmt: skip
        lines.append({"video": f"film{i}.mp4", "question": "What is shown?", "answer": "circle"})
    path = place / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def train(run, folder):
    def call(*words: object, model: Path = folder):
        return run("train-selector", *words, "--model", model, "--device", "cpu", "--dtype",
                   "float32", "--offline", "--hidden", "16", "--batch", "2", "--max-pixels",
                   "10000")  # fmt: skip

    return call


def test_train_then_ask(run, train, folder, questions, tmp_path) -> None:
    film = questions.with_name("film0.mp4")
    ask = ("ask", film, "What plays?", "--offline", "--dtype", "float32", "--method", "omnisift",
           "--choices", "piano,flute", "--budget", "0.4")  # fmt: skip
    code, _, err = run(*ask, "--model", folder)
    assert code == 4
    assert "omnidrop train-selector" in " ".join(err.split())

    out = tmp_path / "selector"
    broken = tmp_path / "broken.jsonl"
    more = questions.read_text() + json.dumps(
        {"video": "broken.mp4", "question": "What?", "answer": "nothing"}
    )
    broken.write_text(more)
    (questions.with_name("broken.mp4")).write_text("no film")
    code, said, err = train(broken, "--videos", questions.parent, "--out", out, "--steps", "4",
                            "--json")  # fmt: skip
    found = json.loads(said)
    assert code == 6
    assert "broken.mp4" in err
    assert (found["failed"], found["training"]["steps"]) == (1, 4)
    assert {path.name for path in out.iterdir()} == {"selector.json", "selector.safetensors"}

    code, said, err = run(*ask, "--model", folder, "--set", f"selector={out}", "--json")
    assert code == 0, err
    assert json.loads(said)["trace"]["method"]["name"] == "omnisift"

    other = checkpoints.tiny_thinker(tmp_path / "other", seed=5)
    code, _, err = run(*ask, "--model", other, "--set", f"selector={out}")
    assert code == 4
    assert "not for other" in " ".join(err.split())

    code, _, err = train(questions, "--out", out)
    assert code == 2
    assert "--force" in err
    code, said, err = train(questions, "--out", out, "--force", "--steps", "1")
    assert code == 0, err
    assert "every token" in said


def test_the_decoder_too(run, train, questions, tmp_path) -> None:
    out = tmp_path / "tuned"
    code, said, err = train(questions, "--out", out, "--steps", "1", "--unfreeze", "--json")
    assert code == 0, err
    assert json.loads(said)["training"]["decoder"] == "trained"
    code, _, err = run("ask", questions.with_name("film0.mp4"), "What plays?", "--offline",
                       "--method", "omnisift", "--budget", "0.4", "--model", out,
                       "--choices", "piano,flute")  # fmt: skip
    assert code == 0, err


def test_a_stopped_call_goes_on(train, questions, tmp_path, monkeypatch) -> None:
    import omnidrop.training.selector as library

    real, out = library._Course._step, tmp_path / "selector"

    def step(self, number, *rest):
        if number == 3:
            raise KeyboardInterrupt
        real(self, number, *rest)

    monkeypatch.setattr(library._Course, "_step", step)
    code, _, err = train(questions, "--out", out, "--steps", "5", "--save-every", "2")
    assert code == 130
    assert "goes on from there" in " ".join(err.split())
    assert [path.name for path in out.iterdir()] == [STATE]
    monkeypatch.setattr(library._Course, "_step", real)
    code, _, err = train(questions, "--out", out, "--steps", "6")
    assert code == 2
    assert "(steps: 5, not 6)" in " ".join(err.split())
    code, said, _ = train(questions, "--out", out, "--steps", "5")
    assert code == 0
    assert "2 of them in an earlier call" in said


def test_what_cannot_be_meant(run, train, questions, tmp_path) -> None:
    out = tmp_path / "a"
    assert train(tmp_path / "none.jsonl", "--out", out)[0] == 3
    assert train(questions, "--out", questions)[0] == 2
    assert train(questions, "--out", out, "--no-audio")[0] == 2
    assert train(questions, "--out", out, "--held-out", "1")[0] == 2
    assert train(questions, "--out", out, "--limit", "0")[0] == 2
    assert train(questions, "--out", out, "--style", "verse")[0] == 2
    assert train(questions, "--out", out, "--limit", "2")[0] == 3  # nothing to judge by
    code, _, err = run("train-selector", questions, "--out", out, "--model", "demo", "--4bit",
                       "--offline")  # fmt: skip
    assert code in (2, 4)
    assert "quantised" in err or "bits" in err
    assert not out.exists()
