"""Answers on stdout, and nothing but answers.

One answer is written as it is. Several are shown under their clip and question on a terminal, and
written as one line each to a pipe: clip, question and answer, separated by tabs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omnidrop.errors import printable
from omnidrop.files import to_json
from omnidrop_cli.commands.answering import Outcome, Question
from omnidrop_cli.terminal.console import is_terminal
from omnidrop_cli.terminal.progress import Progress

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


def for_terminal(text: str) -> str:
    """Return text without control characters, which could steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


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
    """

    form: str
    alone: bool
    progress: Progress
    live: bool = field(default_factory=lambda: is_terminal(sys.stdout))
    _outcomes: list[Outcome] = field(default_factory=list)
    _begun: bool = False

    def stream(self, question: Question) -> Callable[[str], None] | None:
        """Return what receives the pieces of an answer, if they are shown as they come."""
        if self.form != "text" or not self.live:
            return None

        def write(piece: str) -> None:
            if not piece:
                return
            self.progress.finish()
            self._head(question)
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
        elif self.form == "text" and answer is not None:
            if self.live:
                self._head(outcome.question)
                print(for_terminal(answer.text), flush=True)
                self._begun = False
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

    def _head(self, question: Question) -> None:
        if not self._begun:
            self._begun = True
            if not self.alone:
                print(f"{printable(question.clip)} — {for_terminal(question.text)}", flush=True)
