"""Reports and notices on stderr: how much, for whom.

On a terminal a summary follows the answer. Where answers go to a pipe or are JSON, stderr holds
errors alone, unless a report is asked for by name; JSON has the notices. What --check found is
written to stderr beside answers that are text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.errors import printable
from omnidrop_cli.commands.answering import Outcome
from omnidrop_cli.errors import complain
from omnidrop_cli.files.stdout import Printer
from omnidrop_cli.options.common import Report
from omnidrop_cli.terminal.console import terminal

if TYPE_CHECKING:
    from rich.text import Text


@dataclass
class Reporter:
    """Shows the report of each answer as it comes.

    Parameters
    ----------
    asked : Report or None
        What the person asked for.
    quiet : bool
        Show nothing.
    printer : Printer
        What writes the answers themselves.
    several_clips : bool
        Notices name their clip.
    terminal : bool
        Whether stderr is a terminal.
    thoughts : bool
        Show what a thinking model thought before each answer that is text.
    """

    asked: Report | None
    quiet: bool
    printer: Printer
    several_clips: bool
    terminal: bool = False
    thoughts: bool = False
    _noticed: set[tuple[Path | None, str]] = field(default_factory=set)
    _general: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.printer.sure = self.kind is not Report.none

    @property
    def kind(self) -> Report:
        """How much is shown of each answer."""
        if self.quiet:
            return Report.none
        if self.asked is not None:
            return self.asked
        return Report.brief if self.terminal and self.printer.on_screen else Report.none

    def tell(self, notice: str) -> None:
        """Write a notice that belongs to no answer, where a person reads along."""
        if not self.quiet and (self.printer.on_screen or self.kind is not Report.none):
            complain(notice, "notice")

    def show(self, outcome: Outcome) -> None:
        """Show the report of an answer that was printed, or at least its notices."""
        answer, on_screen = outcome.answer, self.printer.on_screen
        if self.quiet or answer is None:
            return
        if self.thoughts and answer.thinking and self.printer.form == "text":
            from omnidrop_cli.terminal.answer import thoughts

            terminal().print(thoughts(answer))
        if self.kind is Report.none:
            if on_screen:
                self._complain(outcome)
            if answer.unpruned_text is not None and self.printer.form == "text":
                self._complain_check(outcome)
            return
        from omnidrop_cli.terminal.answer import Layout, brief, full

        if self.kind is not Report.brief:
            report = full(
                answer,
                with_answer=not on_screen,
                again=on_screen and self.terminal,
                settings=self.kind is Report.settings,
            )
        elif self.printer.alone:
            report = brief(answer, with_answer=not on_screen)
        else:
            report = Layout(lambda width, ink: self._row(outcome, width))
        terminal().print(report)

    def close(self) -> None:
        """Show what is said once, after several answers."""
        if self.kind is Report.brief and not self.printer.alone:
            from omnidrop_cli.terminal.answer import Layout

            listing = self.printer.listing
            terminal().print(Layout(lambda width, ink: listing.closing(self._general, width)))

    def _row(self, outcome: Outcome, width: int) -> Iterator[Text]:
        """Yield the answer's row unless stdout shows it, and its notices."""
        if not self.printer.on_screen:
            yield from self.printer.listing.rows(outcome, width)
        yield from self.printer.listing.notices(self._new_notices(outcome), width)

    def _complain(self, outcome: Outcome) -> None:
        """Write the notices of an answer that has no report."""
        named = f"{printable(outcome.question.clip)}: " if self.several_clips else ""
        for notice in self._new_notices(outcome):
            complain(named + notice, "notice")
        while self._general:
            complain(self._general.pop(), "notice")

    def _complain_check(self, outcome: Outcome) -> None:
        """Write whether the answer with every token is the same."""
        from omnidrop_cli.terminal.summary import check

        assert outcome.answer is not None
        asked = outcome.question
        named = "" if self.printer.alone else f"{printable(asked.clip)}: {asked.text}: "
        complain(named + check(outcome.answer), "check")

    def _new_notices(self, outcome: Outcome) -> list[str]:
        """Return the notices about a clip not shown yet; keep those about the model, once each."""
        assert outcome.answer is not None
        from omnidrop_cli.terminal.summary import about_model

        trace, clip = outcome.answer.trace, outcome.question.clip
        found: list[str] = []
        for notice in trace.notices:
            general = about_model(trace, notice)
            key = (None if general else clip, notice)
            if key not in self._noticed:
                self._noticed.add(key)
                (self._general if general else found).append(notice)
        return found
