"""From a request to an answer: opens its clip, chooses the method, and asks the model."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.clip.clip import Clip, open_clip
from omnidrop.engine.default import method_of as recommended_method
from omnidrop.engine.encode import Features
from omnidrop.errors import OmniDropError, UsageError
from omnidrop.options import DEFAULT_BUDGET
from omnidrop.pruning.registry import get_method, get_preset, methods
from omnidrop.serving.chat import ChatRequest, Wanted
from omnidrop.serving.clips import Clips
from omnidrop.serving.desk import Job
from omnidrop.serving.openings import Openings
from omnidrop.serving.problems import refusal, wrong
from omnidrop.serving.sessions import Sessions, Turns
from omnidrop.serving.sources import Source
from omnidrop.stages import Progress

if TYPE_CHECKING:
    from omnidrop.clip.options import ClipOptions
    from omnidrop.engine.decode import Token
    from omnidrop.engine.model import Model
    from omnidrop.engine.session import Session
    from omnidrop.pruning.method import Method
    from omnidrop.recommended import Recommended
    from omnidrop.report.trace import Answer

#: What `budget: "auto"` is, and the share of the question's attention that it keeps.
AUTO, AUTO_MASS = "omnidrop-auto", 0.85


@dataclass(frozen=True)
class Listener:
    """Who hears of an answer while it is made.

    Attributes
    ----------
    on_text : callable
        Receives each piece of the text.
    on_token : callable
        Receives each token before its text.
    on_progress : callable
        Receives (stage, done, total).
    """

    on_text: Callable[[str], None]
    on_token: Callable[[Token], None]
    on_progress: Progress


@dataclass(frozen=True)
class Opened:
    """The clip of a request, opened and probed, and closed by `close` if nobody took it over.

    Attributes
    ----------
    path : Path or None
        None for a request without a clip.
    options : ClipOptions
    clip : Clip or None
        The clip; None also where another request has it open.
    key : hashable
        Equal for requests that read the same content in the same way.
    names : dict of str to str
        Paths that the clip is read from, and the client's names of them.
    """

    path: Path | None
    options: ClipOptions
    clip: Clip | None
    key: Hashable
    names: dict[str, str]
    stack: ExitStack

    def close(self) -> None:
        """Close the files that no session took over."""
        self.stack.close()


def open_request(request: ChatRequest, clips: Clips, kept: Sessions, openings: Openings) -> Opened:
    """Open and probe the clip of a request; the model is not needed.

    A clip of which a session is kept, or which another request has open, is not probed again.

    Raises
    ------
    Refused
        If there is no such clip, or it may not be read.
    MediaError, UsageError
        If it cannot be read as a clip, or the options do not fit it.
    """
    with ExitStack() as stack:
        sources: list[Source] = []

        def entered(source: Source) -> Source:
            sources.append(stack.enter_context(source))
            return source

        options = request.wanted.clip
        main: Source | None = None
        if request.video is not None:
            main = entered(clips.open_url(request.video))
        if request.sound is not None:
            sound = entered(clips.open_sound(request.sound))
            if main is None:
                main = sound
            else:
                options = replace(options, audio_file=sound.path)
        names = {str(source.path): source.name for source in sources}
        if main is None:
            return Opened(None, options, None, None, names, stack.pop_all())
        key = (tuple(source.key for source in sources), replace(options, audio_file=None))
        clip: Clip | None = None
        with openings.turn():
            if key not in kept and key not in openings:
                try:
                    clip = stack.enter_context(open_clip(main.path, options))
                except OmniDropError as problem:
                    raise refusal(problem, names) from None
                openings.add(key)
                stack.callback(openings.drop, key)
        return Opened(main.path, options, clip, key, names, stack.pop_all())


def ask(
    request: ChatRequest,
    opened: Opened,
    model: Model,
    job: Job,
    kept: Sessions,
    turns: Turns,
    listener: Listener,
) -> Answer:
    """Answer a request.

    Parameters
    ----------
    request : ChatRequest
    opened : Opened
        From `open_request`; the session takes its files over.
    model : Model
    job : Job
        Ends the question when it is cancelled or its time is over.
    kept : Sessions
    turns : Turns
    listener : Listener

    Raises
    ------
    OmniDropError
        Whatever `Session.ask` raises.
    Stopped
        If the job was cancelled or its time is over.
    """
    method = method_of(model.recommended, request.wanted)
    about = repr((model.info.name, opened.key, request.system))

    def progress(stage: str, done: float, total: float | None) -> None:
        job.alive()
        listener.on_progress(stage, done, total)

    def opening(stack: ExitStack) -> Session:
        stack.push(opened.stack.pop_all())
        assert opened.path is not None
        return model.open(opened.clip or opened.path, opened.options)

    def run(session: Session) -> Answer:
        return session.ask(
            request.question,
            earlier=turns.earlier(about, request.turns),
            method=method,
            choices=request.wanted.choices,
            options=request.options,
            system=request.system,
            on_text=listener.on_text,
            on_token=listener.on_token,
            progress=progress,
            alive=job.alive,
            check=request.wanted.check,
            anyway=request.wanted.anyway,
            evidence=request.wanted.evidence,
        )

    if opened.path is None:
        with model.features(Features()) as session:
            answer = run(session)
    else:
        session = kept.find(model, opened.key, opening)
        try:
            answer = run(session)
        finally:
            kept.used(opened.key)
    turns.keep(about, request.turns, answer)
    return answer


def method_of(known: Recommended, wanted: Wanted) -> Method | None:
    """Return the method that a request asks for; None leaves it to the model.

    Parameters
    ----------
    known : Recommended
        The model's default.
    wanted : Wanted

    Raises
    ------
    UsageError
        Unknown method, preset or setting, or a value that is not valid.
    Refused
        If a setting names a file of this machine.
    """
    fields = dict(wanted.settings)
    _refuse_files(fields)
    budget = wanted.budget
    if wanted.preset is not None:
        if wanted.preset.lower().endswith(".json"):
            raise wrong("omnidrop.preset is the name of a published preset.", "omnidrop.preset")
        preset = get_preset(wanted.preset)
        return get_method(preset.name, **{**preset.settings(), **fields}) if fields else preset
    if budget == "auto":
        if wanted.method is not None and AUTO not in wanted.method:
            raise UsageError(f"budget auto is the method {AUTO}.", hint="Leave method out.")
        fields = {"keep_mass": AUTO_MASS, "budget": DEFAULT_BUDGET, **fields}
        return get_method(wanted.method or AUTO, **fields)
    if wanted.method is None:
        if budget is None and not fields:
            return None
        if not fields:
            return recommended_method(known, float(budget) if budget is not None else None)
        at = {"budget": known.budget if budget is None else budget}
        return get_method(known.method, **{**known.settings, **at, **fields})
    if wanted.method == "none":
        if budget not in (None, 1.0):
            raise UsageError("method none keeps every token.", hint="Leave budget out.")
        return get_method("none", **fields)
    at = {"budget": DEFAULT_BUDGET if budget is None else budget}
    return get_method(wanted.method, **{**at, **fields})


def _refuse_files(fields: dict[str, Any]) -> None:
    """Refuse settings that name files: a client may read none but clips."""
    if not fields:
        return
    files = {name for kind in methods().values() for name in kind.files}
    for name in fields:
        if name.rpartition(".")[2] in files:
            raise wrong(
                f"omnidrop.settings.{name} names a file of the server, which no request may.",
                f"omnidrop.settings.{name}",
            )


__all__ = ["Listener", "Opened", "ask", "method_of", "open_request"]
