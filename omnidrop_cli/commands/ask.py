"""`omnidrop ask CLIP… QUESTION`: load once, encode each clip once, answer every question."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnidrop.begun import Begun, state_folder
from omnidrop.errors import OmniDropError, OutsideError, printable
from omnidrop_cli.completion import clips as clip_names
from omnidrop_cli.options.check import CheckFlags
from omnidrop_cli.options.common import (
    AnswerFlags,
    ModelFlags,
    NoServe,
    OutputFlags,
    ReadFlags,
    Recursive,
    Report,
    SpanFlags,
)
from omnidrop_cli.options.evidence import EvidenceFlags
from omnidrop_cli.options.groups import grouped, option
from omnidrop_cli.options.limits import FitFlags
from omnidrop_cli.options.page import PageFlags
from omnidrop_cli.options.pruning import DropFlags
from omnidrop_cli.options.thoughts import ThoughtFlags

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

The last word is the question, unless -q gives questions; then every word is a clip. A folder stands
for the media files in it, with --recursive for those below it too. - reads a question, or a list of
clips one per line, from stdin. A clip is a local file: of a URL nothing is fetched, and the error
(exit code 2) shows the command that does.

One answer is written to stdout as it is. Several are a list on a terminal, and one line each in a
pipe: clip, question and answer, separated by tabs, with \\n for a line break. A clip that fails
does not stop the others; the exit code is then 6. If a clip ends the whole process, the next call
with several clips leaves it out and goes on. An answer without a word is shown as (nothing) on a
terminal, and ends with exit code 4. After Ctrl-C (exit code 130) what was answered is written and
saved.

On a terminal a summary follows: how sure the answer is, the moments it came from, what it cost;
--report full shows all that was measured. Where answers go to a pipe or are JSON, stderr holds
errors alone, unless --report asks for more; JSON has the notices, such as that a file is cut.

A model that comes with a list of what it knows, as the demo does, refuses other questions and far
longer clips (exit code 4), and names a model and the command that may answer; --anyway asks it.

Every option can be set by an environment variable, --max-pixels by OMNIDROP_MAX_PIXELS, or in the
config file; see omnidrop config. Variables of repeatable options (OMNIDROP_QUESTION, OMNIDROP_SET)
hold one value per line.
"""


@grouped
def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CLIP... QUESTION", help="Clips, then a question.", autocompletion=clip_names
        ),
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
    recursive: Recursive = False,
    no_serve: NoServe = False,
    *,
    span: SpanFlags,
    read: ReadFlags,
    drop: DropFlags,
    check: CheckFlags,
    fit: FitFlags,
    model: ModelFlags,
    flags: AnswerFlags,
    evidence: EvidenceFlags,
    output: OutputFlags,
    page: PageFlags,
    thoughts: ThoughtFlags,
) -> int:
    """Answer questions about local clips."""
    from omnidrop_cli.commands.answering import Question
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.options.clips import expand_folders
    from omnidrop_cli.options.parsing import parse_choices
    from omnidrop_cli.options.words import read_words

    fit.check(drop)
    said = read_words(words or (), question or ())
    clips, notices = expand_folders(said.clips, recursive=recursive)
    page.check(output.targets, clips)
    silence_warnings(output.debug)
    choices = parse_choices(flags.choices) if flags.choices is not None else ()
    questions = [Question(clip, text, choices, span) for clip in clips for text in said.questions]
    evidence.check(questions, read, output.force)
    run = Run(
        questions,
        read,
        drop,
        model,
        flags,
        output,
        several_clips=len(clips) > 1,
        fit=fit,
        check=check,
        evidence=evidence,
        page=page,
        thoughts=thoughts.thoughts,
    )
    for notice in filter(None, (said.notice, *notices, _why_not_warm(output))):
        run.reporter.tell(notice)
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
        check: CheckFlags,
        evidence: EvidenceFlags,
        page: PageFlags,
        thoughts: bool = False,
    ) -> None:
        from omnidrop_cli.files.stderr import Reporter
        from omnidrop_cli.files.stdout import Printer
        from omnidrop_cli.terminal.console import is_terminal
        from omnidrop_cli.terminal.progress import Progress

        self.questions, self.read, self.drop, self.model = questions, read, drop, model
        self.flags, self.output, self.several_clips = flags, output, several_clips
        self.fit, self.check, self.evidence = fit, check, evidence
        self.terminal = is_terminal(sys.stderr)
        self.progress = Progress(self.terminal and not output.quiet)
        form = "json" if output.json else "jsonl" if output.jsonl else "text"
        texts = tuple(question.text for question in questions)
        self.printer = Printer(form, len(questions) == 1, self.progress, texts)
        self.reporter = Reporter(
            output.report,
            output.quiet,
            self.printer,
            several_clips,
            self.terminal,
            thoughts=thoughts,
        )
        self.outcomes: list[Outcome] = []
        self.page = page
        self.advised = False

    def go(self) -> int:
        """Answer every question; return the exit code."""
        from omnidrop_cli.commands.answering import Job, answers
        from omnidrop_cli.interrupts import telling
        from omnidrop_cli.loading import load_model

        # A single clip may end the process: there is nothing to go on with.
        notes = Begun(state_folder() if self.several_clips else None, "ask", keep=True)
        with telling(self._tell_kept), self.progress, notes as begun:
            opened = self._open(begun)
            left = [question for question in self.questions if _place(question) in opened]
            if left:
                self.drop.early()
                loaded = load_model(self.model, self.progress, quiet=self.output.quiet)
                model = self.drop.reading(loaded)
                job = Job(
                    model,
                    self.drop.for_model(model.recommended),
                    self.read,
                    self.flags,
                    self.progress,
                    self.printer.stream,
                    self.fit,
                    opened,
                    begun,
                    check=self.check.check,
                    evidence=self.evidence.evidence,
                )
                for outcome in answers(left, job):
                    self._take(outcome)
        self.printer.close()
        self.reporter.close()
        self._save()
        self._cut()
        return self._code()

    def _tell_kept(self) -> None:
        """After Ctrl-C: write what waits for the last answer, and say what was answered."""
        from omnidrop_cli.errors import complain

        self.printer.end_line()
        done = sum(outcome.answer is not None for outcome in self.outcomes)
        left = [q for q in self.questions if q not in {o.question for o in self.outcomes}]
        if not done or not left:
            return
        self.printer.close()
        self._save()
        if not self.output.quiet:
            names = " and ".join(printable(path) for path in self.output.targets)
            complain(
                f"{done} of {len(self.questions)} questions were answered"
                f"{f', and are in {names}' if names else ''}. The next would have been "
                f"{printable(left[0].clip)}: {left[0].text} For a series that goes on where it "
                "was stopped: omnidrop batch",
                "interrupted",
            )

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

        problem = shown = outcome.problem
        if isinstance(problem, OutsideError):
            shown = self._refused(problem, outcome.question)
        if problem is not None and len(self.questions) == 1:
            raise problem
        repeated = any(o.problem is problem for o in self.outcomes)
        self.outcomes.append(outcome)
        if shown is not None and not repeated:
            report(_with_clip(shown, outcome.question.clip))
        self.printer.put(outcome)
        self.reporter.show(outcome)

    def _refused(self, problem: OutsideError, question: Question) -> OutsideError:
        """Return what is shown of a refusal: of the first one all, with advice; then one line."""
        from omnidrop_cli.commands.outside import advise, in_brief

        if self.advised:
            return in_brief(problem)
        self.advised = True
        advise(problem, question, self.read, self.flags, self.model.device)
        return problem

    def _save(self) -> None:
        if not self.output.targets or not any(o.answer for o in self.outcomes):
            return
        from omnidrop_cli.files.answers import save

        alone = len(self.questions) == 1
        for target in self.output.targets:
            save(
                target,
                self.outcomes,
                alone=alone,
                force=self.output.force,
                embed=self.page.embed,
                notify=self.reporter.tell,
            )

    def _cut(self) -> None:
        """Write the moments as a clip of their own."""
        answer = self.outcomes[0].answer if self.outcomes else None
        if self.evidence.cut is None or answer is None:
            return
        from omnidrop_cli.files.cut import cut

        cut(answer, self.questions[0], self.read, self.evidence.cut, self.output)

    def _code(self) -> int:
        """Return 0, 6, or the one code that all questions about one clip failed with.

        An answer without a word is the model's failure (4), so that no script goes on with it.
        """
        from omnidrop.errors import ModelError
        from omnidrop_cli.errors import batch_code, describe

        empty = [o for o in self.outcomes if o.answer is not None and not o.answer.text.strip()]
        if empty and not self.printer.on_screen:
            self._tell_empty(empty)
        if empty and len(empty) == len(self.outcomes):
            return ModelError.exit_code

        problems = [o.problem for o in self.outcomes if o.problem is not None]
        if problems and not self.several_clips and len(problems) == len(self.outcomes):
            codes = {describe(problem)[1] for problem in problems}
            if len(codes) == 1:
                return codes.pop()
        return batch_code(len(problems) + len(empty))

    def _tell_empty(self, empty: list[Outcome]) -> None:
        """Say on stderr which answers have no word; a person who reads along sees it above."""
        from omnidrop.report.trace import EMPTY
        from omnidrop_cli.errors import complain

        what, where = EMPTY, ""
        if len(self.outcomes) > 1:
            what = f"{len(empty)} of {len(self.outcomes)} answers have no word."
            where = f"The first: {printable(empty[0].question.clip)}: {empty[0].question.text} "
        complain(f"{what} {where}Ask in other words, or keep more with a higher --budget.")


def _why_not_warm(output: OutputFlags) -> str:
    """Return why a warm model did not take this command, for those who want to know everything."""
    from omnidrop_cli.serving.client import why_not

    why = why_not() if output.report in (Report.full, Report.settings) else ""
    return f"The warm model of omnidrop serve was not used: {why}." if why else ""


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
