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
    stops : sequence of str
        Texts at which the text ends. What may be the beginning of one waits for the next id.

    Attributes
    ----------
    stopped : bool
        Whether one of `stops` was met.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        on_text: Callable[[str], None] | None,
        *,
        strip: bool = False,
        stops: Sequence[str] = (),
    ) -> None:
        self._decode = decode
        self._on_text = on_text
        self._strip = strip
        self._stops = tuple(stops)
        self.stopped = False
        self._ids: list[int] = []
        self._emitted = 0

    def push(self, token: int) -> None:
        """Add an id and emit the text that it completes."""
        self._ids.append(token)
        if self._on_text is None and not self._stops:
            return
        text = self._text()
        if self.stopped or not text.endswith(REPLACEMENT):
            self._tell(text[: len(text) - self._waiting(text)])

    def finish(self) -> str:
        """Emit the rest and return the whole text."""
        text = self._text()
        self._tell(text)
        return text

    def _text(self) -> str:
        text = self._decode(self._ids)
        text = text.lstrip() if self._strip else text
        found = [at for at in map(text.find, self._stops) if at >= 0]
        self.stopped = bool(found)
        return text[: min(found)] if found else text

    def _waiting(self, text: str) -> int:
        """Return how many letters at the end of the text may be the beginning of a stop."""
        if self.stopped:
            return 0
        longest = max(map(len, self._stops), default=0)
        return next(
            (
                count
                for count in range(min(len(text), longest - 1), 0, -1)
                if any(stop.startswith(text[-count:]) for stop in self._stops)
            ),
            0,
        )

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
    stops : sequence of str
        Texts at which the answer ends.

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
        stops: Sequence[str] = (),
    ) -> None:
        self._marks = thinking
        self._answer = TextStream(decode, on_text, strip=thinking is not None, stops=stops)
        self._decode = decode
        self._thoughts: list[int] = []
        self.inside = thinking is not None and thinking.opened

    @property
    def stopped(self) -> bool:
        """Whether the answer has ended at one of the stops."""
        return self._answer.stopped

    def is_thought(self, token: int) -> bool:
        """Return whether the next id belongs to a thought, the marks around it included."""
        marks = self._marks
        return self.inside or (marks is not None and token in (marks.start, marks.end))

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
