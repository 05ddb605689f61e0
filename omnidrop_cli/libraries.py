"""What other libraries would write, kept off stderr; and downloads, as they are shown."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnidrop import stages
    from omnidrop_cli.terminal.progress import Progress


#: How long threads of OpenMP spin before they sleep, by the variable of each implementation:
#: GNU's counts turns of a loop, LLVM's and Intel's milliseconds. Spinning longer than the pause
#: between two operations takes the cores from other processes; sleeping at once costs a system
#: call at every operation. Measured by benchmarks/threads.py.
SPINNING = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
#: The variable by which people choose between spinning and sleeping themselves.
POLICY = "OMP_WAIT_POLICY"


def bound_spinning() -> None:
    """Let idle threads of this process sleep soon; to be called before torch is imported.

    What the person has set holds.
    """
    if POLICY not in os.environ:
        for name, value in SPINNING.items():
            os.environ.setdefault(name, value)


def silence_warnings(debug: bool) -> None:
    """Keep other libraries' warnings off stderr; notices worth reading are in the Trace."""
    if not debug:
        warnings.simplefilter("ignore")
        for name in ("bitsandbytes", "transformers", "accelerate", "torch"):
            logging.getLogger(name).setLevel(logging.ERROR + 1)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def downloads(bar: Progress, *, quiet: bool) -> stages.Progress:
    """Return how the library tells of a download: in a bar, or in one line where none is shown.

    Parameters
    ----------
    bar : Progress
        Its stage is "load the model" again after the download.
    quiet : bool
        Whether the line is left out.
    """
    from omnidrop.format import size
    from omnidrop_cli.errors import complain

    told: list[str] = []

    def tell(stage: str, done: float, total: float | None) -> None:
        if total and done >= total:
            bar("load the model", 0, None)
        else:
            bar(stage, done, total)
        if not told and not bar.shown and not quiet:
            complain(f"{stage}: {size((total or 0) - done)} to come.", "notice")
        told.append(stage)

    return tell
