"""What is kept between requests: open clips with their encodings, and the turns that were answered.

Both are used by the thread that has the model, and by no other.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnidrop.engine.conversation import Said

if TYPE_CHECKING:
    from omnidrop.engine.model import Model
    from omnidrop.engine.session import Session
    from omnidrop.report.trace import Answer

#: Most open clips: each holds files open.
OPEN = 64

#: Most turns, and most bytes of their texts and ids.
TURNS, TURN_BYTES = 4096, 64 * 1024**2


@dataclass
class _Held:
    """A session, and what is closed with it."""

    session: Session
    stack: ExitStack
    bytes: int = 0


class Sessions:
    """Open clips, the least recently used first.

    Parameters
    ----------
    limit : int
        Most bytes of encodings and prefixes.

    Attributes
    ----------
    hits, misses : int
        Requests about a clip that was open already, and about others.
    bytes : int
        What is held.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[Hashable, _Held] = OrderedDict()
        self._model: Model | None = None
        self.hits = self.misses = self.bytes = 0

    def find(self, model: Model, key: Hashable, open_it: Callable[[ExitStack], Session]) -> Session:
        """Return the session of a key, or open it.

        Parameters
        ----------
        model : Model
            Sessions of another model are closed.
        key : hashable
            The clip's content, and how it is read.
        open_it : callable
            Opens the session; what it enters into the stack is closed with it.
        """
        if self._model is None or self._model.adapter is not model.adapter:
            self.clear()
            self._model = model
        known = self._held.get(key)
        if known is not None:
            self.hits += 1
            self._held.move_to_end(key)
            return known.session
        self.misses += 1
        with ExitStack() as stack:
            session = stack.enter_context(open_it(stack))
            self._held[key] = _Held(session, stack.pop_all())
        while len(self._held) > OPEN:
            self._close(next(iter(self._held)))
        return session

    def used(self, key: Hashable) -> None:
        """Count what a session holds after a question, and close others to make room."""
        held = self._held.get(key)
        if held is None:
            return
        held.bytes = held.session.bytes
        self._count()
        while self.bytes > self._limit and len(self._held) > 1:
            self._close(next(other for other in self._held if other != key))
        if self.bytes > self._limit:
            held.session.prefixes.clear()
            held.bytes = held.session.bytes
            self._count()
        if self.bytes > self._limit:
            self._close(key)

    def drop(self, key: Hashable) -> None:
        """Close a session that is of no further use."""
        if key in self._held:
            self._close(key)

    def clear(self) -> None:
        """Close all."""
        for key in list(self._held):
            self._close(key)
        self._model = None

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    def _close(self, key: Hashable) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            held.stack.close()
            self._count()

    def _count(self) -> None:
        self.bytes = sum(one.bytes for one in self._held.values())


class Turns:
    """The ids of answers, by the conversation that they ended.

    A client sends the text of earlier answers back. The ids that were generated may be others than
    those of the text (and hold thoughts that are not sent), so they are looked up here; an answer
    that is not here is encoded from its text.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Said] = OrderedDict()
        self._bytes = 0

    def earlier(self, about: str, turns: Sequence[tuple[str, str]]) -> tuple[Said, ...]:
        """Return the turns of a conversation.

        Parameters
        ----------
        about : str
            What the conversation is about: model, clip, system prompt.
        turns : sequence of (str, str)
            Questions and answers, the oldest first.
        """
        found = []
        for end, (question, text) in enumerate(turns, 1):
            key = _key(about, turns[:end])
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
            found.append(known or Said(question, text))
        return tuple(found)

    def keep(self, about: str, turns: Sequence[tuple[str, str]], answer: Answer) -> None:
        """Remember an answer that the conversation goes on from."""
        if answer.stop == "stop sequence":  # the ids go on behind the text
            return
        key = _key(about, [*turns, (answer.question, answer.text)])
        said = Said(answer.question, answer.text, answer.token_ids, answer.choices)
        self._forget(key)
        self._known[key] = said
        self._bytes += _size(said)
        while len(self._known) > TURNS or self._bytes > TURN_BYTES:
            self._forget(next(iter(self._known)))

    def __len__(self) -> int:
        return len(self._known)

    def _forget(self, key: bytes) -> None:
        old = self._known.pop(key, None)
        if old is not None:
            self._bytes -= _size(old)


def _key(about: str, turns: Sequence[tuple[str, str]]) -> bytes:
    return hashlib.sha256(repr((about, list(turns))).encode()).digest()


def _size(said: Said) -> int:
    """Return about how many bytes a turn takes."""
    return 4 * (len(said.question) + len(said.text)) + 36 * len(said.token_ids or ()) + 500
