"""How a question is asked, and whether a reply is right.

A question with choices is asked in one fixed form:

    What plays first?
    A. piano
    B. flute
    Answer with the letter of the right choice and nothing else.

A question without choices is followed by "Answer with one word or a short phrase and nothing else."
In the style "words" the choices follow on the same line ("What plays? Choices: piano, flute"), and
in the style "plain" a question is asked as it stands in the set. A reply is right only if it names
exactly one answer and that is the right one: a letter in one of the ways models write it, or the
choice word for word. Nothing is searched for inside longer text, so nonsense stays wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from omnidrop.evaluation.items import LETTERS, Item, Style

#: "text" reads what the model writes; "logits" takes the most probable choice.
Score = Literal["text", "logits"]

INSTRUCTION = "Answer with the letter of the right choice and nothing else."
SHORT = "Answer with one word or a short phrase and nothing else."

_NUMBERS = dict(
    zip(
        map(str, range(11)),
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
        strict=True,
    )
)
_BARE = re.compile(r"\(?([A-Za-z])\)?[.:)]?")
_MARKED = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.:)])\s*(.+)", re.DOTALL)
_SAID = re.compile(
    r"(?:the\s+)?(?:(?i:correct|right|best|final)\s+)?(?i:answer|option|choice)"
    r"(?:\s+(?i:is))?\s*:?\s*(.+)",
    re.DOTALL | re.IGNORECASE,
)
#: A letter before other text, and a letter that starts a line or is all of it.
_OTHER = re.compile(r"(?<![A-Za-z])(?:\(([A-Z])\)|([A-Z])[.:)])(?!\w)")
_LINE = re.compile(r"^\s*(?:\(([A-Z])\)|([A-Z])[.:)]|([A-Z])\s*$)", re.MULTILINE)
#: A letter announced later: "no, the answer is B".
_LATER = re.compile(r"\b(?i:answer)(?:\s+(?i:is))?\s*:?\s*\(?([A-Z])\b")


@dataclass(frozen=True)
class Reading:
    """What a reply says.

    Attributes
    ----------
    said : str or None
        The choice it names, or its words if there are no choices; None if it names no choice.
    right : bool
    """

    said: str | None
    right: bool


def ask_text(item: Item, style: Style) -> str:
    """Return the text that the model is asked."""
    if style == "plain":
        return item.question
    if style == "words":
        listed = not item.choices or "choices:" in item.question.lower()
        return item.question if listed else f"{item.question} Choices: {', '.join(item.choices)}"
    if not item.choices:
        return f"{item.question}\n{SHORT}"
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, item.choices, strict=False)]
    return "\n".join([item.question, *lines, INSTRUCTION])


def answer_options(item: Item, style: Style, score: Score) -> tuple[str, ...]:
    """Return the answers to compare by their logits; empty if the reply is read as text."""
    if score == "text" or not item.choices:
        return ()
    return tuple(LETTERS[: len(item.choices)]) if style == "letters" else item.choices


def right_reply(item: Item, style: Style) -> str:
    """Return the shortest reply that is right, as a model should be taught to give it."""
    if style == "letters" and item.choices:
        return LETTERS[item.choices.index(item.answer)]
    return item.answer


def read_reply(reply: str, item: Item, style: Style) -> Reading:
    """Return what a reply to `item` says, and whether it is right."""
    if not item.choices:
        return Reading(reply.strip(), same(reply, item.answer))
    said = chosen(reply, item.choices) if style == "letters" else word_for_word(reply, item.choices)
    return Reading(said, said == item.answer)


def read_choice(chosen_text: str, item: Item, style: Style) -> Reading:
    """Return what the most probable of the `answer_options` says, and whether it is right."""
    if style != "letters":
        return read_reply(chosen_text, item, style)
    said = item.choices[LETTERS.index(chosen_text)]
    return Reading(said, said == item.answer)


def normal(text: str) -> str:
    """Normalise: no case, no repeated spaces, no final full stop; 2 becomes "two"."""
    words = " ".join(text.casefold().split()).removesuffix(".").rstrip()
    return _NUMBERS.get(words, words)


def same(one: str, other: str) -> bool:
    """Return whether two texts are equal after `normal`; empty texts never are."""
    return bool(normal(one)) and normal(one) == normal(other)


def word_for_word(reply: str, choices: Sequence[str]) -> str | None:
    """Return the choice that a reply repeats word for word, or None."""
    found = [choice for choice in choices if same(reply, choice)]
    return found[0] if len(found) == 1 else None


def chosen(reply: str, choices: Sequence[str]) -> str | None:
    """Return the choice that a reply names by letter or word for word, or None.

    Read as B, of piano and flute: `B`, `b`, `(B)`, `B.`, `B. flute`, `B) It is the flute`,
    `Answer: B`, `The correct answer is (B).`, `flute`, and `B` on a line of its own before a
    reason. Not accepted: a letter inside a sentence (`A dog`), a letter beyond the choices, two
    letters (`A. or B.`, `A. B`, `A. No, the answer is B`), a letter with another choice's words
    (`A. flute`).
    """
    text = reply.strip()
    exact = word_for_word(text, choices)
    if exact is not None:
        return exact
    announced = _SAID.fullmatch(text)
    if announced:
        text = announced[1].strip()
    first, _, reason = text.partition("\n")
    bare = _BARE.fullmatch(first.strip())
    if bare:
        others = [m[1] or m[2] or m[3] for m in _LINE.finditer(reason)]
        return _pick(bare[1], others + _LATER.findall(reason), "", choices)
    marked = _MARKED.fullmatch(text)
    if marked:
        others = [m[1] or m[2] for m in _OTHER.finditer(marked[3])] + _LATER.findall(marked[3])
        alone = _BARE.fullmatch(marked[3].strip())
        others += [alone[1].upper()] if alone else []
        return _pick(marked[1] or marked[2], others, marked[3], choices)
    return word_for_word(text, choices) if announced else None


def _pick(letter: str, others: Sequence[str], rest: str, choices: Sequence[str]) -> str | None:
    """Return the choice of `letter`, unless the rest names another by letter or word for word."""
    letter = letter.upper()
    index = LETTERS.index(letter)
    if index >= len(choices):
        return None
    if same(rest, choices[index]):
        return choices[index]
    known = set(LETTERS[: len(choices)]) - {letter}
    if known & set(others) or word_for_word(rest, choices) is not None:
        return None
    return choices[index]
