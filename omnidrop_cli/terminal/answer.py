"""An Answer as rich renderables: `brief` for a small screen, `full` for all that was measured.

Sections are lists of lines of known width, in two columns from 140 cells on and in one below that.
Without colour every difference is also a difference of glyphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from omnidrop.errors import printable
from omnidrop_cli.terminal import layer_charts, sections
from omnidrop_cli.terminal.glyphs import Ink
from omnidrop_cli.terminal.summary import summary, sure, trust

if TYPE_CHECKING:
    from omnidrop.report.trace import Answer, Trace
    from omnidrop_cli.commands.answering import Outcome

WIDE = 140
GAP = 4


@dataclass(frozen=True)
class Layout:
    """Something to print: lines made once the console's width and colours are known."""

    make: Callable[[int, Ink], Iterable[Text]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ink, width = Ink.of(console), options.max_width
        for line in self.make(width, ink):
            line.no_wrap = True
            line.overflow = "crop"
            line.truncate(width)
            yield line


def full(
    answer: Answer, with_answer: bool = False, again: bool = False, settings: bool = False
) -> Layout:
    """Return the whole report.

    Parameters
    ----------
    answer : Answer
    with_answer : bool
        Show the answer's text at the head: for files, since a terminal has it on stdout.
    again : bool
        Repeat the answer's text at the foot: a long report moves it off the screen.
    settings : bool
        Show every setting.
    """

    def make(width: int, ink: Ink) -> Iterator[Text]:
        yield from _full(answer, with_answer, settings, width, ink)
        if again:
            yield Text()
            yield sections.title("Answer", width)
            yield from sections.field("", answer.text, width, "bold")
            yield from sure(answer, width)

    return Layout(make)


def brief(
    answer: Answer, notices: Sequence[str] | None = None, *, with_answer: bool = False
) -> Layout:
    """Return the report in a few lines, with these notices or else the answer's own."""
    shown = answer.trace.notices if notices is None else notices
    return Layout(lambda width, ink: summary(answer, shown, width, with_answer=with_answer))


def thoughts(answer: Answer) -> Layout:
    """Return what a thinking model thought, paragraph by paragraph."""

    def make(width: int, ink: Ink) -> Iterator[Text]:
        yield Text()
        yield sections.title("Thoughts", width)
        for line in answer.thinking.splitlines():
            yield from sections.note(printable(line), width) if line.strip() else [Text()]

    return Layout(make)


def failed(outcome: Outcome) -> Layout:
    """Return the part of a saved report about a question that got no answer."""

    def make(width: int, ink: Ink) -> Iterator[Text]:
        yield sections.title("No answer", width)
        yield from sections.field("clip", printable(outcome.question.clip), width)
        yield from sections.field("question", outcome.question.text, width)
        yield from sections.field("error", str(outcome.failure()["error"]), width)

    return Layout(make)


def _full(
    answer: Answer, with_answer: bool, settings: bool, width: int, ink: Ink
) -> Iterator[Text]:
    yield Text()
    yield from sections.header(answer, with_answer, width)
    yield from trust(answer, width, whole=True)
    if answer.choices:
        yield Text()
        yield from sections.choices(answer, width, ink)
    yield from _column([sections.moments(answer, width, ink)])
    if width >= WIDE:
        yield from _wide(answer.trace, width, ink)
    else:
        yield from _stacked(answer.trace, width, ink)
    if settings:
        yield Text()
        yield from sections.settings(answer, width)
    yield Text()
    yield from sections.words(width)


def _stacked(trace: Trace, width: int, ink: Ink) -> Iterator[Text]:
    rows = layer_charts.layer_bins(trace)
    yield from _column(
        (
            layer_charts.layers(trace, rows, width, ink),
            sections.shares(trace, width),
            layer_charts.heatmap(trace, rows, width, ink),
            sections.stages(trace, width, ink),
            sections.cost(trace, width, ink),
        )
    )


def _wide(trace: Trace, width: int, ink: Ink) -> Iterator[Text]:
    rows = layer_charts.layer_bins(trace)
    left = (width - GAP) // 2
    right = width - GAP - left
    columns = (
        (
            layer_charts.layers(trace, rows, left, ink),
            sections.shares(trace, left),
            sections.stages(trace, left, ink),
        ),
        (
            layer_charts.heatmap(trace, rows, right, ink),
            sections.cost(trace, right, ink),
        ),
    )
    yield from side_by_side([_column(c) for c in columns], [left, right])


def _column(parts: Iterable[list[Text]]) -> list[Text]:
    """Return sections one under the other, an empty line before each."""
    return [line for part in parts if part for line in (Text(), *part)]


def side_by_side(columns: list[list[Text]], widths: list[int]) -> Iterator[Text]:
    """Yield lines that put sections side by side, `GAP` cells apart."""
    for i in range(max((len(c) for c in columns), default=0)):
        line = Text()
        for n, (column, width) in enumerate(zip(columns, widths, strict=True)):
            part = column[i].copy() if i < len(column) else Text()
            part.truncate(width, pad=n + 1 < len(columns))
            line.append_text(part)
            if n + 1 < len(columns):
                line.append(" " * GAP)
        yield line


__all__ = ["Layout", "brief", "failed", "full", "side_by_side"]
