"""`omnidrop CLIP QUESTION` without a command: which words mean `ask`."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from omnidrop.errors import did_you_mean
from omnidrop_cli.options.clips import is_clip_name, is_url

ASK = "ask"
#: First words of questions without quotes; some look like a mistyped command: "What" like "chat".
QUESTION_WORDS = frozenset(
    [
        "what",
        "which",
        "who",
        "whom",
        "whose",
        "where",
        "when",
        "why",
        "how",
        "is",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "can",
        "could",
    ]
)


def with_command(
    words: Sequence[str],
    commands: Collection[str],
    own: Collection[str],
    asking: Collection[str],
) -> list[str]:
    """Put `ask` before words that ask a question without it.

    A command's name is always the command, even where a file has that name; any other first word
    is a clip if a file of that name is there or it looks like one. `help COMMAND` is
    `COMMAND --help`.

    Parameters
    ----------
    words : sequence of str
        What was typed after `omnidrop`.
    commands : collection of str
        Names of the commands.
    own, asking : collection of str
        Options of `omnidrop` itself, and of `omnidrop ask`.
    """
    if not words or words[0] in commands:
        return list(words)
    first = words[0]
    if first == "help":
        return [*words[1:2], "--help"]
    if first == "--":  # whatever follows is no option, so it is no command either
        return [ASK, *words]
    if first.startswith("-") and first != "-":
        name = first.partition("=")[0]
        name = name if name.startswith("--") else name[:2]
        asks = name in asking and name not in own
    else:
        mistyped = first.lower() not in QUESTION_WORDS and did_you_mean(first, commands, cutoff=0.6)
        asks = _is_clip(first) or (not mistyped and any(map(_is_clip, words[1:])))
    return [ASK, *words] if asks else list(words)


def _is_clip(word: str) -> bool:
    """Whether a word is a clip, or a question in quotes; neither can be a command."""
    return (
        word == "-"
        or any(letter.isspace() or letter in "/\\" for letter in word)
        or is_clip_name(word)
        or is_url(word)
        or os.path.exists(word)
    )
