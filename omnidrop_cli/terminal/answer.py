"""A Trace as rich renderables: `full` for one answer, `brief` for one among several.

Sections are lists of lines of known width, in two columns from 140 cells on and in one below that.
Without colour every difference is also a difference of glyphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from omnidrop import format as fmt
from omnidrop.errors import printable
from omnidrop_cli.terminal import layer_charts, sections
from omnidrop_cli.terminal.glyphs import Ink, bar

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
        system = None if console.no_color else console.color_system
        ink = Ink(colour=system is not None, shades=system in ("256", "truecolor"))
        width = options.max_width
        for line in self.make(width, ink):
            line.no_wrap = True
            line.overflow = "crop"
            line.truncate(width)
            yield line


def full(answer: Answer, with_answer: bool = False, again: bool = False) -> Layout:
    """Return the whole report.

    Parameters
    ----------
    answer : Answer
    with_answer : bool
        Show the answer's text at the head: for files, since a terminal has it on stdout.
    again : bool
        Repeat the answer's text at the foot: a long report moves it off the screen.
    """

    def make(width: int, ink: Ink) -> Iterator[Text]:
        yield from _full(answer, with_answer, width, ink)
        if again:
            yield Text()
            yield sections.title("Answer", width)
            yield from sections.field("", answer.text, width, "bold")

    return Layout(make)


def brief(answer: Answer, notices: Sequence[str] | None = None) -> Layout:
    """Return the report in a few lines, with these notices or else the answer's own."""
    shown = answer.trace.notices if notices is None else notices
    return Layout(lambda width, ink: _brief(answer, shown, width, ink))


def failed(outcome: Outcome) -> Layout:
    """Return the part of a saved report about a question that got no answer."""

    def make(width: int, ink: Ink) -> Iterator[Text]:
        yield sections.title("No answer", width)
        yield from sections.field("clip", printable(outcome.question.clip), width)
        yield from sections.field("question", outcome.question.text, width)
        yield from sections.field("error", str(outcome.failure()["error"]), width)

    return Layout(make)


def _full(answer: Answer, with_answer: bool, width: int, ink: Ink) -> Iterator[Text]:
    trace = answer.trace
    yield Text()
    yield from sections.header(answer, with_answer, width)
    if answer.choices:
        yield Text()
        yield from sections.choices(answer, width, ink)
    if width >= WIDE:
        yield from _wide(trace, width, ink)
    else:
        yield from _stacked(trace, width, ink)
    yield Text()
    yield from sections.settings(answer, width)


def _stacked(trace: Trace, width: int, ink: Ink) -> Iterator[Text]:
    rows = layer_charts.layer_bins(trace)
    yield from _column(
        (
            layer_charts.layers(trace, rows, width, ink),
            sections.shares(trace, width),
            layer_charts.heatmap(trace, rows, width, ink),
            sections.moments(trace, width, ink),
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
            sections.moments(trace, right, ink),
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


def _brief(answer: Answer, notices: Sequence[str], width: int, ink: Ink) -> Iterator[Text]:
    trace = answer.trace
    n = trace.av_tokens
    line = Text("  ")
    line.append(f"{fmt.number(n)} tokens", style="bold")
    line.append(
        f" · {trace.method.get('name', '?')} kept {fmt.share(trace.realised_budget)}"
        f", {fmt.share(trace.asked_budget)} asked"
    )
    yield line
    rate = f" · {trace.tokens_per_second:.1f} tokens/s" if trace.tokens_per_second else ""
    yield from sections.note(
        f"first token {fmt.duration(trace.ttft)}{rate} · prefill "
        f"{_ratio(trace.flops_prefill, trace.flops_prefill_unpruned)} of the FLOPs · KV cache "
        f"{_ratio(trace.memory.kv_cache, trace.memory.kv_cache_unpruned)}",
        width,
    )
    best = sections.best_moments(trace, 3)
    if best:
        where = ", ".join(f"{fmt.span(a, b)} ({fmt.share(s, 0)})" for a, b, s, _ in best)
        yield from sections.note(f"most attention at {where}", width)
    if answer.choices:
        odds = " · ".join(f"{c.text} {fmt.share(c.probability)}" for c in answer.choices)
        yield from sections.hanging("  ", Text(printable(odds)), width)
    for notice in notices:
        yield from sections.hanging("  ! ", Text(printable(notice), style="bold"), width, "bold")
    yield Text()


def _ratio(part: float, whole: float) -> str:
    return fmt.share(part / whole) if whole else "–"


__all__ = ["Layout", "bar", "brief", "failed", "full", "side_by_side"]
