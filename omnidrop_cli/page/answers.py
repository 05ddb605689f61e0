"""The page of one or several answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.errors import printable
from omnidrop_cli.page.answer import section
from omnidrop_cli.page.film import Film, Notify, film
from omnidrop_cli.page.frame import document
from omnidrop_cli.page.html import Markup, folded, join, shortened, shown, tag

if TYPE_CHECKING:
    from omnidrop.report.trace import Answer
    from omnidrop_cli.commands.answering import Outcome

WORDS = (
    ("token", "what the model reads: a piece of text, of video, or of audio"),
    ("layer", "one of the steps that the model takes; each reads every token that is left"),
    ("kept", "the share of the clip's tokens that enter a layer, as the mean of all layers"),
    ("prefill", "the pass over the whole prompt before the first word of the answer"),
    ("KV cache", "what the model keeps in memory of every token it has read"),
    ("TTFT", "time to the first token, from opening the clip"),
)


def answers_page(
    outcomes: Sequence[Outcome], path: Path, data: Any, *, embed: bool, notify: Notify
) -> str:
    """Return the page of answers.

    Parameters
    ----------
    outcomes : sequence of Outcome
        At least one.
    path : Path
        Where the page will be: links to clips are relative to it.
    data : object
        The same as JSON.
    embed : bool
        Put the clips themselves into the page.
    notify : callable
        Receives what the user should know about clips that cannot be shown.
    """
    films = _films(outcomes, path, embed, notify)
    alone, playing = len(outcomes) == 1, set[str]()
    sections = []
    for number, outcome in enumerate(outcomes, 1):
        made = films.get(_clip(outcome.answer)) if outcome.answer is not None else None
        plays = made is not None and (made.key not in playing)
        if made is not None:
            playing.add(made.key)
        sections.append(section(outcome, made, number, alone=alone, plays=plays))
    body = [*([] if alone else [_contents(outcomes)]), *sections, _words()]
    script = "jump.js" if any(made.source for made in films.values()) else ""
    return document(title(outcomes), join(body, "\n"), data, "answers", script=script)


def title(outcomes: Sequence[Outcome]) -> str:
    """Return the name of the page: the first question."""
    more = f" and {len(outcomes) - 1} more" if len(outcomes) > 1 else ""
    return f"{shown(outcomes[0].question.text)}{more} · omnidrop"


def _clip(answer: Answer) -> tuple[str, int | None]:
    """Return what tells clips apart: path and video track."""
    clip = answer.trace.clip
    return str(clip.get("path")), clip.get("sampling", {}).get("video_track")


def _films(
    outcomes: Sequence[Outcome], path: Path, embed: bool, notify: Notify
) -> dict[tuple[str, int | None], Film]:
    by_clip: dict[tuple[str, int | None], list[Answer]] = {}
    for outcome in outcomes:
        if outcome.answer is not None:
            by_clip.setdefault(_clip(outcome.answer), []).append(outcome.answer)
    return {
        clip: film(f"clip-{number}", answers, path, embed=embed, notify=notify)
        for number, (clip, answers) in enumerate(by_clip.items(), 1)
    }


def _contents(outcomes: Sequence[Outcome]) -> Markup:
    several = len({outcome.question.clip for outcome in outcomes}) > 1
    items = []
    for number, outcome in enumerate(outcomes, 1):
        answer = outcome.answer
        text = (answer.text.strip() or "no words") if answer is not None else "no answer"
        clip = tag("span", printable(outcome.question.clip.name), class_="muted small", dir="auto")
        link = tag("a", outcome.question.text, href=f"#answer-{number}", dir="auto")
        parts = [link, tag("strong", shortened(text, 90), dir="auto")]
        items.append(tag("li", *parts, clip if several else None))
    heading = tag("h1", f"{len(outcomes)} questions")
    return tag("nav", heading, tag("ol", *items), class_="contents", aria_label="Questions")


def _words() -> Markup:
    pairs = (tag("div", tag("dt", name), tag("dd", text)) for name, text in WORDS)
    return folded("Words used here", tag("dl", *pairs, class_="words"))


__all__ = ["answers_page", "title"]
