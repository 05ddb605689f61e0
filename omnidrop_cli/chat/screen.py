"""What a chat shows: answers on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from omnidrop import format as fmt
from omnidrop.errors import printable
from omnidrop.files import to_json
from omnidrop.report.trace import Answer
from omnidrop_cli.chat.slash import SLASHES
from omnidrop_cli.commands.answering import Outcome
from omnidrop_cli.files.stdout import cell, for_terminal
from omnidrop_cli.terminal.console import is_terminal
from omnidrop_cli.terminal.progress import Progress

#: Moments and choices in the line below an answer.
MOST = 3


class Screen:
    """Shows answers and remarks.

    Parameters
    ----------
    typed : bool
        Whether a person types the questions; otherwise each answer is one line.
    jsonl : bool
        Write answers as lines of JSON.
    quiet : bool
        Show no remarks or notices, only errors.
    progress : Progress
        Taken off the screen before anything is written.
    thoughts : bool
        Show on stderr what a thinking model thought before an answer that is text.
    """

    def __init__(
        self, *, typed: bool, jsonl: bool, quiet: bool, progress: Progress, thoughts: bool = False
    ) -> None:
        self.typed, self._jsonl, self._quiet, self._progress = typed, jsonl, quiet, progress
        self._streaming = typed and not jsonl and is_terminal(sys.stdout)
        self._thoughts = thoughts and not jsonl and not quiet
        self._begun = False
        self._noticed: set[str] = set()

    def say(self, text: str) -> None:
        """Show a remark; none to a script."""
        if self.typed and not self._quiet:
            self._lines(text)

    def stream(self) -> Callable[[str], None] | None:
        """Return what receives the pieces of an answer, if they are shown as they come."""
        if not self._streaming:
            return None

        def write(piece: str) -> None:
            if not piece:
                return
            self._progress.finish()
            self._begun = True
            print(for_terminal(piece), end="", flush=True)

        return write

    def show(self, outcome: Outcome, seconds: float) -> None:
        """Show an answer and how it came about; for a problem, only its place among the answers."""
        answer = outcome.answer
        if self._jsonl:
            print(to_json(answer.to_dict() if answer else outcome.failure()), flush=True)
        elif answer is None:
            self.end_line()
            if not self.typed:
                print(flush=True)
        elif self._begun:
            self.end_line()
        else:
            print(for_terminal(answer.text) if self.typed else cell(answer.text), flush=True)
        if answer is not None:
            self._below(answer, seconds)

    def end_line(self) -> None:
        """End the line of an answer that was begun."""
        if self._begun:
            self._begun = False
            print(flush=True)

    def leave(self) -> None:
        """Put the cursor below the prompt."""
        if self.typed:
            with suppress(OSError, ValueError):
                print(file=sys.stderr, flush=True)

    def report(self, answer: Answer) -> None:
        """Show the full report of an answer."""
        from omnidrop_cli.terminal.answer import full
        from omnidrop_cli.terminal.console import terminal

        terminal().print(full(answer))

    def help(self) -> None:
        """List the commands."""
        from rich.text import Text

        from omnidrop_cli.terminal.console import terminal
        from omnidrop_cli.terminal.sections import hanging

        console = terminal()
        wide = max(len(slash.usage) for slash in SLASHES)
        for slash in SLASHES:
            head = f"  {slash.usage.ljust(wide)}  "
            for line in hanging(head, Text(slash.help), console.width):
                console.print(line, soft_wrap=True)
        self._lines("Anything else is a question. Ctrl-C stops an answer, Ctrl-D leaves.")

    def second_interrupt(self) -> None:
        """Say that an answer is being stopped; called inside a signal handler."""
        with suppress(OSError):
            os.write(2, b"\nStopping; once more ends omnidrop.\n")

    def _below(self, answer: Answer, seconds: float) -> None:
        if self._thoughts and answer.thinking:
            from omnidrop_cli.terminal.answer import thoughts
            from omnidrop_cli.terminal.console import terminal

            terminal().print(thoughts(answer))
        if self.typed:
            self.say(facts(answer, seconds))
        fresh = [notice for notice in answer.trace.notices if notice not in self._noticed]
        self._noticed.update(fresh)
        for notice in fresh:
            if self.typed:
                self.say(f"! {notice}")

    def _lines(self, text: str) -> None:
        from rich.text import Text

        from omnidrop_cli.terminal.console import terminal
        from omnidrop_cli.terminal.sections import hanging

        console = terminal()
        for line in hanging("  ", Text(printable(text), style="dim"), console.width):
            console.print(line, soft_wrap=True)


def facts(answer: Answer, seconds: float) -> str:
    """Return one line below an answer: how sure, from which moments, in what time.

    Parameters
    ----------
    answer : Answer
    seconds : float
        From the question to the end of the answer.
    """
    parts = []
    if not answer.text.strip():
        parts.append("the answer is empty")
    if answer.choices:
        likely = [c for c in answer.choices[:MOST] if c.probability >= 0.005]
        parts.append(", ".join(f"{c.text} {fmt.share(c.probability, 0)}" for c in likely))
    elif answer.doubt:
        parts.append("how sure is not known")
    elif answer.probability is not None:
        parts.append(f"{fmt.share(answer.probability, 0)} sure")
    moments = answer.trace.moments[:MOST]
    if moments:
        parts.append(f"from {', '.join(fmt.span(m.start, m.end) for m in moments)}")
    if answer.stop == "max new tokens":
        parts.append(f"cut off after {len(answer.token_ids)} tokens")
    parts.append(fmt.duration(seconds))
    return " · ".join(parts)


__all__ = ["Screen", "facts"]
