"""`omnidrop chat CLIP`: load once, then one question after another, with the turns in view."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from omnidrop_cli.options.chat import ChatFlags
from omnidrop_cli.options.common import AnswerFlags, ModelFlags, NoServe, ReadFlags, SpanFlags
from omnidrop_cli.options.groups import grouped
from omnidrop_cli.options.limits import FitFlags
from omnidrop_cli.options.pruning import DropFlags
from omnidrop_cli.options.thoughts import ThoughtFlags

NAME = "chat"
HELP = """Talk about a clip: one question after another, each with the turns before it in view.

\b
Examples:
  omnidrop chat samples/duet.mp4
  omnidrop chat samples/long.mp4 --start 10 --end 20 --save talk.html
  omnidrop chat talk.mp4 --model 3b --budget 0.2
  printf '/at 0 5\\nWhat shape is first?\\n' | omnidrop chat samples/pause.mp4

The model and the clip are loaded once. Lines that begin with a slash are commands: /at 0:30 1:00
asks about a part of the clip, /budget 0.2 and /method NAME change which tokens are dropped, /report
shows the full report of the last answer, /save FILE writes all answers, /help lists the others. For
each question the tokens are chosen anew, by that question. Ctrl-C stops an answer and keeps the
session; pressed twice at the prompt it leaves.

If stdin is no terminal, every line is a question or a command, and the answer to each question is
one line on stdout, with \\n for a line break. The line of a question that failed is empty; its
error goes to stderr, and the exit code is 6.

The demo model learned single questions: with it, each question stands alone until /turns on.

Typed lines are kept in ~/.local/state/omnidrop/chat_history, readable by you alone; --no-history
keeps none.
"""


@grouped
def command(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A local media file.")],
    no_serve: NoServe = False,
    *,
    session: ChatFlags,
    span: SpanFlags,
    read: ReadFlags,
    drop: DropFlags,
    fit: FitFlags,
    model: ModelFlags,
    flags: AnswerFlags,
    thoughts: ThoughtFlags,
) -> int:
    """Talk about a clip."""
    from omnidrop.begun import state_folder
    from omnidrop.pruning.registry import method_names
    from omnidrop_cli.chat.screen import Screen
    from omnidrop_cli.chat.talk import Settings, Talk
    from omnidrop_cli.chat.typed import Keyboard, Pipe, Source
    from omnidrop_cli.commands.answering import open_clip
    from omnidrop_cli.interrupts import keep_session
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.loading import load_model
    from omnidrop_cli.options.parsing import parse_choices
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    fit.check(drop)
    silence_warnings(session.debug)
    typed = is_terminal(sys.stdin)
    progress = Progress(is_terminal(sys.stderr) and not session.quiet)
    screen = Screen(
        typed=typed,
        jsonl=session.jsonl,
        quiet=session.quiet,
        progress=progress,
        thoughts=thoughts.thoughts,
    )
    drop.early()
    choices = parse_choices(flags.choices) if flags.choices is not None else ()
    with progress:
        opened = open_clip(clip, span, read)
        loaded = load_model(model, progress, quiet=session.quiet)
        turns = not session.alone and not loaded.info.demo
        settings = Settings(clip, span, drop, fit, choices, turns)
        talk = Talk(loaded, settings, opened, read, flags, screen, progress)
        source: Source = Pipe()
        if typed:
            history = None if session.no_history else state_folder() / "chat_history"
            source = Keyboard(history, lambda: sorted(method_names()))
            talk.begin()
        try:
            with keep_session(screen.second_interrupt) if typed else nullcontext():
                code = talk.run(source)
        finally:
            talk.close()
            if session.save is not None and any(o.answer for o in talk.outcomes):
                talk.save(session.save, force=session.force)
    return code


__all__ = ["HELP", "NAME", "command"]
