"""The errors that the library raises for users.

Each error has the cause, the file or option, the remedy, and the exit code of the command line;
`omnidrop_cli.errors.EXIT_CODES` lists all codes. Only `omnidrop_cli` prints errors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def printable(path: object) -> str:
    """Return a path as printable text, whatever bytes it contains.

    Parameters
    ----------
    path : object
        A path, bytes or a string.

    Returns
    -------
    str
        Text that any UTF-8 stream can print; undecodable bytes and control characters are escaped.
    """
    text = os.fsdecode(path) if isinstance(path, (bytes, os.PathLike)) else str(path)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Return "Did you mean …? " with the one or two known words nearest to a wrong one.

    Parameters
    ----------
    word : str
        What was given; case does not matter.
    known : iterable of str
    cutoff : float
        Least likeness, from 0 to 1 (difflib's ratio).

    Returns
    -------
    str
        Ends in a space, so that a sentence can follow; empty if no known word is near.
    """
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), list(by_lower), n=2, cutoff=cutoff)
    return f"Did you mean {' or '.join(by_lower[name] for name in near)}? " if near else ""


class OmniDropError(Exception):
    """Base class of all errors that the library raises for users.

    Parameters
    ----------
    what : str
        One sentence: what went wrong.
    path : path-like, optional
        The file that the error is about.
    hint : str, optional
        One sentence: what to do.
    """

    exit_code = 1

    def __init__(self, what: str, *, path: object | None = None, hint: str | None = None) -> None:
        self.what = what
        self.path = path
        self.hint = hint
        super().__init__(self.paragraph())

    def paragraph(self) -> str:
        """Return the error as one paragraph: file, cause, remedy."""
        where = f"{printable(self.path)}: " if self.path is not None else ""
        remedy = f" {self.hint}" if self.hint else ""
        return f"{where}{self.what}{remedy}"


class UsageError(OmniDropError):
    """An option or argument that is not valid (exit code 2)."""

    exit_code = 2


class BudgetError(UsageError):
    """A budget that the method cannot reach on this clip and model (exit code 2).

    Parameters
    ----------
    what : str
        One sentence: what went wrong.
    reachable : tuple of float, optional
        Lowest and highest budget that can be reached.
    hint : str, optional
        One sentence: what to do.
    """

    def __init__(
        self, what: str, *, reachable: tuple[float, float] | None = None, hint: str | None = None
    ) -> None:
        self.reachable = reachable
        super().__init__(what, hint=hint)


class MediaError(OmniDropError):
    """A clip that cannot be read (exit code 3)."""

    exit_code = 3


class ModelError(OmniDropError):
    """A model that cannot be used, or an environment that cannot run it (exit code 4)."""

    exit_code = 4


#: What the hint of an `OutsideError` adds to the option for those who call the library.
IN_PYTHON = ", anyway=True"


class OutsideError(ModelError):
    """A question or clip outside of what the model knows (exit code 4).

    Parameters
    ----------
    what : str
        One sentence: what is outside, and what the model knows.
    brief : str, optional
        The same without what the model knows; `what` itself by default.
    hint : str, optional
        One sentence: what to do.
    words : tuple of str
        Words of the question and its choices that the model does not know.
    seconds : float, optional
        Length of what was asked about, if that is too long.

    Attributes
    ----------
    command : str or None
        What to type instead, as one line for a shell; set by the command line.
    """

    def __init__(
        self,
        what: str,
        *,
        brief: str | None = None,
        hint: str | None = None,
        words: tuple[str, ...] = (),
        seconds: float | None = None,
    ) -> None:
        self.brief = what if brief is None else brief
        self.words = words
        self.seconds = seconds
        self.command: str | None = None
        super().__init__(what, hint=hint)


class MemoryShortError(OmniDropError):
    """Not enough host or device memory, as estimated or as it happened (exit code 5)."""

    exit_code = 5


class BatchError(OmniDropError):
    """Some items of a batch failed; the others were answered (exit code 6)."""

    exit_code = 6


class OutputError(OmniDropError):
    """Answers that cannot be written: the disk is full, or the file is gone (exit code 7)."""

    exit_code = 7


class OutOfTimeError(OmniDropError):
    """A row of a batch that took longer than it was given (exit code 8)."""

    exit_code = 8
