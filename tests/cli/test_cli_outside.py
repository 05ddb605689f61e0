"""Questions outside of what the demo model knows: exit code, message, and the command to type."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import ROOT

from omnidrop.models.world import World
from omnidrop.profiling import advice
from omnidrop.profiling.advice import Advice, download_bytes, real_model
from omnidrop_cli.commands.answering import Question
from omnidrop_cli.commands.outside import command_for, quoted
from omnidrop_cli.options.common import AnswerFlags, ReadFlags, SpanFlags

DUET = ROOT / "samples" / "duet.mp4"
DEMO = ("--model", "demo", "--device", "cpu")
THREE = Advice("3b", "hub/3B", None, False, 12_000_000_000, 10_000_000_000, 24 * 10**9, 43.2, "cpu")


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> Advice:
    """A made-up estimate, so that no matrix product is timed."""
    monkeypatch.setattr(advice, "real_model", lambda *words, **names: THREE)
    return THREE


def test_one_question_exits_with_4_and_names_the_command(run, advised, tmp_path) -> None:
    clip = tmp_path / "my talk's.mp4"
    shutil.copy(DUET, clip)
    code, out, err = run("ask", clip, "Who is the president?", *DEMO, "--start", "1")
    assert (code, out) == (4, "")
    for part in ("“Who” and “president”", "piano, guitar", "circle", "orange", "--anyway",
                 "download of 12.0 GB", "It fits", "24.0 GB are free", "least 40 s"):  # fmt: skip
        assert part in err
    command = err.splitlines()[-1].strip()
    assert shlex.split(command) == [
        "omnidrop", "ask", "--model", "3b", "--start", "1.0", str(clip), "Who is the president?",
    ]  # fmt: skip


@pytest.mark.slow
def test_choices_are_looked_at_too(run, advised) -> None:
    words = ("ask", DUET, "Which instrument plays first?", *DEMO)
    code, _, err = run(*words, "--choices", "Obama,Merkel,Macron")
    assert code == 4
    assert "“Obama”, “Merkel” and “Macron”" in err
    assert "--choices Obama,Merkel,Macron" in err
    code, out, _ = run(*words, "--choices", "piano,flute")
    assert (code, out) == (0, "piano\n")


def test_anyway_asks_and_says_so(run) -> None:
    words = ("ask", DUET, "Who is the president?", *DEMO, "--anyway", "--report", "brief")
    code, out, err = run(*words)
    assert code == 0
    assert out.strip()
    assert "The answer is a guess." in " ".join(err.split())


def test_of_several_questions_the_others_are_answered(run, advised) -> None:
    code, out, err = run(
        "ask", DUET, "-q", "Who speaks?", "-q", "What instrument plays first?", "-q", "Why?", *DEMO
    )
    assert code == 6
    assert out.rstrip().endswith("piano")
    assert len([line for line in err.splitlines() if line.startswith("  omnidrop ask")]) == 1
    assert "“Why”" in err


def test_of_a_folder_the_message_is_said_once_and_each_further_clip_in_a_line(
    run, advised, tmp_path
) -> None:
    for name in ("a", "b", "c"):
        shutil.copy(DUET, tmp_path / f"{name}.mp4")
    code, out, err = run("ask", tmp_path, "Who plays the trumpett?", *DEMO, "--json")
    assert code == 6
    first, command, *others = err.splitlines()
    assert first.startswith(f"omnidrop: error: {tmp_path / 'a.mp4'}: The demo model does not know")
    assert "It knows only instruments" in first
    assert "--anyway" in first
    assert command.startswith("  omnidrop ask --model 3b")
    assert others == [
        f"omnidrop: error: {tmp_path / name}: The demo model does not know “Who” and “trumpett”. "
        "Did you mean trumpet for trumpett?"
        for name in ("b.mp4", "c.mp4")
    ]
    told = [problem["error"] for problem in json.loads(out)["errors"]]
    assert len(told) == 3
    assert all("It knows only instruments" in text and "--anyway" in text for text in told)
    assert "anyway=True" not in out


def test_a_chat_names_the_option_alone(run, monkeypatch) -> None:
    lines = io.TextIOWrapper(io.BytesIO(b"Who speaks?\n"))
    monkeypatch.setattr(sys, "stdin", lines)
    code, out, err = run("chat", DUET, *DEMO)
    assert (code, out) == (6, "\n")
    assert "or ask this one anyway (--anyway)." in err
    assert "anyway=True" not in err


def test_the_library_names_the_argument_too() -> None:
    found = World({}, frozenset({"what"}), (5.0, 12.0), 24.0, "plain").check("demo", "Who?")
    assert "(--anyway, anyway=True)" in str(found)


@pytest.mark.slow
def test_a_long_clip_is_outside_and_its_part_is_not(run, advised) -> None:
    long = ROOT / "samples" / "long.mp4"
    code, _, err = run("ask", long, "What instrument plays first?", *DEMO)
    assert code == 4
    assert "clips of 5 to 12 s, and this is 64 s long" in err
    assert "Ask about a shorter part (--start, --end), or add --anyway" in err
    assert run("ask", long, "What instrument plays first?", *DEMO, "--end", "8")[0] == 0


@pytest.mark.slow
def test_a_row_of_a_batch_fails_alone(run, tmp_path) -> None:
    shutil.copy(DUET, tmp_path / "duet.mp4")
    rows = [
        {"id": "a", "clip": "duet.mp4", "question": "Who speaks?"},
        {"id": "b", "clip": "duet.mp4", "question": "What instrument plays first?"},
    ]
    manifest, out = tmp_path / "m.jsonl", tmp_path / "out.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    fields = ("--fields", "answer,exit_code,unknown")
    code, _, err = run("batch", manifest, "--out", out, *fields, *DEMO)
    assert code == 6
    assert "1 answered, 1 failed" in err
    found = {row["id"]: row for row in map(json.loads, out.read_text("utf-8").splitlines())}
    assert (found["a"]["exit_code"], found["a"]["unknown"]) == (4, ["Who", "speaks"])
    assert found["b"]["answer"] == "piano"
    assert run("batch", manifest, "--out", out, *DEMO, "--retry", 1, "--anyway")[0] == 0


@pytest.mark.slow
def test_a_question_of_an_evaluation_is_an_error(run, tmp_path) -> None:
    shutil.copy(DUET, tmp_path / "duet.mp4")
    asked = ("Who speaks?", "Ann", ["Ann", "Bob"]), (
        "What instrument plays first?", "piano", ["flute", "piano"],
    )  # fmt: skip
    path, out = tmp_path / "q.jsonl", tmp_path / "out"
    path.write_text(
        "".join(
            json.dumps(
                {"id": f"{i}", "video": "duet.mp4", "question": q, "answer": a, "choices": c}
            )
            + "\n"
            for i, (q, a, c) in enumerate(asked)
        ),
        encoding="utf-8",
    )
    words = ("eval", path, "--out", out, "--method", "none", "--budget", ".5", *DEMO, "--json")
    code, said, err = run(*words)
    found = json.loads(said)
    assert code == 6
    assert "“Who”" in err
    assert "anyway=True" not in err
    assert found["setup"]["style"] == "plain", "the demo has not learned letters"
    cell = found["cells"][0]
    assert (cell["answered"], cell["right"], cell["failed"]) == (1, 1, 1)
    assert run(*words, "--anyway")[0] == 0


@pytest.mark.parametrize(
    "word",
    [
        "plain",
        "two words",
        "it's",
        '"quoted"',
        "$HOME `id` \\ !",
        "line\nbreak\t'x'",
        "é 音",
        "*",
        "",
    ],
)
def test_a_shell_reads_the_words_back(word: str) -> None:
    line = quoted(["printf", "%s.", word], windows=False)
    assert "\n" not in line
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode() == f"{word}."


def test_windows_has_quotes_of_its_own() -> None:
    assert quoted(["omnidrop", "my talk.mp4"], windows=True) == 'omnidrop "my talk.mp4"'


def test_the_command_repeats_what_was_asked_for() -> None:
    question = Question(Path("-odd.mp4"), "-Who?", span=SpanFlags(1.5, None))
    read = ReadFlags(no_audio=True, fps=1.0)
    flags = AnswerFlags(choices="-a,b", anyway=True, system="Be brief.")
    advice = Advice("7b", "hub/7B", "4bit", False, None, 1, None, 1.0, "cuda:0")
    assert shlex.split(command_for(advice, question, read, flags)) == [
        "omnidrop", "ask", "--model", "7b", "--4bit", "--start", "1.5", "--fps", "1.0",
        "--no-audio", "--choices=-a,b", "--system", "Be brief.", "--", "-odd.mp4", "-Who?",
    ]  # fmt: skip


def test_the_model_advised_is_the_best_that_fits(monkeypatch) -> None:
    room = {"free": 0}

    def made(alias, name, quantize, path, question, clip, device):
        peak = {"3b": 10, "7b": 20}.get(alias, 99) * (0.5 if quantize else 1.0)
        return Advice(alias, name, quantize, False, 1, round(peak), room["free"], 1.0, device)

    monkeypatch.setattr(advice, "_advice", made)
    monkeypatch.setattr(advice, "cached", lambda name: None)
    found = []
    for kind, free, quick in (
        ("cuda", 30, False),
        ("cuda", 12, False),
        ("cuda", 6, False),
        ("cuda", 1, False),
        ("cpu", 30, True),
        ("cpu", 6, True),
        ("cpu", 6, False),
        ("cpu", 1, False),
    ):
        room["free"] = free
        monkeypatch.setattr(advice, "quick_4_bits", lambda quick=quick: quick)
        monkeypatch.setattr(
            advice, "pick_device", lambda name, kind=kind: advice.torch.device(kind)
        )
        one = real_model("clip.mp4", "Who?")
        found.append((one.alias, one.quantize, one.fits))
    assert found == [
        ("7b", None, True), ("7b", "4bit", True), ("3b", "4bit", True), ("3b", "4bit", False),
        ("3b", None, True), ("3b", "4bit", True), ("3b", None, False), ("3b", None, False),
    ]  # fmt: skip
    monkeypatch.setattr(advice, "cached", lambda name: Path() if "7B" in name else None)
    assert real_model("clip.mp4", "Who?").alias == "7b", "it is on this machine"


def test_the_advice_is_an_estimate_of_this_clip() -> None:
    found = real_model(DUET, "Who is the president?", device="cpu")
    assert found.alias == "3b"
    assert found.download == download_bytes(found.name) == 12_000_000_000
    assert 9e9 < found.peak < 25e9
    assert found.seconds > 0.1
    assert "It fits" in found.sentence() or "It does NOT fit here now" in found.sentence()
    assert real_model(ROOT / "README.md", "Who?") is None, "no clip, no advice"


def test_the_sentence_says_what_is_known() -> None:
    small = Advice("3b", "hub/3B", "4bit", True, None, 10**10, 10**9, 9.0, "cuda:0").sentence()
    for part in ("hub/3B in 4 bits, which is on this machine", "NOT fit here now", "on the GPU"):
        assert part in small
