"""What follows an answer on a terminal: how far to trust it, and what it cost, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from omnidrop import format as fmt
from omnidrop.notices import DEMO, NO_AUDIO, NO_VIDEO, PROVEN, UNFITTING
from omnidrop_cli.terminal.sections import field, listed, note

if TYPE_CHECKING:
    from omnidrop.report.trace import Answer, Trace

#: Lines that an answer of one line and its summary take, unless a single notice needs more.
LINES = 12
#: Longer lines are hard to read, however wide the terminal is.
WIDEST = 100
#: Most moments named.
MOMENTS = 4
#: Notices that the line of what was used repeats.
SAID = (NO_AUDIO, NO_VIDEO)
#: Lines that notices may take even where that is more than `LINES` in all.
NOTICES = 3


def summary(
    answer: Answer, notices: Sequence[str], width: int, *, with_answer: bool = False
) -> Iterator[Text]:
    """Yield the summary of an answer.

    Parameters
    ----------
    answer : Answer
    notices : sequence of str
        Those to show; whole ones, as many as fit into `LINES` and at least one.
    width : int
        Cells of the terminal.
    with_answer : bool
        Show the answer's text as well: where stdout is not on the same screen.
    """
    width = min(width, WIDEST)
    lines = field("answer", answer.text, width, "bold") if with_answer else []
    lines += trust(answer, width)
    lines += listed("cost", cost(answer.trace), width)
    room = max(LINES - 3 - len(lines), NOTICES)  # less the answer, an empty line and the hint
    left = notices = in_order(answer, notices)
    while left:
        wrapped = field("! notice", left[0], width, "bold")
        if len(wrapped) > room and len(left) < len(notices):
            break
        lines += wrapped
        room -= len(wrapped)
        left = left[1:]
    hint = "more: --report full"
    if left:
        hint = f"{len(left)} notice{'s' if len(left) > 1 else ''} and all else: --report full"
    yield Text()
    yield from lines
    yield from note(hint, width)


def about_model(trace: Trace, notice: str) -> bool:
    """Return whether a notice is about the model, whatever the question and the clip."""
    return bool(trace.model.get("demo")) and notice.startswith(DEMO)


def in_order(answer: Answer, notices: Sequence[str]) -> list[str]:
    """Return the notices that no other line repeats, those about the model last."""
    said = SAID if answer.trace.used.frames or answer.trace.used.audio_seconds else ()
    doubt = answer.doubt.casefold()
    new = [
        notice
        for notice in notices
        if not (answer.left_out and notice.startswith(PROVEN))
        and notice not in said
        and notice.rstrip(".").casefold() != doubt
        and not (notice.startswith(UNFITTING) and answer.choice_mass is not None)
    ]
    return sorted(new, key=lambda notice: about_model(answer.trace, notice))


def trust(answer: Answer, width: int, *, whole: bool = False) -> list[Text]:
    """Return how sure an answer is, what it came from, and what the check against it said.

    Parameters
    ----------
    answer : Answer
    width : int
    whole : bool
        For the full report: also say where the probability comes from, and leave out the choices
        and the moments, which have sections of their own.
    """
    lines = sure(answer, width, source=whole)
    if not whole and answer.choices:
        lines += choices(answer, width)
    trace = answer.trace
    if not whole and trace.moments:
        spans = [fmt.span(m.start, m.end) for m in trace.moments]
        if len(spans) > MOMENTS:
            spans[MOMENTS:] = [f"and {len(spans) - MOMENTS} more"]
        lines += listed("moments", spans, width)
    if answer.left_out:
        lines += field("proof", proof(answer), width)
    text = used(trace)
    if text:
        lines += field("used", text, width)
    if answer.unpruned_text is not None:
        lines += field("check", check(answer), width)
    return lines


def sure(answer: Answer, width: int, *, source: bool = False) -> list[Text]:
    """Return how sure an answer is, if that is known; with `source`, how that was found."""
    if unfitting(answer):
        mass = answer.choice_mass
        together = f" (together {fmt.little(mass)})" if mass is not None else ""
        return field("how sure", f"hardly: none of the choices fits{together}", width, "bold")
    if answer.doubt:
        return field("how sure", f"not known: {answer.doubt}", width, "bold")
    if answer.probability is None:
        return []
    if not calibrated(answer):
        among = " among the choices" if answer.choices else ""
        own = f"{fmt.percent(answer.probability)}{among} by the model's own figure, not calibrated"
        return field("how sure", own, width, "bold")
    text = fmt.certainty(answer.probability)
    if answer.choices:
        text += " among the choices"
    if source:
        text += f" ({answer.probability_source})"
    return field("how sure", text, width, "bold")


def how_sure(answer: Answer) -> str:
    """Return how sure an answer is in a few letters, for a list; empty if that is not known."""
    if unfitting(answer):
        return "none fits"
    if answer.doubt:
        return "not known"
    return "" if answer.probability is None else f"{fmt.percent(answer.probability)} sure"


def unfitting(answer: Answer) -> bool:
    """Return whether a notice says that the model would have given none of the choices."""
    return any(notice.startswith(UNFITTING) for notice in answer.trace.notices)


def calibrated(answer: Answer) -> bool:
    """Return whether the probability was calibrated on questions with known answers."""
    return answer.probability_source.startswith("calibrated")


def choices(answer: Answer, width: int) -> list[Text]:
    """Return the choices with their probabilities in at most two lines."""
    parts = [f"{c.text} {fmt.percent(c.probability)}" for c in answer.choices]
    shown = len(parts)
    while True:
        more = [f"and {len(parts) - shown} more"] if shown < len(parts) else []
        lines = listed("choices", parts[:shown] + more, width, " · ")
        if len(lines) <= 2 or shown == 1:
            break
        shown -= 1
    return lines


def used(trace: Trace) -> str:
    """Return what of the clip the model was given; empty if that was not recorded."""
    given = trace.used
    if not (given.frames or given.audio_seconds) and trace.av_tokens:
        return ""
    frames = f"{fmt.number(given.frames)} frame{'s' if given.frames != 1 else ''} of video"
    video = frames if given.frames else "no video"
    audio = f"{fmt.duration(given.audio_seconds)} of audio" if given.audio_seconds else "no audio"
    return f"{video}, {audio}"


def proof(answer: Answer) -> str:
    """Return which moment the answer hangs on, found by leaving each out."""
    found = answer.hangs_on
    if found is None:
        one = len(answer.left_out) == 1
        return f"the answer does not hang on {'this moment' if one else 'one of these moments'}"
    without = f"without {fmt.span(found.moment.start, found.moment.end)} the answer is"
    if found.changed:
        other = " ".join(found.text.split())
        return f"{without} “{other}”" if other else f"{without} empty"
    return f"{without} the same and {fmt.percent(found.probability / found.whole)} as probable"


def check(answer: Answer) -> str:
    """Return whether the answer with every token is the same."""
    unpruned = " ".join((answer.unpruned_text or "").split())
    if unpruned == " ".join(answer.text.split()):
        return "same answer with every token: yes"
    other = f"it is “{unpruned}”" if unpruned else "it is empty"
    return f"same answer with every token: no, {other}"


def cost(trace: Trace) -> list[str]:
    """Return time to the first token, tokens kept and memory in words."""
    parts = [f"first token after {fmt.duration(trace.ttft)}"]
    if trace.av_tokens:
        parts.append(f"{kept(trace.realised_budget)} kept")
    return [*parts, memory([trace])]


def memory(traces: Sequence[Trace]) -> str:
    """Return the peak memory of answers: of the GPU if there is one."""
    devices = [t.memory.device for t in traces if t.memory.device is not None]
    if devices:
        return f"{fmt.size(max(devices))} on the GPU"
    return f"{fmt.size(max(t.memory.host for t in traces))} of memory"


def kept(budget: float) -> str:
    """Return a realised budget as words: `30 % of tokens`."""
    if budget >= 0.9995:
        return "all tokens"
    return f"{fmt.share(budget, 0 if budget >= 0.0995 else 1)} of tokens"


__all__ = ["summary", "trust"]
