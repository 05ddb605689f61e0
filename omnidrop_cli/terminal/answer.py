"""A Trace as rich renderables: `full` for one answer, `brief` for one among several.

Blocks are lists of lines of known width. From 140 columns on they stand side by side, below that
one under the other; without colour every difference is also a difference of glyphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from omnidrop.errors import printable
from omnidrop_cli.terminal import format as words
from omnidrop_cli.terminal import layer_charts as heat
from omnidrop_cli.terminal import sections as blocks
from omnidrop_cli.terminal.glyphs import Ink, bar

if TYPE_CHECKING:
    from omnidrop.report.trace import Answer, Trace
    from omnidrop_cli.commands.answering import Outcome

WIDE = 140
GAP = 4


@dataclass(frozen=True)
class View:
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


def full(answer: Answer, with_answer: bool = False, again: bool = False) -> View:
    """Return the whole report.

    Parameters
    ----------
    answer : Answer
    with_answer : bool
        Show the answer's text at the head too: for files, since a terminal has it on stdout.
    again : bool
        Show the answer's text once more at the foot: a long report moves it off the screen.
    """

    def make(width: int, ink: Ink) -> Iterator[Text]:
        yield from _full(answer, with_answer, width, ink)
        if again:
            yield Text()
            yield blocks.title("Answer", width)
            yield from blocks.field("", answer.text, width, "bold")

    return View(make)


def brief(answer: Answer, notices: Sequence[str] | None = None) -> View:
    """Return the report in a few lines, with these notices or else the answer's own."""
    said = answer.trace.notices if notices is None else notices
    return View(lambda width, ink: _brief(answer, said, width, ink))


def failed(outcome: Outcome) -> View:
    """Return what is said in a saved report about a question that got no answer."""

    def make(width: int, ink: Ink) -> Iterator[Text]:
        yield blocks.title("No answer", width)
        yield from blocks.field("clip", printable(outcome.item.clip), width)
        yield from blocks.field("question", outcome.item.question, width)
        yield from blocks.field("error", str(outcome.failure()["error"]), width)

    return View(make)


def _full(answer: Answer, with_answer: bool, width: int, ink: Ink) -> Iterator[Text]:
    trace = answer.trace
    yield Text()
    yield from blocks.header(answer, with_answer, width)
    if answer.choices:
        yield Text()
        yield from blocks.choices(answer, width, ink)
    if width >= WIDE:
        yield from _wide(trace, width, ink)
    else:
        yield from _stacked(trace, width, ink)
    yield Text()
    yield from blocks.settings(answer, width)


def _stacked(trace: Trace, width: int, ink: Ink) -> Iterator[Text]:
    rows = heat.layer_bins(trace)
    yield from _column(
        (
            heat.layers(trace, rows, width, ink),
            blocks.shares(trace, width),
            heat.heatmap(trace, rows, width, ink),
            blocks.moments(trace, width, ink),
            blocks.stages(trace, width, ink),
            blocks.cost(trace, width, ink),
        )
    )


def _wide(trace: Trace, width: int, ink: Ink) -> Iterator[Text]:
    rows = heat.layer_bins(trace)
    left = (width - GAP) // 2
    right = width - GAP - left
    columns = (
        (
            heat.layers(trace, rows, left, ink),
            blocks.shares(trace, left),
            blocks.stages(trace, left, ink),
        ),
        (
            heat.heatmap(trace, rows, right, ink),
            blocks.moments(trace, right, ink),
            blocks.cost(trace, right, ink),
        ),
    )
    yield from beside([_column(c) for c in columns], [left, right])


def _column(parts: Iterable[list[Text]]) -> list[Text]:
    """Return blocks one under the other, an empty line before each."""
    return [line for part in parts if part for line in (Text(), *part)]


def beside(columns: list[list[Text]], widths: list[int]) -> Iterator[Text]:
    """Yield lines that put blocks side by side, `GAP` cells apart."""
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
    line.append(f"{words.number(n)} tokens", style="bold")
    line.append(
        f" · {trace.method.get('name', '?')} kept {words.share(trace.realised_budget)}"
        f", {words.share(trace.asked_budget)} asked"
    )
    yield line
    second = Text("  ", style="dim")
    rate = f" · {trace.tokens_per_second:.1f} tokens/s" if trace.tokens_per_second else ""
    second.append(
        f"first token {words.duration(trace.ttft)}{rate} · prefill "
        f"{_ratio(trace.flops_prefill, trace.flops_prefill_unpruned)} of the FLOPs · KV cache "
        f"{_ratio(trace.memory.kv_cache, trace.memory.kv_cache_unpruned)}"
    )
    yield from blocks.wrapped(second, width, indent=2)
    best = blocks.best_moments(trace, 3)
    if best:
        where = ", ".join(f"{words.span(a, b)} ({words.share(s, 0)})" for a, b, s, _ in best)
        yield from blocks.wrapped(Text(f"  looked most at {where}", style="dim"), width, indent=2)
    if answer.choices:
        odds = " · ".join(f"{c.text} {words.share(c.probability)}" for c in answer.choices)
        yield from blocks.wrapped(Text(f"  {printable(odds)}"), width, indent=2)
    for notice in notices:
        yield from blocks.wrapped(Text(f"  ! {printable(notice)}", style="bold"), width, indent=4)
    yield Text()


def _ratio(part: float, whole: float) -> str:
    return words.share(part / whole) if whole else "–"


__all__ = ["View", "bar", "beside", "brief", "failed", "full"]
