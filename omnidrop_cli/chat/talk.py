"""The session of a chat: its clip, its settings, its turns, and what each command does to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop import format as fmt
from omnidrop.errors import UsageError, printable
from omnidrop.pruning.names import is_composed
from omnidrop_cli.chat import slash
from omnidrop_cli.chat.screen import Screen
from omnidrop_cli.chat.typed import Source
from omnidrop_cli.commands.answering import (
    Job,
    Outcome,
    Question,
    answer_question,
    measure_speed,
    open_clip,
    open_session,
)
from omnidrop_cli.errors import batch_code, report
from omnidrop_cli.interrupts import (
    INTERRUPTED,
    forget_interrupts,
    interrupted,
    stop_if_interrupted,
)
from omnidrop_cli.loading import at_rest
from omnidrop_cli.options.common import AnswerFlags, ReadFlags, SpanFlags
from omnidrop_cli.options.limits import FitFlags
from omnidrop_cli.options.parsing import parse_budget, parse_choices
from omnidrop_cli.options.pruning import DropFlags
from omnidrop_cli.terminal.progress import Progress

if TYPE_CHECKING:
    from omnidrop import Answer, Method, Model, Session
    from omnidrop.clip.clip import Clip

#: Sessions that keep their encoded clip: the one in use and the one before it.
KEPT = 2


@dataclass(frozen=True)
class Settings:
    """What the next question is asked with.

    Attributes
    ----------
    clip : Path
    span : SpanFlags
    drop : DropFlags
    fit : FitFlags
    choices : tuple of str
    turns : bool
        Whether it sees the earlier turns.
    """

    clip: Path
    span: SpanFlags
    drop: DropFlags
    fit: FitFlags
    choices: tuple[str, ...] = ()
    turns: bool = True

    @property
    def place(self) -> tuple[Path, SpanFlags]:
        """The part of a clip that the question is about."""
        return self.clip, self.span


class Talk:
    """An open session.

    Parameters
    ----------
    model : Model
    settings : Settings
        Of the first question.
    opened : Clip
        The clip of the settings.
    read : ReadFlags
        How clips are sampled.
    flags : AnswerFlags
    screen : Screen
    progress : Progress

    Attributes
    ----------
    outcomes : list of Outcome
        Of every question so far.
    settings : Settings
    turns : list of Answer
        The turns that the next question may see.
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        opened: Clip,
        read: ReadFlags,
        flags: AnswerFlags,
        screen: Screen,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.outcomes: list[Outcome] = []
        self.turns: list[Answer] = []
        self._model, self._read, self._flags = model, read, flags
        self._screen, self._progress = screen, progress
        self._opened = {settings.place: opened}
        self._sessions: dict[tuple[Path, SpanFlags], Session] = {}
        self._saved: set[Path] = set()
        self._failed = 0
        self._does: dict[str, Callable[[str], None]] = {
            "at": self._at,
            "budget": self._budget,
            "method": self._method,
            "choices": self._choices,
            "turns": self._turns,
            "reset": self._reset,
            "report": self._report,
            "save": self._save,
            "open": self._open,
            "help": lambda text: self._screen.help(),
        }

    def run(self, source: Source) -> int:
        """Take lines until there are no more; return the exit code."""
        presses = 0
        while True:
            forget_interrupts()
            try:
                with at_rest():
                    typed = source.read()
            except EOFError:
                self._screen.leave()
                return self._code()
            except KeyboardInterrupt:
                presses += 1
                self._screen.leave()
                if not self._screen.typed or presses == 2:
                    return INTERRUPTED
                self._screen.say("Ctrl-C once more leaves; so do Ctrl-D and /quit.")
                continue
            presses = 0
            try:
                if not self._take(typed):
                    return self._code()
            except KeyboardInterrupt:
                self._stopped()
            except BrokenPipeError:
                raise
            except Exception as problem:
                if interrupted():  # a library turned it into something else
                    self._stopped()
                    continue
                self._failed += 1
                report(slash.as_typed(problem) if isinstance(problem, UsageError) else problem)

    def close(self) -> None:
        """Close the clips."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def begin(self) -> None:
        """Say what the session is about."""
        opened = self._opened[self.settings.place]
        span = fmt.span(opened.start, opened.start + opened.duration)
        name = printable(self.settings.clip.name)
        self._screen.say(f"{name}, {span} · {self._model.info.name} · {self._dropping()}")
        if not self.settings.turns and self._model.info.demo:
            self._screen.say(
                "The demo model learned single questions, so here each question stands alone; "
                "/turns on lets it see the turns before it."
            )
        self._screen.say("Ask about it. /help lists commands; Ctrl-D leaves.")

    def _take(self, typed: str) -> bool:
        """Do what a line says; return whether the session goes on."""
        line = slash.read_line(typed)
        if line is None:
            return True
        if line.command == "quit":
            return False
        if line.command is not None:
            self._does[line.command](line.text)
        else:
            self._ask(line.text)
        return True

    def _stopped(self) -> None:
        """Say that what was being done was stopped; a script ends."""
        self._screen.end_line()
        if not self._screen.typed:
            raise KeyboardInterrupt
        self._screen.say("Stopped; the session goes on, without this question.")

    def _code(self) -> int:
        """Return 0; for a script, 6 if a question or a command failed."""
        failed = self._failed + sum(o.problem is not None for o in self.outcomes)
        return batch_code(failed and not self._screen.typed)

    # Questions

    def _ask(self, text: str) -> None:
        question = Question(self.settings.clip, text, self.settings.choices, self.settings.span)
        started = time.perf_counter()
        earlier = tuple(self.turns) if self.settings.turns else ()
        try:
            job = self._job(self._pruning(self.settings.drop))
            outcome = answer_question(self._session(question, job), question, job, earlier)
        except BrokenPipeError:
            raise
        except Exception as problem:
            stop_if_interrupted()
            outcome = Outcome(question, problem=problem)
        finally:
            self._progress.finish()
        self.outcomes.append(outcome)
        self._screen.show(outcome, time.perf_counter() - started)
        if outcome.problem is not None:
            report(outcome.problem)
        elif self.settings.turns and outcome.answer is not None:
            self.turns.append(outcome.answer)

    def _job(self, method: Method | None) -> Job:
        return Job(
            self._model,
            method,
            self._read,
            self._flags,
            self._progress,
            lambda question: self._screen.stream(),
            self.settings.fit,
            self._opened,
        )

    def _session(self, question: Question, job: Job) -> Session:
        """Return the session about a question's part of a clip; open it if there is none."""
        measure_speed(job)
        place = self.settings.place
        session = self._sessions.pop(place, None)
        if session is None:
            session = open_session(question, job)
            while len(self._sessions) >= KEPT:
                self._sessions.pop(next(iter(self._sessions))).close()
            for other in self._sessions.values():
                other.prefixes.clear()
        self._sessions[place] = session
        return session

    # Commands

    def _at(self, text: str) -> None:
        settings = self.settings
        if text:
            settings = replace(settings, span=slash.read_span(text))
        opened = self._opened.get(settings.place)
        if opened is None:
            opened = open_clip(settings.clip, settings.span, self._read)
            self._opened[settings.place] = opened
        self.settings = settings
        part = fmt.span(opened.start, opened.start + opened.duration)
        whole = settings.span == SpanFlags()
        more = "the whole clip" if whole else "/at off for the whole clip"
        self._screen.say(f"Asking about {part}; {more}.")

    def _budget(self, text: str) -> None:
        drop, fit = self.settings.drop, self.settings.fit
        if text:
            if drop.preset is not None and drop.preset_file is None:
                raise UsageError(
                    f"The preset {drop.preset} sets the budget.",
                    hint="/method NAME leaves the preset.",
                )
            budget = parse_budget(text)
            method, mass = drop.method, drop.keep_mass
            if budget != "auto":
                mass = None
            elif not is_composed(method or ""):
                method = None  # auto is a method of its own
            fit = FitFlags()  # a budget in place of limits
            self._drop(replace(drop, budget=budget, method=method, keep_mass=mass), fit)
        self._screen.say(f"{self._dropping()}.")

    def _method(self, text: str) -> None:
        drop = self.settings.drop
        if text:
            budget = None if text == "none" or drop.budget == "auto" else drop.budget
            self._drop(DropFlags(budget=budget, method=text), self.settings.fit)
        self._screen.say(f"{self._dropping()}.")

    def _drop(self, drop: DropFlags, fit: FitFlags) -> None:
        """Take these settings if they are valid."""
        fit.check(drop)
        self._pruning(drop)
        fitted = self.settings.fit
        if (fitted.fit_pixels or fitted.fit_fps) and fit != fitted:
            self.close()  # its sampling was chosen by the limits
        self.settings = replace(self.settings, drop=drop, fit=fit)

    def _pruning(self, drop: DropFlags) -> Method | None:
        """Return the method that these settings name; None leaves it to the model."""
        return drop.for_model(self._model.recommended)

    def _dropping(self) -> str:
        method = self._pruning(self.settings.drop)
        if method is None:
            method = self.settings.drop.pruning(self._model.recommended)
        if self.settings.fit:
            return f"{method.name} keeps what the limits allow"
        return f"{method.name} keeps {fmt.share(method.budget, 0)} of the tokens"

    def _choices(self, text: str) -> None:
        if text:
            choices = () if text.lower() in slash.OFF else parse_choices(text)
            self.settings = replace(self.settings, choices=choices)
        named = ", ".join(self.settings.choices)
        self._screen.say(
            f"Answering with one of: {named}; /choices off ends it." if named else "No choices."
        )

    def _turns(self, text: str) -> None:
        if text:
            self.settings = replace(self.settings, turns=slash.read_switch(text))
        if not self.settings.turns:
            self._screen.say("Each question stands alone.")
        else:
            n = len(self.turns)
            turns = "no turns" if not n else "1 turn" if n == 1 else f"{n} turns"
            self._screen.say(f"A question sees the turns before it; {turns} so far.")

    def _reset(self, text: str) -> None:
        self.turns.clear()
        self._screen.say("The next question sees no earlier turns.")

    def _report(self, text: str) -> None:
        answers = [o.answer for o in self.outcomes if o.answer is not None]
        if not answers:
            raise UsageError("There is no answer to report on.", hint="Ask something first.")
        self._screen.report(answers[-1])

    def _save(self, text: str) -> None:
        path = slash.read_target(text)
        self.save(path, force=path in self._saved)
        self._saved.add(path)
        n = sum(o.answer is not None for o in self.outcomes)
        self._screen.say(f"Wrote {n} answer{'' if n == 1 else 's'} to {printable(path)}.")

    def save(self, path: Path, *, force: bool) -> None:
        """Write every question and answer of the session to a file.

        Raises
        ------
        UsageError
            If there is no answer, or the file cannot be written.
        """
        from omnidrop_cli.files.answers import save

        if not any(o.answer for o in self.outcomes):
            raise UsageError("There is no answer to save.", hint="Ask something first.")
        with suppress(ValueError):
            path = path.resolve()
        save(path, self.outcomes, alone=False, force=force)

    def _open(self, text: str) -> None:
        clip = slash.read_path(text, "open")
        place = clip, SpanFlags()
        opened = open_clip(*place, self._read)
        self.close()
        self._opened = {place: opened}
        self.settings = replace(self.settings, clip=clip, span=place[1])
        self.turns.clear()
        span = fmt.span(opened.start, opened.start + opened.duration)
        self._screen.say(f"{printable(clip.name)}, {span}; no earlier turns.")


__all__ = ["Settings", "Talk"]
