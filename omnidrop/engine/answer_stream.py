"""Splits generated tokens into what a model thought and what it answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omnidrop.models.adapter import Thinking

#: Stands at the end of decoded text while a character's bytes are not complete.
REPLACEMENT = "\ufffd"


class TextStream:
    """Turns ids into pieces of text that never end inside a character.

    Parameters
    ----------
    decode : callable
        ids → text.
    on_text : callable or None
        Receives each piece.
    strip : bool
        Leave out white space at the beginning.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        on_text: Callable[[str], None] | None,
        *,
        strip: bool = False,
    ) -> None:
        self._decode = decode
        self._on_text = on_text
        self._strip = strip
        self._ids: list[int] = []
        self._emitted = 0

    def push(self, token: int) -> None:
        """Add an id and emit the text that it completes."""
        self._ids.append(token)
        if self._on_text is None:
            return
        text = self._text()
        if not text.endswith(REPLACEMENT):
            self._tell(text)

    def finish(self) -> str:
        """Emit the rest and return the whole text."""
        text = self._text()
        self._tell(text)
        return text

    def _text(self) -> str:
        text = self._decode(self._ids)
        return text.lstrip() if self._strip else text

    def _tell(self, text: str) -> None:
        if self._on_text is not None and len(text) > self._emitted:
            self._on_text(text[self._emitted :])
            self._emitted = len(text)


class AnswerStream:
    """The text of an answer as it is generated, without the thoughts before it.

    Parameters
    ----------
    decode : callable
        ids → text.
    thinking : Thinking or None
        The marks around thoughts; None for models that do not think.
    on_text : callable or None
        Receives each piece of the answer.

    Attributes
    ----------
    inside : bool
        Whether the latest token belongs to a thought.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        thinking: Thinking | None,
        on_text: Callable[[str], None] | None,
    ) -> None:
        self._marks = thinking
        self._answer = TextStream(decode, on_text, strip=thinking is not None)
        self._decode = decode
        self._thoughts: list[int] = []
        self.inside = thinking is not None and thinking.opened

    def push(self, token: int) -> None:
        """Add an id and emit the text of the answer that it completes."""
        if self._marks is not None and token in (self._marks.start, self._marks.end):
            self.inside = token == self._marks.start
        elif self.inside:
            self._thoughts.append(token)
        else:
            self._answer.push(token)

    def finish(self) -> str:
        """Emit the rest and return the text of the answer."""
        return self._answer.finish()

    @property
    def thoughts(self) -> str:
        """The text of the thoughts; "" if there are none."""
        return self._decode(self._thoughts).strip() if self._thoughts else ""
