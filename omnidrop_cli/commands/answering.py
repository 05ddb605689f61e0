"""Many questions about many clips: each clip is encoded once, and one failure stops no other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.begun import Begun
from omnidrop.errors import MediaError, OutsideError, printable
from omnidrop.stages import StageName
from omnidrop_cli.errors import describe
from omnidrop_cli.interrupts import stop_if_interrupted
from omnidrop_cli.options.clips import is_url, no_such_file, url_error
from omnidrop_cli.options.common import AnswerFlags, ReadFlags, SpanFlags
from omnidrop_cli.options.limits import FitFlags
from omnidrop_cli.terminal.progress import Progress

if TYPE_CHECKING:
    from omnidrop import Answer, Method, Model, Session
    from omnidrop.clip.clip import Clip


@dataclass(frozen=True)
class Question:
    """One question about one clip.

    Attributes
    ----------
    clip : Path
    text : str
        The question itself.
    choices : tuple of str
    span : SpanFlags
    id : str
        Its name in a manifest.
    """

    clip: Path
    text: str
    choices: tuple[str, ...] = ()
    span: SpanFlags = field(default_factory=SpanFlags)
    id: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a question: an answer or a problem, never both."""

    question: Question
    answer: Answer | None = None
    problem: Exception | None = None

    def failure(self) -> dict[str, Any]:
        """Return the problem as one JSON document."""
        text, code = describe(self.problem or Exception("no answer"))
        found = {
            "schema": "omnidrop.error/1",
            "clip": printable(self.question.clip),
            "question": self.question.text,
            "error": text,
            "exit_code": code,
        }
        if isinstance(self.problem, OutsideError):
            found["unknown"] = list(self.problem.words)
        return found


@dataclass(frozen=True)
class Job:
    """How a series of questions is answered.

    Attributes
    ----------
    model : Model
    method : Method or None
        None leaves it to the model.
    read : ReadFlags
        How clips are sampled.
    flags : AnswerFlags
    progress : Progress
    on_text : callable
        From a question to what receives pieces of its answer.
    fit : FitFlags
        Limits from which budgets are found.
    opened : dict of Clip by (path, span)
        Clips that were opened before the model was loaded; they are not probed again.
    begun : Begun
        Notes which clip is being read.
    check : bool
        Also ask with every token kept.
    evidence : bool
        Leave the moments out one by one and ask again.
    """

    model: Model
    method: Method | None
    read: ReadFlags
    flags: AnswerFlags
    progress: Progress
    on_text: Callable[[Question], Callable[[str], None] | None] = lambda question: None
    fit: FitFlags = field(default_factory=FitFlags)
    opened: dict[tuple[Path, SpanFlags], Clip] = field(default_factory=dict)
    begun: Begun = field(default_factory=lambda: Begun(None))
    check: bool = False
    evidence: bool = False

    @property
    def fitted(self) -> Method:
        """The method whose budget limits choose."""
        from omnidrop.engine.default import method_of

        return self.method or method_of(self.model.recommended, exact=False)


def check_file(path: Path) -> None:
    """Raise MediaError if there is nothing at `path` that could be a clip, UsageError for a URL."""
    if is_url(str(path)):
        raise url_error(str(path))
    if not os.path.exists(path):  # unlike Path.exists, also False for a name too long to be one
        raise no_such_file(path)
    if os.path.isdir(path):
        raise MediaError("This is a folder.", path=path, hint="Name a clip in it.")


def open_clip(path: Path, span: SpanFlags, read: ReadFlags) -> Clip:
    """Open a clip without a model, to learn what is wrong with it before one is loaded.

    Raises
    ------
    MediaError
        If there is no such file, or it is no clip that can be read.
    UsageError
        If the options do not fit it, such as a start after its end.
    """
    check_file(path)
    import omnidrop

    return omnidrop.open_clip(path, read.clip_options(span))


def answers(questions: Iterable[Question], job: Job) -> Iterator[Outcome]:
    """Yield one outcome for each question, clip by clip, in the order the clips first appear."""
    by_clip: dict[tuple[Path, SpanFlags], list[Question]] = {}
    for question in questions:
        by_clip.setdefault((question.clip, question.span), []).append(question)
    measure_speed(job)
    for (clip, span), group in by_clip.items():
        with ExitStack() as stack:
            try:
                job.progress(StageName.OPEN, 0, None)
                stack.enter_context(job.begun.reading(clip, span.start, span.end))
                session = stack.enter_context(open_session(group[0], job))
            except Exception as problem:
                stop_if_interrupted()
                yield from (Outcome(question, problem=problem) for question in group)
                continue
            finally:
                job.progress.finish()
            session.reuse = len(group) > 1
            for question in group:
                yield answer_question(session, question, job)


def measure_speed(job: Job) -> None:
    """Measure the method's prefill on this machine, if a limit of time asks for it."""
    limits = job.fit.limits()
    if limits is not None:
        limits.measure(job.model.adapter, job.fitted, job.progress)


def open_session(first: Question, job: Job) -> Session:
    """Open the clip of a question; limits may lower its sampling."""
    source = job.opened.get((first.clip, first.span), first.clip)
    options, limits = job.read.clip_options(first.span), job.fit.limits()
    if limits is None:
        return job.model.open(source, options)
    return limits.open(
        job.model,
        source,
        first.text,
        job.fitted,
        clip=options,
        pixels=job.fit.fit_pixels,
        fps=job.fit.fit_fps,
        system=job.flags.system,
    )


def answer_question(
    session: Session, question: Question, job: Job, earlier: Sequence[Answer] = ()
) -> Outcome:
    """Answer a question about a session's clip, after the earlier turns of a conversation."""
    try:
        answer = session.ask(
            question.text,
            earlier=earlier,
            method=job.method,
            choices=question.choices,
            options=job.flags.generate(),
            system=job.flags.system,
            on_text=job.on_text(question) or _counter(job),
            progress=job.progress,
            limits=job.fit.limits(),
            check=job.check,
            anyway=job.flags.anyway,
            evidence=job.evidence,
        )
        return Outcome(question, answer=answer)
    except BrokenPipeError:
        raise
    except Exception as problem:
        stop_if_interrupted()
        return Outcome(question, problem=problem)
    finally:
        job.progress.finish()


def _counter(job: Job) -> Callable[[str], None] | None:
    """Count pieces of an answer that is not shown yet, for the progress bar."""
    if not job.progress.shown:
        return None
    pieces = 0

    def count(piece: str) -> None:
        nonlocal pieces
        pieces += 1
        job.progress(StageName.ANSWER, pieces, None)

    return count
