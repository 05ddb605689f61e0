"""One answer of a batch or an evaluation as a `Row`, whichever way its line was written.

Lines of four kinds are read: whole answers (`omnidrop.answer/1`), failures (`omnidrop.error/1`),
the flat lines of a batch (`omnidrop.batch/1`), and records of an evaluation (`omnidrop.eval/1`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omnidrop.evaluation.records import ANSWERED, REFUSED, flat, key_of
from omnidrop.evaluation.records import FAILED as RECORDED_FAILURE

FAILED = "failed"
#: Parts that a clip is divided into, to compare what was kept along clips of any length.
PARTS = 12

#: What belongs to a row, not to the settings that it shares with others.
_OWN = {
    "method": {"plan", "default"},
    "clip": {"start", "end", "audio_file"},
    "settings": {"question", "earlier", "versions", "logprobs", "survivors"},
    "model": {"text", "parameters", "load_seconds", "path", "weights"},
}
#: A path with a suffix, a number, and what stands in quotes: they differ between rows of one cause.
_PATH = re.compile(r"(?:[^\s:'\"]*[/\\])?[^\s:'\"/\\]+\.\w{2,5}(?=: )")
_QUOTED = re.compile(r"'[^']{1,200}'|\"[^\"]{1,200}\"|“[^”]{1,200}”")
_SEVERAL = re.compile(r"…(?:(?:,| and|, and) …)+")
_NUMBER = re.compile(r"(?<![\w.])\d[\d.,]*(?![\w])")


@dataclass(frozen=True)
class Row:
    """What a report says of one question.

    Attributes
    ----------
    name : str
        What tells the row from others of its file: key and setup, or else its id.
    group : str
        The same for rows of the same settings.
    id, clip, question, answer : str
        The answer is empty if there is none.
    status : {"answered", "failed", "refused"}
        Refused: the method cannot reach the budget on this clip.
    error, cause : str
        The error in full, and without what differs between rows of one cause.
    probability : float or None
    asked, kept : float or None
        Budget asked for, and the share of tokens that entered the layers on average.
    seconds : float or None
        From opening the clip to the end of the answer as far as it is known, else to its first
        token.
    right : bool or None
        Whether the answer is the expected one; None if that is not known.
    expected, category : str
    settings : dict
        Flat names and values of what rows of one group share, as far as the row tells them.
    along : tuple of float or None, length PARTS
        Share of tokens kept in each part of the clip, all layers averaged; empty if unknown.
    """

    name: str
    group: str
    id: str
    clip: str
    question: str
    answer: str = ""
    status: str = ANSWERED
    error: str = ""
    cause: str = ""
    probability: float | None = None
    asked: float | None = None
    kept: float | None = None
    seconds: float | None = None
    right: bool | None = None
    expected: str = ""
    category: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    along: tuple[float | None, ...] = ()

    @property
    def method(self) -> str:
        """The method's label, or its name."""
        return str(self.settings.get("label") or self.settings.get("method.name") or "")

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.settings.get("model.name") or "")


def read_row(document: Mapping[str, Any], setup: Mapping[str, Any] | None = None) -> Row | None:
    """Return the row of one line, or None if the line is no answer.

    Parameters
    ----------
    document : mapping
        The line's object.
    setup : mapping, optional
        What all records of an evaluation share (its `setup.json`).
    """
    schema = str(document.get("schema") or "")
    if schema.startswith("omnidrop.eval/"):
        return _record(document, setup or {})
    known = schema.startswith(("omnidrop.answer/", "omnidrop.error/", "omnidrop.batch/"))
    return _answer(document) if known else None


def cause_of(error: str, clip: str = "") -> str:
    """Return an error without the names, quotes and numbers that differ between rows.

    Parameters
    ----------
    error : str
    clip : str
        Path of the row's clip, as far as it is known.
    """
    text = " ".join(error.split())
    for name in (clip, clip.replace("\\", "/").rpartition("/")[2]):
        if name:
            text = text.replace(f"{name}: ", "").replace(name, "…")
    text = _PATH.sub("", text).removeprefix(": ").strip()
    first = re.split(r"(?<=[.!?]) (?=[A-Z])", text, maxsplit=1)[0]
    first = _SEVERAL.sub("…", _QUOTED.sub("…", first))
    return _NUMBER.sub("N", first)[:200] or "no reason given"


def value_of(document: Mapping[str, Any], name: str) -> Any:
    """Return a value by its dotted name, such as `trace.memory.host`; None if it is not there."""
    if name in document:
        return document[name]
    found: Any = document
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _answer(document: Mapping[str, Any]) -> Row:
    """Read a line of `omnidrop batch`, whole or lean, or of `omnidrop ask --jsonl`."""
    trace = document.get("trace")
    trace = trace if isinstance(trace, Mapping) else {}
    clip = _text(document.get("clip")) or _text(value_of(trace, "clip.path"))
    error = _text(document.get("error"))
    question = _text(document.get("question"))
    asked = _number(document.get("budget", trace.get("asked_budget")))
    kept = _number(document.get("kept", trace.get("realised_budget")))
    settings = _settings(document, trace)
    setup = _text(document.get("setup"))
    if setup:
        settings["setup"] = setup
    name = _text(document.get("key")) or _text(document.get("id"))
    return Row(
        name=f"{name or key_of(clip, question)} {setup}",
        group=setup or key_of(settings),
        id=_text(document.get("id")),
        clip=clip,
        question=question,
        answer="" if error else _text(document.get("answer", document.get("text"))),
        status=FAILED if error else ANSWERED,
        error=error,
        cause=_text(document.get("cause")) or (cause_of(error, clip) if error else ""),
        probability=_number(document.get("probability")),
        asked=asked,
        kept=kept,
        seconds=_seconds(document, trace),
        right=_right(document),
        expected=_text(document.get("expected")),
        category=_text(document.get("category")),
        settings=settings,
        along=_along(trace.get("chunks", document.get("chunks"))),
    )


def _record(document: Mapping[str, Any], setup: Mapping[str, Any]) -> Row:
    """Read a record of `omnidrop eval`."""
    status = _text(document.get("status"))
    status = FAILED if status == RECORDED_FAILURE else status
    clip = _text(document.get("video"))
    error = _text(document.get("message")) if status != ANSWERED else ""
    method = document.get("method")
    method = method if isinstance(method, Mapping) else {}
    shared = {key: value for key, value in setup.items() if key not in ("schema", "note", "apart")}
    shared.setdefault("set", document.get("set"))
    model = shared.get("model")
    shared["model"] = _kept(model, "model") if isinstance(model, Mapping) else {}
    if not shared["model"] and document.get("model"):
        shared["model"] = {"name": document["model"]}
    settings = flat({"label": document.get("label"), "method": _kept(method, "method"), **shared})
    seconds = _number(value_of(document, "seconds.first_token"))
    return Row(
        name=_text(document.get("key")) or _text(document.get("id")),
        group=key_of(settings),
        id=_text(document.get("id")),
        clip=clip,
        question=_text(document.get("question")),
        answer=_text(document.get("reply")) if status == ANSWERED else "",
        status=status,
        error=error,
        cause=cause_of(error, clip) if error else "",
        probability=_number(document.get("probability")),
        asked=_number(document.get("asked")),
        kept=_number(document.get("realised")),
        seconds=seconds,
        right=_right(document),
        expected=_text(document.get("answer")),
        category=_text(document.get("category")),
        settings=settings,
    )


def _settings(document: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a line's trace, or those that a flat line names."""
    parts: dict[str, Any] = {}
    for name in ("model", "method", "settings"):
        part = trace.get(name)
        if isinstance(part, Mapping):
            parts[name] = _kept(part, name)
        elif isinstance(document.get(name), str):
            parts[name] = {"name": document[name]}
    sampling = value_of(trace, "clip.sampling")
    if isinstance(sampling, Mapping):
        parts["clip"] = _kept(sampling, "clip")
    found = flat(parts)
    budget = _number(document.get("budget"))
    if budget is not None:
        found.setdefault("method.budget", budget)
    return found


def _kept(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _OWN[part]}


def _seconds(document: Mapping[str, Any], trace: Mapping[str, Any]) -> float | None:
    given = _number(document.get("seconds"))
    if given is not None:
        return given
    ttft = _number(document.get("ttft", trace.get("ttft")))
    if ttft is None:
        return None
    rate, tokens = _number(trace.get("tokens_per_second")), document.get("token_ids")
    more = len(tokens) - 1 if isinstance(tokens, Sequence) else 0
    return ttft + (more / rate if rate and more > 0 else 0.0)


def _right(document: Mapping[str, Any]) -> bool | None:
    given = document.get("right")
    return given if isinstance(given, bool) else None


def _along(chunks: Any) -> tuple[float | None, ...]:
    """Return the share kept in each of PARTS equal parts of the clip."""
    if not isinstance(chunks, Sequence) or isinstance(chunks, str):
        return ()
    read = [found for chunk in chunks if (found := _chunk(chunk)) is not None]
    if not read:
        return ()
    begin, end = read[0][0], max(read[-1][1], read[0][0] + 1e-9)
    kept, whole = [0.0] * PARTS, [0.0] * PARTS
    for start, stop, share, total in read:
        place = ((start + stop) / 2 - begin) / (end - begin)
        first = int((start - begin) / (end - begin) * PARTS + 1e-9)
        last = math.ceil((stop - begin) / (end - begin) * PARTS - 1e-9)
        # A chunk that is longer than a part counts in each that it covers.
        over = range(first, last) if last - first > 1 else [min(int(place * PARTS), PARTS - 1)]
        for part in over:
            if 0 <= part < PARTS:
                kept[part] += share * total / len(over)
                whole[part] += total / len(over)
    return tuple(k / w if w else None for k, w in zip(kept, whole, strict=True))


def _chunk(chunk: Any) -> tuple[float, float, float, float] | None:
    """Return start, end, share kept and tokens of one chunk."""
    if not isinstance(chunk, Mapping):
        return None
    start, end = _number(chunk.get("start")), _number(chunk.get("end"))
    if start is None or end is None:
        return None
    given = _number(chunk.get("kept"))
    total = (_number(chunk.get("audio_total")) or 0.0) + (_number(chunk.get("video_total")) or 0.0)
    if given is not None:
        return start, end, given, total or 1.0
    audio, video = chunk.get("audio"), chunk.get("video")
    lists = [part for part in (audio, video) if isinstance(part, Sequence) and len(part)]
    if not total or not lists:
        return None
    return start, end, sum(sum(part) / len(part) for part in lists) / total, total


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return ""
    return value if isinstance(value, str) else str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


__all__ = [
    "ANSWERED",
    "FAILED",
    "PARTS",
    "REFUSED",
    "Row",
    "cause_of",
    "read_row",
    "value_of",
]
