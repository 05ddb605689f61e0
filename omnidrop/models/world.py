"""What a model knows, where its files say so: words, things, lengths of clips, form of choices.

A model that was trained on a small world of its own ships a `world.json` beside its weights:

    {
      "schema": "omnidrop.world/1",
      "knows": {"instruments": ["piano", "flute"], "shapes": ["circle"]},
      "words": ["which", "instrument", "plays", "first", "piano", "flute", "circle"],
      "trained_seconds": [5, 12],
      "longest_seconds": 24,
      "choices": "plain"
    }

A question or choice with another word, or a longer clip, is outside. A model without this file has
no such limits. This module does not import torch.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from omnidrop.errors import IN_PYTHON, ModelError, OutsideError

FILE = "world.json"
SCHEMA = "omnidrop.world/1"

#: How a question with choices is put: as it stands, with the choices listed in words, or with
#: lettered choices and an instruction.
Style = Literal["plain", "words", "letters"]
STYLES: tuple[Style, ...] = ("plain", "words", "letters")

APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}"
#: Symbols that separate words; every other symbol, such as an emoji, counts as a word.
SEPARATORS = "|^`~"


@dataclass(frozen=True)
class World:
    """What a model knows.

    Attributes
    ----------
    knows : mapping of str to tuple of str
        Its things by kind, such as {"instruments": ("piano", …)}.
    words : frozenset of str
        Every word it can be asked with, in lower case.
    trained_seconds : tuple of float
        Shortest and longest clip of its training.
    longest_seconds : float
        Longest clip that it can be asked about.
    choices : {"plain", "words", "letters"}
        How a question with choices is put to it.
    """

    knows: Mapping[str, tuple[str, ...]]
    words: frozenset[str]
    trained_seconds: tuple[float, float]
    longest_seconds: float
    choices: Style

    def unknown(self, *texts: str) -> tuple[str, ...]:
        """Return the words of texts that it does not know, each once, as they are written.

        Known is a word in lower case, in capitals, or with one capital at its start; the model has
        no token for other forms. So is one with 's, as in "what's".
        """
        found = (word for text in texts for word in words_of(text) if not self._has(word))
        return tuple(dict.fromkeys(found))

    def _has(self, word: str) -> bool:
        word = re.sub("'[sS]$", "", word)
        lower = word.lower()
        return lower in self.words and word in (lower, lower.upper(), lower.capitalize())

    def nearest(self, word: str) -> str | None:
        """Return the known word that is spelled most like an unknown one, or None."""
        close = difflib.get_close_matches(word.lower(), sorted(self.words), n=1, cutoff=0.85)
        return close[0] if close and len(word) > 4 else None

    def contents(self) -> str:
        """Return what it knows as one phrase: "instruments (piano, …), shapes (…) and …"."""
        kinds = [f"{kind} ({', '.join(things)})" for kind, things in self.knows.items()]
        return _joined(kinds)

    def check(
        self, model: str, question: str, choices: Sequence[str] = (), seconds: float | None = None
    ) -> OutsideError | None:
        """Return what lies outside of this world, or None.

        Parameters
        ----------
        model : str
            Name of the model, for the message.
        question : str
        choices : sequence of str
        seconds : float, optional
            Length of the clip, or of the part that is asked about.
        """
        unknown = self.unknown(question, *choices)
        reasons = []
        if unknown:
            reasons.append(f"does not know {_quoted(unknown)}")
        elif not any(c.isalpha() for c in question):
            reasons.append("knows nothing to answer: the question has no word")
        long = seconds if seconds is not None and seconds > self.longest_seconds else None
        if long is not None:
            low, high = self.trained_seconds
            reasons.append(
                f"was trained on clips of {low:g} to {high:g} s, and this is {long:.0f} s long"
            )
        if not reasons:
            return None
        named = f"The {model} model" if "/" not in model else model
        reason = f"{named} {' and '.join(reasons)}."
        contents = f" It knows only {self.contents()}." if self.knows else ""
        close = [(word, near) for word in unknown if (near := self.nearest(word)) is not None]
        meant = _joined([f"{near} for {word}" for word, near in close])
        meant = f" Did you mean {meant}?" if meant else ""
        return OutsideError(
            f"{reason}{contents}{meant}",
            brief=f"{reason}{meant}",
            hint=(
                f"Ask {'about a shorter part (--start, --end), or ' if long else ''}a real model "
                f"(model 3b), or ask this one anyway (--anyway{IN_PYTHON})."
            ),
            words=unknown,
            seconds=long,
        )

    def long_notice(self, seconds: float | None) -> str | None:
        """Return a notice if a clip is longer than those of its training, or None."""
        low, high = self.trained_seconds
        if seconds is None or seconds <= high + 0.5:
            return None
        return (
            f"This is {seconds:.0f} s long; the model was trained on clips of {low:g} to {high:g} "
            "s, so answers may be worse."
        )


def words_of(text: str) -> Iterator[str]:
    """Yield the words of a text: runs of letters, or of digits, and single symbols.

    An apostrophe within a word belongs to it; all other punctuation separates words.
    """
    text = unicodedata.normalize("NFC", text)
    kinds = [_kind(text, place) for place in range(len(text))]
    for kind, run in groupby(range(len(text)), key=kinds.__getitem__):
        places = list(run)
        if kind == "symbol":
            yield from (text[place] for place in places)
        elif kind:
            yield text[places[0] : places[-1] + 1]


def _kind(text: str, place: int) -> str:
    character = text[place]
    category = unicodedata.category(character)
    if category[0] in "LM":
        return "letter"
    if category[0] == "N":
        return "digit"
    if category[0] == "S" and character not in SEPARATORS:
        return "symbol"
    inside = 0 < place < len(text) - 1 and text[place - 1].isalpha() and text[place + 1].isalpha()
    return "letter" if character in APOSTROPHES and inside else ""


def _quoted(words: Sequence[str], most: int = 6) -> str:
    """Return words in quotes; of many, the first and how many more."""
    shown = [
        f"\N{LEFT DOUBLE QUOTATION MARK}{word}\N{RIGHT DOUBLE QUOTATION MARK}" for word in words
    ]
    if len(shown) > most:
        return f"{', '.join(shown[:most])} and {len(shown) - most} more words"
    return _joined(shown)


def _joined(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]])) if parts else ""


def read_world(folder: Path) -> World | None:
    """Read what a model's files say it knows; None if they say nothing.

    Raises
    ------
    ModelError
        If the file is damaged.
    """
    from omnidrop.models.locations import AGAIN, read_json

    path = folder / FILE
    if not path.is_file():
        return None
    found = read_json(path)
    try:
        return _world(found)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise ModelError(
            f"This file does not say what the model knows: {reason}.", path=path, hint=AGAIN
        ) from error


def _world(found: Mapping[str, Any]) -> World:
    if found["schema"] != SCHEMA:
        raise ValueError(f"its schema is {found['schema']!r}, not {SCHEMA}")
    if found["choices"] not in STYLES:
        raise ValueError(f"choices are {found['choices']!r}, not one of {', '.join(STYLES)}")
    low, high = (float(second) for second in found["trained_seconds"])
    return World(
        knows={str(kind): tuple(map(str, things)) for kind, things in found["knows"].items()},
        words=frozenset(str(word).lower() for word in found["words"]),
        trained_seconds=(low, high),
        longest_seconds=float(found["longest_seconds"]),
        choices=found["choices"],
    )
