"""`omnidrop chat` on a model that answers at once, with a pipe as stdin."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes import TEXT, make_trace

from omnidrop.report.trace import Answer, Choice, Moment
from omnidrop_cli import interrupts
from omnidrop_cli.chat.screen import facts


@pytest.fixture
def chat(run, clip, fake, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Run `omnidrop chat` with these lines on stdin."""

    def call(*lines: str, words: tuple[object, ...] = ()) -> tuple[int, str, str]:
        stdin = io.TextIOWrapper(io.BytesIO("".join(f"{line}\n" for line in lines).encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        return run("chat", clip, *words)

    return call


def test_a_pipe_gives_one_line_per_question(chat, fake) -> None:
    code, out, err = chat("Who plays?", "", "/turns on", "And then?", "Last?")
    assert (code, out, err) == (0, f"{TEXT}\n" * 3, "")
    assert fake.log == [
        "load None",
        "open concert.mp4",
        "ask concert.mp4 Who plays?",
        "ask concert.mp4 And then? after 1",
        "ask concert.mp4 Last? after 2",
        "close concert.mp4",
    ]


def test_a_last_line_without_a_line_break_counts(run, clip, fake, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Who?\nWhen\xff?")))
    code, out, _ = run("chat", clip)
    assert (code, out) == (0, f"{TEXT}\n" * 2)
    assert fake.log[-2].startswith("ask concert.mp4 When")


def test_a_failed_question_keeps_its_line_and_is_no_turn(chat, fake) -> None:
    code, out, err = chat("Who plays?", "memory?", "bug?", "/bugdet 1", "Last?")
    assert (code, out) == (6, f"{TEXT}\n\n\n{TEXT}\n")
    assert fake.log[-2] == "ask concert.mp4 Last? after 1"
    assert "omnidrop: error: Not enough memory. Lower --max-pixels." in err
    assert "RuntimeError: tensor of the wrong shape" in err
    assert "There is no command /bugdet. Did you mean /budget?" in err


def test_alone_and_the_demo_model(chat, fake) -> None:
    chat("One?", "Two?", words=("--alone",))
    assert not [line for line in fake.log if "after" in line]
    fake.info.demo = True
    chat("One?", "Two?", "/turns on", "Three?", "Four?", "/turns off", "Five?")
    assert [line for line in fake.log if "after" in line] == ["ask concert.mp4 Four? after 1"]


def test_reset_forgets_the_turns(chat, fake) -> None:
    chat("One?", "Two?", "/reset", "Three?", "Four?")
    assert [line for line in fake.log if "after" in line] == [
        "ask concert.mp4 Two? after 1",
        "ask concert.mp4 Four? after 1",
    ]


def test_a_span_and_another_clip(chat, fake, clip, tmp_path) -> None:
    other = tmp_path / "other film.mp4"
    other.write_bytes(clip.read_bytes())
    code, out, err = chat(
        "One?", "/at 0:00.2", "Two?", "/at off", "Three?", f"/open {other}", "Four?",
        "/open nothing.mp4", "/at 9:00", "Five?",
    )  # fmt: skip
    assert code == 6  # two commands failed, and the questions went on
    assert out == f"{TEXT}\n" * 5
    assert "nothing.mp4: There is no such file." in err
    assert "start (540 s) is not before the end" in err
    assert [line for line in fake.log if line.startswith(("open", "ask"))] == [
        "open concert.mp4",
        "ask concert.mp4 One?",
        "open concert.mp4",
        "ask concert.mp4 Two? after 1",
        "ask concert.mp4 Three? after 2",
        "open other film.mp4",
        "ask other film.mp4 Four?",
        "ask other film.mp4 Five? after 1",
    ]
    assert fake.spans == [(None, None), (0.2, None), (None, None)]


def test_budget_method_and_choices(chat, capsys) -> None:
    code, out, _ = chat(
        "One?", "/budget 0.2", "Two?", "/method uniform", "Three?", "/method none", "Four?",
        "/budget 0.5", "/method fastv", "/budget 7", "/choices yes,no", "Five?", "/choices off",
        "Six?",
        words=("--jsonl",),
    )  # fmt: skip
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 6  # none keeps all, and there is no budget of 7
    assert [row["trace"]["asked_budget"] for row in rows] == [0.3, 0.2, 0.2, 1.0, 0.3, 0.3]
    assert [row["text"] for row in rows[-2:]] == ["yes", TEXT]


def test_commands_complain_in_their_own_words(chat) -> None:
    code, out, err = chat(
        "/budget 7", "/method omnidorp", "/choices yes", "/report", "/save x.html", "/turns 3",
        words=("--preset", "dash-29"),
    )  # fmt: skip
    assert (code, out) == (6, "")
    text = " ".join(err.split())
    for part in (
        "sets the budget. /method NAME leaves the preset.",
        "Did you mean omnidrop",
        "/choices 'yes' does not name two or more choices",
        "There is no answer to report on.",
        "There is no answer to save.",
        "/turns 3 is neither on nor off.",
    ):
        assert part in text


@pytest.mark.parametrize("suffix", ["json", "html", "txt"])
def test_save(chat, tmp_path, suffix) -> None:
    target, end = tmp_path / f"talk.{suffix}", tmp_path / "end.json"
    code, *_ = chat("Who plays?", f"/save {target}", "Why?", f"/save {target}", "Last?",
                    words=("--save", end))  # fmt: skip
    assert code == 0
    text = target.read_text("utf-8")
    assert "Who plays?" in text
    assert "Why?" in text
    assert "Last?" not in text
    found = json.loads(end.read_text("utf-8"))
    assert [answer["question"] for answer in found["answers"]] == ["Who plays?", "Why?", "Last?"]


def test_a_file_of_someone_else_is_kept(chat, tmp_path) -> None:
    target = tmp_path / "talk.txt"
    target.write_text("mine")
    code, _, err = chat("Who plays?", f"/save {target}")
    assert code == 6
    assert "The file exists." in err
    assert target.read_text() == "mine"


def test_a_pipe_has_the_notices_in_json_alone(run, clip, fake, monkeypatch, tmp_path) -> None:
    cut = tmp_path / "cut.mp4"
    clip.rename(cut)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"One?\nTwo?\n")))
    _, out, err = run("chat", cut, "--jsonl")
    assert err == ""
    assert out.count("The file ends at 0:58") == 2


def test_an_interrupt_ends_a_script_and_keeps_what_was_answered(chat, tmp_path) -> None:
    end = tmp_path / "end.json"
    code, out, _ = chat("One?", "interrupt", "Three?", words=("--save", end))
    assert (code, out) == (130, f"{TEXT}\n")
    assert len(json.loads(end.read_text())["answers"]) == 1


def test_the_line_below_an_answer() -> None:
    trace = replace(make_trace(), moments=())
    answer = Answer("A piano.", (1, 2), "stop token", trace)
    assert facts(answer, 1.234) == "1.23 s"
    moments = (Moment(12.0, 16.0, 0.6), Moment(0.0, 4.0, 0.2))
    sure = replace(
        answer, probability=0.87, stop="max new tokens", trace=replace(trace, moments=moments)
    )
    assert facts(sure, 1.234) == (
        "87 % sure · from 0:12–0:16, 0:00–0:04 · cut off after 2 tokens · 1.23 s"
    )
    choices = (Choice("yes", 0.996, -0.1), Choice("no", 0.004, -9.0))
    assert facts(replace(sure, choices=choices, stop="choice"), 0.05) == (
        "yes 100 % · from 0:12–0:16, 0:00–0:04 · 50 ms"
    )
    assert facts(replace(answer, text=" "), 1.0).startswith("the answer is empty · ")


def test_a_session_survives_a_hasty_second_interrupt(monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(os, "_exit", sys.exit)

    def press() -> None:
        interrupts.interrupt()

    try:
        interrupts.forget_interrupts()
        with interrupts.keep_session(lambda: said.append("stopping")):
            with pytest.raises(KeyboardInterrupt):
                press()
            press()
            assert said == ["stopping"]
            with pytest.raises(SystemExit, match="130"):
                press()
        interrupts.forget_interrupts()
        with pytest.raises(KeyboardInterrupt):
            press()
        with pytest.raises(SystemExit, match="130"):
            press()
    finally:
        interrupts.forget_interrupts()
