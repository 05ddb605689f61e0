"""The whole path: a clip made here, a tiny random checkpoint, the command line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import ROOT, environment

sys.path.insert(0, str(ROOT))
from omnidrop.models.qwen2_5_omni import tiny as checkpoints
from omnidrop.testing import media

pytestmark = pytest.mark.slow

LAYERS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.tiny_thinker(tmp_path_factory.mktemp("model"), layers=LAYERS)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.mp4(tmp_path_factory.mktemp("media") / "film.mp4", seconds=6.0)


@pytest.fixture
def ask(run, folder):
    def call(*words: object):
        return run("ask", "--model", folder, "--device", "cpu", "--dtype", "float32",
                   "--offline", "--max-new-tokens", "4", *words)  # fmt: skip

    return call


def test_a_question(ask, film) -> None:
    code, out, err = ask(film, "What plays?", "--json", "--method", "omnidrop", "--budget", "0.5",
                         "--report", "full")  # fmt: skip
    found = json.loads(out)
    trace = found["trace"]
    assert code == 0
    assert abs(trace["realised_budget"] - 0.5) <= 0.01
    assert len(trace["kept_audio"]) == LAYERS
    assert [c["start"] for c in trace["chunks"]] == [0.0, 2.0, 4.0]
    assert 1 <= len(found["token_ids"]) <= 4
    for part in ("film.mp4 · 0:00–0:06", "12 frames", "budget 0.5 asked", "vision tower"):
        assert part in " ".join(err.split())


def test_clips_questions_and_choices(ask, film, tmp_path) -> None:
    silent = media.silent_mp4(tmp_path / "silent.mp4", seconds=3.0)
    sound = media.wav(tmp_path / "sound.wav", seconds=3.0)
    broken = tmp_path / "broken.mp4"
    broken.write_text("This is no film.")
    code, out, err = ask(
        film, broken, silent, sound, "-q", "One?", "-q", "Two?", "--choices", "yes,no", "--jsonl"
    )
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 6
    assert [r["schema"].split("/")[0] for r in rows].count("omnidrop.error") == 2
    good = [r for r in rows if "text" in r]
    assert len(good) == 6
    assert all(r["text"] in ("yes", "no") and len(r["choices"]) == 2 for r in good)
    assert any(s["reused"] for s in good[1]["trace"]["stages"])
    assert not any(s["reused"] for s in good[2]["trace"]["stages"])
    assert "broken.mp4: " in err
    assert "Traceback" not in err


def test_streamed_and_whole_answers_are_the_same(ask, film) -> None:
    found = json.loads(ask(film, "What plays?", "--json")[1])
    assert ask(film, "What plays?")[1] == found["text"] + "\n"


@pytest.mark.parametrize("suffix", ["html", "svg", "txt", "json"])
def test_save(ask, film, tmp_path, suffix) -> None:
    target = tmp_path / f"report.{suffix}"
    assert ask(film, "What plays?", "--save", target)[0] == 0
    assert "film.mp4" in target.read_text("utf-8")


def test_span_and_sampling(ask, film) -> None:
    flags = (
        "--start",
        "2",
        "--end",
        "0:04",
        "--fps",
        "4",
        "--max-pixels",
        "25088",
        "--no-audio",
        "--still",
        "4",
    )
    clip = json.loads(ask(film, "What?", "--json", *flags)[1])["trace"]
    assert clip["audio_tokens"] == 0
    assert (clip["chunks"][0]["start"], clip["chunks"][-1]["end"]) == (2.0, 4.0)
    assert clip["clip"]["frames"] == 8


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--start", "60"), 2),
        (("--audio-track", "9"), 2),
        (("--still", "256"), 2),
        (("--method", "nothing"), 2),
        (("--set", "nothing=1"), 2),
        (("--attn", "nothing"), 2),
        (("--dtype", "nothing"), 2),
        (("--device", "nothing"), 2),
    ],
)
def test_mistakes(ask, film, flags, code) -> None:
    found, out, err = ask(film, "What?", *flags)
    assert (found, out) == (code, "")
    assert err.startswith("omnidrop: error: ")
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_two_methods_joined(ask, film, run, folder, tmp_path) -> None:
    flags = ("--method", "uniform+omnidrop", "--budget", "0.4", "--set", "layers.diversity=0")
    code, out, err = ask(film, "What?", "--json", *flags)
    assert (code, err) == (0, "")
    trace = json.loads(out)["trace"]
    assert trace["method"]["name"] == "uniform+omnidrop"
    assert trace["method"]["layers.diversity"] == 0
    assert abs(trace["realised_budget"] - 0.4) <= 0.01
    code, _, err = ask(film, "What?", "--method", "uniform+nothing")
    assert code == 2
    assert "nothing" in err

    manifest = tmp_path / "q.jsonl"
    manifest.write_text(json.dumps({"clip": str(film), "question": "What?", "choices": "a,b"}))
    model = ("--model", folder, "--offline", "--device", "cpu", "--dtype", "float32")
    whole = ("--quiet", "--fields", "all")
    code, _, _ = run("batch", manifest, "--out", tmp_path / "o.jsonl", *model, *flags, *whole)
    assert code == 0
    found = json.loads((tmp_path / "o.jsonl").read_text())
    assert found["trace"]["method"]["name"] == "uniform+omnidrop"

    words = ("--repeats", "1", "--warmup", "0", "--max-new-tokens", "2", "--json")
    code, out, err = run("profile", film, "What?", *model, *flags, *words)
    assert (code, err) == (0, "")
    assert [r["label"] for r in json.loads(out)["runs"]] == ["uniform+omnidrop 0.4"]


def test_no_such_model(run, film, tmp_path) -> None:
    for name in (tmp_path / "nowhere", "someone/nothing"):
        code, out, err = run("ask", film, "What?", "--model", name, "--offline")
        assert (code, out) == (4, "")
        assert len(err.splitlines()) == 1


def test_chunks(run, film, tmp_path) -> None:
    code, out, err = run("chunks", film, "--out", tmp_path / "c")
    files = [Path(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert len(files) >= 12 + 3
    assert all(f.stat().st_size > 100 for f in files)
    assert run("chunks", film, "--out", tmp_path / "c")[0] == 2


def test_batch(run, folder, film, tmp_path) -> None:
    manifest = tmp_path / "q.jsonl"
    manifest.write_text(json.dumps({"clip": str(film), "question": "What?", "choices": "a,b"}))
    code, _, _ = run("batch", manifest, "--out", tmp_path / "o.jsonl", "--model", folder,
                     "--offline", "--quiet")  # fmt: skip
    assert code == 0
    assert json.loads((tmp_path / "o.jsonl").read_text())["answer"] in ("a", "b")


@pytest.mark.slow
def test_nothing_but_the_answer_in_a_process_of_its_own(folder, film) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "omnidrop_cli", "ask", str(film), "What?", "--model", str(folder),
         "--choices", "yes,no", "--quiet", "--offline"],
        capture_output=True, text=True, env=environment(), cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout in ("yes\n", "no\n")
    assert done.stderr == ""


def test_chat_sees_the_turns_and_the_part(run, folder, film, monkeypatch) -> None:
    lines = b"What plays?\nAnd then?\n/at 0:02 0:04\nHere?\n/choices yes,no\nSure?\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    code, out, err = run("chat", film, "--model", folder, "--device", "cpu", "--dtype", "float32",
                         "--offline", "--max-new-tokens", "4", "--jsonl")  # fmt: skip
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    earlier = [[turn["answer"] for turn in row["trace"]["settings"]["earlier"]] for row in rows]
    assert earlier == [[row["text"] for row in rows[:i]] for i in range(4)]
    assert [row["trace"]["clip"]["start"] for row in rows] == [0.0, 0.0, 2.0, 2.0]
    assert [any(s["reused"] for s in row["trace"]["stages"]) for row in rows] == [False, True] * 2
    assert rows[3]["text"] in ("yes", "no")
