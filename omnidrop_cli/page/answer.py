"""One answer as a part of a page: the answer, how sure, from where, and what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnidrop import format as fmt
from omnidrop_cli.page import details
from omnidrop_cli.page.charts import bar, timeline
from omnidrop_cli.page.film import (
    MOST_MOMENTS,
    Film,
    moment_times,
    overview_times,
    player,
    strip,
    time_link,
)
from omnidrop_cli.page.html import Markup, folded, join, tag
from omnidrop_cli.terminal.summary import in_order

if TYPE_CHECKING:
    from omnidrop.report.trace import Answer, LeftOut, Trace
    from omnidrop_cli.commands.answering import Outcome

#: Characters above which an answer is set as running text.
LONG = 90
#: Below this share of all answers, the choices together fit badly.
LITTLE_MASS = 0.01


def percent(value: float) -> str:
    """Return `87 %`, `0.001 %` for little, and never `100 %` for less than all."""
    return "over 99 %" if 0.995 <= value < 1 else fmt.little(value)


def section(
    outcome: Outcome, made: Film | None, number: int, *, alone: bool, plays: bool
) -> Markup:
    """Return the part of a page about one question.

    Parameters
    ----------
    outcome : Outcome
    made : Film or None
        Its clip; None if there is no answer.
    number : int
        From 1; its id is `answer-N`.
    alone : bool
        Whether the page is about this question only.
    plays : bool
        Whether the clip's player stands here, and not at an earlier answer.
    """
    name = f"answer-{number}"
    answer = outcome.answer
    if answer is None or made is None:
        return _failure(outcome, name, alone)
    trace = answer.trace
    parts = [
        _head(outcome.question.text or answer.question, _clip_line(trace, made), alone),
        _text(answer.text),
        _sure(answer),
        _notices(answer),
        _choices(answer),
        _source(answer, made, plays),
        details.summary(trace),
    ]
    heading = tag("h3", "What was kept of the clip")
    below = [details.tokens(trace, heading), details.costs(trace)]
    # Among several answers a page stays short.
    parts += below if alone else [folded("What was kept, and what it cost", *below)]
    parts.append(details.settings(answer))
    return tag("article", *parts, id=name)


def _head(question: str, clip: str, alone: bool) -> Markup:
    heading = tag("h1" if alone else "h2", question, dir="auto", class_="question")
    return tag("header", tag("p", clip, class_="muted small", dir="auto"), heading)


def _clip_line(trace: Trace, made: Film) -> str:
    parts = [made.name]
    if trace.chunks:
        first, last = trace.chunks[0].start, trace.chunks[-1].end
        parts.append(fmt.span(first, last))
        duration = trace.clip.get("duration")
        if isinstance(duration, (int, float)) and last - first < duration - 0.5:
            parts[-1] += f" of {fmt.clock(duration)}"
    return " · ".join(parts)


def _text(text: str) -> Markup:
    if not text.strip():
        return tag("p", "The model ended without a word.", class_="answer none")
    return tag("p", text, class_="answer long" if len(text) > LONG else "answer", dir="auto")


def _sure(answer: Answer) -> Markup:
    rows = []
    value = answer.probability
    if value is not None:
        source = answer.probability_source
        calibrated = source.startswith("calibrated")
        own = "among the choices" if answer.choices else "probability of this answer"
        what = "likely right" if calibrated else own
        words = tag("span", tag("strong", percent(value)), f" {what}")
        note = source if calibrated or not source else f"{source}, which is not calibrated"
        aside = tag("span", note, class_="muted") if note else None
        shape = bar(value, "good" if calibrated else "plain")
        rows.append(tag("p", shape, words, aside, class_="sure"))
    elif answer.doubt:
        rows.append(tag("p", f"How sure it is, is not known: {answer.doubt}.", class_="warn"))
    elif not answer.choices:
        rows.append(tag("p", "How sure the model is was not measured.", class_="muted"))
    if answer.unpruned_text is not None:
        rows.append(_check(answer))
    return join(rows)


def _check(answer: Answer) -> Markup:
    unpruned = answer.unpruned_text or ""
    if unpruned.strip() == answer.text.strip():
        return tag("p", "Same answer with every token: ", tag("strong", "yes"))
    other = tag("q", unpruned, dir="auto") if unpruned.strip() else "it ends without a word"
    return tag("p", "Same answer with every token: ", tag("strong", "no"), ". With every token: ",
               other, class_="warn")  # fmt: skip


def _notices(answer: Answer) -> Markup | None:
    found = in_order(answer, answer.trace.notices)
    if not found:
        return None
    items = (tag("li", notice, dir="auto") for notice in found)
    return tag("aside", tag("ul", *items), class_="notices", role="note", aria_label="Notices")


def _choices(answer: Answer) -> Markup | None:
    if not answer.choices:
        return None
    rows = (
        tag(
            "li",
            tag("span", choice.text, dir="auto"),
            bar(choice.probability, "video" if choice is answer.choices[0] else "plain"),
            tag("span", percent(choice.probability), class_="number"),
        )
        for choice in answer.choices
    )
    parts = [tag("h3", "The choices"), tag("ul", *rows, class_="choices")]
    mass = answer.choice_mass
    if mass is not None:
        text = f"Of all answers that the model could give, these together have {percent(mass)}."
        if mass < LITTLE_MASS:
            parts.append(tag("p", f"None of them fits well. {text}", class_="warn"))
        else:
            parts.append(tag("p", text, class_="muted small"))
    return join(parts)


def _source(answer: Answer, made: Film, plays: bool) -> Markup:
    """Return the clip, and the moments that the answer came from."""
    trace = answer.trace
    left = [player(made)] if plays else []
    if not made.source and (frames := strip(made, overview_times(trace), told=True)):
        left.append(frames)
    if trace.clip.get("sampling", {}).get("audio_file"):
        note = "The audio that the model heard is that of another file, not of this clip."
        left.append(tag("p", note, class_="muted small"))
    if not trace.moments:
        note = tag("p", "Which moments it came from is not known.", class_="muted")
        right = [tag("h3", "Where the answer came from"), note]
    else:
        right = [
            tag("h3", "Where the answer came from"),
            tag(
                "p",
                "Each moment's share of the evidence, the strongest first.",
                class_="muted small",
            ),
            timeline(trace) or Markup(""),
            _proof(answer, made),
            tag("ol", *_moments(answer, made), class_="moments"),
        ]
    columns = [tag("div", *right)]
    if left:
        columns.insert(0, tag("div", *left, class_="film"))
    return tag("div", *columns, class_="source")


def _proof(answer: Answer, made: Film) -> Markup:
    """Return which moment the answer hangs on, if it was asked again without each."""
    if not answer.left_out:
        return Markup("")
    told = answer.hangs_on
    if told is None:
        if len(answer.left_out) == 1:
            return Markup("")  # said below the moment
        return tag("p", "Whichever of these moments is left out, the answer stays the same.")
    at = time_link(made, told.moment.start, told.moment.end)
    return tag("p", "The answer hangs on ", at, ".", class_="proof")


def _without(told: LeftOut) -> Markup:
    """Return what the answer is without a moment."""
    before, after = percent(told.whole), percent(told.probability)
    chance = f"{before} → {after}"
    if not told.changed:
        odds = ", as probable" if before == after else f" ({chance})"
        return tag("p", f"Without it: the same answer{odds}.", class_="muted small")
    other = tag("q", told.text, dir="auto") if told.text.strip() else "no words"
    return tag("p", "Without it: ", other, f" ({chance}).", class_="muted small")


def _moments(answer: Answer, made: Film) -> list[Markup]:
    without = {told.moment: told for told in answer.left_out}
    found = []
    for number, moment in enumerate(answer.trace.moments):
        share = tag("span", fmt.share(moment.share, 0), class_="number")
        row = tag("div", time_link(made, moment.start, moment.end), bar(moment.share, "moment"),
                  share, class_="row")  # fmt: skip
        frames = strip(made, moment_times(moment)) if number < MOST_MOMENTS else None
        told = _without(without[moment]) if moment in without else None
        found.append(tag("li", row, frames, told))
    return found


def _failure(outcome: Outcome, name: str, alone: bool) -> Markup:
    error = str(outcome.failure()["error"])
    head = _head(outcome.question.text, outcome.question.clip.name, alone)
    return tag("article", head, tag("p", error, class_="warn", dir="auto"), id=name)


__all__ = ["percent", "section"]
