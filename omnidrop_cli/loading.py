"""How every command loads its model: with progress on a terminal, or one line of a download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from omnidrop_cli.libraries import downloads

if TYPE_CHECKING:
    from omnidrop import Model
    from omnidrop.serving.warm import Turn, WarmModel
    from omnidrop_cli.options.common import ModelFlags
    from omnidrop_cli.terminal.progress import Progress


#: The turn at the warm model of the command that runs; None in a process of its own.
_turn: Turn | None = None


def load_model(flags: ModelFlags, progress: Progress, *, quiet: bool) -> Model:
    """Load the model that the options name; in the process of a warm model, return that one.

    Parameters
    ----------
    flags : ModelFlags
    progress : Progress
        Shows the loading, and a download before it; finished afterwards.
    quiet : bool
        Whether the line about a download is left out.

    Raises
    ------
    OmniDropError
        Whatever `omnidrop.load` raises.
    """
    told = downloads(progress, quiet=quiet)
    if _turn is not None:
        progress("wait for the model", 0, None)
        _turn.take()
        progress("load the model", 0, None)
        loaded = _turn.model(told)
    else:
        progress("load the model", 0, None)
        import omnidrop

        loaded = omnidrop.load(flags.load_options(), progress=told)
    progress.finish()
    return loaded


def is_warm() -> bool:
    """Return whether this is the process of a warm model, which outlives its commands."""
    return _turn is not None


@contextmanager
def from_warm(warm: WarmModel) -> Iterator[None]:
    """Let the command that the block runs have the warm model, from `load_model` to its end."""
    global _turn
    from omnidrop.serving.warm import Turn

    turn = Turn(warm)
    _turn = turn
    try:
        yield
    finally:
        _turn = None
        turn.end()


@contextmanager
def at_rest() -> Iterator[None]:
    """Let others have the warm model during the block, in which this command does not use it."""
    with nullcontext() if _turn is None else _turn.rest():
        yield


def give_way() -> None:
    """Let those who wait for the warm model go first, between two questions of a long command."""
    with at_rest():
        pass
