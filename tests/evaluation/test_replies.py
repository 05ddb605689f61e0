"""What an evaluation says besides accuracy: style, chance, unread and changed replies, seeds."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from stub import LAYERS, StubModel

from omnidrop.errors import UsageError
from omnidrop.evaluation import tables
from omnidrop.evaluation.items import Item, QuestionSet
from omnidrop.evaluation.records import RECORDS, read_records
from omnidrop.evaluation.runner import RunOptions, cells, draws, run, style_of
from omnidrop.evaluation.scoring import ask_text, read_choice, read_reply
from omnidrop.evaluation.summary import ALL, summarise
from omnidrop.models.world import World
from omnidrop.pruning.registry import get_method

WORDS = frozenset(["is", "it", "0", "1", "2", "3", "4", "yes", "no"])
WORLD = World({"numbers": ("0", "1")}, WORDS, (5, 10), 20, "plain")
CELLS = cells(["random", "uniform"], [0.5])


def right_of(question: str) -> str:
    return "no" if int(question[6]) % 2 else "yes"


def wrong_of(question: str) -> str:
    return "yes" if int(question[6]) % 2 else "no"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_style_is_the_callers_then_the_sets_then_the_models(questions: QuestionSet) -> None:
    plain, letters = StubModel(world=WORLD), StubModel()
    assert questions.style is None
    assert style_of(RunOptions(), questions, plain) == "plain"
    assert style_of(RunOptions(), questions, letters) == "letters"
    assert style_of(RunOptions(), replace(questions, style="words"), plain) == "words"
    assert (
        style_of(RunOptions(style="letters"), replace(questions, style="words"), plain) == "letters"
    )
    with pytest.raises(UsageError, match="plain or words or letters"):
        RunOptions(style="numbers")  # type: ignore[arg-type]


def test_choices_in_words_follow_the_question_on_its_line() -> None:
    item = Item("1", Path("a.mp4"), "What plays?", "flute", ("piano", "flute"))
    assert ask_text(item, "words") == "What plays? Choices: piano, flute"
    listed = replace(item, question="What plays? CHOICES: PIANO, FLUTE")
    assert ask_text(listed, "words") == listed.question
    assert ask_text(replace(item, choices=()), "words") == "What plays?"
    assert read_reply("Flute.", item, "words").right
    assert read_reply("B", item, "words").said is None
    assert read_choice("flute", item, "words").right


def test_a_question_outside_of_what_the_model_knows_is_an_error(
    questions: QuestionSet, tmp_path: Path
) -> None:
    model = StubModel(world=WORLD)
    tally = run(model, questions, CELLS[:1], tmp_path / "out")
    found = {r["id"]: r for r in read_records(tmp_path / "out")[0]}
    assert (tally.answered, tally.failed) == (5, 1)
    assert (found["q5"]["error"], found["q5"]["exit_code"]) == ("OutsideError", 4)
    assert "“5”" in found["q5"]["message"]
    assert model.count("ask") == 5
    tally = run(model, questions, CELLS[:1], tmp_path / "out", RunOptions(anyway=True))
    assert (tally.answered, tally.before, model.count("ask")) == (1, 5, 6)


def test_the_words_around_a_question_are_ours_and_not_looked_at(
    questions: QuestionSet, tmp_path: Path
) -> None:
    model = StubModel(lambda question, method, seed: "A", world=WORLD)
    tally = run(model, questions, CELLS[:1], tmp_path / "out", RunOptions(style="letters"))
    assert (tally.answered, tally.failed) == (5, 1)


def test_a_model_that_guesses_is_said_loudly(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")  # always yes: half is right
    summary = summarise(tmp_path / "out")
    assert summary.row("unpruned", 1.0).chance == 0.5
    (warning,) = summary.warnings
    assert warning.startswith("THE UNPRUNED MODEL IS NOT ABOVE CHANCE: 50.0 % right")
    assert "guessing gets 50.0 %" in warning
    assert warning in tables.to_markdown(summary).replace("\\", "")
    assert summary.to_dict()["warnings"] == summary.warnings


def test_a_model_that_knows_is_not_suspected(questions: QuestionSet, tmp_path: Path) -> None:
    knows = StubModel(lambda question, method, seed: right_of(question))
    items = [
        replace(item, id=f"{item.id}-{n}", choices=("yes", "no", "maybe", "never"))
        for item in questions.items
        for n in range(2)
    ]
    run(knows, questions.part(items), CELLS, tmp_path / "out", RunOptions(style="plain"))
    summary = summarise(tmp_path / "out")
    assert summary.row("unpruned", 1.0).chance == 0.25
    assert summary.warnings == ()


def test_records_of_before_say_nothing_of_chance(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    path = tmp_path / "out" / RECORDS
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        for name in ("chance", "kept", "question", "draw"):
            del line[name]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    summary = summarise(tmp_path / "out")
    assert summary.row("unpruned", 1.0).chance is None
    assert summary.warnings == summary.kept == ()


def test_replies_that_name_no_choice_are_shown(questions: QuestionSet, tmp_path: Path) -> None:
    said = {"0": "dunno", "1": "dunno", "2": "", "3": "it  is\nunclear " + 80 * "x", "4": "hm"}

    def rule(question, method, seed):
        return said.get(question[6], right_of(question))

    run(StubModel(rule), questions, CELLS[:1], tmp_path / "out")
    summary = summarise(tmp_path / "out")
    assert summary.row("unpruned", 1.0).unread == 5
    assert summary.unread[0].reply == "dunno"
    warning = summary.warnings[-1]
    assert warning.startswith("5 replies named none of the choices and count as wrong: “dunno” (2)")
    assert "nothing (1)" in warning
    assert "“it is unclear xxx" in warning
    assert "…” (1) and 1 more." in warning


def test_changed_answers_are_listed_with_both(questions: QuestionSet, tmp_path: Path) -> None:
    def rule(question, method, seed):
        number = question[6]
        if method.name == "uniform" and number in "14":
            return wrong_of(question)
        if method.name == "none" and number == "2":
            return wrong_of(question)
        return f" {right_of(question).upper()}. "  # the same answer, written otherwise

    run(StubModel(rule), questions, CELLS, tmp_path / "out", RunOptions(style="plain"))
    summary = summarise(tmp_path / "out")
    found = {(c.label, c.id): c for c in summary.changed}
    assert sorted(found) == [
        ("random", "q2"),
        ("uniform", "q1"),
        ("uniform", "q2"),
        ("uniform", "q4"),
    ]
    one = found["uniform", "q1"]
    assert (one.unpruned.strip(), one.pruned, one.answer) == ("NO.", "yes", "no")
    assert (one.unpruned_right, one.pruned_right) == (True, False)
    assert one.question == "Is it 1?"
    table = tables.changes(summary)
    assert "4 answers differ: 2 are wrong only pruned, 2 only unpruned." in table.note
    assert ("uniform", "50", "q1", "Is it 1?", "NO. (right)", "yes (wrong)") in table.rows
    few = tables.changes(summary, 2)
    assert len(few.rows) == 2
    assert "2 of them are shown; changed.csv has all." in few.note
    assert [row["id"] for row in rows(tables.changed_csv(summary))] == ["q2", "q1", "q2", "q4"]
    assert "## Changed answers" in tables.to_markdown(summary)


def test_tokens_that_enter_each_layer(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(), questions, CELLS, tmp_path / "out")
    found = rows(tables.kept_csv(summarise(tmp_path / "out")))
    assert len(found) == len(CELLS) * LAYERS
    half = [row for row in found if row["label"] == "uniform"]
    assert [row["layer"] for row in half] == ["0", "1", "2", "3"]
    assert {(row["audio"], row["video"], row["share"]) for row in half} == {("50.0", "0.0", "0.5")}


def by_seed(question, method, seed) -> str:
    """Right with every second seed where tokens are drawn at random."""
    if method.name == "random" and seed % 2:
        return wrong_of(question)
    return right_of(question)


def test_methods_that_draw_answer_with_every_seed(questions: QuestionSet, tmp_path: Path) -> None:
    model, options = StubModel(by_seed), RunOptions(style="plain", seeds=4)
    tally = run(model, questions, CELLS, tmp_path / "out", options)
    assert tally.answered == 6 + 6 + 4 * 6
    assert len(draws(CELLS, 4)) == 6
    found = read_records(tmp_path / "out")[0]
    assert len({r["key"] for r in found}) == len(found)
    drawn = [r for r in found if r["label"] == "random" and r["id"] == "q0"]
    assert [r["draw"] for r in drawn] == [0, 1, 2, 3]
    assert len({r["seed"] for r in drawn}) == 4
    again = run(model, questions, CELLS, tmp_path / "out", options)
    assert (again.answered, again.before) == (0, tally.answered)
    summary = summarise(tmp_path / "out")
    row = summary.row("random", 0.5)
    assert (row.seeds, row.answered, row.accuracy) == (4, 6, 0.5)
    shares = [
        sum(r["right"] for r in found if r["label"] == "random" and r["draw"] == draw) / 6
        for draw in range(4)
    ]
    mean = sum(shares) / 4
    assert row.spread == pytest.approx((sum((s - mean) ** 2 for s in shares) / 3) ** 0.5)
    steady = summary.row("uniform", 0.5)
    assert (steady.seeds, steady.spread, steady.accuracy) == (1, None, 1.0)
    pair = next(
        p for p in summary.pairs
        if (p.label, p.baseline, p.axis) == ("random", "unpruned", ALL[0])
    )  # fmt: skip
    assert pair.difference == pytest.approx(-0.5)
    table = tables.overview(summary)
    assert "± seeds" in table.header
    assert "answered with 4 seeds" in table.note


def test_one_seed_is_as_before(questions: QuestionSet, tmp_path: Path) -> None:
    run(StubModel(by_seed), questions, CELLS, tmp_path / "one", RunOptions(style="plain"))
    summary = summarise(tmp_path / "one")
    assert summary.row("random", 0.5).spread is None
    assert "± seeds" not in tables.overview(summary).header
    more = run(
        StubModel(by_seed), questions, CELLS, tmp_path / "one", RunOptions(style="plain", seeds=2)
    )
    assert (more.answered, more.before) == (6, 18)
    with pytest.raises(UsageError, match="seeds must be 1 or more"):
        RunOptions(seeds=0)


def test_which_methods_draw() -> None:
    assert get_method("random", budget=0.5).draws
    assert get_method("random+omnidrop", budget=0.5).draws
    assert not get_method("uniform+omnidrop", budget=0.5).draws


def test_latex_has_every_row_and_no_bare_character(questions: QuestionSet, tmp_path: Path) -> None:
    odd = cells(["uniform"], [0.5], variants=[("50%_$x^2 & \\more #1~{a}", "random", {})])
    worse = StubModel(lambda q, method, seed: (right_of if method.name == "none" else wrong_of)(q))
    run(worse, questions, odd, tmp_path / "out", RunOptions(style="plain"))
    text = tables.to_latex(summarise(tmp_path / "out"))
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 2
    assert (
        "50\\%\\_\\$x\\textasciicircum{}2 \\& \\textbackslash{}more \\#1\\textasciitilde{}\\{a\\}"
        in text
    )
    for body in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        lines = [line for line in body.splitlines() if line != "\\midrule"]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
        assert all(line.endswith(" \\\\") for line in lines)
    assert not re.search(r"(?<!\\)[%#]", text.partition("\n")[2])
    assert "[" not in text.replace("{[}", "")
    assert "$-$" in text, "a difference below 0 has a minus sign"
