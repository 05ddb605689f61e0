"""Several answers as a list: each clip once, then a row for each question, answer and how sure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as made
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from omnidrop import format as fmt
from omnidrop.errors import printable
from omnidrop_cli.terminal.console import NOTHING, for_terminal
from omnidrop_cli.terminal.sections import field, hanging, listed, note
from omnidrop_cli.terminal.summary import WIDEST, calibrated, check, how_sure, kept, memory

if TYPE_CHECKING:
    from omnidrop.report.trace import Answer
    from omnidrop_cli.commands.answering import Outcome

INDENT = 2
ARROW = "→ "
#: On narrower terminals the answer stands below its question.
NARROW = 60
#: Cells of `over 99 % sure`.
SURE = 14


@dataclass
class Listing:
    """Rows of one call, aligned with each other.

    Parameters
    ----------
    questions : sequence of str
        All questions that will be listed.
    sure : bool
        Show how sure each answer is.
    """

    questions: Sequence[str]
    sure: bool = True
    _clip: Path | None = None
    _answers: list[Answer] = made(default_factory=list)

    def rows(self, outcome: Outcome, width: int) -> Iterator[Text]:
        """Yield the lines of one outcome, under its clip if that is a new one."""
        clip = outcome.question.clip
        if clip != self._clip:
            if self._clip is not None:
                yield Text()
            self._clip = clip
            yield from hanging("", Text(printable(clip), style="bold"), width)
        answer = outcome.answer
        text, style = ("no answer", "dim") if answer is None else (answer.text, "bold")
        if answer is not None and not text.strip():
            text, style = NOTHING, "dim"
        sure = ""
        if answer is not None:
            self._answers.append(answer)
            if self.sure:
                sure = how_sure(answer)
        width = min(width, WIDEST)
        question = " ".join(outcome.question.text.split())
        lay = _stacked if width < NARROW else self._beside
        yield from lay(question, Text(for_terminal(text), style), sure, width)
        if self.sure and answer is not None and answer.unpruned_text is not None:
            yield from hanging(" " * 2 * INDENT, Text(printable(check(answer))), width)

    def notices(self, notices: Sequence[str], width: int) -> Iterator[Text]:
        """Yield notices as they stand below a row."""
        for notice in notices:
            yield from hanging(
                " " * 2 * INDENT + "! ", Text(printable(notice), "bold"), min(width, WIDEST), "bold"
            )

    def closing(self, notices: Sequence[str], width: int) -> Iterator[Text]:
        """Yield what is said once: what the answers cost, notices about all, and what more is."""
        traces = [answer.trace for answer in self._answers]
        if not traces:
            return
        width = min(width, WIDEST)
        first = _range([fmt.duration(t.ttft) for t in sorted(traces, key=lambda t: t.ttft)])
        parts = [f"first token after {first}"]
        shares = sorted(t.realised_budget for t in traces if t.av_tokens)
        if shares:
            parts.append(f"{_kept(shares[0], shares[-1])} kept")
        parts.append(memory(traces))
        yield Text()
        yield from listed("cost", parts, width)
        unsure = [a for a in self._answers if a.probability is not None and not calibrated(a)]
        if unsure:
            yield from field("how sure", "by the model's own figure, not calibrated", width)
        for notice in notices:
            yield from field("! notice", notice, width, "bold")
        yield from note("more: --report full", width)

    def _beside(self, question: str, answer: Text, sure: str, width: int) -> Iterator[Text]:
        """Yield question, answer and how sure in columns, the first two wrapped."""
        longest = max(cell_len(printable(" ".join(q.split()))) for q in self.questions)
        first = min(longest, int(0.45 * width))
        last = SURE + 2 if self.sure else 0
        middle = width - INDENT - first - 2 - len(ARROW) - last
        left = _wrapped(Text(printable(question)), first)
        right = _wrapped(answer, middle)
        for i in range(max(len(left), len(right))):
            line = Text(" " * INDENT)
            cell = left[i] if i < len(left) else Text()
            cell.truncate(first, pad=True)
            line.append_text(cell).append("  " + (ARROW if i == 0 else " " * len(ARROW)), "dim")
            if i < len(right):
                line.append_text(right[i])
            if i == 0 and sure:
                line.append(" " * (width - len(sure) - line.cell_len))
                line.append(sure, "dim")
            yield line


def _wrapped(text: Text, width: int) -> list[Text]:
    lines = text.wrap(Console(), max(width, 8))
    for line in lines:
        line.rstrip()
    return list(lines)


def _range(texts: list[str]) -> str:
    """Return the first and the last of sorted quantities, a unit that they share only once."""
    least, most = texts[0], texts[-1]
    if least == most:
        return least
    number, _, unit = least.partition(" ")
    return f"{number if most.partition(' ')[2] == unit else least} to {most}"


def _kept(least: float, most: float) -> str:
    """Return the shares of tokens kept, from the smallest to the largest."""
    if most >= 0.9995 > least:
        return _range([kept(least), "100 % of tokens"])
    return _range([kept(least), kept(most)])


def _stacked(question: str, answer: Text, sure: str, width: int) -> Iterator[Text]:
    """Yield the question, the answer below it, and how sure below that."""
    yield from hanging(" " * INDENT, Text(printable(question)), width)
    yield from hanging(" " * INDENT + ARROW, answer, width, "dim")
    if sure:
        yield from hanging(" " * (INDENT + len(ARROW)), Text(sure, "dim"), width)
