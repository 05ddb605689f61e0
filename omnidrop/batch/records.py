"""What became of a row, as one JSON document: an answer or a failure.

The whole document is what `omnidrop ask --json` writes (`omnidrop.answer/…`, `omnidrop.error/1`)
with the row's id, key, clip and further columns. `chosen` makes a flat one of it, which has the
same fields whether the row was answered or failed (`omnidrop.batch/1`).
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from omnidrop.batch.rows import Row
from omnidrop.errors import (
    IN_PYTHON,
    MemoryShortError,
    OmniDropError,
    OutsideError,
    UsageError,
    did_you_mean,
    printable,
)
from omnidrop.report.trace import Answer

Record = dict[str, Any]

#: Schemas of a flat record and of a failure.
FLAT, FAILED = "omnidrop.batch/1", "omnidrop.error/1"
ANSWERED = "omnidrop.answer/"

#: The name of the whole document among the fields.
ALL = "all"

#: The name in records of the column `answer`, which holds the right answer.
EXPECTED = "expected"


class Keys(NamedTuple):
    """The key of a row (`omnidrop.batch.keys.key_of`), and that of the settings (`Setup.key`)."""

    row: str
    setup: str


def answered(row: Row, keys: Keys, answer: Answer, seconds: float) -> Record:
    """Return the document of an answer.

    Parameters
    ----------
    row : Row
    keys : Keys
    answer : Answer
    seconds : float
        Seconds that the row took, reading included.
    """
    found = answer.to_dict()
    return {
        "schema": found.pop("schema"),
        **_names(row, keys),
        "seconds": round(seconds, 3),
        **found,
        **carried(row.extra),
    }


def failed(row: Row, keys: Keys, problem: BaseException, seconds: float = 0.0) -> Record:
    """Return the document of a failure.

    Parameters
    ----------
    row : Row
    keys : Keys
    problem : Exception
    seconds : float
    """
    text, code = _told(problem)
    found: Record = {
        "schema": FAILED,
        **_names(row, keys),
        "question": row.question,
        "seconds": round(seconds, 3),
        "error": text,
        "cause": cause_of(problem),
        "exit_code": code,
    }
    if code == OmniDropError.exit_code:
        found["traceback"] = "".join(traceback.format_exception(problem))
    if isinstance(problem, OutsideError):
        found["unknown"] = list(problem.words)
    return found | carried(row.extra)


def is_failure(record: Mapping[str, Any]) -> bool:
    """Return whether a record, whole or flat, is that of a failure."""
    return record["schema"] == FAILED or record.get("error") is not None


def cause_of(problem: BaseException) -> str:
    """Return a problem in a few words that are the same for all rows with it.

    Numbers are left out, and so are names of files.
    """
    if isinstance(problem, OmniDropError):
        text = getattr(problem, "brief", problem.what)
    elif isinstance(problem, MemoryError):
        text = "not enough memory"
    else:
        kind, message = type(problem).__name__, str(problem)
        text = f"{kind}: {message}" if message else kind
    text = re.sub(r"\d[\d.,:]*\d|\d", "…", " ".join(printable(text).split()))
    return text.rstrip(".")[:120]


def carried(extra: Mapping[str, Any]) -> Record:
    """Return a row's further columns under the names that they have in a record.

    `answer`, the right one, becomes `expected`; a name that a record has itself gets `input_`
    before it.
    """
    found: Record = {}
    for name, value in extra.items():
        if name == "answer":
            found[EXPECTED] = value
        else:
            found[f"input_{name}" if name in _TAKEN else name] = value
    return found


def _names(row: Row, keys: Keys) -> Record:
    return {
        "id": row.id,
        "key": keys.row,
        "setup": keys.setup,
        "clip": printable(row.clip),
        "start": row.start,
        "end": row.end,
    }


def _told(problem: BaseException) -> tuple[str, int]:
    """Return a problem's paragraph and exit code."""
    if isinstance(problem, OmniDropError):
        return problem.paragraph().replace(IN_PYTHON, ""), problem.exit_code
    if isinstance(problem, MemoryError):
        return "Not enough memory.", MemoryShortError.exit_code
    kind, message = type(problem).__name__, str(problem)
    return f"{kind}: {message.rstrip('.')}." if message else f"{kind}.", OmniDropError.exit_code


# Flat records


def _trace(name: str, *further: str) -> Callable[[Record], Any]:
    def take(whole: Record) -> Any:
        value: Any = whole.get("trace")
        for part in (name, *further):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    return take


def _same(name: str) -> Callable[[Record], Any]:
    return lambda whole: whole.get(name)


def _tokens(whole: Record) -> int | None:
    trace = whole.get("trace")
    return trace["audio_tokens"] + trace["video_tokens"] if trace else None


def _rounded(take: Callable[[Record], Any], digits: int = 4) -> Callable[[Record], Any]:
    def rounded(whole: Record) -> Any:
        value = take(whole)
        return round(value, digits) if isinstance(value, float) else value

    return rounded


#: What a flat record can hold: name → what it is, and how it is taken from the whole document.
FIELDS: dict[str, tuple[str, Callable[[Record], Any]]] = {
    "clip": ("path of the clip", _same("clip")),
    "start": ("start of the span in seconds", _same("start")),
    "end": ("end of the span in seconds", _same("end")),
    "question": ("the question", _same("question")),
    "answer": ("the answer; null if the row failed", _same("text")),
    "probability": ("how likely the answer is right, 0 to 1", _rounded(_same("probability"))),
    "probabilities": (
        "each choice's share of the probability",
        lambda whole: (
            {c["text"]: round(c["probability"], 4) for c in whole.get("choices") or ()} or None
        ),
    ),
    "budget": ("share of audio and video tokens asked for", _rounded(_trace("asked_budget"))),
    "kept": ("share of them kept, mean over the layers", _rounded(_trace("realised_budget"))),
    "tokens": ("audio and video tokens of the clip", _tokens),
    "seconds": ("seconds that the row took, reading included", _same("seconds")),
    "ttft": ("seconds to the first token", _rounded(_trace("ttft"))),
    "unknown": ("words of the question that the model does not know", _same("unknown")),
    "exit_code": ("exit code that `omnidrop ask` has for the error", _same("exit_code")),
    "method": ("method that chose the tokens", _trace("method", "name")),
    "model": ("name of the model", _trace("model", "name")),
    "duration": ("length of the clip in seconds", _trace("clip", "duration")),
    "stop": ("why the answer ended", _same("stop")),
    "doubt": ("why no probability is known", _same("doubt")),
    "thinking": ("what a thinking model thought", _same("thinking")),
    "moments": (
        "where the answer came from: start, end, share",
        lambda whole: (
            [[m["start"], m["end"], round(m["share"], 4)] for m in whole["trace"]["moments"]]
            if whole.get("trace")
            else None
        ),
    ),
    "notices": ("what to know about the answer", _trace("notices")),
    "kept_audio": ("audio tokens that entered each layer", _trace("kept_audio")),
    "kept_video": ("video tokens that entered each layer", _trace("kept_video")),
    "memory": ("peak memory and KV cache in bytes", _trace("memory")),
    "flops": ("FLOPs of the prefill", _trace("flops_prefill")),
    "stages": (
        "seconds of each stage",
        lambda whole: (
            {s["name"]: round(s["seconds"], 4) for s in whole["trace"]["stages"]}
            if whole.get("trace")
            else None
        ),
    ),
}

#: Fields of every flat record, whatever is chosen: a run is continued by them.
ALWAYS = ("schema", "id", "key", "setup", "error", "cause")

#: What a flat record holds unless other fields are chosen.
USUAL = (
    "clip",
    "start",
    "end",
    "question",
    "answer",
    "probability",
    "budget",
    "kept",
    "tokens",
    "seconds",
)

_TAKEN = frozenset((
    *ALWAYS, *FIELDS, EXPECTED, "settings", "traceback", *Answer.__dataclass_fields__
))  # fmt: skip


def check_fields(names: Sequence[str]) -> tuple[str, ...]:
    """Return fields for `chosen`.

    Raises
    ------
    UsageError
        If a name is unknown, or `all` stands beside others.
    """
    if ALL in names and len(names) > 1:
        raise UsageError(f"{ALL!r} is the whole document.", hint="Give it alone.")
    for name in names:
        if name not in (ALL, *FIELDS, *ALWAYS):
            raise UsageError(
                f"There is no field {printable(name)!r}.",
                hint=f"{did_you_mean(name, FIELDS)}Known: {', '.join(FIELDS)}, or {ALL}.",
            )
    return tuple(dict.fromkeys(name for name in names if name not in ALWAYS))


def chosen(whole: Record, extra: Mapping[str, Any], fields: Sequence[str] = USUAL) -> Record:
    """Return a flat record with some fields of a whole document.

    Parameters
    ----------
    whole : dict
        As `Answerer` yields it.
    extra : mapping
        The row's further columns.
    fields : sequence of str
        Names in `FIELDS`; ("all",) returns the whole document.
    """
    if tuple(fields) == (ALL,):
        return whole
    return {
        "schema": FLAT,
        "id": whole["id"],
        "key": whole["key"],
        "setup": whole.get("setup"),
        **{name: FIELDS[name][1](whole) for name in fields},
        "error": whole.get("error"),
        "cause": whole.get("cause"),
        **carried(extra),
    }
