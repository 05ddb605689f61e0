"""What `omnidrop ask` writes where, on the fake model."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import fakes
import pytest

from omnidrop.report.trace import SCHEMA


def copies(clip: Path, *names: str) -> list[Path]:
    paths = [clip.with_name(name) for name in names]
    for path in paths:
        path.write_bytes(clip.read_bytes())
    return paths


def test_one_answer_is_all_of_stdout(run, fake, clip) -> None:
    assert run("ask", clip, "What plays first?") == (0, fakes.TEXT + "\n", "")
    assert fake.log == ["load None", "open concert.mp4", "ask concert.mp4 What plays first?",
                        "close concert.mp4"]  # fmt: skip


def test_report_goes_to_stderr(run, fake, clip) -> None:
    code, out, err = run("ask", clip, "What plays?", "--report", "full")
    assert (code, out) == (0, fakes.TEXT + "\n")
    for part in ("What plays?", "Tokens entering each layer", "0:22–0:30", "prefill", "KV cache:"):
        assert part in err


def test_brief_report_is_a_few_lines(run, fake, clip) -> None:
    _, _, err = run("ask", clip, "What plays?", "--report", "brief")
    assert 2 <= len(err.strip().splitlines()) <= 8
    assert "30 % of tokens kept" in err
    assert f"answer    {fakes.TEXT}" in err  # stdout is not on the same screen


def test_settings_are_shown_when_asked_for(run, fake, clip) -> None:
    assert "max_new_tokens" not in run("ask", clip, "What plays?", "--report", "full")[2]
    assert "max_new_tokens 128" in run("ask", clip, "What plays?", "--report", "settings")[2]


@pytest.mark.parametrize("form", [(), ("--json",), ("--jsonl",)])
@pytest.mark.parametrize("questions", [("What?",), ("-q", "What?", "-q", "Who?")])
def test_nothing_but_errors_is_on_stderr_unless_asked_for(run, fake, clip, form, questions) -> None:
    (cut,) = copies(clip, "cut.mp4")
    code, out, err = run("ask", cut, *questions, *form)
    assert (code, err) == (0, "")
    if form == ("--json",):
        assert "The file ends at 0:58" in out
    assert run("ask", cut, *questions, *form, "--report", "none")[2] == ""
    assert "The file ends at 0:58" in run("ask", cut, *questions, *form, "--report", "brief")[2]
    assert run("ask", cut, *questions, *form, "--report", "brief", "--quiet")[2] == ""


def test_json_is_one_answer(run, fake, clip) -> None:
    code, out, err = run("ask", clip, "What plays?", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["schema"] == SCHEMA
    assert next(iter(found)) == "schema"
    assert found["text"] == fakes.TEXT
    assert found["trace"]["method"]["budget"] == 0.3
    assert len(found["trace"]["chunks"]) == 30


def test_json_of_several_holds_answers_and_errors(run, fake, clip) -> None:
    code, out, _ = run("ask", clip, clip.with_name("none.mp4"), "-q", "A?", "-q", "B?", "--json")
    found = json.loads(out)
    assert code == 6
    assert found["schema"] == "omnidrop.answers/1"
    assert [a["question"] for a in found["answers"]] == ["A?", "B?"]
    assert [e["exit_code"] for e in found["errors"]] == [3, 3]


def test_jsonl_is_one_line_each(run, fake, clip) -> None:
    code, out, _ = run("ask", clip.with_name("none.mp4"), clip, "-q", "A?", "-q", "B?", "--jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 6
    assert [line["schema"] for line in lines] == ["omnidrop.error/1"] * 2 + [SCHEMA] * 2


def test_several_answers_are_tab_separated_lines(run, fake, clip) -> None:
    a, b = copies(clip, "a.mp4", "b\t.mp4")
    code, out, _ = run("ask", a, b, "-q", "One?", "-q", "Two?")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [row[1] for row in rows] == ["One?", "Two?"] * 2
    assert all(len(row) == 3 for row in rows)
    assert [line for line in fake.log if not line.startswith("ask")] == [
        "load None", "open a.mp4", "close a.mp4", "open b\t.mp4", "close b\t.mp4"
    ]  # fmt: skip


def test_one_bad_clip_does_not_stop_the_others(run, fake, clip) -> None:
    code, out, err = run("ask", clip.with_name("none.mp4"), clip, "What?")
    assert code == 6
    assert len(out.splitlines()) == 1
    assert err.startswith("omnidrop: error: ")
    assert "none.mp4: There is no such file." in err


def test_no_model_is_loaded_when_every_clip_is_bad(run, fake, clip) -> None:
    assert run("ask", "x.mp4", "y.mp4", "What?")[0] == 6
    assert fake.log == []


def test_one_failed_question_does_not_stop_the_others(run, fake, clip) -> None:
    code, out, err = run("ask", clip, "-q", "memory?", "-q", "bug?", "-q", "What?")
    assert code == 6
    assert len(out.splitlines()) == 1
    assert "Not enough memory." in err
    assert "This is a bug in omnidrop" in err


def test_the_same_failure_of_every_question_keeps_its_code(run, fake, clip) -> None:
    assert run("ask", clip, "-q", "memory?", "-q", "more memory?")[0] == 5


def test_choices(run, fake, clip) -> None:
    flags = ("--choices", '"red, white",blue', "--report", "full")
    code, out, err = run("ask", clip, "Which?", *flags)
    assert (code, out) == (0, "red, white\n")
    assert "red, white" in err
    assert "66.7 %" in err


def test_question_and_clips_from_stdin(run, fake, clip, monkeypatch) -> None:
    def ask(*words: object, text: bytes) -> str:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text), "utf-8"))
        code, out, _ = run("ask", *words)
        assert code == 0
        return out

    assert ask(clip, "-", text=b"What plays?\n") == fakes.TEXT + "\n"
    (other,) = copies(clip, "other.mp4")
    found = ask("-", "What?", text=f"{clip}\n\n{other}\n".encode())
    assert [line.split("\t")[0] for line in found.splitlines()] == [str(clip), str(other)]


def test_options_from_the_environment(run, fake, clip, monkeypatch) -> None:
    monkeypatch.setenv("OMNIDROP_BUDGET", "0.15")
    monkeypatch.setenv("OMNIDROP_MODEL", "3b")
    monkeypatch.setenv("OMNIDROP_QUESTION", "What plays first?\nWho speaks?")
    monkeypatch.setenv("OMNIDROP_JSONL", "1")
    code, out, _ = run("ask", clip)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert fake.log[0] == "load 3b"
    assert [line["question"] for line in lines] == ["What plays first?", "Who speaks?"]
    assert lines[0]["trace"]["asked_budget"] == 0.15


def test_the_clip_is_probed_once(run, clip, tmp_path, monkeypatch) -> None:
    from omnidrop.clip import clip as clips
    from omnidrop.testing import tiny_checkpoint

    probed: list[Path] = []
    probe = clips.probe

    def counted(path: Path):
        probed.append(Path(path))
        return probe(path)

    monkeypatch.setattr(clips, "probe", counted)
    words = ("--model", tiny_checkpoint(tmp_path / "model"), "--offline", "--max-new-tokens", "1")
    code, out, _ = run("ask", clip, "-q", "What plays?", "-q", "Who speaks?", "--jsonl", *words)
    assert code == 0
    assert probed == [clip]
    first = json.loads(out.splitlines()[0])["trace"]
    opened = next(stage["seconds"] for stage in first["stages"] if stage["name"] == "open")
    assert 0 < opened < first["ttft"]  # probing before the model is loaded still counts


@pytest.mark.parametrize(
    ("flags", "budget"),
    [((), 0.3), (("--budget", "0.5"), 0.5), (("--budget", "1"), 1.0), (("--method", "none"), 1.0)],
)
def test_budget(run, fake, clip, flags, budget) -> None:
    _, out, _ = run("ask", clip, "What?", "--json", *flags)
    assert json.loads(out)["trace"]["asked_budget"] == budget


def test_json_is_strict_whatever_a_trace_holds(clip) -> None:
    from omnidrop.files import to_json

    text = to_json({"a": float("nan"), "b": Path("/x"), "c": "\udcff", "d": (1, 2), 3: {4}})
    assert json.loads(text) == {"a": None, "b": "/x", "c": "\\udcff", "d": [1, 2], "3": [4]}
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What?", "check: same answer with every token: yes"),
        ("What other?", "check: same answer with every token: no, it is “A violin.”"),
    ],
)
def test_check(run, fake, clip, question, said) -> None:
    code, out, err = run("ask", clip, question, "--check")
    assert code == 0
    assert f"omnidrop: {said}" in err
    assert "same answer" not in out
    assert "same answer" not in run("ask", clip, question)[2]
    assert run("ask", clip, question, "--check", "--quiet")[2] == ""
    found = json.loads(run("ask", clip, question, "--check", "--json")[1])
    assert found["unpruned_text"] == ("A violin." if "other" in question else found["text"])


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ((), None),
        (("--budget", "0.2"), ("omnidrop", 0.2)),
        (("--set", "rows=last"), ("omnidrop", 0.4)),
        (("--method", "fastv"), ("fastv", 0.3)),
        (("--method", "none"), ("none", 1.0)),
        (("--budget", "auto"), ("omnidrop-auto", 0.3)),
        (("--preset", "paper-7b-20"), ("omnidrop", 0.2)),
    ],
)
def test_what_nobody_asked_for_is_left_to_the_model(
    run, fake, clip, monkeypatch, words, asked
) -> None:
    from fakes import FakeSession

    from omnidrop.recommended import Recommended

    fake.recommended = Recommended("omnidrop", 0.4, "a test")
    seen = []
    ask = FakeSession.ask

    def watched(self, question: str, **given):
        seen.append(given["method"])
        return ask(self, question, **given)

    monkeypatch.setattr(FakeSession, "ask", watched)
    assert run("ask", clip, "What?", *words)[0] == 0
    (method,) = seen
    assert (method and (method.name, method.budget)) == asked


def test_an_answer_without_a_word(run, fake, clip, monkeypatch) -> None:
    import fakes

    monkeypatch.setattr(fakes, "TEXT", "")
    code, out, err = run("ask", clip, "What?")
    assert (code, out) == (4, "\n")
    assert err.startswith("omnidrop: error: The model answered with nothing. ")
    code, _, err = run("ask", clip, "-q", "What?", "-q", "Who?")
    assert (code, err.count("error:")) == (4, 1)
    assert err.startswith(f"omnidrop: error: 2 of 2 answers have no word. The first: {clip}: What?")
    code, out, err = run("ask", clip, "What?", "--json")
    assert (code, json.loads(out)["text"], err.count("error:")) == (4, "", 1)


def test_some_answers_without_a_word(run, fake, clip, monkeypatch) -> None:
    from fakes import FakeSession

    ask = FakeSession.ask

    def half(self, question: str, **given: object):
        answer = ask(self, question, **given)
        return replace(answer, text="") if question == "Who?" else answer

    monkeypatch.setattr(FakeSession, "ask", half)
    code, out, err = run("ask", clip, "-q", "What?", "-q", "Who?")
    assert (code, len(out.splitlines())) == (6, 2)
    assert err.startswith(f"omnidrop: error: 1 of 2 answers have no word. The first: {clip}: Who?")
    assert run("ask", clip, "-q", "What?", "-q", "Who?", "--json")[2] == err


def test_a_terminal_shows_that_an_answer_has_no_word(run, fake, clip, monkeypatch, capsys) -> None:
    from omnidrop_cli.commands.answering import Outcome, Question
    from omnidrop_cli.files.stdout import NOTHING, Printer
    from omnidrop_cli.terminal.progress import Progress

    session = fakes.FakeSession(clip)
    answer = session.ask(
        "What?", method=None, choices=(), options=None, system=None, on_text=None, progress=None,
        limits=None,
    )  # fmt: skip
    printer = Printer("text", True, Progress(False), live=True)
    printer.put(Outcome(Question(clip, "What?"), answer=replace(answer, text="")))
    assert capsys.readouterr().out == f"{NOTHING}\n"


def test_ctrl_c_keeps_what_was_answered(run, fake, clip, tmp_path) -> None:
    asked = ("-q", "One?", "-q", "memory?", "-q", "interrupt?", "-q", "Four?")
    code, out, err = run("ask", clip, *asked)
    assert (code, out) == (130, f"{clip}\tOne?\t{fakes.TEXT}\n")
    said = "omnidrop: interrupted: 1 of 4 questions were answered. The next would have been "
    assert f"{said}{clip}: interrupt? " in err
    target = tmp_path / "r.json"
    code, out, err = run("ask", clip, *asked, "--json", "--save", target)
    assert code == 130
    for text in (out, target.read_text("utf-8")):
        found = json.loads(text)
        assert [a["question"] for a in found["answers"]] == ["One?"]
        assert [e["exit_code"] for e in found["errors"]] == [5]
    assert f"answered, and are in {target}." in err
    assert "interrupted" not in run("ask", clip, *asked, "--quiet")[2]
    assert run("ask", clip, "-q", "interrupt?", "-q", "Two?") == (130, "", "")
