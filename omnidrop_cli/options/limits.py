"""Limits instead of a budget: the options, and what they exclude."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from omnidrop.errors import UsageError
from omnidrop.profiling.limits import Limits
from omnidrop_cli.options.groups import build, option
from omnidrop_cli.options.parsing import parse_duration, parse_size

if TYPE_CHECKING:
    from omnidrop_cli.options.pruning import DropFlags

PANEL = "Limits instead of a budget"


@dataclass(frozen=True)
class FitFlags:
    """What an answer may take; the budget is found from it."""

    fit_latency: Annotated[
        float | None,
        option(
            "--fit-latency",
            panel=PANEL,
            metavar="TIME",
            parser=parse_duration,
            help="Most time to the first token, like 2s or 500ms; the largest budget that fits is "
            "used.",
        ),
    ] = None
    fit_memory: Annotated[
        float | None,
        option(
            "--fit-memory",
            panel=PANEL,
            metavar="SIZE",
            parser=parse_size,
            help="Most memory, like 12GB: the GPU's own, or the process's on a CPU.",
        ),
    ] = None
    fit_pixels: Annotated[
        bool,
        option(
            "--fit-pixels",
            panel=PANEL,
            help="Also lower --max-pixels where less than a tenth of the tokens would be kept.",
        ),
    ] = False
    fit_fps: Annotated[
        bool, option("--fit-fps", panel=PANEL, help="Also lower --fps in that case.")
    ] = False

    def __post_init__(self) -> None:
        if (self.fit_pixels or self.fit_fps) and not self:
            raise UsageError(
                "--fit-pixels and --fit-fps need a limit.",
                hint="Add --fit-latency 2s or --fit-memory 12GB.",
            )

    def __bool__(self) -> bool:
        return self.fit_latency is not None or self.fit_memory is not None

    def limits(self) -> Limits | None:
        """Return the library's limits; None where there are none."""
        if not self:
            return None
        return build(Limits, FitFlags, latency=self.fit_latency, memory=self.fit_memory)

    def check(self, drop: DropFlags) -> None:
        """Raise UsageError if a budget is given as well."""
        if not self:
            return
        if drop.budget not in (None, "auto"):
            raise UsageError("Limits find the budget.", hint="Drop --budget or the --fit options.")
        if drop.preset is not None and drop.preset_file is None:
            raise UsageError(
                "A preset sets the budget, and limits find it.",
                hint="Drop --preset or the --fit options.",
            )
        if drop.method == "none":
            raise UsageError(
                "--method none keeps every token, and limits find how many to keep.",
                hint="Choose another method, or drop the --fit options.",
            )
