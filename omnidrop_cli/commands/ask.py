"""`omnidrop ask CLIP… QUESTION`: load once, encode each clip once, answer every question."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from omnidrop.errors import BatchError
from omnidrop_cli.options.common import (
    AnswerFlags,
    DropFlags,
    ModelFlags,
    OutputFlags,
    ReadFlags,
    Report,
    SpanFlags,
)
from omnidrop_cli.options.groups import grouped, lines_of, option
from omnidrop_cli.options.limits import FitFlags

NAME = "ask"
HELP = """Answer questions about local clips, with their sound.

\b
Examples:
  omnidrop ask clip.mp4 "What instrument plays first?"
  omnidrop ask talk.mkv "What is on the slide?" --start 12:30 --end 13:00
  omnidrop ask clip.mp4 "Is it day or night?" --choices day,night
  omnidrop ask a.mp4 b.mp4 -q "Who speaks?" -q "Is there music?" --jsonl
  omnidrop ask clip.mp4 "What happens?" --budget 0.15 --save report.html
  omnidrop ask clip.mp4 "What happens?" --fit-latency 2s
  ls *.mp4 | omnidrop ask - "Is there a dog?"

The last word is the question, unless -q gives questions; then every word is a clip. - reads a
question, or a list of clips one per line, from stdin.

One answer goes to stdout as it is. Of several, a terminal shows each under its clip and question; a
pipe gets one line each: clip, question, answer, with tabs between and \\n for a line break inside.
A clip that fails does not stop the others; the exit code is then 6.

Every option can be set by an environment variable: --max-pixels by OMNIDROP_MAX_PIXELS. Repeatable
ones (OMNIDROP_QUESTION, OMNIDROP_SET) take one value per line.
"""


@grouped
def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="CLIP... QUESTION", help="Clips, then a question."),
    ] = None,
    question: Annotated[
        list[str] | None,
        option(
            "--question",
            "-q",
            panel="Question",
            envvar=None,
            metavar="TEXT",
            help="A question; repeatable. All words are then clips.",
        ),
    ] = None,
    *,
    span: SpanFlags,
    read: ReadFlags,
    drop: DropFlags,
    fit: FitFlags,
    model: ModelFlags,
    flags: AnswerFlags,
    output: OutputFlags,
) -> int:
    """Answer questions about local clips."""
    from omnidrop_cli import backend
    from omnidrop_cli.commands.answering import Item
    from omnidrop_cli.options.parsing import clips_and_questions, parse_choices

    fit.check(drop)
    asked = tuple(question or ()) or lines_of("OMNIDROP_QUESTION")
    clips, questions = clips_and_questions(list(words or []), asked)
    backend.hush(output.debug)
    choices = parse_choices(flags.choices) if flags.choices is not None else ()
    items = [Item(c, q, choices, span) for c in clips for q in questions]
    return Run(items, read, drop, model, flags, output, several_clips=len(clips) > 1, fit=fit).go()


class Run:
    """One call of `ask`, from checked words to an exit code."""

    def __init__(
        self,
        items: list[Any],
        read: ReadFlags,
        drop: DropFlags,
        model: ModelFlags,
        flags: AnswerFlags,
        output: OutputFlags,
        *,
        several_clips: bool,
        fit: FitFlags | None = None,
    ) -> None:
        from omnidrop_cli.errors import is_terminal
        from omnidrop_cli.files.stdout import Printer
        from omnidrop_cli.terminal.progress import Progress

        self.items, self.read, self.drop, self.model = items, read, drop, model
        self.flags, self.output, self.several_clips = flags, output, several_clips
        self.fit = fit or FitFlags()
        self.terminal = is_terminal(sys.stderr)
        self.progress = Progress(self.terminal and not output.quiet)
        form = "json" if output.json else "jsonl" if output.jsonl else "text"
        self.printer = Printer(form, len(items) == 1, self.progress)
        self.outcomes: list[Any] = []
        self.noticed: set[tuple[Path | None, str]] = set()

    def go(self) -> int:
        """Answer every item; return the exit code."""
        from omnidrop_cli import backend
        from omnidrop_cli.commands.answering import Job, answers

        if not self.progress.shown:
            backend.hide_downloads()
        with self.progress:
            left = self._check()
            if left:
                method = backend.method(self.drop)
                self.progress("load the model", 0, None)
                model = backend.load(self.model)
                self.progress.finish()
                job = Job(
                    model,
                    method,
                    self.read,
                    self.flags,
                    self.progress,
                    self.printer.stream,
                    self.fit,
                )
                for outcome in answers(left, job):
                    self._take(outcome)
        self.printer.close()
        self._save()
        return self._code()

    def _check(self) -> list[Any]:
        """Return the items whose clips can be read; say at once what is wrong with the others."""
        from omnidrop_cli import backend
        from omnidrop_cli.commands.answering import Outcome

        wrong: dict[Path, Exception] = {}
        for clip, span in dict.fromkeys((item.clip, item.span) for item in self.items):
            try:
                backend.check_clip(clip, span, self.read)
            except Exception as problem:
                wrong[clip] = problem
        if wrong and not self.several_clips:
            raise next(iter(wrong.values()))
        for item in self.items:
            if item.clip in wrong:
                self._take(Outcome(item, problem=wrong[item.clip]))
        return [item for item in self.items if item.clip not in wrong]

    def _take(self, outcome: Any) -> None:
        from omnidrop_cli import errors as guard

        if outcome.problem is not None and len(self.items) == 1:
            raise outcome.problem
        repeated = any(o.problem is outcome.problem for o in self.outcomes)
        self.outcomes.append(outcome)
        self.printer.put(outcome)
        if outcome.problem is not None:
            if not repeated:
                guard.report(_about(outcome))
        elif not self.output.quiet:
            self._show(outcome)

    def _show(self, outcome: Any) -> None:
        """Show the report of an answer on stderr, or at least what a person should know."""
        from omnidrop_cli import errors as guard

        kind = self.output.report
        if kind is None:
            kind = Report.none
            if self.terminal:
                kind = Report.full if len(self.items) == 1 else Report.brief
        answer = outcome.answer
        notices = self._new_notices(outcome)
        if kind is Report.none:
            for notice in notices:
                guard.complain(notice, "notice")
            return
        from omnidrop_cli.terminal import answer as views
        from omnidrop_cli.terminal.console import terminal

        if kind is Report.brief:
            terminal().print(views.brief(answer, notices))
        else:
            again = self.terminal and self.printer.live and self.printer.form == "text"
            terminal().print(views.full(answer, again=again))

    def _new_notices(self, outcome: Any) -> list[str]:
        """Return what was not said before: about the model once, about a clip once each."""
        from omnidrop.errors import printable

        trace, clip = outcome.answer.trace, outcome.item.clip
        found = []
        for notice in trace.notices:
            general = bool(trace.model.get("demo")) and "demo model" in notice
            key = (None if general else clip, notice)
            if key not in self.noticed:
                self.noticed.add(key)
                named = self.several_clips and not general
                found.append(f"{printable(clip)}: {notice}" if named else notice)
        return found

    def _save(self) -> None:
        if self.output.save is None:
            return
        if not any(o.answer for o in self.outcomes):
            return
        from omnidrop_cli.files.answers import save

        save(self.output.save, self.outcomes, alone=len(self.items) == 1, force=self.output.force)

    def _code(self) -> int:
        failed = [o for o in self.outcomes if o.problem is not None]
        if not failed:
            return 0
        if not self.several_clips and len(failed) == len(self.outcomes):
            from omnidrop_cli.errors import describe

            codes = {describe(o.problem)[1] for o in failed}
            if len(codes) == 1:
                return codes.pop()
        return BatchError.exit_code


def _about(outcome: Any) -> Exception:
    """Return the problem, with the clip named if its message does not name it."""
    from omnidrop.errors import OmniDropError

    problem = outcome.problem
    if isinstance(problem, OmniDropError) and problem.path is None:
        named = type(problem).__new__(type(problem))
        named.__dict__.update(problem.__dict__)
        named.path = outcome.item.clip
        return named
    return problem


__all__ = ["HELP", "NAME", "Run", "command"]
