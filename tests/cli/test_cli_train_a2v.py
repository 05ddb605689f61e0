"""`omnidrop train-a2v`: from clips to a predictor that `ask` takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fakes import ROOT

sys.path.insert(0, str(ROOT))
from omnidrop.models.qwen2_5_omni import tiny as checkpoints
from omnidrop.testing import media


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.tiny_thinker(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("media")
    return [media.mp4(place / f"film{i}.mp4", seconds=4.0) for i in range(2)]


@pytest.fixture
def train(run, folder):
    def call(*words: object):
        return run("train-a2v", *words, "--model", folder, "--device", "cpu", "--dtype", "float32",
                   "--offline", "--steps", "5", "--hidden", "8")  # fmt: skip

    return call


@pytest.mark.slow
def test_train_then_ask(run, train, folder, films, tmp_path) -> None:
    ask = ("ask", films[0], "What plays?", "--model", folder, "--offline", "--dtype", "float32",
           "--method", "contextguard", "--choices", "piano,flute")  # fmt: skip
    code, _, err = run(*ask)
    assert code == 4
    assert "omnidrop train-a2v" in " ".join(err.split())

    broken = tmp_path / "broken.mp4"
    broken.write_text("no film")
    out = tmp_path / "predictor"
    code, said, err = train(*films, broken, "--out", out, "--json")
    found = json.loads(said)
    assert code == 6
    assert "broken.mp4" in err
    assert (found["failed"], found["training"]["clips"], found["training"]["steps"]) == (1, 1, 5)
    assert {p.name for p in out.iterdir()} == {"a2v.json", "a2v.safetensors"}
    assert json.loads((out / "a2v.json").read_text())["backbone"] == folder.name

    code, said, _ = run(*ask, "--set", f"predictor={out}", "--json")
    assert code == 0
    assert json.loads(said)["trace"]["method"]["name"] == "contextguard"

    code, _, err = train(*films, "--out", out)
    assert code == 2
    assert "--force" in err
    code, said, _ = train(*films, "--out", out, "--force")
    assert code == 0
    assert "held out" in said


def test_what_cannot_be_meant(train, films, tmp_path) -> None:
    assert train(tmp_path / "none.mp4", "--out", tmp_path / "a")[0] == 3
    assert train(*films, "--out", films[0])[0] == 2
    assert train(*films, "--out", tmp_path / "a", "--no-audio")[0] == 2
    assert train(*films, "--out", tmp_path / "a", "--held-out", "1")[0] == 2
    assert not (tmp_path / "a").exists()
    assert train(films[0], "--out", tmp_path / "a")[0] == 3  # nothing to judge by
    assert not (tmp_path / "a").exists()
