"""What goes to stdout: the answer, and nothing but the answer.

One answer is written as it is. Of several, a terminal shows each under its clip and question, and a
pipe gets one line each: clip, question and answer, separated by tabs.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omnidrop.errors import printable
from omnidrop.report.trace import SCHEMA
from omnidrop_cli.commands.answering import Item, Outcome
from omnidrop_cli.errors import is_terminal
from omnidrop_cli.terminal.progress import Progress

SEVERAL = "omnidrop.answers/1"


def plain(value: Any) -> Any:
    """Return a value that strict JSON can hold: no NaN, no paths, no undecodable text."""
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, os.PathLike):
        return printable(value)
    return plain(value.item()) if hasattr(value, "item") else str(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON text."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


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
    _seen: list[Outcome] = field(default_factory=list)
    _begun: bool = False

    def stream(self, item: Item) -> Callable[[str], None] | None:
        """Return what the engine hands each piece of text to, if it is to be seen at once."""
        if self.form != "text" or not self.live:
            return None

        def write(piece: str) -> None:
            if not piece:
                return
            self.progress.finish()
            self._head(item)
            print(for_terminal(piece), end="", flush=True)

        return write

    def put(self, outcome: Outcome) -> None:
        """Write one outcome; problems appear here only in JSON."""
        self._seen.append(outcome)
        answer = outcome.answer
        if self.form == "jsonl":
            line = answer.to_dict() if answer is not None else outcome.failure()
            print(to_json(line), flush=True)
        elif self.form == "text" and self._begun:
            print(flush=True)
            self._begun = False
        elif self.form == "text" and answer is not None:
            if self.live:
                self._head(outcome.item)
                print(for_terminal(answer.text), flush=True)
                self._begun = False
            elif self.alone:
                print(answer.text, flush=True)
            else:
                fields = (printable(outcome.item.clip), outcome.item.question, answer.text)
                print("\t".join(cell(f) for f in fields), flush=True)

    def close(self) -> None:
        """Write what had to wait for the last answer."""
        if self.form == "json" and (not self.alone or any(o.answer for o in self._seen)):
            print(to_json(document(self._seen, self.alone), indent=2), flush=True)

    def _head(self, item: Item) -> None:
        if not self._begun:
            self._begun = True
            if not self.alone:
                print(f"{printable(item.clip)} — {for_terminal(item.question)}", flush=True)


__all__ = ["SCHEMA", "SEVERAL", "Printer", "cell", "document", "for_terminal", "plain", "to_json"]
