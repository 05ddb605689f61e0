"""`omnidrop ask CLIP… QUESTION`: load once, encode each clip once, answer every question."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnidrop.begun import Begun, state_folder
from omnidrop.errors import OmniDropError, OutsideError, printable
from omnidrop_cli.options.common import (
    AnswerFlags,
    ModelFlags,
    OutputFlags,
    ReadFlags,
    Report,
    SpanFlags,
)
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.limits import FitFlags
from omnidrop_cli.options.pruning import DropFlags

if TYPE_CHECKING:
    from omnidrop.clip.clip import Clip
    from omnidrop_cli.commands.answering import Outcome, Question

NAME = "ask"
HELP = """Answer questions about local clips, audio included.

\b
Examples:
  omnidrop ask samples/duet.mp4 "What instrument plays first?"
  omnidrop ask samples/duet.mp4 "Is there a piano?" --choices yes,no
  omnidrop ask samples/long.mp4 "Which shape comes last?" --start 10 --end 20
  omnidrop ask samples/p*.mp4 -q "Is there a piano?" -q "Is there a pause?"
  omnidrop ask samples/flash.mp4 "Which digit flashes?" -b .2 --save a.html
  omnidrop ask samples/duet.mp4 "What color is the star?" --fit-latency 30s
  ls samples/p*.mp4 | omnidrop ask - "What shape appears first?"
  omnidrop ask talk.mp4 "Who speaks, and about what?" --model 3b

The last word is the question, unless -q gives questions; then every word is a clip. - reads a
question, or a list of clips one per line, from stdin.

One answer is written to stdout as it is. Several are shown under their clip and question on a
terminal, and written as one line each to a pipe: clip, question and answer, separated by tabs, with
\\n for a line break. A clip that fails does not stop the others; the exit code is then 6. If a clip
ends the whole process, the next call with several clips leaves it out and goes on.

A model that comes with a list of what it knows, as the demo does, refuses other questions and far
longer clips (exit code 4), and names a model and the command that may answer; --anyway asks it.

Every option can be set by an environment variable, --max-pixels by OMNIDROP_MAX_PIXELS. Those of
repeatable options (OMNIDROP_QUESTION, OMNIDROP_SET) hold one value per line.
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
            repeatable=True,
            metavar="TEXT",
            help="A question; repeatable. All arguments are then clips.",
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
    from omnidrop_cli.commands.answering import Question
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.options.parsing import clips_and_questions, parse_choices

    fit.check(drop)
    clips, texts = clips_and_questions(list(words or []), tuple(question or ()))
    silence_warnings(output.debug)
    choices = parse_choices(flags.choices) if flags.choices is not None else ()
    questions = [Question(clip, text, choices, span) for clip in clips for text in texts]
    run = Run(questions, read, drop, model, flags, output, several_clips=len(clips) > 1, fit=fit)
    return run.go()


class Run:
    """One call of `ask`, from checked options to an exit code."""

    def __init__(
        self,
        questions: list[Question],
        read: ReadFlags,
        drop: DropFlags,
        model: ModelFlags,
        flags: AnswerFlags,
        output: OutputFlags,
        *,
        several_clips: bool,
        fit: FitFlags,
    ) -> None:
        from omnidrop_cli.files.stdout import Printer
        from omnidrop_cli.terminal.console import is_terminal
        from omnidrop_cli.terminal.progress import Progress

        self.questions, self.read, self.drop, self.model = questions, read, drop, model
        self.flags, self.output, self.several_clips = flags, output, several_clips
        self.fit = fit
        self.terminal = is_terminal(sys.stderr)
        self.progress = Progress(self.terminal and not output.quiet)
        form = "json" if output.json else "jsonl" if output.jsonl else "text"
        self.printer = Printer(form, len(questions) == 1, self.progress)
        self.outcomes: list[Outcome] = []
        self.advised = False
        self.noticed: set[tuple[Path | None, str]] = set()

    def go(self) -> int:
        """Answer every question; return the exit code."""
        from omnidrop_cli.commands.answering import Job, answers
        from omnidrop_cli.libraries import hide_download_bars

        if not self.progress.shown:
            hide_download_bars()
        # A single clip may end the process: there is nothing to go on with.
        notes = Begun(state_folder() if self.several_clips else None, "ask", keep=True)
        with self.progress, notes as begun:
            opened = self._open(begun)
            left = [question for question in self.questions if _place(question) in opened]
            if left:
                method = self.drop.pruning()
                self.progress("load the model", 0, None)
                import omnidrop

                model = omnidrop.load(self.model.load_options())
                self.progress.finish()
                job = Job(
                    model,
                    method,
                    self.read,
                    self.flags,
                    self.progress,
                    self.printer.stream,
                    self.fit,
                    opened,
                    begun,
                )
                for outcome in answers(left, job):
                    self._take(outcome)
        self.printer.close()
        self._save()
        return self._code()

    def _open(self, begun: Begun) -> dict[tuple[Path, SpanFlags], Clip]:
        """Open the clips that can be read; report at once what is wrong with the others."""
        from omnidrop_cli.commands.answering import Outcome, open_clip
        from omnidrop_cli.interrupts import stop_if_interrupted

        opened: dict[tuple[Path, SpanFlags], Clip] = {}
        for clip, span in dict.fromkeys(map(_place, self.questions)):
            try:
                with begun.reading(clip, span.start, span.end):
                    opened[clip, span] = open_clip(clip, span, self.read)
            except Exception as problem:
                stop_if_interrupted()
                if not self.several_clips:
                    raise
                for question in self.questions:
                    if _place(question) == (clip, span):
                        self._take(Outcome(question, problem=problem))
        return opened

    def _take(self, outcome: Outcome) -> None:
        from omnidrop_cli.errors import report

        if isinstance(outcome.problem, OutsideError) and not self.advised:
            from omnidrop_cli.commands.outside import advise

            self.advised = True
            advise(outcome.problem, outcome.question, self.read, self.flags, self.model.device)
        if outcome.problem is not None and len(self.questions) == 1:
            raise outcome.problem
        repeated = any(o.problem is outcome.problem for o in self.outcomes)
        self.outcomes.append(outcome)
        self.printer.put(outcome)
        if outcome.problem is not None:
            if not repeated:
                report(_with_clip(outcome.problem, outcome.question.clip))
        elif not self.output.quiet:
            self._show(outcome)

    def _show(self, outcome: Outcome) -> None:
        """Show the report of an answer on stderr, or at least its notices."""
        from omnidrop_cli.errors import complain

        answer = outcome.answer
        assert answer is not None
        kind = self.output.report
        if kind is None:
            kind = Report.none
            if self.terminal:
                kind = Report.full if len(self.questions) == 1 else Report.brief
        notices = self._new_notices(outcome)
        if kind is Report.none:
            for notice in notices:
                complain(notice, "notice")
            return
        from omnidrop_cli.terminal.answer import brief, full
        from omnidrop_cli.terminal.console import terminal

        if kind is Report.brief:
            terminal().print(brief(answer, notices))
        else:
            again = self.terminal and self.printer.live and self.printer.form == "text"
            terminal().print(full(answer, again=again))

    def _new_notices(self, outcome: Outcome) -> list[str]:
        """Return the notices not shown yet: of the model once, of a clip once per clip."""
        assert outcome.answer is not None
        trace, clip = outcome.answer.trace, outcome.question.clip
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

        alone = len(self.questions) == 1
        save(self.output.save, self.outcomes, alone=alone, force=self.output.force)

    def _code(self) -> int:
        """Return 0, 6, or the one code that all questions about one clip failed with."""
        from omnidrop_cli.errors import batch_code, describe

        problems = [o.problem for o in self.outcomes if o.problem is not None]
        if problems and not self.several_clips and len(problems) == len(self.outcomes):
            codes = {describe(problem)[1] for problem in problems}
            if len(codes) == 1:
                return codes.pop()
        return batch_code(len(problems))


def _place(question: Question) -> tuple[Path, SpanFlags]:
    return question.clip, question.span


def _with_clip(problem: Exception, clip: Path) -> Exception:
    """Return the problem, with the clip named if its message does not name a file."""
    if isinstance(problem, OmniDropError) and problem.path is None:
        named = type(problem).__new__(type(problem))
        named.__dict__.update(problem.__dict__)
        named.path = clip
        return named
    return problem


__all__ = ["HELP", "NAME", "Run", "command"]
