"""What `omnidrop profile` and `omnidrop estimate` are asked: runs to compare, rounds, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.common import DropFlags
from omnidrop_cli.options.groups import lines_of, option
from omnidrop_cli.options.parsing import check_seed, parse_shares

DEFAULT_BUDGETS = (0.3,)
SWEEP = (0.7, 0.5, 0.3, 0.2, 0.1)
QUESTION = "What happens in this clip?"
SAVED = (".json", ".html", ".txt", ".png", ".svg")


def parse_budgets(text: Any) -> tuple[float, ...]:
    """Return the shares of `.5,.3,.2`, each once."""
    if not isinstance(text, str):
        return tuple(text)
    return parse_shares(text.split(","), text)


def parse_target(text: Any) -> Path:
    """Return a file that a profile can be saved to, once its suffix is known to be one."""
    path = Path(text)
    if path.suffix.lower() not in SAVED:
        raise UsageError(
            f"--save cannot write {printable(path.name)!r}.",
            hint=f"End the name in {', '.join(SAVED[:-1])} or {SAVED[-1]}.",
        )
    return path


@dataclass(frozen=True)
class CompareFlags:
    """Which runs are measured beside the unpruned control."""

    budgets: Annotated[
        Any,
        option(
            "--budget",
            "-b",
            panel="Token dropping",
            metavar="SHARES",
            parser=parse_budgets,
            help="Shares of audio and video tokens kept, mean over the layers (0.3): .5,.3,.2",
        ),
    ] = None
    methods: Annotated[
        str | None,
        option(
            "--method",
            panel="Token dropping",
            metavar="NAMES",
            help="Methods to measure (omnidrop): omnidrop,fastv; see `omnidrop models`.",
        ),
    ] = None
    presets: Annotated[
        list[str] | None,
        option(
            "--preset",
            panel="Token dropping",
            metavar="NAME",
            envvar=None,
            help="A published setting, or a file from `omnidrop calibrate`; repeatable.",
        ),
    ] = None
    sweep: Annotated[
        bool,
        option(
            "--sweep",
            panel="Token dropping",
            help=f"Measure the budgets {', '.join(f'{b:g}' for b in SWEEP)}.",
        ),
    ] = False
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            panel="Token dropping",
            metavar="NAME=VALUE",
            envvar=None,
            help="A setting of every method measured; repeatable.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.sweep and self.budgets is not None:
            raise UsageError("--sweep has budgets of its own.", hint="Drop it or --budget.")
        if not all(self.names):
            raise UsageError(
                f"--method {printable(str(self.methods))!r} does not name methods.",
                hint="Separate names by commas, like omnidrop,fastv.",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Return the methods to measure, each once; presets alone need none."""
        if self.methods is None:
            return () if self.presets else ("omnidrop",)
        return tuple(dict.fromkeys(name.strip() for name in self.methods.split(",")))

    def drops(self) -> tuple[DropFlags, ...]:
        """Return what each run drops: every method at every budget, "none" left out."""
        budgets = SWEEP if self.sweep else self.budgets or DEFAULT_BUDGETS
        settings = list(self.settings or lines_of("OMNIDROP_SET")) or None
        found = [
            DropFlags(budget=budget, method=name, settings=settings)
            for name in self.names
            if name != "none"
            for budget in budgets
        ]
        for name in self.presets or ():
            own = DropFlags(preset=name, settings=settings)
            at = budgets if own.preset_file is not None else ()
            found += [replace(own, budget=budget) for budget in at] or [own]
        return tuple(found)


def labels_of(drops: Sequence[DropFlags]) -> list[str]:
    """Return what the runs are called: "omnidrop 0.2", or a preset's name."""
    from omnidrop.profiling.result import unique_labels

    found = []
    for drop in drops:
        name = drop.method if drop.preset is None else Path(drop.preset).name
        name = str(name).removesuffix(".json")
        found.append(name if drop.budget is None else f"{name} {drop.budget:g}")
    return unique_labels(found)


@dataclass(frozen=True)
class RoundFlags:
    """How often, and how long an answer."""

    repeats: Annotated[
        int, option("--repeats", panel="Measuring", metavar="N", help="Timed rounds (5).")
    ] = 5
    warmup: Annotated[
        int, option("--warmup", panel="Measuring", metavar="N", help="Rounds before them (1).")
    ] = 1
    max_new_tokens: Annotated[
        int, option("--max-new-tokens", panel="Measuring", metavar="N", help="Longest answer (32).")
    ] = 32
    system: Annotated[
        str | None,
        option(
            "--system",
            panel="Measuring",
            metavar="TEXT",
            help="System prompt instead of the model's own.",
        ),
    ] = None
    seed: Annotated[
        int, option("--seed", panel="Measuring", metavar="N", help="Seed of methods that draw (0).")
    ] = 0

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError("--repeats must be 1 or more.", hint="The default is 5.")
        if self.warmup < 0:
            raise UsageError("--warmup must be 0 or more.", hint="The default is 1.")
        if self.max_new_tokens < 1:
            raise UsageError("--max-new-tokens must be 1 or more.", hint="The default is 32.")
        check_seed(self.seed)


@dataclass(frozen=True)
class EstimateFlags:
    """What an estimate assumes."""

    tflops: Annotated[
        float | None,
        option(
            "--tflops",
            panel="Estimate",
            metavar="N",
            help="Speed of the machine meant, in TFLOP/s; this one is measured otherwise.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.tflops is not None and not 0 < self.tflops < float("inf"):
            raise UsageError("--tflops must be above 0.", hint="An H100 does about 400 in bf16.")


@dataclass(frozen=True)
class FileFlags:
    """Where the report goes."""

    json: Annotated[
        bool, option("--json", panel="Output", help="One JSON document on stdout, no report.")
    ] = False
    save: Annotated[
        list[Path] | None,
        option(
            "--save",
            panel="Output",
            metavar="FILE",
            parser=parse_target,
            envvar=None,
            help="Write FILE.json, .html or .txt, or figures: .png, .svg; repeatable.",
        ),
    ] = None
    force: Annotated[
        bool, option("--force", panel="Output", help="Let --save and --overlay replace files.")
    ] = False
    quiet: Annotated[
        bool, option("--quiet", panel="Output", help="No report, progress or notices.")
    ] = False
    debug: Annotated[
        bool, option("--debug", panel="Output", help="Show tracebacks and library warnings.")
    ] = False

    @property
    def targets(self) -> tuple[Path, ...]:
        """Return the files to write, each once."""
        return tuple(dict.fromkeys(self.save or ()))


@dataclass(frozen=True)
class SightFlags:
    """What is shown of what the model still looks at."""

    overlay: Annotated[
        Path | None,
        option(
            "--overlay",
            panel="Output",
            metavar="FILE",
            help="Write the clip with dropped patches dimmed, sound kept, to FILE.mp4.",
        ),
    ] = None
    layer: Annotated[
        int | None,
        option(
            "--layer",
            panel="Output",
            metavar="N",
            help="Layer whose survivors contact sheet and overlay show; by default the first "
            "with at most half of what entered the first layer.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.overlay is not None and self.overlay.suffix.lower() not in (".mp4", ".mkv", ".mov"):
            raise UsageError(
                f"--overlay cannot write {printable(self.overlay.name)!r}.",
                hint="End the name in .mp4, .mkv or .mov.",
            )
        if self.layer is not None and self.layer < 0:
            raise UsageError("--layer counts from 0.", hint="Give 0 for the first layer.")
