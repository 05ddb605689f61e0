"""What to say about a question that the model does not know: the command for one that may."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnidrop.errors import OutsideError
from omnidrop_cli.options.groups import option_names

if TYPE_CHECKING:
    from omnidrop.profiling.advice import Advice
    from omnidrop_cli.commands.answering import Question
    from omnidrop_cli.options.common import AnswerFlags, ReadFlags


def advise(
    problem: OutsideError, question: Question, read: ReadFlags, flags: AnswerFlags, device: str
) -> None:
    """Give a refusal its remedy: a model that may know, and the command that asks it.

    Parameters
    ----------
    problem : OutsideError
        Its hint and command are set.
    question : Question
    read : ReadFlags
    flags : AnswerFlags
        What was asked for besides; the command has it too.
    device : str
        As of --device.
    """
    from omnidrop.profiling.advice import real_model

    advice = real_model(
        question.clip, question.text, read.clip_options(question.span), device=device
    )
    if advice is None:
        return
    part = "Ask about a shorter part (--start, --end), or add" if problem.seconds else "Add"
    problem.hint = (
        f"{part} --anyway to ask it all the same. A model that may know: {advice.sentence()}"
    )
    problem.command = command_for(advice, question, read, flags)


def in_brief(problem: OutsideError) -> OutsideError:
    """Return a refusal without what the model knows and the remedy: both were said before."""
    return OutsideError(problem.brief, words=problem.words, seconds=problem.seconds)


def command_for(advice: Advice, question: Question, read: ReadFlags, flags: AnswerFlags) -> str:
    """Return the command that asks a model the same question, quoted for a shell."""
    words = ["omnidrop", "ask", "--model", advice.alias]
    words += [f"--{advice.quantize}"] if advice.quantize else []
    for group in (question.span, read, flags):
        words += _options(group)
    places = [os.fspath(question.clip), question.text]
    words += ["--"] if any(place.startswith("-") for place in places) else []
    return quoted([*words, *places])


def _options(group: Any) -> list[str]:
    """Return the options of a group that differ from their defaults, as they are typed."""
    names = option_names(type(group))
    words: list[str] = []
    for field in fields(group):
        value = getattr(group, field.name)
        if value == field.default or field.name == "anyway":
            continue
        if value is True:
            words.append(names[field.name])
        else:
            text = os.fspath(value) if isinstance(value, Path) else f"{value}"
            name = names[field.name]
            words += [f"{name}={text}"] if text.startswith("-") else [name, text]
    return words


def quoted(words: list[str], windows: bool = os.name == "nt") -> str:
    """Return words as one line that a shell reads back as the same words."""
    if windows:
        return subprocess.list2cmdline(words)
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    """Quote one word; one that does not print, such as a line break, as bash and zsh escape it."""
    if word.isprintable():
        return shlex.quote(word)
    shown = []
    for character in word:
        if character in "\\'":
            shown.append(f"\\{character}")
        elif character.isprintable():
            shown.append(character)
        else:
            shown += [f"\\x{byte:02x}" for byte in os.fsencode(character)]
    return f"$'{''.join(shown)}'"
