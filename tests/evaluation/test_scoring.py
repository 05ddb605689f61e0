"""Replies: what counts as an answer, and what is nonsense however right it may look."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnidrop.evaluation.items import Item
from omnidrop.evaluation.scoring import (
    INSTRUCTION,
    SHORT,
    Reading,
    answer_options,
    ask_text,
    chosen,
    normal,
    read_choice,
    read_reply,
)

CHOICES = ("piano", "flute", "a drum", "Mr. B. Jones")
ITEM = Item("1", Path("a.mp4"), "What plays?", "flute", CHOICES)
FREE = Item("2", Path("a.mp4"), "What plays?", "flute")


def test_the_prompt_is_fixed() -> None:
    lines = ["What plays?", "A. piano", "B. flute", "C. a drum", "D. Mr. B. Jones", INSTRUCTION]
    assert ask_text(ITEM, "letters") == "\n".join(lines)
    assert ask_text(FREE, "letters") == f"What plays?\n{SHORT}"
    assert ask_text(ITEM, "plain") == ask_text(FREE, "plain") == "What plays?"


@pytest.mark.parametrize(
    "reply",
    [
        "B",
        "b",
        " B\n",
        "B.",
        "(B)",
        "B)",
        "B:",
        "B. flute",
        "B. Flute.",
        "(B) flute",
        "B) It is the flute",
        "Answer: B",
        "answer is B.",
        "The correct answer is (B).",
        "The answer is: B. flute",
        "Option B",
        "flute",
        "Flute.",
        "The answer is flute",
        "B\nIt is blown from the side. A piano is not.",
        "B\n\nBecause (A) is a piano.",
    ],
)
def test_a_clear_reply_is_read(reply: str) -> None:
    assert chosen(reply, CHOICES) == "flute"
    assert read_reply(reply, ITEM, "letters").right


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " ",
        ".",
        "E",
        "(Z)",
        "AB",
        "A B",
        "A. or B.",
        "A or B",
        "A. flute",
        "A. Answer B.",
        "A. B",
        "A) b",
        "A. No, the answer is B",
        "A\nNo, the answer is B.",
        "A\nB\nC\nD",
        "A\nB. flute",
        "A dog barks",
        "Because of the flute",
        "flute piano",
        "not B",
        "B is wrong",
        "I think B",
        "Bagpipe",
        "BBBBBBBB",
        "The answer is B or C",
        "the letter b",
        "𝐁",
        "١",
        "1",
        "answering B",
    ],
)
def test_nonsense_is_no_answer(reply: str) -> None:
    assert chosen(reply, CHOICES) is None
    assert not read_reply(reply, ITEM, "letters").right


def test_a_clear_reply_can_be_wrong() -> None:
    found = read_reply("A", ITEM, "letters")
    assert (found.said, found.right) == ("piano", False)


def test_a_choice_with_an_initial_inside_is_read() -> None:
    assert chosen("D. Mr. B. Jones", CHOICES) == "Mr. B. Jones"
    assert chosen("C. A drum", CHOICES) == "a drum"


def test_a_choice_that_is_itself_a_letter_is_taken_at_its_word() -> None:
    choices = ("B", "A")
    assert chosen("A", choices) == "A"
    assert chosen("(A)", choices) == "B"


def test_a_weighed_letter_is_the_choice_in_its_place() -> None:
    item = Item("4", Path("a.mp4"), "Which note?", "B", ("B", "A"))
    assert read_choice("A", item, "letters") == Reading("B", True)
    assert read_choice("B", item, "letters") == Reading("A", False)
    assert read_choice("B", item, "plain") == Reading("B", True)


def test_plain_questions_take_the_words_alone() -> None:
    assert read_reply("Flute.", ITEM, "plain").right
    assert read_reply("B", ITEM, "plain").said is None
    assert read_reply("the flute", ITEM, "plain").said is None


def test_free_answers_are_compared_word_for_word() -> None:
    assert read_reply(" Flute. ", FREE, "letters").right
    for reply in ("", "flutes", "flute flute", "a flute", "not flute", "flute, I think", "flute!"):
        assert not read_reply(reply, FREE, "letters").right
    two = Item("3", Path("a.mp4"), "How many?", "two")
    assert read_reply("2", two, "plain").right
    assert not read_reply("22", two, "plain").right
    assert not read_reply("2 or 3", two, "plain").right


def test_equal_choices_cannot_be_told_apart_by_their_words() -> None:
    assert chosen("flute", ("flute", "flute.")) is None
    assert chosen("B", ("flute", "flute.")) == "flute."


def test_what_is_weighed_by_logits() -> None:
    assert answer_options(ITEM, "letters", "logits") == ("A", "B", "C", "D")
    assert answer_options(ITEM, "plain", "logits") == CHOICES
    assert answer_options(ITEM, "letters", "text") == answer_options(FREE, "plain", "logits") == ()


@given(st.text(max_size=40))
def test_a_reply_that_names_nothing_is_never_right(reply: str) -> None:
    found = chosen(reply, CHOICES)
    if found is not None:
        letter = "ABCD"[CHOICES.index(found)]
        assert letter in reply.upper() or normal(found) in normal(reply)
