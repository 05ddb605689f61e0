"""What a command can know of the call that runs it: typer passes it along as `context.obj`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

#: Decides whether a command runs here, from its name and the values of its options, by raising.
Admit = Callable[[str, dict[str, Any]], None]


class Run(Protocol):
    """Runs a command line, as `omnidrop_cli.main.run` does, and returns its exit code."""

    def __call__(self, words: list[str], admit: Admit | None = None) -> int: ...


class Calling(NamedTuple):
    """A call of the command line.

    Attributes
    ----------
    run : Run
        Runs another one, in the same process.
    admit : callable or None
        Asked before the command runs.
    """

    run: Run
    admit: Admit | None = None
