"""Whether an English question asks about sound or picture, for a notice where the clip lacks it.

The lists are short on purpose: words that are about hearing or seeing in nearly every question.
Others (play, say, talk, show) are about either, so a question with only those gets no notice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


SOUND = _words(
    "hear hears heard hearing audible listen listening sound sounds sounded audio noise noises",
    "noisy loud louder loudest voice voices music musical song songs melody tune sing sings",
    "singing sang sung speak speaks speaking spoke spoken speech saying silence instrument",
    "instruments whisper whispers whispering accent",
)
PICTURE = _words(
    "see sees seen seeing saw visible look looks looked colour colours color colors coloured",
    "colored picture pictures image images screen onscreen shown shape shapes wear wears wearing",
    "wore",
)

_WORD = re.compile(r"[a-z]+")


def asks_for(question: str, words: frozenset[str]) -> bool:
    """Return whether a question has one of the words."""
    return not words.isdisjoint(_WORD.findall(question.casefold()))


def what_is_missing(question: str, sound: str | None, picture: str | None) -> Iterator[str]:
    """Yield a notice for sound or picture that a question asks about and the clip lacks.

    Parameters
    ----------
    question : str
    sound, picture : str or None
        Why there is none, as the end of a sentence; None if it is there.
    """
    if sound is not None and asks_for(question, SOUND):
        yield f"The question asks about sound, and {sound}."
    if picture is not None and asks_for(question, PICTURE):
        yield f"The question asks about the picture, and {picture}."
