"""`omnidrop report`: tables on the terminal, pages that can be searched, pages of clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import make_trace
from pages import Page

from omnidrop.report.reading import answer_of, is_whole
from omnidrop.report.trace import Answer, Choice, LeftOut, Moment


def flat(number: int, **other: Any) -> dict[str, Any]:
    found = {
        "schema": "omnidrop.batch/1", "id": str(number), "key": f"k{number}", "setup": "one",
        "clip": f"/clips/clip {number // 4}.mp4", "question": f"What plays in part {number}?",
        "answer": "piano", "probability": 0.5 + number / 1000, "budget": 0.3,
        "kept": 0.29 + number / 10_000, "seconds": 0.5 + number, "error": None, "cause": None,
    }  # fmt: skip
    return found | other


def failed(number: int) -> dict[str, Any]:
    cause = "The <b>stream</b> ends early"
    nothing = {"answer": None, "probability": None, "budget": None, "kept": None}
    return flat(number, **nothing, error=f"/clips/clip {number // 4}.mp4: {cause}.", cause=cause)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """130 rows, of which 13 failed, 20 have other settings, and the last line is cut."""
    rows = [failed(i) if i % 10 == 9 else flat(i) for i in range(110)]
    rows += [flat(i, setup="two", budget=0.5, expected="drums") if i % 10 else failed(i)
             for i in range(110, 130)]  # fmt: skip
    path = tmp_path / "answers.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text + '{"schema": "omn', encoding="utf-8")
    return path


def whole(clip: Path, question: str, text: str = "piano") -> dict[str, Any]:
    answer = Answer(text, (1,), "stop token", make_trace(question, path=str(clip)), question)
    return {**answer.to_dict(), "id": question, "key": question, "setup": "one", "clip": str(clip)}


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_the_terminal(answers: Path, run, monkeypatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, text, _ = run("report", answers)
    assert code == 0
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    for part in ("130 rows about 33 clips", "117 answered", "13 failed", "not complete",
                 "13  The <b>stream</b> ends early", "1  30 %", "2  50 %"):  # fmt: skip
        assert part in text
    assert "129.5 s" in text or "2 min 10 s" in text


def test_rows_are_chosen_and_listed(answers: Path, run) -> None:
    code, text, _ = run("report", answers, "--slowest", 2, "--least-sure", 1)
    assert code == 0
    assert "part 129?" in text
    assert "part 128?" in text
    assert "part 0?" in text
    assert "part 127?" not in text
    code, text, _ = run("report", answers, "--failed", "--rows", 3)
    assert text.count("The <b>stream</b> ends e") == 4
    assert "and 10 more" in text
    code, text, _ = run("report", answers, "--where", "seconds<3", "--sort=-seconds", "--json")
    found = json.loads(text)
    assert [row["id"] for row in found["lists"][0]["rows"]] == ["2", "1", "0"]
    assert (found["schema"], found["rows"], found["left_out"]) == ("omnidrop.report/1", 3, 127)
    code, text, _ = run("report", answers, "--clip", "clip 1.mp4", "--question", "PART 5", "--json")
    assert [row["id"] for row in json.loads(text)["lists"][0]["rows"]] == ["5"]


def test_wrong_usage_is_told_before_a_file_is_written(answers: Path, run, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    for words, said in (
        (["--where", "seconds"], "no condition"),
        (["--where", "seconds>999"], "No row of 130"),
        (["--sort", "speed"], "'speed'"),
        (["--slowest", "0"], "--slowest"),
        (["--save", str(tmp_path / "report.pdf")], ".html"),
    ):
        code, _, error = run("report", answers, "--save", page, *words)
        assert (code, said in error) == (2, True), error
        assert not page.exists()
    code, _, error = run("report", tmp_path / "none.jsonl")
    assert code == 3
    (tmp_path / "other.jsonl").write_text("{}\n")
    code, _, error = run("report", tmp_path / "other.jsonl")
    assert (code, "holds no answers" in error) == (2, True)


def test_the_page_holds_every_row_and_asks_for_nothing(answers: Path, run, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    code, _, _ = run("report", answers, "--save", target)
    assert code == 0
    page = Page.read(target)
    data = page.value()
    assert len(data["page"]["rows"]) == 130
    assert page.of("script")[-1].get("src") is None
    assert not [r for r in page.references if r and not r.startswith("#")]
    assert "The <b>stream</b> ends early" in page.said()
    assert page.tags.count("tr") > 50
    code, _, error = run("report", answers, "--save", target)
    assert (code, "exists" in error) == (2, True)


def test_of_very_many_rows_a_page_holds_those_that_matter(answers: Path) -> None:
    from omnidrop.evaluation.report.collection import read
    from omnidrop_cli.page.overview import held_rows

    found = read([answers])
    held = held_rows(found, found.chosen, 20)
    ids = [int(found.row(i).id) for i in held]
    assert len(ids) == 20
    assert ids == sorted(ids)
    assert sum(not found.answered(i) for i in held) >= 10
    assert {128, 129, 0, 1} <= set(ids)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_searched_in_a_browser(answers, run, tmp_path, tab, width) -> None:
    target = tmp_path / "report.html"
    run("report", answers, "--save", target)
    tab.open(target, width, dark=width > 600)
    assert tab.said() == []
    assert tab.value("document.documentElement.scrollWidth") <= width
    rows = "document.querySelectorAll('#rows-body tr').length"
    count = "document.getElementById('count').textContent"
    assert (tab.value(rows), tab.value(count)) == (50, "130 rows, 1 to 50 shown")
    tab.value("document.getElementById('next').click(), document.getElementById('next').click()")
    assert (tab.value(rows), tab.value(count)) == (30, "130 rows, 101 to 130 shown")
    assert tab.value("document.getElementById('next').disabled") is True

    def fill(name: str, value: str) -> None:
        tab.value(
            f"(function () {{ var e = document.getElementById('choose').elements['{name}'];"
            f" e.value = '{value}'; e.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
        )

    first = "document.querySelector('#rows-body tr').innerText"
    fill("sort", "-seconds")
    assert "part 129?" in tab.value(first)
    fill("status", "failed")
    assert (tab.value(rows), "ends early" in tab.value(first)) == (13, True)
    tab.value("document.querySelector('#choose button').click()")
    tab.wait(f"{count}.startsWith('130 rows')")
    fill("words", "part 128")
    assert (tab.value(count), "expected drums" in tab.value(first)) == ("1 row", True)
    tab.value("document.querySelector('a[data-choose=cause]').click()")
    assert tab.value(count) == "13 rows"
    # A row's text is text: the tag in the error is no element.
    assert tab.value("document.querySelectorAll('#rows-body b').length") == 0
    assert tab.asked_for() == [target.absolute().as_uri()]


def test_pages_of_clips_are_made_once_and_linked(clip: Path, run, tmp_path: Path) -> None:
    rows = [whole(clip, "What plays?"), whole(clip, "Which shape?", "a ring"), flat(3), failed(9)]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pages = tmp_path / "pages"
    code, _, _ = run("report", path, "--save", tmp_path / "r.html", "--pages", pages)
    assert code == 0
    made = sorted(pages.iterdir())
    assert len(made) == 3
    found = Page.read(tmp_path / "r.html").value()["page"]
    links = [row[found["columns"].index("page")] for row in found["rows"]]
    assert links[0] == links[1]
    assert len(set(links)) == 3
    assert all((tmp_path / link.replace("%20", " ")).is_file() for link in links)
    full = Page.read(tmp_path / links[0])
    assert "Which shape?" in full.said()
    assert full.of("video")
    assert full.value()["schema"] == "omnidrop.answers/1"
    assert "What plays in part 3?" in Page.read(tmp_path / links[2].replace("%20", " ")).said()
    before = made[0].read_bytes()
    made[0].write_bytes(before + b"<!-- kept -->")
    run("report", path, "--pages", pages)
    assert made[0].read_bytes() != before
    run("report", path, "--pages", pages, "--force")
    assert made[0].read_bytes() == before


def test_pages_that_ask_saved_beside_the_file_are_linked(clip, fake, run, tmp_path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(flat(1, clip=str(clip))) + "\n" + json.dumps(flat(9)) + "\n")
    assert run("ask", clip, "What plays?", "--save", tmp_path / "mine.html")[0] == 0
    (tmp_path / "strange.html").write_text("<p>nothing of ours</p>")
    run("report", path, "--save", tmp_path / "r.html")
    found = Page.read(tmp_path / "r.html").value()["page"]
    links = [row[found["columns"].index("page")] for row in found["rows"]]
    assert links == ["mine.html", ""]


def test_an_answer_is_read_from_its_document() -> None:
    moment = Moment(1.0, 2.0, 0.5)
    answer = Answer(
        "piano", (1, 2), "choice", make_trace("Which?"), "Which?",
        choices=(Choice("piano", 0.9, -0.1),), probability=0.9,
        left_out=(LeftOut(moment, "drums", True, 0.1, 0.9),),
    )  # fmt: skip
    document = json.loads(json.dumps(answer.to_dict()))
    assert is_whole(document)
    again = answer_of(document)
    assert again.to_dict() == answer_of(again.to_dict()).to_dict()
    assert json.loads(json.dumps(again.to_dict())) == document
    assert again.hangs_on == answer.hangs_on
    assert again.trace.kept_per_layer == answer.trace.kept_per_layer
    assert again.trace.chunks == answer.trace.chunks
    # Later names are left out, and earlier documents lack what has a default.
    assert answer_of({**document, "new": 1}).to_dict() == again.to_dict()
    del document["thinking"]
    assert answer_of(document).thinking == ""
    for wrong in ({}, {"schema": "omnidrop.answer/1"}, {**document, "trace": {"method": {}}}):
        with pytest.raises(ValueError, match=r"schema|whole"):
            answer_of(wrong)
