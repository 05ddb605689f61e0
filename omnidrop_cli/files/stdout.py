"""Answers on stdout, and nothing but answers.

One answer is written as it is, on a terminal while it is made. Several are a list on a terminal,
and one line each in a pipe: clip, question and answer, separated by tabs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from omnidrop.errors import printable
from omnidrop.files import to_json
from omnidrop_cli.commands.answering import Outcome, Question
from omnidrop_cli.terminal.console import NOTHING, for_terminal, is_terminal
from omnidrop_cli.terminal.progress import Progress

if TYPE_CHECKING:
    from omnidrop_cli.terminal.listing import Listing

SEVERAL = "omnidrop.answers/1"


def document(outcomes: list[Outcome], alone: bool) -> dict[str, Any]:
    """Return one JSON document: the answer itself if there is `alone` one, else all of them."""
    answers = [o.answer.to_dict() for o in outcomes if o.answer is not None]
    failures = [o.failure() for o in outcomes if o.answer is None]
    if alone and answers:
        return answers[0]
    return {"schema": SEVERAL, "answers": answers, "errors": failures}


def cell(text: str) -> str:
    """Return text that fits one field of a tab-separated line."""
    escaped = text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r")
    return escaped.replace("\n", "\\n")


@dataclass
class Printer:
    """Writes answers to stdout as they come.

    Parameters
    ----------
    form : {"text", "json", "jsonl"}
    alone : bool
        True if one clip and one question were given.
    progress : Progress
        Taken off the screen before anything is written.
    questions : tuple of str
        All that will be asked; their rows are aligned.
    sure : bool
        Show how sure each of several answers is.
    """

    form: str
    alone: bool
    progress: Progress
    questions: tuple[str, ...] = ()
    sure: bool = True
    live: bool = field(default_factory=lambda: is_terminal(sys.stdout))
    _outcomes: list[Outcome] = field(default_factory=list)
    _begun: bool = False

    @cached_property
    def listing(self) -> Listing:
        """What lays several answers out."""
        from omnidrop_cli.terminal.listing import Listing

        return Listing(self.questions, self.sure)

    @property
    def on_screen(self) -> bool:
        """Whether a person reads the answers as they come: text on a terminal."""
        return self.live and self.form == "text"

    def stream(self, question: Question) -> Callable[[str], None] | None:
        """Return what receives the pieces of an answer, if they are shown as they come.

        Those of several are not: how sure each is stands in its row.
        """
        if not (self.on_screen and self.alone):
            return None

        def write(piece: str) -> None:
            if not piece:
                return
            self.progress.finish()
            self._begun = True
            print(for_terminal(piece), end="", flush=True)

        return write

    def put(self, outcome: Outcome) -> None:
        """Write one outcome; problems appear here only in JSON."""
        self._outcomes.append(outcome)
        answer = outcome.answer
        if self.form == "jsonl":
            line = answer.to_dict() if answer is not None else outcome.failure()
            print(to_json(line), flush=True)
        elif self.form == "text" and self._begun:
            print(flush=True)
            self._begun = False
        elif self.on_screen and not self.alone:
            self._list(outcome)
        elif self.form == "text" and answer is not None:
            if self.live:
                print(for_terminal(answer.text) if answer.text.strip() else NOTHING, flush=True)
            elif self.alone:
                print(answer.text, flush=True)
            else:
                fields = (printable(outcome.question.clip), outcome.question.text, answer.text)
                print("\t".join(cell(f) for f in fields), flush=True)

    def end_line(self) -> None:
        """End the line of an answer that is not complete and will not be."""
        if self._begun:
            self._begun = False
            print(flush=True)

    def close(self) -> None:
        """Write what had to wait for the last answer."""
        if self.form == "json" and (not self.alone or any(o.answer for o in self._outcomes)):
            print(to_json(document(self._outcomes, self.alone), indent=2), flush=True)

    def _list(self, outcome: Outcome) -> None:
        from omnidrop_cli.terminal.answer import Layout
        from omnidrop_cli.terminal.console import terminal

        self.progress.finish()
        terminal(sys.stdout).print(Layout(lambda width, ink: self.listing.rows(outcome, width)))
        sys.stdout.flush()
