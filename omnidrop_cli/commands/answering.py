"""Many questions about many clips: each clip is encoded once, and one failure stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.errors import printable
from omnidrop.stages import StageName
from omnidrop_cli import backend
from omnidrop_cli import errors as guard
from omnidrop_cli.options.common import AnswerFlags, ReadFlags, SpanFlags
from omnidrop_cli.options.limits import FitFlags
from omnidrop_cli.terminal.progress import Progress

if TYPE_CHECKING:
    from omnidrop import Answer, Method


@dataclass(frozen=True)
class Item:
    """One question about one clip."""

    clip: Path
    question: str
    choices: tuple[str, ...] = ()
    span: SpanFlags = field(default_factory=SpanFlags)
    id: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of an item: an answer or a problem, never both."""

    item: Item
    answer: Answer | None = None
    problem: Exception | None = None

    def failure(self) -> dict[str, Any]:
        """Return the problem as one JSON document."""
        text, code = guard.describe(self.problem or Exception("no answer"))
        return {
            "schema": "omnidrop.error/1",
            "clip": printable(self.item.clip),
            "question": self.item.question,
            "error": text,
            "exit_code": code,
        }


@dataclass(frozen=True)
class Job:
    """How a series of items is answered."""

    model: Any
    method: Method
    read: ReadFlags
    flags: AnswerFlags
    progress: Progress
    on_text: Callable[[Item], Callable[[str], None] | None] = lambda item: None
    fit: FitFlags = field(default_factory=FitFlags)


def answers(items: Iterable[Item], job: Job) -> Iterator[Outcome]:
    """Yield one outcome for each item, clip by clip, in the order the clips first appear."""
    by_clip: dict[tuple[Path, SpanFlags], list[Item]] = {}
    for item in items:
        by_clip.setdefault((item.clip, item.span), []).append(item)
    if job.fit:
        job.progress("measure the speed", 0, None)
        backend.warm_up(job.model, job.method, job.fit)
    for (clip, span), group in by_clip.items():
        read, said = job.read, None
        try:
            job.progress(StageName.OPEN, 0, None)
            if job.fit:
                read, said = backend.fit_sampling(
                    job.model, clip, group[0].question, job.method,
                    span=span, read=read, fit=job.fit, system=job.flags.system,
                )  # fmt: skip
            session = backend.open_session(job.model, clip, span, read)
        except Exception as problem:
            guard.stop_if_interrupted()
            yield from (Outcome(item, problem=problem) for item in group)
            continue
        finally:
            job.progress.finish()
        with session:
            session.reuse = len(group) > 1
            for item in group:
                yield _answer(session, item, job, said)


def _answer(session: Any, item: Item, job: Job, said: str | None) -> Outcome:
    limits = {"fit": job.fit} if job.fit else {}
    try:
        answer = backend.ask(
            session,
            item.question,
            method=job.method,
            choices=item.choices,
            flags=job.flags,
            on_text=job.on_text(item) or _counter(job),
            progress=job.progress,
            **limits,
        )
        if said:
            trace = replace(answer.trace, notices=(*answer.trace.notices, said))
            answer = replace(answer, trace=trace)
        return Outcome(item, answer=answer)
    except BrokenPipeError:
        raise
    except Exception as problem:
        guard.stop_if_interrupted()
        return Outcome(item, problem=problem)
    finally:
        job.progress.finish()


def _counter(job: Job) -> Callable[[str], None] | None:
    """Count pieces of an answer that nobody sees yet, for the bar."""
    if not job.progress.shown:
        return None
    pieces = 0

    def count(piece: str) -> None:
        nonlocal pieces
        pieces += 1
        job.progress(StageName.ANSWER, pieces, None)

    return count
