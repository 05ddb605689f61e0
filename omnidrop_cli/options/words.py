"""What the words after `omnidrop ask` are: clips, and a question.

The documented order is CLIP… QUESTION. A question without quotes, or before a clip, is recognised
where only one reading is possible, and a notice says what was understood. Everything else is an
error that shows the command.
"""

from __future__ import annotations

import glob
import os
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnidrop.errors import MediaError, UsageError, printable
from omnidrop_cli.options.clips import is_clip_name, is_url, no_such_file, url_error
from omnidrop_cli.options.parsing import read_stdin

EXAMPLE = 'Type: omnidrop ask clip.mp4 "What happens?"'


@dataclass(frozen=True)
class Words:
    """Clips and questions, and what to say if they were not in the documented form."""

    clips: tuple[Path, ...]
    questions: tuple[str, ...]
    notice: str = ""


def read_words(words: Sequence[str], asked: Sequence[str] = ()) -> Words:
    """Tell clips from questions.

    Parameters
    ----------
    words : sequence of str
        Positional arguments: CLIP… QUESTION, or only clips when `asked` holds questions.
    asked : sequence of str
        Questions given by -q.

    Returns
    -------
    Words
        `-` among the clips is replaced by the lines of stdin, `-` as a question by all of stdin.

    Raises
    ------
    UsageError
        If either is missing or empty, if both would be read from stdin, or if it is not certain
        which words are the question.
    MediaError
        If the only word is a clip that does not exist.
    """
    notice = ""
    if asked:
        clips, questions = list(words), list(asked)
        _check_clips(clips, questions)
    else:
        clips, question, notice = _tell_apart(list(words))
        questions = [question]
    if (clips + questions).count("-") > 1:
        raise UsageError("Stdin can be read once.", hint="Give - once, as a clip or a question.")
    if "-" in questions:
        at = questions.index("-")
        questions[at] = read_stdin().encode("utf-8", "replace").decode()
    if "-" in clips:
        at = clips.index("-")
        lines = (line.removesuffix("\r") for line in read_stdin().split("\n"))
        listed = [line for line in lines if line.strip()]
        if not listed:
            raise UsageError("Stdin lists no clip.", hint="Send one path per line.")
        clips[at : at + 1] = listed
    questions = [q.strip() for q in questions]
    if not all(questions):
        raise UsageError("The question is empty.", hint='Ask something, like "What happens?"')
    return Words(tuple(Path(c) for c in clips), tuple(dict.fromkeys(questions)), notice)


def _check_clips(clips: list[str], questions: list[str]) -> None:
    """Refuse what is no clip where -q gives the questions."""
    if not clips:
        raise UsageError(
            "A clip is missing.", hint=f"Type: omnidrop ask clip.mp4 -q {quoted(questions[0])}"
        )
    for word in clips:
        if _is_question(word):
            raise UsageError(
                f"With -q every other word is a clip, and {quoted(word)} is none.",
                hint=f"Type: {_command([c for c in clips if c != word], [*questions, word])}",
            )


def _tell_apart(words: list[str]) -> tuple[list[str], str, str]:
    """Return the clips, the question, and a notice if that is not what the order says."""
    if len(words) < 2:
        raise _too_few(words)
    loose = [i for i, word in enumerate(words) if not _is_clip(word)]
    last = len(words) - 1
    usual = words[:-1], words[-1], ""
    if words[-1] == "-" or loose == [last] or (len(words) == 2 and len(loose) == 2):
        return usual
    if not loose:
        raise _no_question(words)
    if len(loose) == 1:
        return _not_last(words, loose[0])
    if not any(_has_space(words[i]) for i in loose):
        return _without_quotes(words, loose)
    others = [words[i] for i in loose if i != last]
    if last not in loose or not _has_space(words[-1]):
        raise _unclear(words, [words[i] for i in loose])
    if any(map(_is_question, others)):
        questions = [words[i] for i in loose if i == last or _is_question(words[i])]
        raise _several(words, questions)
    return usual  # the others are clips that do not exist


def _too_few(words: list[str]) -> UsageError | MediaError:
    if not words:
        return UsageError("A clip and a question are missing.", hint=EXAMPLE)
    word = words[0]
    if is_url(word):
        return url_error(word)
    if word == "-" or os.path.exists(word):
        return UsageError(
            "A question is missing.",
            hint=f'Type: omnidrop ask {_shown(word)} "What happens?"',
        )
    if is_clip_name(word):
        return no_such_file(Path(word))
    question = quoted(word) if len(word) < 200 else '"What happens?"'
    return UsageError("A clip is missing.", hint=f"Type: omnidrop ask clip.mp4 {question}")


def _no_question(words: list[str]) -> UsageError:
    """Every word is a clip, or at least a file."""
    name = words[-1]
    if is_clip_name(name) or is_url(name):
        return UsageError(
            "A question is missing.", hint=f"Type: {_command(words, ['What happens?'])}"
        )
    kind = "folder" if os.path.isdir(name) else "file"
    return UsageError(
        f"{printable(name)!r} is a {kind} here, and stands where the question belongs.",
        hint=f"If it is the question, type: {_command(words[:-1], [name], by_name=True)}",
    )


def _not_last(words: list[str], at: int) -> tuple[list[str], str, str]:
    """One word is no file, and a file comes after it."""
    word, clips = words[at], words[:at] + words[at + 1 :]
    if not (_has_space(word) or word.endswith("?")) or "/" in word.strip():
        raise UsageError(
            f"{printable(words[-1])!r} is a file, and stands where the question belongs.",
            hint=f"Type: {_command(clips, [word])}",
        )
    return clips, word, f"{quoted(word)} is taken as the question; it usually comes last."


def _without_quotes(words: list[str], loose: list[int]) -> tuple[list[str], str, str]:
    """Several words are no files, and none was in quotes."""
    first, after = loose[0], loose[-1] + 1
    behind = words[after:]
    certain = after - first == len(loose) and all(map(_is_plain, words[first:after]))
    if first > 0 and behind:  # "ask clip.mp4 What is in samples", where samples is a folder
        certain, after, behind = False, len(words), []
    certain = certain and all(is_clip_name(word) for word in behind)
    clips, question = words[:first] + behind, " ".join(words[first:after])
    if not clips:
        raise UsageError(
            "A clip is missing: none of these words is a file.",
            hint=f"Type: omnidrop ask clip.mp4 {quoted(question)}",
        )
    command = _command(clips, [question])
    if certain:
        notice = f"The question is taken to be {quoted(question)}. Next time: {command}"
        return clips, question, notice
    raise UsageError(
        "It is not certain where the question begins and ends.",
        hint=f"Put it in quotes, if this is it: {command}",
    )


def _several(words: list[str], questions: list[str]) -> UsageError:
    clips = [word for word in words if word not in questions]
    return UsageError(
        "There is more than one question.", hint=f"Give each by -q: {_command(clips, questions)}"
    )


def _unclear(words: list[str], loose: list[str]) -> UsageError:
    clips = [word for word in words if word not in loose]
    return UsageError(
        f"It is not certain which word is the question: {', '.join(map(quoted, loose))}.",
        hint=f"Give it by -q: {_command(clips or ['clip.mp4'], loose[:1], by_name=True)}",
    )


def _is_clip(word: str) -> bool:
    return word == "-" or os.path.exists(word) or is_url(word) or _names_clip(word)


def _names_clip(word: str) -> bool:
    """Whether a word is the name of a clip, there or not; "What happens in a.mp4" is none."""
    return is_clip_name(word) and not (_has_space(word) and not os.path.exists(word))


def _has_space(word: str) -> bool:
    return any(letter.isspace() for letter in word.strip())


def _is_question(word: str) -> bool:
    return _has_space(word) and word.rstrip().endswith("?") and not os.path.exists(word)


def _is_plain(word: str) -> bool:
    """Whether a word can be nothing but a word: letters alone or digits alone, and no file's name.

    "clip" is none beside a clip.mp4, and "talk_2" may be a file that is missing.
    """
    core = word.strip("\"'’.,;:!?()…¿¡？。、")
    letters = core.replace("-", "").replace("'", "").replace("’", "")
    is_word = all(c.isalpha() or unicodedata.category(c).startswith("M") for c in letters)
    return (is_word or core.isdecimal()) and not (core and glob.glob(glob.escape(core) + ".*"))


def quoted(text: str) -> str:
    """Return text in quotes for a shell, double ones where that is enough."""
    text = printable(text)
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def _shown(word: str) -> str:
    return shlex.quote(printable(word))


def _command(clips: Sequence[str], questions: Sequence[str], *, by_name: bool = False) -> str:
    """Return the command that asks these questions, names of clips cut down to a few."""
    names = [_shown(clip) for clip in clips[:3]] + ["…"] * (len(clips) > 3)
    if by_name or len(questions) > 1:
        asked = [f"-q {quoted(question)}" for question in questions]
    else:
        asked = [quoted(question) for question in questions]
    return " ".join(["omnidrop ask", *names, *asked])
